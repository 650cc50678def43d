"""Are models as sure as they are right near borders of the truth? Calibration by distance.

Bands are of the truth's borders alone, never the prediction's, which would select by the outcome.
Void pixels are no class and make no border. On the host, in float64; nothing is published for it.

Letters: N pixels, L bands, K bins. The bands end at EDGES, the last has no end.
"""

import dataclasses

import numpy as np

from car_jax.metrics import borders, calibration, confidence_groups
from car_jax.metrics.calibration import BinSums

EDGES = (1, 2, 4, 8)


def distance(labels: np.ndarray, *, void: int = 255) -> np.ndarray:
  """Euclidean distance of labelled pixels to the nearest labelled one of another class [H, W].

  inf where there is none, nan at void pixels.
  """
  out = np.full(labels.shape, np.nan)
  seen = labels != void
  for c in np.unique(labels[seen]):
    own = labels == c
    out[own] = np.sqrt(borders.squared_distance(seen & ~own))[own]
  return out


@dataclasses.dataclass(frozen=True)
class BandSums:
  """Of each band, from its nearest on; two of them merge by addition."""

  bins: BinSums
  """[L, K]"""
  brier: np.ndarray
  """[L], summed"""

  def __add__(self, other: 'BandSums') -> 'BandSums':
    bins = BinSums(*(a + b for a, b in zip(self.bins, other.bins, strict=True)))
    return BandSums(bins, self.brier + other.brier)


@dataclasses.dataclass(frozen=True)
class BandScores:
  """[L] each, nan of a band without a pixel."""

  pixels: np.ndarray
  accuracy: np.ndarray
  confidence: np.ndarray
  ece: np.ndarray
  brier: np.ndarray


def band_sums(
  probs: np.ndarray,
  labels: np.ndarray,
  far: np.ndarray,
  *,
  edges: tuple[float, ...] = EDGES,
  num_bins: int = 15,
) -> BandSums:
  """probs [.., C], labels and their `distance` [..] -> sums; where that is nan nothing counts."""
  kept = ~np.isnan(far)
  p, y = np.asarray(probs, np.float64)[kept], labels[kept].astype(int)
  right, conf = p.argmax(-1) == y, p.max(-1)
  squares = np.sum(p * p, -1) - 2 * np.take_along_axis(p, y[:, None], -1)[:, 0] + 1
  k = np.maximum(confidence_groups.bin_of(conf, num_bins), 0)
  bins = band_bins(far[kept], k, conf, right, edges=edges, num_bins=num_bins)
  return BandSums(bins, np.bincount(band_of(far[kept], edges), squares, len(edges) + 1))


def band_of(far: np.ndarray, edges: tuple[float, ...] = EDGES) -> np.ndarray:
  """Distances [N] -> their bands."""
  return np.searchsorted(np.asarray(edges, np.float64), far, side='left')


def band_bins(
  far: np.ndarray,
  k: np.ndarray,
  conf: np.ndarray,
  right: np.ndarray,
  *,
  edges: tuple[float, ...] = EDGES,
  num_bins: int = 15,
) -> BinSums:
  """Distance, bin of the confidence, confidence and rightness of pixels [N] -> sums [L, K]."""
  shape = len(edges) + 1, num_bins
  at = band_of(far, edges) * num_bins + k
  add = lambda weights: np.bincount(at, weights, shape[0] * shape[1]).reshape(shape)
  return BinSums(add(None), add(conf), add(right))


def band_scores(sums: BandSums | BinSums) -> BandScores:
  """Of BinSums alone without Brier scores."""
  if isinstance(sums, BinSums):
    sums = BandSums(sums, np.full(len(sums.pixels), np.nan))
  pixels, conf, hits = (np.asarray(x, np.float64).sum(-1) for x in sums.bins)
  share = lambda x: np.where(pixels > 0, x / np.maximum(pixels, 1), np.nan)
  each = [BinSums(*row) for row in zip(*sums.bins, strict=True)]
  ece = np.array([calibration.ece(row) for row in each])
  return BandScores(pixels, share(hits), share(conf), ece, share(sums.brier))
