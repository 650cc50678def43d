"""Scores of sets of samples against several readers; conventions are those of stochastic.py."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from car_jax.metrics import stochastic
from car_jax.metrics.base import Metric, PerImage, Source
from car_jax.metrics.texts import OF_READERS

NAMES = ('ged', 'hm_iou', 'dice_max', 'diversity', 'd_ys', 'd_ss', 'd_yy')
SPREAD = ('ged', 'diversity', 'd_ss', 'd_yy')  # whose value an estimator changes
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
    every = dataclasses.replace(self, samples=0)

    def make():
      return stochastic.compare(
        outputs.labels,
        batch['labels'],
        classes=self.classes,
        absent=self.absent,
        ignore=self.ignore,
        ignored=self.ignored,
        sample_weight=outputs.weight,
        reader_weight=batch['label_weight'],
      )

    return first(outputs.once(every, make), self.samples)


def first(c: stochastic.Comparison, n: int) -> stochastic.Comparison:
  """The comparison without the samples after the first n."""
  end, weight = c.reader_weight.shape[1] + n, c.sample_weight[:, :n]
  weight = weight / jnp.sum(weight, -1, keepdims=True)
  return stochastic.Comparison(c.iou[:, :end, :end], c.dice[:, :end, :end], c.reader_weight, weight)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfSamples(PerImage):
  """A score by `kind`, one of NAMES. all_modes: readers are all modes of the labels with their
  weights, see metrics/flips.py."""

  kind: str
  pairs: Pairs
  num_classes: int
  estimator: str = 'v'
  distance: str = 'iou'
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
    return stochastic.convention(self.kind, p.samples, **kw)

  def left_out(self, traits):
    """Leaving out self pairs corrects for a finite number of draws; a distribution that is known
    whole has nothing to correct, and without its self pairs it is another one."""
    if self.estimator != 'u':
      return ''
    if self.all_modes and self.kind in ('ged', 'd_yy'):
      return 'readers are all modes with their weights, not draws: see [v]'
    if self.kind in ('ged', 'diversity', 'd_ss'):
      if traits.single:
        return 'one segmentation says nothing of a spread: see [v]'
      if not traits.draws:
        return 'weights, not draws: see [v]'
    return ''

  def score(self, outputs, batch):
    c = self.pairs.compared(outputs, batch)
    if self.kind == 'hm_iou':
      return stochastic.hm_iou(c)
    if self.kind == 'dice_max':
      return stochastic.max_dice(c)
    parts = stochastic.ged(c, estimator=self.estimator, distance=self.distance)
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
