"""The scores one can ask for by name: names and options -> `Metric`.

A name is a kind, perhaps a number of samples, perhaps options: 'ged16', 'ged16[u]', 'ece[own]',
'hm_iou16[absent=skip,classes=1+3]', 'auroc[entropy]', 'image_aurc[soft_dice]'; or
`package.module:Class` of one's own. What it leaves open comes from the `Setting`.
"""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from car_jax import lookup
from car_jax.errors import UserError, nearest
from car_jax.metrics import of_images, of_maps, of_pixels, of_probabilities, of_samples
from car_jax.metrics.base import Metric
from car_jax.metrics.flips import Flip, switchable
from car_jax.metrics.image_texts import CONFIDENCES
from car_jax.metrics.of_images import ImageRisks, OfImages
from car_jax.metrics.of_pixels import OfPixels
from car_jax.metrics.of_probabilities import CalibrationError, FlipError, Loss, MeanIoU
from car_jax.metrics.of_readers import Insight, SoftDice
from car_jax.metrics.of_samples import OfSamples, Pairs
from car_jax.metrics.onepass import EXTRA, SCORES
from car_jax.metrics.overlap import ABSENT
from car_jax.metrics.pixel_counts import PixelCounts, SortedPixels
from car_jax.metrics.stochastic import BEST


@dataclasses.dataclass(frozen=True)
class Setting:
  """What scores are of, and what their names leave open.

  one_label: every pixel has one label; then ece, nll, brier and miou are of labels, and not of the
  shares of readers. absent_classes: those that the labels cannot have. exact: scores of pixels are
  sorted, not binned. The others are keys of a report, see evaluate/options.py.
  """

  class_names: tuple[str, ...]
  data: str = ''
  ignore: int | None = None
  flips: tuple[Flip, ...] = ()
  one_label: bool = False
  samples: int = 16
  classes: Any = ''
  absent: str = 'one'
  ignored: str = 'void'
  bins: int = 15
  absent_classes: tuple[int, ...] = ()
  exact: bool = False


MOST_BINS = 10_000  # as of config.report.bins
_CLASSES = ('fg', 'all', 'flips', 'classes=')
_PAIRS = (*_CLASSES, 'absent=', 'ignore=')
_SPREAD = ('v', 'u', 'dice', *_PAIRS)
OPTIONS: dict[str, tuple[str, ...]] = {
  **dict.fromkeys(of_samples.NAMES, _SPREAD),
  'hm_iou': _PAIRS,
  'dice_max': ('best=', *_PAIRS),
  'dice_match': _PAIRS,
  'pairwise_dice': _PAIRS,
  'd_ys': ('dice', *_PAIRS),
  'crps_area': ('v', 'u', *_CLASSES, 'ignore='),
  'ci': ('self', 'harmonic', *_CLASSES, 'ignore='),
  'dice_soft': ('own', *_CLASSES, 'absent='),
  'ece': ('own', 'top', 'listed', 'bins=', 'classes='),
  **dict.fromkeys(of_probabilities.LOSSES, ('own',)),
  'miou': ('own', *_CLASSES),
  'flip_error': ('pixels',),
  **dict.fromkeys(of_images.AREAS, (*CONFIDENCES, 'trapezoid')),
  'failure_auroc': (*CONFIDENCES, 'risk='),
  'image_spearman': (*CONFIDENCES,),
}
"""Of images, samples and readers; of_pixels.NAMES and of_maps.OPTIONS have the others."""
_NAME = re.compile(r'([a-z_]+?)(\d+)?(?:\[(.*)\])?')


def number_of(name: str) -> int | None:
  """The number of samples that a name asks for: 16 of 'ged16[u]'."""
  without = name.partition('[')[0] in (*of_pixels.NAMES, *of_maps.OPTIONS)
  match = None if without else _NAME.fullmatch(name)
  return int(match[2]) if match and match[2] else None


def metrics(names: Sequence[str], setting: Setting) -> tuple[Metric, ...]:
  """One for each different name. Raises UserError for an unknown name, option or class."""
  names = [str(n) for n in dict.fromkeys(names)]
  make = SortedPixels if setting.exact else PixelCounts
  pixels = make(any('classwise' in name for name in names), setting.ignore)
  return of_images.sharing([metric(name, setting, pixels) for name in names])


def metric(name: str, setting: Setting, pixels: PixelCounts | None = None) -> Metric:
  """'ged16[u]' -> Metric; pixels: what scores of pixels share. Raises UserError."""
  if ':' in name:
    return dataclasses.replace(lookup.find('metric', name)(), name=name)
  first, bracket, inside = name.partition('[')
  if bracket and not re.fullmatch(r'[^\[\]]+\]', inside):
    raise UserError(f'metric {name!r}: options stand in one pair of brackets, such as ged16[u]')
  of_labels = first in of_pixels.NAMES and (setting.one_label or first not in OPTIONS)
  if of_labels or name in of_pixels.OBJECT_NAMES:
    return _of_pixels(name, setting, pixels or PixelCounts('classwise' in name, setting.ignore))
  if first in of_maps.OPTIONS:
    return _of_maps(name, setting)
  match = _NAME.fullmatch(name)
  kind, number, options = match.groups() if match else (name, None, None)
  if kind not in OPTIONS or (number and kind not in of_samples.NAMES):
    digits = re.search(r'\d+', first)
    known = _known(digits[0] if digits else setting.samples)
    raise UserError(f'unknown metric {name!r}\n{nearest(name, known)}')
  chosen = _chosen(name, kind, options or '', setting)
  chosen['name'] = name
  samples = int(number or setting.samples)
  return _made(kind, samples, chosen, setting)


def _known(number: int | str) -> list[str]:
  with_number = [f'{k}{number}' for k in of_samples.NAMES]
  others = [k for k in OPTIONS if k not in of_samples.NAMES]
  return [*with_number, *others, *of_pixels.NAMES, *of_maps.OPTIONS]


def _of_maps(name: str, setting: Setting) -> Metric:
  return of_maps.made(
    name,
    classes=len(setting.class_names),
    ignore=setting.ignore,
    bins=setting.bins,
    absent=setting.absent_classes,
    all_modes=bool(setting.flips),
  )


def _of_pixels(name: str, setting: Setting, pixels: PixelCounts) -> OfPixels:
  kind, _, option = name.rstrip(']').partition('[')
  by = 'max_prob'
  if option and name not in of_pixels.OBJECT_NAMES:
    if kind not in of_pixels.RANKED:
      raise UserError(f'unknown metric {name!r}\n  {kind} is not of a score: write {kind}')
    if option not in (*SCORES, EXTRA):
      raise UserError(f'{name!r}: no score {option!r}\n{nearest(option, (*SCORES, EXTRA))}')
    by = option
  full = name if name in of_pixels.OBJECT_NAMES else kind
  modes, absent = bool(setting.flips), setting.absent_classes
  return OfPixels(
    name=name, kind=full, pixels=pixels, confidence=by, absent=absent, all_modes=modes
  )


def _chosen(name: str, kind: str, options: str, setting: Setting) -> dict[str, Any]:
  """What the name's options say of the conventions."""
  if kind == 'flip_error' and not setting.flips:
    raise UserError(
      f'metric {name!r}: {setting.data} has no class flips\n'
      '  set config.data.class_flips, or leave it out'
    )
  chosen: dict[str, Any] = {}
  for option in filter(None, (o.strip() for o in options.split(','))):
    more = _option(option, name, kind, setting)
    if twice := chosen.keys() & more.keys():
      raise UserError(f'{option!r} in {name!r}: its {twice.pop()} is said twice\n  leave one out')
    chosen |= more
  if kind == 'ece' and 'classes=' in options and 'listed' not in chosen:
    raise UserError(f'{name!r}: only the listed form has classes\n  write ece[listed,classes=..]')
  return chosen


def _option(option: str, name: str, kind: str, setting: Setting) -> dict[str, Any]:
  key, equals, value = option.partition('=')
  if key + equals not in OPTIONS[kind]:
    raise UserError(f'unknown option {option!r} in {name!r}\n{nearest(option, OPTIONS[kind])}')
  if key in ('v', 'u'):
    return {'estimator': key}
  if key == 'dice':
    return {'distance': 'dice'}
  if key in ('fg', 'all', 'flips', 'classes'):
    return {'classes': classes_of(value.split('+') if equals else key, setting)}
  if key == 'absent':
    return {'absent': _absent(value, f'{name!r}: ')}
  if key == 'best' and value not in BEST:
    raise UserError(f'{option!r} in {name!r}\n{nearest(value, BEST)}')
  if key in ('best', 'self'):
    return {'best': value} if equals else {'self_pairs': True}
  if key in CONFIDENCES:
    return {'confidence': key}
  if key == 'trapezoid':
    return {'form': key}
  if key == 'risk':
    return {'limit': _share(value, option, name)}
  if key in ('ignore', 'bins'):
    least, most = (1, MOST_BINS) if key == 'bins' else (0, 2**31 - 1)
    if not re.fullmatch('[0-9]{1,10}', value) or not least <= int(value) <= most:
      raise UserError(f'{option!r} in {name!r}: {key} is a whole number from {least} to {most:,}')
    return {key: int(value)}
  return {key: True}


def _made(kind: str, samples: int, chosen: dict[str, Any], setting: Setting) -> Metric:
  take = lambda key, default: chosen.pop(key, default)
  name = take('name', kind)
  many = len(setting.class_names)
  if kind in of_samples.NAMES:
    pairs = Pairs(
      samples=samples,
      classes=take('classes', None) or classes_of(setting.classes, setting),
      absent=take('absent', _absent(setting.absent)),
      ignore=take('ignore', setting.ignore),
      ignored=setting.ignored,
    )
    chosen |= of_samples.FIXED.get(kind, {})
    make = Insight if kind == 'ci' else OfSamples
    modes = bool(setting.flips)
    return make(name=name, kind=kind, pairs=pairs, num_classes=many, all_modes=modes, **chosen)
  if kind in of_images.NAMES:
    classes = classes_of(setting.classes, setting)
    there = tuple(c for c in classes if c not in setting.absent_classes)
    by = chosen.get('confidence', of_images.DEFAULT)
    images = ImageRisks((by,), there, _absent(setting.absent), setting.ignore)
    return OfImages(name=name, kind=kind, samples=samples, images=images, **chosen)
  if kind == 'flip_error':
    return FlipError(name=name, samples=samples, flips=setting.flips, **chosen)
  common: dict[str, Any] = dict(name=name, samples=samples, ignore=setting.ignore)
  classes = take('classes', None) or classes_of(setting.classes, setting)
  if kind == 'miou':
    return MeanIoU(classes=classes, num_classes=many, **common, **chosen)
  if kind == 'dice_soft':
    common['absent'] = take('absent', _absent(setting.absent))
    return SoftDice(classes=classes, num_classes=many, **common, **chosen)
  if kind == 'ece':
    chosen['classes'] = classes if take('listed', False) else None
    common |= dict(bins=setting.bins, top=many > 2, ignored=setting.ignored)
    return CalibrationError(**(common | chosen))
  return Loss(kind=kind, **common, **chosen)


def _share(value: str, option: str, name: str) -> float:
  if not re.fullmatch(r'[01]|[01]?\.\d+', value) or float(value) > 1:
    raise UserError(f'{option!r} in {name!r}: it must be a number from 0 to 1, such as 0.5')
  return float(value)


def _absent(value: Any, where: str = '') -> str:
  convention = {'1': 'one', '0': 'zero'}.get(str(value), str(value))
  if convention not in ABSENT:
    raise UserError(f'{where}absent={value!r}\n{nearest(str(value), ABSENT)}')
  return convention


def classes_of(value: Any, setting: Setting) -> tuple[int, ...]:
  """'fg', 'all', 'flips', '' or a list of ids or names -> class ids; an ignored one is left out.

  '' is 'flips' of data with flips, 'fg' of two classes, else 'all'. Raises UserError.
  """
  names = setting.class_names
  everything = [c for c in range(len(names)) if c != setting.ignore]
  if value in ('', None):
    value = 'flips' if setting.flips else 'fg' if len(names) == 2 else 'all'
  if value == 'flips' and setting.flips:
    return switchable(setting.flips)
  if value in ('all', 'fg'):
    return tuple(c for c in everything if c or value == 'all')
  ids = []
  for item in [value] if isinstance(value, (str, int)) else value:
    number = names.index(str(item)) if str(item) in names else str(item)
    if not re.fullmatch('[0-9]+', str(number)) or int(number) >= len(names):
      raise UserError(f'unknown class {item!r} of {setting.data}\n{nearest(str(item), names)}')
    ids.append(int(number))
  return tuple(dict.fromkeys(ids))
