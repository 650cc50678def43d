"""Calibration errors of pixels in groups by confidence: equal bins, adaptive bins, and none.

K groups, one for every confidence or for every bin of a fine histogram.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Real, Shaped

from car_jax.metrics.calibration import BinSums
from car_jax.typing import Array


class Tied(NamedTuple):
  """Pixels by confidence, ascending: how many, their summed confidence and hits.

  One group for every value (`tied`) gives exact errors, one for every bin of a fine histogram gives
  errors within `tied_bound`.
  """

  pixels: Real[np.ndarray, ' K']
  conf: Float[np.ndarray, ' K']
  hits: Float[np.ndarray, ' K']


def tied(conf: Float[Array, ' N'], hits: Shaped[Array, ' N']) -> Tied:
  """A group for each distinct confidence, sums in float64."""
  values, group, pixels = np.unique(conf, return_inverse=True, return_counts=True)
  hits = np.bincount(group.reshape(-1), np.asarray(hits, np.float64).reshape(-1), len(values))
  return Tied(pixels, pixels * values.astype(np.float64), hits)


def binned(
  groups: Tied, num_bins: int = 15, *, zero: bool = True, closed: str = 'right'
) -> BinSums:
  """Bins (k/K, (k+1)/K] of equal width; a confidence of exactly 0 joins the first.

  zero=False: it is in none, as published (arXiv 2303.11298). closed='left': [k/K, (k+1)/K), and 1
  alone in one more bin, as torchmetrics has them; they differ where confidences lie on edges.
  """
  k = bin_of(_means(groups), num_bins, closed)
  inside = (k >= 0) | zero
  size, k = num_bins + (closed == 'left'), np.maximum(k, 0)
  add = lambda x: np.bincount(k[inside], np.asarray(x)[inside], size)
  return BinSums(*(add(x) for x in groups))


def bin_of(conf: np.ndarray, num_bins: int, closed: str = 'right') -> np.ndarray:
  """Confidences [K] as float32 -> their bins, see `binned`; -1 for a confidence of exactly 0."""
  conf = np.asarray(conf, np.float32)
  if closed == 'right':
    return np.ceil(conf * np.float32(num_bins)).astype(int) - 1
  # as torch.linspace rounds k/K: float32 steps from the nearer end, added in one operation
  step, at = float(np.float32(1 / num_bins)), np.arange(num_bins + 1)
  edges = np.where(at < (num_bins + 1) // 2, at * step, 1 - (num_bins - at) * step)
  return np.searchsorted(edges.astype(np.float32), conf, side='right') - 1


def adaptive_ece(groups: Tied, num_bins: int = 15) -> float:
  """ECE over bins that hold equally many pixels, as nearly as ties allow; nan where there is none.

  The edges are interpolated in the sorted confidences, bins are open below, and the pixels of the
  lowest confidence join the first bin. Equal edges leave bins empty: equal confidences stay
  together.
  """
  return _adaptive(groups, num_bins, slice(1, -1))


def adaptive_ece_relis(groups: Tied, num_bins: int = 15) -> float:
  """`adaptive_ece` as published with RELIS (arXiv 2303.11298).

  The first bin is open below as well, so that the pixels of the very lowest confidence are in no
  bin. Where they are many the error is too small: 0 where all pixels have one confidence.
  """
  return _adaptive(groups, num_bins, slice(None))


def _adaptive(groups: Tied, num_bins: int, used: slice) -> float:
  n = np.sum(groups.pixels)
  if not n:
    return float('nan')
  conf, ends = _means(groups), np.cumsum(groups.pixels)
  value = lambda place: conf[np.searchsorted(ends, np.minimum(place, n - 1), side='right')]
  place = np.linspace(0, n, num_bins + 1)
  whole = np.floor(place)
  low, high = value(whole), value(whole + 1)
  edges = (low + (place - whole) * (high - low))[used]
  k = np.searchsorted(edges, conf, side='left')
  gaps = np.bincount(k, groups.conf - groups.hits, len(edges) + 1)
  outside = 0 if len(edges) < num_bins else 1  # published: below the first edge is no bin
  return float(np.sum(np.abs(gaps[outside:])) / n)


def ks_error(groups: Tied) -> float:
  """Largest difference of cumulated confidence and cumulated truth, over all pixels; no bins.

  Kolmogorov-Smirnov calibration error (arXiv 2006.12800), looked at between different confidences
  only, so that the order of equal ones does not matter.
  """
  n = np.sum(groups.pixels)
  return float(np.max(np.abs(np.cumsum(groups.conf - groups.hits))) / n) if n else float('nan')


def tied_bound(groups: Tied, num_bins: int = 15, *, spread: Any = 0.0) -> tuple[float, float]:
  """The largest errors of `adaptive_ece` and `ks_error` where groups are bins of a histogram.

  spread: by how much confidences differ within a group, a number or [K]. Parts of a group that an
  edge cuts may lie in other bins, and add at most the sum of its pixels' distances |confidence -
  truth|, twice. KS: within a group the running sum strays most where all hits come first or last.
  No error exceeds what is left of [0, 1] around the value.
  """
  n, conf = np.sum(groups.pixels), _means(groups)
  if not n:
    return float('nan'), float('nan')
  misses, loose = groups.pixels - groups.hits, groups.pixels * spread
  place = np.floor(np.linspace(0, n, num_bins + 1))
  ranks = np.minimum(np.concatenate([place, place + 1]), n - 1)
  cut = np.unique(np.searchsorted(np.cumsum(groups.pixels), ranks, side='right'))
  apart = groups.hits * (1 - conf) + misses * conf + loose
  stray = np.maximum(groups.hits * (1 - conf), misses * conf) + loose
  bounds = 2 * np.sum(apart[cut]) / n, np.max(stray) / n
  values = adaptive_ece(groups, num_bins), ks_error(groups)
  most = lambda bound, value: float(min(bound, max(value, 1 - value)))
  return most(bounds[0], values[0]), most(bounds[1], values[1])


def _means(groups: Tied) -> np.ndarray:
  """Mean confidence of each group; an empty group gets its neighbour's below."""
  full = groups.pixels > 0
  last = np.maximum.accumulate(np.where(full, np.arange(len(full)), 0))
  with np.errstate(invalid='ignore', divide='ignore'):
    means = np.nan_to_num(groups.conf / groups.pixels)
  return means[last]
