"""Temperature scaling (Guo et al., arXiv 1706.04599): one T for all pixels, or one per class.

The best one by NLL (Newton's method) or by ECE (a grid, in one pass). Letters: B images, H x W
pixels of an image, N of a sample, P of a block, C classes, T temperatures, K bins, G groups.
"""

import math
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from car_jax.calibrate.base import NUM_BINS, CalibrationWarning, Sample
from car_jax.errors import UserError, nearest
from car_jax.typing import Array

LOWEST, HIGHEST = 0.05, 20.0
GRID = np.arange(0.5, 10, 0.01)
NEWTON_BLOCK, GRID_BLOCK = 1 << 14, 1 << 13
PIECE = 64


class Pixels(NamedTuple):
  """logits [N, C] and labels [N] (-1: does not count); `chosen`: numbers of some of the pixels."""

  logits: np.ndarray
  labels: np.ndarray
  chosen: np.ndarray | None = None

  def __len__(self) -> int:
    return len(self.labels) if self.chosen is None else len(self.chosen)

  def block(self, start: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """`size` pixels from `start` on; those past the end do not count."""
    where: Any = slice(start, start + size)
    where = where if self.chosen is None else self.chosen[where]
    logits, labels = self.logits[where], self.labels[where]
    short = size - len(labels)
    if short:
      logits = np.pad(logits, ((0, short), (0, 0)))
      labels = np.pad(labels, (0, short), constant_values=-1)
    return np.asarray(logits, np.float32), np.asarray(labels, np.int32)


def each_block(function: Callable, pixels: Pixels, size: int) -> Iterator[Any]:
  """function(logits [P, C], labels [P]) of every block, in order, a block on each core."""
  size = min(size, max(256, 1 << (len(pixels) - 1).bit_length()))  # few shapes to compile for
  call = lambda start: jax.tree.map(np.asarray, function(*pixels.block(start, size)))
  with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
    yield from pool.map(call, range(0, len(pixels), size))


def nll_temperature(pixels: Pixels, *, block: int = NEWTON_BLOCK) -> float:
  """The temperature of least NLL within [0.05, 20], a warning at either end; 1 for no pixels.

  The NLL is convex in 1 / T, which is what Newton's method changes.
  """
  labels = pixels.labels if pixels.chosen is None else pixels.labels[pixels.chosen]
  if not np.any(labels >= 0):
    return 1.0

  def slopes(inverse: float) -> tuple[float, float]:
    of = lambda logits, labels: _moments(logits, labels, np.float32(inverse))
    total = np.zeros(2)
    for sums in each_block(of, pixels, block):
      total += np.sum(sums, 1, dtype=np.float64)
    return float(total[0]), float(total[1])

  best = 1 / _newton(slopes, 1 / HIGHEST, 1 / LOWEST)
  _warn_at_bounds(best, LOWEST, HIGHEST)
  return best


def _newton(slopes: Callable[[float], tuple[float, float]], low: float, high: float) -> float:
  """The minimum of a convex function from its first two derivatives, started at 1.

  A step out of what is known to hold the minimum becomes a bisection, on the logarithm.
  """
  x, below, above = 1.0, 0.999 * low, 1.001 * high
  for _ in range(100):
    slope, curve = slopes(x)
    if slope == 0 or (x == low and slope > 0) or (x == high and slope < 0):
      break
    below, above = (below, x) if slope > 0 else (x, above)
    step = slope / curve if curve > 0 else math.copysign(math.inf, slope)
    new = min(max(x - step, low), high)
    if not below < new < above:
      new = math.sqrt(below * above)
    if abs(new - x) <= 1e-7 * x:
      return new
    x = new
  return x


@jax.jit
def _moments(logits: Array, labels: Array, inverse: Array) -> Array:
  """[2, P / 64]: first and second derivative of the NLL by 1 / T, summed over pieces."""
  below = logits.T - jnp.max(logits, -1)  # classes first: sums over the last axis of 19 are slow
  weight = jnp.exp(below * inverse)
  total = jnp.sum(weight, 0)
  mean = jnp.sum(weight * below, 0) / total
  spread = jnp.sum(weight * jnp.square(below - mean), 0) / total
  own = jnp.take_along_axis(below, jnp.maximum(labels, 0)[None], 0)[0]
  both = jnp.where(labels >= 0, jnp.stack([mean - own, spread]), 0)
  return jnp.sum(both.reshape(2, -1, PIECE), -1)


class Search(NamedTuple):
  """The chosen temperature, and the ECE at 1 and at every temperature of the grid [T]."""

  temperature: float
  ece_at_one: float
  grid: np.ndarray
  curve: np.ndarray


def ece_search(
  pixels: Pixels,
  *,
  grid: np.ndarray = GRID,
  num_bins: int = NUM_BINS,
  block: int = GRID_BLOCK,
) -> Search:
  """The grid's first temperature of least ECE, if that is less than at 1, which is tried first.

  As published with RELIS (arXiv 2303.11298), whose grid is 0.5 to 9.99; but one pass over the
  pixels fills the bins of all temperatures. Bin k of K = num_bins is (k/K, (k+1)/K]; `block` is how
  many pixels a core takes at a time.
  """
  grid = np.asarray(grid, np.float64)
  inverse = (1 / np.concatenate([[1.0], grid])).astype(np.float32)
  of = lambda logits, labels: _grid_sums(logits, labels, inverse, num_bins)
  count = np.zeros((len(inverse), 3 * num_bins), np.int64)
  conf = np.zeros(count.shape)
  for more, summed in each_block(of, pixels, block):
    count += more
    conf += summed
  conf += count * (np.tile(np.arange(num_bins), 3) + 0.5) / num_bins
  pixels_in = count[:, : 2 * num_bins].sum(1)
  wrong, right, _ = np.split(conf, 3, 1)
  hits = count[:, num_bins : 2 * num_bins]
  ece = np.sum(np.abs(wrong + right - hits), 1) / np.maximum(pixels_in, 1)
  first = int(np.argmin(ece[1:]))
  best = float(grid[first]) if ece[1 + first] < ece[0] else 1.0
  return Search(best, float(ece[0]), grid, ece[1:])


@jax.jit(static_argnums=3)
def _grid_sums(logits: Array, labels: Array, inverse: Array, num_bins: int) -> tuple[Array, Array]:
  """Pixels [T, 3K] of the wrong, the right, and those that do not count; and summed confidence,
  measured from the middle of its bin.

  Millions of float32 additions into one cell drift. Short blocks and small numbers keep that below
  1e-5 of a confidence.
  """
  below = logits.T - jnp.max(logits, -1)
  right = jnp.argmax(below, 0) == labels
  part = num_bins * jnp.where(labels < 0, 2, right)

  def at(scale):
    conf = 1 / jnp.sum(jnp.exp(below * scale), 0)
    k = jnp.clip(jnp.ceil(conf * num_bins).astype(jnp.int32) - 1, 0, num_bins - 1)
    add = lambda v, t: jnp.zeros(3 * num_bins, t).at[part + k].add(v)
    return add(1, jnp.int32), add(conf - (k + 0.5) / num_bins, jnp.float32)

  return jax.lax.map(at, inverse)


def best_temperature(
  pixels: Pixels, objective: str = 'nll', grid: np.ndarray | None = None
) -> float:
  """That of least 'nll', or of least 'ece' over `grid` [T]; None is GRID. UserError for others."""
  if objective not in ('nll', 'ece'):
    raise UserError(f'no objective {objective!r}\n{nearest(objective, ("nll", "ece"))}')
  if objective == 'nll':
    if grid is not None:
      raise ValueError('the NLL needs no grid')
    return nll_temperature(pixels)
  best = ece_search(pixels, grid=GRID if grid is None else grid)
  _warn_at_bounds(best.temperature, best.grid[0], best.grid[-1])
  return best.temperature


def group_temperatures(
  pixels: Pixels,
  groups: np.ndarray,
  count: int,
  objective: str = 'nll',
  grid: np.ndarray | None = None,
) -> np.ndarray:
  """groups [N] of 0 to count - 1 -> [count] temperatures, each of its pixels; 1 for an empty group.

  objective and grid: as in `best_temperature`.
  """
  usable = np.flatnonzero(pixels.labels >= 0)
  order = usable[np.argsort(groups[usable], kind='stable')]
  ends = np.searchsorted(groups[order], np.arange(count + 1))
  table = np.ones(count)
  for g in range(count):
    index = order[ends[g] : ends[g + 1]]
    if len(index):
      table[g] = best_temperature(Pixels(pixels.logits, pixels.labels, index), objective, grid)
  return table


def _warn_at_bounds(temperature: float, low: float, high: float) -> None:
  if not low * (1 + 1e-6) < temperature < high * (1 - 1e-6):
    message = f'T = {temperature:.4g} lies at the bound of its range, {low:g} to {high:.4g}'
    warnings.warn(message, CalibrationWarning, stacklevel=2)


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


def flat(sample: Sample) -> Pixels:
  """All pixels of all images in one row."""
  return Pixels(sample.logits.reshape(-1, sample.classes), sample.labels.reshape(-1))


def predicted(pixels: Pixels) -> np.ndarray:
  """The class of the largest logit of each pixel [N], the lowest of equal ones."""
  parts = each_block(lambda logits, _: np.argmax(logits, -1), pixels, NEWTON_BLOCK)
  return np.concatenate([*parts, np.zeros(0, np.int64)])[: len(pixels)]


def fit(sample: Sample, *, objective: str = 'nll', grid: np.ndarray | None = None) -> Temperature:
  """The temperature of least NLL; or of least ECE on a grid, as published with RELIS."""
  return Temperature(np.float32(best_temperature(flat(sample), objective, grid)))


def fit_per_class(
  sample: Sample,
  *,
  objective: str = 'nll',
  grid: np.ndarray | None = None,
  reference_compat: bool = False,
) -> PerClass:
  """One temperature for the pixels of each predicted class, 1 for classes never predicted.

  objective and grid: as in `best_temperature`. reference_compat: as in `PerClass`.
  """
  pixels = flat(sample)
  table = group_temperatures(pixels, predicted(pixels), sample.classes, objective, grid)
  return PerClass(table.astype(np.float32), reference_compat)
