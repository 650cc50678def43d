"""Confidence intervals of a mean over images, by resampling the images."""

from typing import NamedTuple

import numpy as np


class Interval(NamedTuple):
  """mean with the ends of its interval; that many images were used, skipped ones were nan."""

  mean: float
  low: float
  high: float
  images: int
  skipped: int


def interval(
  values: np.ndarray,
  *,
  level: float = 0.95,
  resamples: int = 2000,
  seed: int = 0,
  groups: np.ndarray | None = None,
) -> Interval:
  """Percentile bootstrap interval of the mean of values [I], one per image; nan values are skipped.

  groups [I] names what was drawn independently, such as the patient whose slices the images are:
  whole groups are then resampled, which widens the interval to what new patients would show. The
  same seed, values and order give the same interval. No value at all: nan. The ends are nan for
  values of one image, or of one group, which tell nothing of others. `level` is the share of the
  resampled means that lie within the interval.
  """
  values = np.asarray(values, np.float64).reshape(-1)
  kept = ~np.isnan(values)
  count, skipped = int(kept.sum()), int((~kept).sum())
  if not count:
    return Interval(np.nan, np.nan, np.nan, 0, skipped)
  names = np.arange(len(values)) if groups is None else np.asarray(groups).reshape(-1)
  if len(names) != len(values):
    raise ValueError(f'{len(values)} values but {len(names)} groups')
  _, group = np.unique(names[kept], return_inverse=True)
  sizes = np.bincount(group).astype(np.float64)
  sums = np.bincount(group, values[kept])
  mean = float(values[kept].mean())
  if len(sums) < 2:
    return Interval(mean, np.nan, np.nan, count, skipped)
  means = _resampled(sums, sizes, resamples, np.random.default_rng(seed))
  tail = 50 * (1 - level)
  low, high = np.percentile(means, [tail, 100 - tail])
  return Interval(mean, float(low), float(high), count, skipped)


def difference(ours: np.ndarray, theirs: np.ndarray, **options) -> Interval:
  """The interval of mean(ours - theirs), both [I] on the same images: far narrower than two apart.

  An image that is nan in either is skipped. An interval that leaves out 0 tells the two apart.
  Options as in `interval`.
  """
  ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
  if ours.shape != theirs.shape:
    raise ValueError(f'paired values must match: {ours.shape} and {theirs.shape}')
  return interval(ours - theirs, **options)


def _resampled(sums, sizes, resamples, rng) -> np.ndarray:
  """Means over `resamples` draws of as many groups, with replacement; chunks bound the memory."""
  groups, chunk = len(sums), max(1, (1 << 22) // len(sums))
  means = []
  for start in range(0, resamples, chunk):
    drawn = rng.integers(groups, size=(min(chunk, resamples - start), groups))
    means.append(sums[drawn].sum(1) / sizes[drawn].sum(1))
  return np.concatenate(means)
