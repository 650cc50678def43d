"""Temperature scaling (Guo et al., arXiv 1706.04599): one T for all pixels, or one per class.

Letters: B images, H x W pixels, C classes, K rows of a table.
"""

import flax.struct
import jax.numpy as jnp
import numpy as np

from car_jax.calibrate import search
from car_jax.calibrate.base import Sample
from car_jax.typing import Array


class Temperature(flax.struct.PyTreeNode):
  """All logits divided by `temperature` []."""

  temperature: Array

  @property
  def temperatures(self) -> Array:
    return self.temperature

  def apply(
    self, logits: Array, *, image: Array | None = None, features: Array | None = None
  ) -> Array:
    return logits / self.temperature


class PerClass(flax.struct.PyTreeNode):
  """A pixel's logits divided by table[its predicted class], table [C].

  reference_compat: logit c is divided by table[c] instead, which can change the prediction, as in
  the code published with RELIS (arXiv 2303.11298).
  """

  table: Array
  reference_compat: bool = flax.struct.field(pytree_node=False, default=False)

  @property
  def temperatures(self) -> Array:
    return self.table

  def apply(
    self, logits: Array, *, image: Array | None = None, features: Array | None = None
  ) -> Array:
    if self.reference_compat:
      return logits / self.table
    return logits / jnp.asarray(self.table)[jnp.argmax(logits, -1)][..., None]


def flat(sample: Sample) -> search.Pixels:
  """All pixels of all images in one row."""
  return search.Pixels(sample.logits.reshape(-1, sample.classes), sample.labels.reshape(-1))


def predicted(pixels: search.Pixels) -> np.ndarray:
  """The class of the largest logit of each pixel [N], the lowest of equal ones."""
  parts = search.each_block(lambda logits, _: np.argmax(logits, -1), pixels, search.NEWTON_BLOCK)
  return np.concatenate([*parts, np.zeros(0, np.int64)])[: len(pixels)]


def fit(sample: Sample, *, objective: str = 'nll', grid: np.ndarray | None = None) -> Temperature:
  """The temperature of least NLL; or of least ECE on a grid, as published with RELIS."""
  return Temperature(np.float32(search.best_temperature(flat(sample), objective, grid)))


def fit_per_class(
  sample: Sample,
  *,
  objective: str = 'nll',
  grid: np.ndarray | None = None,
  reference_compat: bool = False,
) -> PerClass:
  """One temperature for the pixels of each predicted class, 1 for classes never predicted.

  objective and grid: as in `search.best_temperature`. reference_compat: as in `PerClass`.
  """
  pixels = flat(sample)
  table = search.group_temperatures(pixels, predicted(pixels), sample.classes, objective, grid)
  return PerClass(table.astype(np.float32), reference_compat)
