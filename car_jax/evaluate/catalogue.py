"""The scores one can ask for by name, with what a reader of the report needs to know about each.

A name is a kind, perhaps a number of samples, perhaps options: 'ged16', 'ged16[u]', 'ece[own]',
'hm_iou16[absent=skip,classes=1+3]'. What the options leave open comes from the evaluation's spec.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Protocol

from car_jax import lookup, options
from car_jax.errors import UserError, nearest
from car_jax.evaluate.options import MOST_SAMPLES, Evaluation
from car_jax.evaluate.predict import Says
from car_jax.metrics import stochastic
from car_jax.metrics.flips import switchable


@dataclasses.dataclass(frozen=True)
class Kind:
  """What a family of scores is. `pairs`: it compares label maps; else class probabilities."""

  title: str
  better: str  # 'low', 'high', or 'match': closest to the readers' own value
  text: str
  pairs: bool
  options: tuple[str, ...] = ()


_PAIRS = ('fg', 'all', 'flips', 'classes=', 'absent=', 'ignore=')
_SPREAD = ('v', 'u', 'dice', *_PAIRS)
KINDS = {
  'ged': Kind(
    'Generalised energy distance',
    'low',
    'How far the set of samples is from the set of readers: twice the mean distance of a sample to '
    'a reader, minus the mean distance between two samples, minus that between two readers. The '
    'distance is 1 − IoU. It is small when samples look like the readers and disagree as they do.',
    True,
    _SPREAD,
  ),
  'hm_iou': Kind(
    'Matched IoU',
    'high',
    'Samples and readers are paired one to one in the best possible way; the mean IoU of the '
    'pairs. 1 means that the samples reproduce the readers, each in its right share.',
    True,
    _PAIRS,
  ),
  'dice_max': Kind(
    'Best Dice',
    'high',
    'For each reader, the Dice overlap with the sample that fits best. It rewards finding every '
    'opinion and does not punish wild samples; it can only grow with the number of samples.',
    True,
    _PAIRS,
  ),
  'diversity': Kind(
    'Sample diversity',
    'match',
    'Mean distance (1 − IoU) between two samples of an image. More is not better: it should equal '
    'the distance between two readers, which the row of the readers shows.',
    True,
    _SPREAD,
  ),
  'd_ys': Kind(
    'Sample to reader', 'low', 'Mean distance of a sample to a reader.', True, ('dice', *_PAIRS)
  ),
  'd_ss': Kind('Sample to sample', 'match', 'Mean distance between two samples.', True, _SPREAD),
  'd_yy': Kind('Reader to reader', 'match', 'Mean distance between two readers.', True, _SPREAD),
  'ece': Kind(
    'Expected calibration error',
    'low',
    'Pixels are sorted into bins by their predicted probability; the gap between that probability '
    'and the share of readers who agree, averaged over all pixels. 0: a pixel predicted at 30 % is '
    'marked by 30 % of the readers. With [listed] as published with MoSE: see docs/metrics.md.',
    False,
    ('own', 'top', 'listed', 'bins=', 'classes='),
  ),
  'nll': Kind(
    'Negative log likelihood',
    'low',
    'Minus the log of the probability given to what the readers said, per pixel, in nats. It '
    'punishes confident mistakes hard; probabilities count as at least 1e-7.',
    False,
    ('own',),
  ),
  'brier': Kind(
    'Brier score',
    'low',
    'Squared difference between class probabilities and what a reader said, per pixel. Where '
    'readers differ even perfect probabilities do not reach 0.',
    False,
    ('own',),
  ),
  'kl': Kind(
    'Divergence from the readers',
    'low',
    "KL divergence of the probabilities from the readers' shares, both clamped to 1e-7; used to "
    'choose between calibration nets.',
    False,
    ('own',),
  ),
  'miou': Kind(
    'Mean IoU of the likeliest class',
    'high',
    'Each pixel gets its most probable class; intersection over union with the readers, pooled '
    'over all images, averaged over the scored classes.',
    False,
    ('own', 'fg', 'all', 'flips', 'classes='),
  ),
  'flip_error': Kind(
    'Flip frequency error',
    'low',
    'Some classes were renamed to a twin with a known probability. How often samples that find the '
    "class use its twin's name, minus how often they should; mean absolute value over the classes. "
    'With [pixels] the shares of both names among all pixels of a class, missed ones included.',
    False,
    ('pixels',),
  ),
}


class OwnMetric(Protocol):
  """A score of the user's, named `package.module:Class` among metrics: a frozen dataclass.

  title and text are for the page; better is 'low', 'high' or 'match' (the readers' own value).
  """

  title: str
  better: str
  text: str

  def score(self, prediction: Any, batch: Any) -> Any:
    """[B] float32, nan for an image without a value, in jnp: it is jitted. prediction is a
    predict.Prediction, batch as in methods/base.py."""


@dataclasses.dataclass(frozen=True)
class Metric:
  """One score to compute. `name` is what was asked for; `convention` all that its value needs."""

  name: str
  kind: str
  samples: int
  classes: tuple[int, ...]
  absent: str
  ignore: int | None
  num_classes: int
  ignored: str = 'void'
  estimator: str = 'v'
  distance: str = 'iou'
  own: bool = False  # of the method's own probabilities, not of the mean of its samples
  top: bool = False  # calibration of the likeliest class, not of the foreground
  bins: int = 15
  listed: bool = False  # calibration of the scored classes alone, over all pixels: MoSE's form
  flips: tuple[Any, ...] = ()
  pixels: bool = False  # of a flip error: pixels of the class that are missed count
  custom: Any = None  # OwnMetric

  @property
  def about(self) -> Kind:
    if self.custom is not None:
      return Kind(self.custom.title, self.custom.better, self.custom.text, False)
    return KINDS[self.kind]

  @property
  def pooled(self) -> bool:
    """From sums over all images; then it has no value per image."""
    return self.kind in ('ece', 'miou', 'flip_error')

  @property
  def convention(self) -> str:
    if self.custom is not None:
      return f'{self.name} of {self.samples} samples'
    if self.about.pairs:
      kw: dict[str, Any] = dict(classes=self.classes, num_classes=self.num_classes)
      kw |= dict(absent=self.absent, ignore=self.ignore, ignored=self.ignored)
      if 'u' in self.about.options:
        kw['estimator'] = self.estimator
      return stochastic.convention(self.kind, self.samples, distance=self.distance, **kw)
    parts = ['own probabilities' if self.own else f'mean of {self.samples}']
    if self.kind == 'ece':
      which = 'top label' if self.top else 'class 1'
      if self.listed:
        which = 'listed classes=' + '+'.join(map(str, self.classes))
      parts += [which, f'{self.bins} bins']
    if self.kind == 'flip_error':
      return f'flip_error[{self.samples} samples{", pixels" if self.pixels else ""}]'
    if self.kind == 'miou':
      parts += ['classes=' + '+'.join(map(str, self.classes))]
    if self.ignore is not None:
      parts += [f'{"class" if self.listed and self.ignored == "class" else "ignore"}={self.ignore}']
    return f'{self.kind}[{", ".join(parts)}]'

  def left_out(self, says: Says) -> str:
    """Why a subject has no such score; '' where it has.

    Leaving out self pairs corrects for a finite number of draws; a distribution that is known
    whole has nothing to correct, and without its self pairs it is another one.
    """
    if not says.confidence and self.kind in ('ece', 'nll', 'brier', 'kl'):
      return 'one label map says nothing of confidence'
    if self.estimator != 'u':
      return ''
    if self.flips and self.kind in ('ged', 'd_yy'):
      return 'readers are all modes with their weights, not draws: see [v]'
    if self.kind in ('ged', 'diversity', 'd_ss'):
      if says.single:
        return 'one segmentation says nothing of a spread: see [v]'
      if not says.draws:
        return 'weights, not draws: see [v]'
    return ''


@dataclasses.dataclass(frozen=True)
class Plan:
  """A spec made exact: the metrics, and the number of samples that serves all of them."""

  metrics: tuple[Metric, ...]
  samples: int
  chunk: int
  flips: tuple[Any, ...] = ()  # metrics.flips.Flip of the data set
  ignore: int | None = None  # its label of pixels that nobody knows

  @property
  def main(self) -> Metric | None:
    """The first GED: it sorts the images and is drawn in the figures."""
    return next((m for m in self.metrics if m.kind == 'ged'), None)


def report_spec(config: Any) -> dict[str, Any]:
  """config.report with its split. Raises UserError for an unknown key."""
  spec = options.completed(Evaluation, dict(config.report), 'report.')
  return spec | {'split': spec['split'] or 'validation'}


def plan(spec: Mapping[str, Any], info: Any) -> Plan:
  """The spec of an evaluation (keys of Evaluation) on data of `info` (DataInfo).

  Raises UserError for an unknown key, metric, option or class, with the nearest known one.
  """
  full = options.completed(Evaluation, dict(spec))
  names = dict.fromkeys(full['metrics'])
  numbers = [int(m[2]) for name in names if (m := _NAME.fullmatch(str(name))) and m[2]]
  samples = max([full['samples'], *numbers])
  if min([samples, *numbers]) < 1 or samples > MOST_SAMPLES:
    wrong = min([samples, *numbers]) if samples <= MOST_SAMPLES else samples
    raise UserError(f'{wrong} samples of an evaluation; it is 1 to {MOST_SAMPLES:,}')
  metrics = tuple(metric(str(name), full | {'samples': samples}, info) for name in names)
  flips, ignore = getattr(info, 'flips', ()), getattr(info, 'ignore_label', None)
  return Plan(metrics, samples, full['chunk'], flips, ignore)


_NAME = re.compile(r'([a-z_]+?)(\d+)?(?:\[(.*)\])?')


def metric(name: str, spec: Mapping[str, Any], info: Any) -> Metric:
  """'ged16[u]' -> Metric; raises UserError for a name or option that is not in KINDS."""
  if ':' in name:
    custom = lookup.find('metric', name)()
    return Metric(name, name, spec['samples'], (), '', None, info.num_classes, custom=custom)
  match = _NAME.fullmatch(name)
  kind, number, options = match.groups() if match else (name, None, None)
  n = spec['samples']
  if kind not in KINDS or (number and not KINDS[kind].pairs):
    known = [f'{k}{number or n}' if about.pairs else k for k, about in KINDS.items()]
    raise UserError(f'unknown metric {name!r}\n{nearest(name, known)}')
  flips = getattr(info, 'flips', ())
  if kind == 'flip_error' and not flips:
    raise UserError(
      f'metric {name!r}: {info.name} has no class flips\n'
      '  set config.data.class_flips, or leave it out'
    )
  ignore = getattr(info, 'ignore_label', None)
  chosen: dict[str, Any] = dict(absent=_absent(spec['absent']), bins=spec['bins'])
  chosen |= dict(ignored=spec['ignored'])
  chosen |= dict(classes=_classes(spec['classes'], info), ignore=ignore)
  for option in filter(None, (options or '').split(',')):
    chosen |= _option(option.strip(), name, KINDS[kind], info)
  if kind == 'ece' and 'classes=' in (options or '') and 'listed' not in chosen:
    raise UserError(f'{name!r}: only the listed form has classes\n  write ece[listed,classes=..]')
  if info.num_classes > 2:
    chosen['top'] = True
  return Metric(name, kind, int(number or n), num_classes=info.num_classes, flips=flips, **chosen)


def _option(option: str, name: str, kind: Kind, info: Any) -> dict[str, Any]:
  key, equals, value = option.partition('=')
  if key + equals not in kind.options:
    raise UserError(f'unknown option {option!r} in {name!r}\n{nearest(option, kind.options)}')
  if key in ('v', 'u'):
    return {'estimator': key}
  if key == 'dice':
    return {'distance': 'dice'}
  if key in ('fg', 'all', 'flips', 'classes'):
    return {'classes': _classes(value.split('+') if equals else key, info)}
  if key == 'absent':
    return {'absent': _absent(value)}
  if key in ('ignore', 'bins'):
    if not value.isdigit():
      raise UserError(f'{option!r} in {name!r}: {key} must be a whole number')
    return {key: int(value)}
  return {key: True}


def _absent(value: Any) -> str:
  convention = {'1': 'one', 'one': 'one', 'skip': 'skip'}.get(str(value))
  if convention is None:
    raise UserError(f'absent={value!r}\n{nearest(str(value), ("one", "skip"))}')
  return convention


def _classes(value: Any, info: Any) -> tuple[int, ...]:
  """'fg', 'all', '' or a list of ids or names -> class ids; the ignored class is never scored."""
  everything = [c for c in range(info.num_classes) if c != getattr(info, 'ignore_label', None)]
  flips = getattr(info, 'flips', ())
  if value in ('', None):
    value = 'flips' if flips else 'fg' if info.num_classes == 2 else 'all'
  if value == 'flips' and flips:
    return switchable(flips)
  if value == 'all':
    return tuple(everything)
  if value == 'fg':
    return tuple(c for c in everything if c)
  names = [str(n) for n in info.class_names]
  ids = []
  for item in [value] if isinstance(value, (str, int)) else value:
    number = names.index(str(item)) if str(item) in names else str(item)
    if not str(number).isdigit() or int(number) >= info.num_classes:
      raise UserError(f'unknown class {item!r} of {info.name}\n{nearest(str(item), names)}')
    ids.append(int(number))
  return tuple(ids)
