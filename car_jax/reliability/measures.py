"""The table of measures: name -> how it follows from pooled counts; legend.py says what it means.

A measure of a score may be asked for with another one: 'auroc[entropy]'. Shares are in [0, 1]; only
pages and tables write per cent.
"""

import dataclasses
import itertools
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from car_jax.errors import UserError, nearest
from car_jax.metrics import calibration, confusion_matrix, onepass, ranking, rejection
from car_jax.metrics.onepass import EXTRA, RIGHT, SCORES, UNKNOWN, WRONG
from car_jax.reliability.image_counts import OBJECT_SCORES, ImageCounts, Pooled

Value = Callable[[Pooled], float]


@dataclasses.dataclass(frozen=True)
class Measure:
  """`of(pooled)` is its value; `bound(pooled)` the largest error that histograms leave in it, nan
  where that is not known."""

  name: str
  of: Value
  bound: Value = lambda pooled: 0.0


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


def kept_of(pooled: Pooled, score: str) -> tuple[np.ndarray, np.ndarray]:
  """Wrong and right pixels [K] in the order of rising certainty, as metrics/rejection.py wants."""
  return pooled.outcomes(score, WRONG), pooled.outcomes(score, RIGHT)


def unknown_of(pooled: Pooled, score: str) -> tuple[np.ndarray, np.ndarray]:
  """Pixels of unknown objects and all others [K], in the order of falling certainty."""
  known = pooled.outcomes(score, RIGHT, WRONG)
  return pooled.outcomes(score, UNKNOWN)[::-1], known[::-1]


def present(pooled: Pooled) -> tuple[int, ...]:
  """Classes that count: without those that a set's labels cannot have (RELIS on IDD)."""
  return tuple(c for c in range(len(pooled.confusion)) if c not in pooled.absent)


def _loss(which: int) -> Value:
  return lambda p: float(p.losses[which] / n) if (n := np.sum(p.confusion)) else float('nan')


def _classwise(function: Callable[[calibration.Tied], float]) -> Value:
  """Averaged over the classes that occur."""

  def value(pooled: Pooled) -> float:
    if 'classwise' not in pooled.counts:
      return float('nan')
    classes = zip(pooled.classwise, pooled.classwise_conf, strict=True)
    groups = [calibration.Tied(n, conf, hits) for (n, hits), conf in classes if hits.sum()]
    return float(np.mean([function(g) for g in groups])) if groups else float('nan')

  return value


def _object(place: int) -> Value:
  """GenVal's averages over the images that hold an unknown object; see image_counts.objects_of."""
  return lambda p: float(p.objects[place] / n) if (n := p.with_objects[place]) else float('nan')


def _ece(groups: calibration.Tied) -> float:
  return calibration.ece(calibration.binned(groups), np.sum(groups.pixels))


PLAIN: dict[str, Value] = {
  'miou': lambda p: confusion_matrix.mean_iou(p.confusion, present(p)),
  'pixel_accuracy': lambda p: confusion_matrix.pixel_accuracy(p.confusion),
  'mean_accuracy': lambda p: confusion_matrix.mean_accuracy(p.confusion),
  'ece': lambda p: calibration.ece(ece_sums(p), np.sum(p.confusion)),
  'ece_entropy': lambda p: calibration.ece(ece_sums(p, 1), np.sum(p.confusion)),
  'adaptive_ece': lambda p: calibration.adaptive_ece(groups_of(p)),
  'adaptive_ece_relis': lambda p: calibration.adaptive_ece_relis(groups_of(p)),
  'ks': lambda p: calibration.ks_error(groups_of(p)),
  'mce': lambda p: calibration.mce(ece_sums(p)),
  'classwise_ece': _classwise(_ece),
  'classwise_adaptive_ece': _classwise(calibration.adaptive_ece),
  'classwise_adaptive_ece_relis': _classwise(calibration.adaptive_ece_relis),
  'classwise_ks': _classwise(calibration.ks_error),
  'nll': _loss(0),
  'brier': _loss(1),
}
OBJECT_MEASURES = (
  'object_entropy',
  'object_entropy_ratio',
  *(
    f'object_{kind}' + ('' if score == 'max_prob' else f'[{score}]')
    for score in OBJECT_SCORES
    for kind in ('auroc', 'fpr95', 'aupr', 'aupr_rest')
  ),
)
"""In the order of image_counts.objects_of."""
PLAIN |= {name: _object(place) for place, name in enumerate(OBJECT_MEASURES)}


def _tied_bound(which: int) -> Value:
  def bound(pooled: Pooled) -> float:
    groups = groups_of(pooled)
    spread = onepass.spreads(len(groups.pixels), len(pooled.confusion))
    return calibration.tied_bound(groups, spread=spread)[which]

  return bound


def _classwise_bound(which: int) -> Value:
  """Of an average over classes: that of their bounds. A bin of log-odds o spans p (1 - p) of it."""

  def bound(groups: calibration.Tied) -> float:
    spread = onepass.class_spreads(len(groups.pixels))
    return calibration.tied_bound(groups, spread=spread)[which]

  return _classwise(bound)


BOUNDS: dict[str, Value] = {
  'adaptive_ece': _tied_bound(0),
  'ks': _tied_bound(1),
  'classwise_adaptive_ece': _classwise_bound(0),
  'classwise_ks': _classwise_bound(1),
  'adaptive_ece_relis': lambda p: float('nan'),
}
# their histograms' error is small but not worked out
UNBOUNDED = ('classwise_', 'object_')

OF_CLASSES = ('miou', 'pixel_accuracy', 'mean_accuracy')  # all that maps of classes allow


def _confident(value: Value) -> Value:
  """nan where predictions were classes alone, without a probability."""
  return lambda p: value(p) if 'max_prob' in p.names else float('nan')


RANKED: dict[str, tuple[Callable[..., tuple], Callable[..., float]]] = {
  'auroc': (errors_of, ranking.auroc),
  'aupr_error': (errors_of, ranking.average_precision),
  'aupr_success': (lambda pooled, score: kept_of(pooled, score)[::-1], ranking.average_precision),
  'fpr95': (errors_of, ranking.fpr_at_tpr),
  'prr': (kept_of, rejection.prr),
  'prr_relis': (kept_of, rejection.prr_relis),
  'aurc': (kept_of, rejection.aurc),
  'unknown_auroc': (unknown_of, ranking.auroc),
  'unknown_ap': (unknown_of, ranking.average_precision),
  'unknown_aupr': (unknown_of, ranking.aupr),
  'unknown_fpr95': (unknown_of, ranking.fpr_at_tpr),
}
NAMES = (*PLAIN, *RANKED)


def measure(name: str) -> Measure:
  """'ece' or 'auroc[entropy]' -> Measure. Raises UserError for an unknown name or score."""
  if name in PLAIN:
    unknown = (lambda p: float('nan')) if name.startswith(UNBOUNDED) else (lambda p: 0.0)
    of_plain = PLAIN[name] if name in OF_CLASSES else _confident(PLAIN[name])
    return Measure(name, of_plain, BOUNDS.get(name, unknown))
  match = re.fullmatch(r'(\w+)(?:\[(\w+)\])?', name)
  kind, score = match.groups() if match else (name, None)
  if kind not in RANKED:
    hint = f'  {kind} is not of a score: write {kind}' if kind in PLAIN else nearest(kind, NAMES)
    raise UserError(f'unknown measure {name!r}\n{hint}')
  if score and score not in (*SCORES, EXTRA):
    raise UserError(f'{name!r}: no score {score!r}\n{nearest(score, (*SCORES, EXTRA))}')
  (counts, function), used = RANKED[kind], score or 'max_prob'

  def of(pooled: Pooled) -> float:
    return function(*counts(pooled, used)) if used in pooled.names else float('nan')

  def bound(pooled: Pooled) -> float:
    return ranking.bound(function, *counts(pooled, used)) if used in pooled.names else float('nan')

  return Measure(name, of, bound)


SHIFT = 0.05  # between fine and coarse histograms, beyond which the latter say nothing


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A value with its 95 % interval over images, and the largest error left by histograms."""

  value: float
  low: float
  high: float
  bound: float


def estimates(
  counts: ImageCounts,
  wanted: Sequence[Measure],
  *,
  resamples: int = 200,
  seed: int = 0,
  exact: Mapping[str, float] | None = None,
) -> dict[str, Estimate]:
  """Every `wanted` measure over all images; whole groups are drawn again where groups repeat.

  Intervals come from coarser histograms than values do and are shifted by what that changes; where
  that is more than SHIFT they are nan. So are those of a single image or group, or of a measure
  that a single one of them decides.
  `exact` gives, by a measure's name, values that are known without the error of histograms.
  """
  pooled, exact = counts.pooled(), exact or {}
  drawn: list[list[float]] = [[] for _ in wanted]
  for part in counts.resampled(resamples, np.random.default_rng(seed)):
    for values, m in zip(drawn, wanted, strict=True):
      values.append(m.of(part))
  coarse = counts.subset(np.arange(len(counts.ids)))
  return {
    m.name: _estimate(m, pooled, coarse, _of_several(m, values, counts), exact.get(m.name))
    for m, values in zip(wanted, drawn, strict=True)
  }


def _of_several(m: Measure, values: list[float], counts: ImageCounts) -> np.ndarray:
  """The defined values of resamples; none where they do not differ and one group alone has any."""
  seen = np.array([v for v in values if not np.isnan(v)])
  if len(seen) and not np.ptp(seen):
    group = counts.group
    scored = (u for u in np.unique(group) if not np.isnan(m.of(counts.subset(group == u))))
    return seen if len([*itertools.islice(scored, 2)]) == 2 else seen[:0]
  return seen


def _estimate(
  m: Measure, pooled: Pooled, coarse: Pooled, seen: np.ndarray, known: float | None
) -> Estimate:
  value = m.of(pooled) if known is None else known
  if np.isnan(value):
    return Estimate(*[float('nan')] * 4)
  shift = value - m.of(coarse)
  known_well = len(seen) and abs(shift) <= SHIFT
  low, high = np.percentile(seen, [2.5, 97.5]) if known_well else (np.nan, np.nan)
  return Estimate(
    value, float(low + shift), float(high + shift), m.bound(pooled) if known is None else 0.0
  )
