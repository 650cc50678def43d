"""Scores of sets of samples against several readers; conventions are those of stochastic.py."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from car_jax.metrics import readers, stochastic
from car_jax.metrics.base import Metric, PerImage, Source
from car_jax.metrics.reader_texts import OF_READERS

NAMES: tuple[str, ...] = (
  'ged',
  'hm_iou',
  'dice_max',
  'dice_match',
  'diversity',
  'd_ys',
  'd_ss',
  'd_yy',
)
NAMES += ('pairwise_dice', 'crps_area', 'ci')
OF_PAIRS = ('diversity', 'd_ss', 'pairwise_dice', 'crps_area')  # an estimator says of which samples
SPREAD = ('ged', 'd_yy', *OF_PAIRS)  # whose value an estimator changes
NO_ABSENT = ('crps_area', 'ci')  # of which a class that neither map has is worth a fixed value
FIXED: dict[str, dict[str, str]] = {'pairwise_dice': dict(estimator='u', distance='dice')}
PARTS = ('d_ys', 'd_ss', 'd_yy')


@dataclasses.dataclass(frozen=True)
class Pairs:
  """Which maps are compared and how; see metrics/stochastic.py. samples: the first so many."""

  samples: int
  classes: tuple[int, ...]
  absent: str = 'one'
  ignore: int | None = None
  ignored: str = 'void'

  def compared(self, outputs: Any, batch: Any) -> stochastic.Comparison:
    """All pairs of maps, compared once for all scores that share these conventions."""
    every = dataclasses.replace(self, samples=0, absent='one')

    def make():
      return stochastic.compare(
        outputs.labels,
        batch['labels'],
        classes=self.classes,
        ignore=self.ignore,
        ignored=self.ignored,
        sample_weight=outputs.weight,
        reader_weight=batch['label_weight'],
      )

    return first(stochastic.with_absent(outputs.once(every, make), self.absent), self.samples)


def first(c: stochastic.Comparison, n: int) -> stochastic.Comparison:
  """The comparison without the samples after the first n."""
  end, weight = c.reader_weight.shape[1] + n, c.sample_weight[:, :n]
  weight = weight / jnp.sum(weight, -1, keepdims=True)
  iou, dice, counts, pixels = jax.tree.map(
    lambda x: x[:, :end, :end], (c.iou, c.dice, c.counts, c.pixels)
  )
  return stochastic.Comparison(iou, dice, c.reader_weight, weight, counts, pixels)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfSamples(PerImage):
  """A score by `kind`, one of NAMES. best: see `stochastic.max_dice`. all_modes: readers are all
  modes of the labels with their weights, see metrics/flips.py."""

  kind: str
  pairs: Pairs
  num_classes: int
  estimator: str = 'v'
  distance: str = 'iou'
  best: str = 'samples'
  all_modes: bool = False

  @property
  def about(self):
    return OF_READERS[self.kind]

  @property
  def convention(self):
    p = self.pairs
    kw: dict[str, Any] = dict(classes=p.classes, absent=p.absent, ignore=p.ignore)
    kw |= dict(ignored=p.ignored, num_classes=self.num_classes, distance=self.distance)
    if self.kind in SPREAD:
      kw['estimator'] = self.estimator
    if self.kind in NO_ABSENT:
      kw['absent'] = None
    return stochastic.convention(self.kind, p.samples, **kw, more=self.further)

  @property
  def further(self) -> tuple[str, ...]:
    """The end of the convention."""
    return () if self.best == 'samples' else (f'best={self.best}',)

  def left_out(self, traits):
    """Leaving out self pairs corrects for a finite number of draws; a distribution that is known
    whole has nothing to correct, and without its self pairs it is another one."""
    if self.kind == 'dice_match' and self.all_modes:
      return 'readers are all modes with their weights: a match one to one has none'
    if self.estimator != 'u':
      return ''
    if self.all_modes and self.kind in ('ged', 'd_yy'):
      return 'readers are all modes with their weights, not draws: see [v]'
    if self.kind in ('ged', *OF_PAIRS):
      other = 'diversity[v,dice]' if self.kind == 'pairwise_dice' else '[v]'
      if traits.single:
        return f'one segmentation says nothing of a spread: see {other}'
      if not traits.draws:
        return f'weights, not draws: see {other}'
    return ''

  def score(self, outputs, batch):
    c = self.pairs.compared(outputs, batch)
    if self.kind == 'hm_iou':
      return stochastic.hm_iou(c)
    if self.kind == 'dice_max':
      return stochastic.max_dice(c, best=self.best)
    if self.kind == 'dice_match':
      return readers.dice_match(c)
    if self.kind == 'crps_area':
      return readers.crps_area(c, estimator=self.estimator)
    parts = stochastic.ged(c, estimator=self.estimator, distance=self.distance)
    if self.kind == 'pairwise_dice':
      return 1 - parts.d_ss
    return getattr(parts, {'diversity': 'd_ss'}.get(self.kind, self.kind))


def counts_of(samples: int) -> tuple[int, ...]:
  """The sample counts at which the curve over N is taken: 1, 2, 4, .., and N itself."""
  return tuple(sorted({*(1 << k for k in range(samples.bit_length())), samples}))


@dataclasses.dataclass(frozen=True)
class Distances(Source):
  """What figures show of the main GED: its three mean distances, and its curves over N.

  d_ys, d_ss, d_yy [B], v and u [B, counts]; nan where an image has none. whole: samples, or
  readers, are whole distributions, of which there is no u.
  """

  main: OfSamples
  samples: int
  whole: bool

  @property
  def source_name(self):
    return 'distances'

  def state(self, outputs, batch):
    every = dataclasses.replace(self.main.pairs, samples=self.samples).compared(outputs, batch)
    of: dict[str, Any] = dict(distance=self.main.distance)
    estimator = 'v' if self.whole else self.main.estimator
    parts = stochastic.ged(first(every, self.main.pairs.samples), estimator=estimator, **of)
    curve = lambda e: jnp.stack(
      [stochastic.ged(first(every, n), estimator=e, **of).ged for n in counts_of(self.samples)], -1
    )
    curves = {e: curve(e) for e in ('v' if self.whole else 'vu')}
    return {k: getattr(parts, k) for k in PARTS} | curves


def main_of(metrics: tuple[Metric, ...]) -> OfSamples | None:
  """The first GED: it sorts the images and is drawn in the figures."""
  geds = (m for m in metrics if isinstance(m, OfSamples) and m.kind == 'ged')
  return next(geds, None)
