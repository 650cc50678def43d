"""Scores of single pixels: accuracy, calibration, known errors, unknown objects; see pixel_counts.

A ranking score may be asked for by another confidence than the largest probability:
'auroc[entropy]'. Shares are in [0, 1]; only pages and tables write per cent.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from car_jax.metrics import (
  calibration,
  confidence_groups,
  confusion_matrix,
  onepass,
  ranking,
  rejection,
)
from car_jax.metrics.base import UNSURE, About, OfLabels, Source, Traits
from car_jax.metrics.onepass import EXTRA
from car_jax.metrics.pixel_counts import OBJECT_SCORES, PixelCounts, Totals
from car_jax.metrics.texts import ABOUT

Value = Callable[[Totals], float]
NAN = float('nan')
NET_SCORES = ('max_logit', 'energy')  # without meaning where logits are logarithms of probabilities
OF_CLASSES = ('miou', 'pixel_accuracy', 'mean_accuracy')  # all that maps of classes allow
TITLES = dict(
  entropy='entropy',
  margin='margin of the two likeliest classes',
  max_logit='largest logit',
  energy='energy, log sum exp of the logits',
  disagreement='disagreement of samples, mutual information',
)


def _loss(which: int) -> Value:
  return lambda t: float(t.losses[which] / n) if (n := np.sum(t.confusion)) else NAN


def _classwise(function: Callable[[confidence_groups.Tied], float]) -> Value:
  """Averaged over the classes that occur; nan for some of the images, which have no such counts."""

  def value(t: Totals) -> float:
    if t.classwise is None or t.classwise_conf is None:
      return NAN
    classes = zip(t.classwise, t.classwise_conf, strict=True)
    groups = [confidence_groups.Tied(n, conf, hits) for (n, hits), conf in classes if hits.sum()]
    return float(np.mean([function(g) for g in groups])) if groups else NAN

  return value


def _object(place: int) -> Value:
  """GenVal's averages over the images that hold an unknown object."""
  return lambda t: float(t.objects[place] / n) if (n := t.with_objects[place]) else NAN


def _ece(groups: confidence_groups.Tied) -> float:
  return calibration.ece(confidence_groups.binned(groups), np.sum(groups.pixels))


PLAIN: dict[str, Value] = {
  'pixel_accuracy': lambda t: confusion_matrix.pixel_accuracy(t.confusion),
  'mean_accuracy': lambda t: confusion_matrix.mean_accuracy(t.confusion),
  'ece': lambda t: calibration.ece(t.bins(), np.sum(t.confusion)),
  'ece_entropy': lambda t: calibration.ece(t.bins(1), np.sum(t.confusion)),
  'adaptive_ece': lambda t: confidence_groups.adaptive_ece(t.tied()),
  'adaptive_ece_relis': lambda t: confidence_groups.adaptive_ece_relis(t.tied()),
  'ks': lambda t: confidence_groups.ks_error(t.tied()),
  'mce': lambda t: calibration.mce(t.bins()),
  'classwise_ece': _classwise(_ece),
  'classwise_adaptive_ece': _classwise(confidence_groups.adaptive_ece),
  'classwise_adaptive_ece_relis': _classwise(confidence_groups.adaptive_ece_relis),
  'classwise_ks': _classwise(confidence_groups.ks_error),
  'nll': _loss(0),
  'brier': _loss(1),
}
OBJECT_NAMES = (
  'object_entropy',
  'object_entropy_ratio',
  *(
    f'object_{kind}' + ('' if score == 'max_prob' else f'[{score}]')
    for score in OBJECT_SCORES
    for kind in ('auroc', 'fpr95', 'aupr', 'aupr_rest')
  ),
)
"""In the order of pixel_counts.objects_of."""
OBJECTS = {name: _object(place) for place, name in enumerate(OBJECT_NAMES)}


def _tied_bound(which: int) -> Value:
  def bound(t: Totals) -> float:
    groups = t.tied()
    spread = onepass.spreads(len(groups.pixels), len(t.confusion))
    return confidence_groups.tied_bound(groups, spread=spread)[which]

  return bound


def _classwise_bound(which: int) -> Value:
  """Of an average over classes: that of their bounds. A bin of log-odds o spans p (1 - p) of it."""

  def bound(groups: confidence_groups.Tied) -> float:
    spread = onepass.class_spreads(len(groups.pixels))
    return confidence_groups.tied_bound(groups, spread=spread)[which]

  return _classwise(bound)


BOUNDS: dict[str, Value] = {
  'adaptive_ece': _tied_bound(0),
  'ks': _tied_bound(1),
  'classwise_adaptive_ece': _classwise_bound(0),
  'classwise_ks': _classwise_bound(1),
  'adaptive_ece_relis': lambda t: NAN,
}
UNBOUNDED = ('classwise_', 'object_')  # their histograms' error is small but not worked out

Pair = tuple[np.ndarray, np.ndarray]
RANKED: dict[str, tuple[Callable[[Totals, str], Pair], Callable[..., float]]] = {
  'auroc': (lambda t, score: _uncertain(t.errors(score)), ranking.auroc),
  'aupr_error': (lambda t, score: _uncertain(t.errors(score)), ranking.average_precision),
  'aupr_success': (lambda t, score: t.errors(score)[::-1], ranking.average_precision),
  'fpr95': (lambda t, score: _uncertain(t.errors(score)), ranking.fpr_at_tpr),
  'prr': (Totals.errors, rejection.prr),
  'prr_relis': (Totals.errors, rejection.prr_relis),
  'aurc': (Totals.errors, rejection.aurc),
  'e_aurc': (Totals.errors, rejection.e_aurc),
  'augrc': (Totals.errors, rejection.augrc),
  'unknown_auroc': (Totals.unknown, ranking.auroc),
  'unknown_ap': (Totals.unknown, ranking.average_precision),
  'unknown_aupr': (Totals.unknown, ranking.aupr),
  'unknown_fpr95': (Totals.unknown, ranking.fpr_at_tpr),
}
NAMES = ('miou', *PLAIN, *OBJECT_NAMES, *RANKED)


def without(score: str, traits: Traits) -> str:
  """Why predictions of this kind have no such score of confidence; '' where they have."""
  if not traits.confidence:
    return UNSURE
  if score in NET_SCORES and not traits.logits:
    return 'no logits of a net'
  if score == EXTRA and not traits.disagreement:
    return 'no samples that could disagree'
  return ''


def by(about: About, score: str) -> About:
  """The words on a score that another confidence than the largest probability ranks."""
  short, _, more = TITLES[score].partition(', ')
  text = f'{about.text} Confidence is here by {short}{f" ({more})" if more else ""}.'
  return dataclasses.replace(about, title=f'{about.title}, by {short}', text=text)


def _uncertain(errors: Pair) -> Pair:
  """In the order of falling certainty: errors should come last."""
  return errors[0][::-1], errors[1][::-1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfPixels(OfLabels):
  """A score by `kind`, one of NAMES. confidence: of a ranking score, what ranks."""

  kind: str
  pixels: PixelCounts
  confidence: str = 'max_prob'

  @property
  def source(self) -> Source:
    return self.pixels

  @property
  def about(self) -> About:
    about = ABOUT[self.kind.partition('[')[0]]
    score = self.name.rstrip(']').partition('[')[2]
    return by(about, score) if score in TITLES else about

  def left_out(self, traits):
    if self.kind in OF_CLASSES:
      return super().left_out(traits)
    score = self.name.rstrip(']').partition('[')[2]
    return super().left_out(traits) or without(score, traits)

  def compute(self, total):
    if self.kind == 'miou':
      there = tuple(c for c in range(len(total.confusion)) if c not in self.absent)
      return confusion_matrix.mean_iou(total.confusion, there)
    if self.kind in RANKED:
      counts, function = RANKED[self.kind]
      return function(*counts(total, self.confidence))
    return (PLAIN | OBJECTS)[self.kind](total)

  def bound(self, total):
    if self.kind in RANKED:
      counts, function = RANKED[self.kind]
      return ranking.bound(function, *counts(total, self.confidence))
    unknown = NAN if self.kind.startswith(UNBOUNDED) else 0.0
    return BOUNDS[self.kind](total) if self.kind in BOUNDS else unknown
