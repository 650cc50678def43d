"""The table of measures: name -> what it means and how it follows from pooled counts.

A measure of a score may be asked for with another one: 'auroc[entropy]'. Percent measures are kept
as shares; only pages and tables write per cent.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from car_jax.errors import UserError, nearest
from car_jax.metrics import calibration, confusion, ranking, rejection
from car_jax.metrics.onepass import EXTRA, RIGHT, SCORES, UNKNOWN, UNTOLD, WRONG
from car_jax.reliability.tally import OBJECT_SCORES, Pooled, Tally

Value = Callable[[Pooled], float]


@dataclasses.dataclass(frozen=True)
class Measure:
  """`of(pooled)` is its value; `bound(pooled)` the largest error that histograms leave in it."""

  name: str
  title: str
  better: str  # 'high', 'low', or '' where neither is meant
  group: str
  about: str
  of: Value
  bound: Value = lambda pooled: 0.0
  percent: bool = True


def groups_of(pooled: Pooled) -> calibration.Tied:
  """Top-label calibration by bin of max_prob, ascending."""
  right = pooled.outcomes('max_prob', RIGHT)
  return calibration.Tied(right + pooled.outcomes('max_prob', WRONG), pooled.conf, right)


def ece_sums(pooled: Pooled, which: int = 0) -> calibration.BinSums:
  """BinSums [E] of max_prob (0) or of 1 - H / log C (1)."""
  pixels, right = np.moveaxis(pooled.ece[which], -1, 0)
  return calibration.BinSums(pixels, pooled.ece_conf[which], right)


def errors_of(pooled: Pooled, score: str) -> tuple[np.ndarray, np.ndarray]:
  """Wrong and right pixels [K] in the order of falling certainty: errors should come last."""
  return pooled.outcomes(score, WRONG)[::-1], pooled.outcomes(score, RIGHT)[::-1]


def successes_of(pooled: Pooled, score: str) -> tuple[np.ndarray, np.ndarray]:
  """Right and wrong pixels [K] in the order of rising certainty."""
  wrong, right = errors_of(pooled, score)
  return right[::-1], wrong[::-1]


def unknown_of(pooled: Pooled, score: str) -> tuple[np.ndarray, np.ndarray]:
  """Pixels of unknown objects and all others [K], in the order of falling certainty."""
  known = pooled.outcomes(score, RIGHT, WRONG, UNTOLD)
  return pooled.outcomes(score, UNKNOWN)[::-1], known[::-1]


def _counted(pooled: Pooled) -> float:
  return float(np.sum(pooled.confusion))


def _mean_loss(which: int) -> Value:
  def value(pooled: Pooled) -> float:
    n = _counted(pooled)
    return float(pooled.losses[which] / n) if n else float('nan')

  return value


def _classwise(function: Callable[..., float]) -> Value:
  def value(pooled: Pooled) -> float:
    if 'classwise' not in pooled.counts:
      return float('nan')
    found = [
      function(calibration.Tied(pixels, conf, hits), pixels.sum())
      for (pixels, hits), conf in zip(pooled.classwise, pooled.classwise_conf, strict=True)
      if hits.sum()
    ]
    return float(np.mean(found)) if found else float('nan')

  return value


def _plain() -> list[Measure]:
  top = lambda f: lambda p: f(ece_sums(p))
  bounds = lambda i: lambda p: calibration.tied_bound(groups_of(p))[i]
  total = lambda p: _counted(p)
  of_class = lambda g, n: calibration.ece(calibration.binned(g), n)
  return [
    Measure(
      'miou',
      'Mean IoU',
      'high',
      'accuracy',
      'Overlap of said and true pixels over their union, averaged over the classes.',
      lambda p: confusion.mean_iou(p.confusion),
    ),
    Measure(
      'pixel_accuracy',
      'Pixel accuracy',
      'high',
      'accuracy',
      'The share of pixels whose class is right.',
      lambda p: confusion.pixel_accuracy(p.confusion),
    ),
    Measure(
      'mean_accuracy',
      'Mean class accuracy',
      'high',
      'accuracy',
      "The share that is right among each class's pixels, averaged over the classes.",
      lambda p: confusion.mean_accuracy(p.confusion),
    ),
    Measure(
      'ece',
      'ECE',
      'low',
      'calibration',
      'Pixels are sorted into bins by the probability of their likeliest class. The mean distance '
      'between that probability and how often it is right: 0 when 80 % means right 8 times of 10.',
      lambda p: calibration.ece(ece_sums(p), total(p)),
    ),
    Measure(
      'ece_entropy',
      'ECE of entropy',
      'low',
      'calibration',
      'As ECE, with 1 minus the entropy (as a share of its maximum) in place of the probability.',
      lambda p: calibration.ece(ece_sums(p, 1), total(p)),
    ),
    Measure(
      'adaptive_ece',
      'Adaptive ECE',
      'low',
      'calibration',
      'As ECE, over bins that hold equally many pixels.',
      lambda p: calibration.adaptive_ece(groups_of(p)),
      bounds(0),
    ),
    Measure(
      'ks',
      'KS error',
      'low',
      'calibration',
      'The largest difference between summed confidence and summed hits over all pixels below some '
      'confidence; needs no bins.',
      lambda p: calibration.ks_error(groups_of(p)),
      bounds(1),
    ),
    Measure(
      'mce',
      'MCE',
      'low',
      'calibration',
      'The largest gap of any of the bins of ECE, however few pixels it holds.',
      top(calibration.mce),
    ),
    Measure(
      'classwise_ece',
      'Class-wise ECE',
      'low',
      'calibration',
      "ECE of every class's own probability, averaged over the classes that occur.",
      _classwise(of_class),
    ),
    Measure(
      'classwise_adaptive_ece',
      'Class-wise adaptive ECE',
      'low',
      'calibration',
      "Adaptive ECE of every class's own probability, averaged over the classes that occur.",
      _classwise(lambda g, n: calibration.adaptive_ece(g)),
    ),
    Measure(
      'classwise_ks',
      'Class-wise KS error',
      'low',
      'calibration',
      "KS error of every class's own probability, averaged over the classes that occur.",
      _classwise(lambda g, n: calibration.ks_error(g)),
    ),
    Measure(
      'nll',
      'NLL',
      'low',
      'calibration',
      'Minus the logarithm of the probability of the true class, in nats; 0 is certain and right.',
      _mean_loss(0),
      percent=False,
    ),
    Measure(
      'brier',
      'Brier score',
      'low',
      'calibration',
      'Squared distance between the probabilities and the truth, from 0 to 2.',
      _mean_loss(1),
      percent=False,
    ),
  ]


def _ranked() -> list[tuple[Measure, Callable[..., tuple], Callable[..., float]]]:
  """Measures of a score: the measure, which counts it is of, and the function of these counts."""
  sure_first = lambda f: lambda wrong, right: f(wrong[::-1], right[::-1])
  miss, strange = 'misclassification', 'unknown objects'
  table = [
    ('auroc', 'AUROC of errors', 'high', miss, errors_of, ranking.auroc,
     'The chance that a wrong pixel is more uncertain than a right one; 50 % is guessing.'),
    ('aupr_error', 'AUPR of errors', 'high', miss, errors_of, ranking.average_precision,
     'Mean precision when pixels are flagged as wrong from the most uncertain on.'),
    ('aupr_success', 'AUPR of successes', 'high', miss, successes_of, ranking.average_precision,
     'Mean precision when pixels are trusted from the surest on.'),
    ('fpr95', 'FPR95 of errors', 'low', miss, errors_of, ranking.fpr_at_tpr,
     'The share of right pixels that are flagged when 95 % of the wrong ones are.'),
    ('prr', 'PRR', 'high', miss, errors_of, sure_first(rejection.prr),
     'Prediction rejection ratio: 100 % if the most uncertain pixels are exactly the wrong ones, 0 '
     'if uncertainty says nothing.'),
    ('prr_relis', "PRR, RELIS' number", 'high', miss, errors_of, sure_first(rejection.prr_relis),
     'PRR with the oracle of the published code; lower the more errors a model makes.'),
    ('aurc', 'AURC', 'low', miss, errors_of, sure_first(rejection.aurc),
     'The error rate among the surest pixels, averaged over how many are kept.'),
    ('unknown_auroc', 'AUROC of the unknown', 'high', strange, unknown_of, ranking.auroc,
     'The chance that a pixel of an unknown object is more uncertain than a known one.'),
    ('unknown_ap', 'AP of the unknown', 'high', strange, unknown_of, ranking.average_precision,
     'Mean precision when pixels are flagged as unknown from the most uncertain on.'),
    ('unknown_aupr', "AUPR of the unknown, GenVal's", 'high', strange, unknown_of, ranking.aupr,
     'As AP, by trapezoids between thresholds.'),
    ('unknown_fpr95', 'FPR95 of the unknown', 'low', strange, unknown_of, ranking.fpr_at_tpr,
     'The share of known pixels that are flagged when 95 % of the unknown ones are.'),
  ]  # fmt: skip
  empty = lambda pooled: float('nan')
  return [
    (Measure(name, title, better, group, about, empty), counts, function)
    for name, title, better, group, counts, function, about in table
  ]


def _per_object() -> list[Measure]:
  """GenVal's averages over the images that hold an unknown object."""
  at = lambda i: lambda p: float(p.objects[i] / n) if (n := p.with_objects[i]) else float('nan')
  ratio = Measure(
    'object_entropy_ratio',
    'Entropy on unknown objects, relative',
    'high',
    'unknown objects',
    'Mean entropy on an unknown object over the mean elsewhere, averaged over images.',
    at(1),
    percent=False,
  )
  told = {
    'auroc': ('AUROC', 'high', 'The chance that an object pixel is more uncertain than another'),
    'fpr95': ('FPR95', 'low', 'The share of other pixels flagged when 95 % of the object is'),
    'aupr': ('AUPR', 'high', 'Precision when pixels are flagged from the most uncertain on'),
  }
  rows = [ratio]
  for i, score in enumerate(OBJECT_SCORES):
    for j, (key, (title, better, about)) in enumerate(told.items()):
      name = f'object_{key}' + ('' if score == 'max_prob' else f'[{score}]')
      title = f'{title} of objects, per image' + _of(score)
      about = f'{about}; in each image with an object, then averaged.'
      place = 2 + 4 * i + j
      unbounded = lambda pooled: float('nan')
      rows.append(Measure(name, title, better, 'unknown objects', about, at(place), unbounded))
  return rows


def _of(score: str) -> str:
  return '' if score == 'max_prob' else f', {SCORE_TITLES[score].partition(" (")[0]}'


SCORE_TITLES = dict(
  max_prob='largest probability',
  entropy='entropy',
  margin='margin of the two likeliest classes',
  max_logit='largest logit',
  energy='energy (log sum exp of the logits)',
  disagreement='disagreement of samples (mutual information)',
)
PLAIN = {m.name: m for m in (*_plain(), *_per_object())}
RANKED = {m.name: (m, counts, function) for m, counts, function in _ranked()}
NAMES = (*PLAIN, *RANKED)


def measure(name: str) -> Measure:
  """'ece' or 'auroc[entropy]' -> Measure. Raises UserError for an unknown name or score."""
  match = re.fullmatch(r'(\w+)(?:\[(\w+)\])?', name)
  kind, score = match.groups() if match else (name, None)
  if name in PLAIN:
    return PLAIN[name]
  if kind not in NAMES:
    raise UserError(f'unknown measure {name!r}\n{nearest(kind, NAMES)}')
  if kind in PLAIN:
    if score:
      raise UserError(f'{name!r}: {kind} is not of a score\n  write {kind}')
    return PLAIN[kind]
  if score and score not in (*SCORES, EXTRA):
    raise UserError(f'{name!r}: no score {score!r}\n{nearest(score, (*SCORES, EXTRA))}')
  about, counts, function = RANKED[kind]
  used = score or 'max_prob'

  def of(pooled: Pooled) -> float:
    return function(*counts(pooled, used)) if used in pooled.names else float('nan')

  def bound(pooled: Pooled) -> float:
    return ranking.bound(function, *counts(pooled, used)) if used in pooled.names else float('nan')

  return dataclasses.replace(about, name=name, title=about.title + _of(used), of=of, bound=bound)


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A value with its 95 % interval over images, and the largest error left by histograms."""

  value: float
  low: float
  high: float
  bound: float


def estimates(
  tally: Tally,
  wanted: Sequence[Measure],
  *,
  resamples: int = 200,
  seed: int = 0,
  exact: Mapping[str, float] | None = None,
) -> dict[str, Estimate]:
  """Every measure over all images of a tally; whole groups are drawn again where groups repeat.

  Intervals come from coarser histograms than values do and are shifted by what that changes.
  `exact` gives values that are known without the error of histograms.
  """
  pooled, exact = tally.pooled(), exact or {}
  groups = tally.groups if len(set(tally.groups)) > 1 else tally.ids
  _, group = np.unique(groups, return_inverse=True)
  units = group.max() + 1 if len(group) else 0
  rng = np.random.default_rng(seed)
  drawn: list[list[float]] = [[] for _ in wanted]
  for start in range(0, resamples if units > 1 else 0, 50):
    times = rng.multinomial(units, np.full(units, 1 / units), min(50, resamples - start))
    for part in tally.weighted(times[:, group]):
      for values, m in zip(drawn, wanted, strict=True):
        values.append(m.of(part))
  coarse = tally.subset(np.arange(len(group)))
  return {
    m.name: _estimate(m, pooled, coarse, values, exact.get(m.name))
    for m, values in zip(wanted, drawn, strict=True)
  }


def _estimate(
  m: Measure, pooled: Pooled, coarse: Pooled, values: list[float], known: float | None
) -> Estimate:
  value = m.of(pooled) if known is None else known
  if np.isnan(value):
    return Estimate(*[float('nan')] * 4)
  seen = np.array([v for v in values if not np.isnan(v)])
  low, high = np.percentile(seen, [2.5, 97.5]) if len(seen) else (np.nan, np.nan)
  shift = value - m.of(coarse)
  return Estimate(value, float(low + shift), float(high + shift), m.bound(pooled) if known is None else 0.0)
