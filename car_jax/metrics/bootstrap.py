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
  means = _means(values, groups, resamples, seed)
  return _of_draws(values, means, level)


def unpaired(
  values: np.ndarray,
  others: np.ndarray,
  *,
  level: float = 0.95,
  resamples: int = 2000,
  seed: int = 0,
  groups: np.ndarray | None = None,
  other_groups: np.ndarray | None = None,
) -> Interval:
  """The interval of mean(values) where `others` [J], drawn apart from them, move it as well.

  Its ends are those of mean(values) - mean(others) + a constant: of what was set by the mean of
  others, such as a threshold by calibration images. The other arguments are as in `interval`.
  """
  values = np.asarray(values, np.float64).reshape(-1)
  others = np.asarray(others, np.float64).reshape(-1)
  ours = _means(values, groups, resamples, [seed, 0])
  theirs = _means(others, other_groups, resamples, [seed, 1])
  known = len(ours) and len(theirs)
  return _of_draws(values, ours - theirs + np.nanmean(others) if known else ours[:0], level)


def _of_draws(values: np.ndarray, means: np.ndarray, level: float) -> Interval:
  """values [I] with the means of their resamples, of which there may be none."""
  kept = ~np.isnan(values)
  count, skipped = int(kept.sum()), int((~kept).sum())
  tail = 50 * (1 - level)
  low, high = np.percentile(means, [tail, 100 - tail]) if len(means) else (np.nan, np.nan)
  mean = float(values[kept].mean()) if count else np.nan
  return Interval(mean, float(low), float(high), count, skipped)


def _means(
  values: np.ndarray, groups: np.ndarray | None, resamples: int, seed: int | list[int]
) -> np.ndarray:
  """Means of resamples of the values [I] that are no nan; none of fewer than two groups."""
  kept = ~np.isnan(values)
  names = np.arange(len(values)) if groups is None else np.asarray(groups).reshape(-1)
  if len(names) != len(values):
    raise ValueError(f'{len(values)} values but {len(names)} groups')
  _, group = np.unique(names[kept], return_inverse=True)
  sizes = np.bincount(group).astype(np.float64)
  if len(sizes) < 2 or not resamples:
    return np.zeros(0)
  sums = np.bincount(group, values[kept])
  return _resampled(sums, sizes, resamples, np.random.default_rng(seed))


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
