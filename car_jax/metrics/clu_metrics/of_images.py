"""Means over images of scores that an image has by itself."""

from collections.abc import Callable
from typing import Any, ClassVar, Self

import jax.numpy as jnp

from car_jax.metrics import wide
from car_jax.metrics.clu_metrics.base import WEIGHTS, Counts, masked, options_of
from car_jax.metrics.functional import probabilities, sets
from car_jax.typing import Array


class ImageMean(Counts):
  """The mean of a score over the images that have a value; scores are kept in steps of 2^-20.

  mask [B]: False for images that are padding.
  """

  total: Array
  scored: Array
  skipped: Array
  score: ClassVar[Callable[..., Any]]
  reads: ClassVar[tuple[str, ...]] = ('samples', 'labels', *WEIGHTS)

  @classmethod
  def from_model_output(cls, *, mask: Any = None, **outputs: Any) -> Self:
    arrays = {name: outputs[name] for name in cls.reads if name in outputs}
    values = jnp.atleast_1d(jnp.asarray(cls.score(**arrays, **cls.options), jnp.float32))
    there = masked(cls, mask, len(values))
    has = there & ~jnp.isnan(values)
    total = wide.total(wide.steps(jnp.where(has, values, 0)))
    number = lambda which: wide.of(jnp.sum(which, dtype=jnp.int32))
    return cls(total, number(has), number(there & ~has))

  @classmethod
  def shapes(cls) -> dict[str, tuple[int, ...]]:
    return dict(total=(), scored=(), skipped=())

  def compute(self) -> float:
    """nan without an image that has a value."""
    total, n = wide.int64(self.total), wide.int64(self.scored)
    return float(total * wide.STEP / n) if n else float('nan')

  def images(self) -> tuple[int, int]:
    """How many have a value, and how many have none and are left out."""
    return int(wide.int64(self.scored)), int(wide.int64(self.skipped))


class GED(ImageMean):
  """Mean of `ged` over images; reads samples, labels, and their weights if there are any.

  >>> from car_jax.metrics import GED
  >>> samples, labels = [[[[0, 1]]], [[[1, 0]]]], [[[0, 1]], [[0, 1]]]  # two images
  >>> metric = GED.from_model_output(samples=samples, labels=labels)
  >>> metric.merge(metric).compute(), metric.images()
  (1.0, (2, 0))
  """

  score = staticmethod(sets.ged)
  options = options_of(sets.ged, sets.compared)


class Diversity(ImageMean):
  """Mean of `diversity` over images; reads samples, labels, and their weights.

  >>> from car_jax.metrics import Diversity
  >>> outputs = dict(samples=[[[0, 1]], [[1, 1]]], labels=[[0, 1]])
  >>> Diversity.with_options(estimator='u').from_model_output(**outputs).compute()
  0.5
  """

  score = staticmethod(sets.diversity)
  options = options_of(sets.diversity, sets.compared)


class HMIoU(ImageMean):
  """Mean of `hm_iou` over images; reads samples, labels, and their weights.

  >>> from car_jax.metrics import HMIoU
  >>> HMIoU.from_model_output(samples=[[[0, 1]], [[0, 1]]], labels=[[[0, 1]], [[1, 1]]]).compute()
  0.75
  """

  score = staticmethod(sets.hm_iou)
  options = options_of(sets.compared)


class DiceMax(ImageMean):
  """Mean of `dice_max` over images; reads samples, labels, and their weights.

  >>> from car_jax.metrics import DiceMax
  >>> DiceMax.from_model_output(samples=[[[1, 1]], [[0, 1]]], labels=[[0, 1]]).compute()
  1.0
  """

  score = staticmethod(sets.dice_max)
  options = options_of(sets.dice_max, sets.compared)


class DiceMatch(ImageMean):
  """Mean of `dice_match` over images; reads samples, labels, and their weights.

  >>> from car_jax.metrics import DiceMatch
  >>> DiceMatch.from_model_output(samples=[[[1, 1]], [[0, 1]]], labels=[[0, 1]]).compute()
  1.0
  """

  score = staticmethod(sets.dice_match)
  options = options_of(sets.dice_match, sets.compared)


class CRPSArea(ImageMean):
  """Mean of `crps_area` over images, in pixels; reads samples, labels, and their weights.

  >>> from car_jax.metrics import CRPSArea
  >>> CRPSArea.from_model_output(samples=[[[1, 1]], [[0, 1]]], labels=[[0, 1]]).compute()
  0.25
  """

  score = staticmethod(sets.crps_area)
  options = {k: v for k, v in options_of(sets.crps_area, sets.compared).items() if k != 'absent'}


class NLL(ImageMean):
  """Mean of `nll` over images; reads probs, labels and label_weight.

  >>> from car_jax.metrics import NLL
  >>> round(NLL.from_model_output(probs=[[0.25, 0.75], [0.5, 0.5]], labels=[1, 0]).compute(), 4)
  0.4904
  """

  score = staticmethod(probabilities.nll)
  reads = ('probs', 'labels', 'label_weight')
  options = options_of(probabilities.nll)


class Brier(ImageMean):
  """Mean of `brier` over images; reads probs, labels and label_weight.

  >>> from car_jax.metrics import Brier
  >>> Brier.from_model_output(probs=[[0.25, 0.75], [0.5, 0.5]], labels=[1, 0]).compute()
  0.3125
  """

  score = staticmethod(probabilities.brier)
  reads = ('probs', 'labels', 'label_weight')
  options = options_of(probabilities.brier)


class DiceSoft(ImageMean):
  """Mean of `dice_soft` over images; reads probs, labels and label_weight.

  >>> from car_jax.metrics import DiceSoft
  >>> metric = DiceSoft.with_options(thresholds=(0.5,))
  >>> metric.from_model_output(probs=[[0.25, 0.75], [0.75, 0.25]], labels=[1, 0]).compute()
  1.0
  """

  score = staticmethod(probabilities.dice_soft)
  reads = ('probs', 'labels', 'label_weight')
  options = options_of(probabilities.dice_soft)
