"""Scores of an image against its readers that need more than the pairs of maps; see readers.py."""

import dataclasses

from car_jax.metrics import of_probabilities, readers, stochastic
from car_jax.metrics.base import PerImage
from car_jax.metrics.of_samples import OfSamples
from car_jax.metrics.reader_texts import OF_READERS


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoftDice(PerImage):
  """Dice of the mean probability and the share of readers, both above each of several thresholds.

  classes: those whose mean it is.
  """

  samples: int
  classes: tuple[int, ...]
  num_classes: int
  own: bool = False
  absent: str = 'one'
  ignore: int | None = None

  @property
  def about(self):
    return OF_READERS['dice_soft']

  @property
  def convention(self):
    above = 'above ' + '+'.join(map(str, readers.SOFT_THRESHOLDS))
    absent = stochastic.absent_part(self.absent)
    which = stochastic.classes_part(self.classes, self.num_classes)
    ignore = '' if self.ignore is None else f'ignore={self.ignore}'
    return of_probabilities.named(
      'dice_soft', self.own, self.samples, above, absent, which, ignore=ignore
    )

  def left_out(self, traits):
    return of_probabilities.left_out(traits)

  def score(self, outputs, batch):
    probs = of_probabilities.probabilities(outputs, self.own)
    if probs is None:
      return None
    return readers.dice_soft(
      probs,
      batch['labels'],
      batch['label_weight'],
      classes=self.classes,
      absent=self.absent,
      ignore=self.ignore,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Insight(OfSamples):
  """Collective insight; self_pairs and harmonic as in `readers.collective_insight`."""

  self_pairs: bool = False
  harmonic: bool = False

  @property
  def further(self):
    options = {'self': self.self_pairs, 'harmonic': self.harmonic}
    return tuple(name for name, chosen in options.items() if chosen)

  def left_out(self, traits):
    if traits.single and not self.self_pairs:
      return 'one segmentation says nothing of a spread: see [self]'
    return ''

  def score(self, outputs, batch):
    c = self.pairs.compared(outputs, batch)
    found = readers.collective_insight(
      outputs.labels[:, : self.pairs.samples],
      batch['labels'],
      c,
      classes=self.pairs.classes,
      pairs='self' if self.self_pairs else 'distinct',
      mean='harmonic' if self.harmonic else 'published',
    )
    return found.value
