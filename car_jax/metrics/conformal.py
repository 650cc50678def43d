"""Conformal risk control: thresholds whose expected loss on the next image is at most alpha.

arXiv 2208.02814. With n calibration images and a test image that are exchangeable, and a loss in
[0, B] that does not grow as sets grow, the smallest sets with
  (n R + B) / (n + 1) <= alpha,   R the mean loss of the calibration images,
have an expected test loss of at most alpha, and of at least alpha - 2 B / (n + 1) if losses are
continuous. That is a mean over draws of calibration and test images. It says nothing of one
calibration set, of each image, class or size, or of shifted data, and pixels are no unit: for
slices of a patient the unit is the patient (`by_group`). Below alpha = B / (n + 1) only the largest
set qualifies.

Letters: I images, K candidates. Candidates are ordered from the largest set to the smallest, as
thresholds t of {p >= t} ascend, so losses [I, K] do not fall along K. They come from counts on a
grid (conformal_counts.py), which add up in one pass, or exactly from all scores. A threshold from a
grid that was fixed before keeps the promise, and is at most one step below the best one; a second
pass over a grid inside that step finds it.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from car_jax.metrics import bootstrap

SLACK = 1e-9  # of rounding in sums of losses
EMPTY = ('leave_out', 'zero')


@dataclasses.dataclass(frozen=True)
class Losses:
  """Summed over images [K]; two of them merge by addition. left_out: images without a loss."""

  total: np.ndarray
  images: int
  left_out: int = 0

  def __add__(self, other: 'Losses') -> 'Losses':
    left_out = self.left_out + other.left_out
    return Losses(self.total + other.total, self.images + other.images, left_out)


@dataclasses.dataclass(frozen=True)
class Choice:
  """A threshold with its promise: over draws of data like this a mean loss of at most alpha.

  risk: mean loss of the calibration images there. limited: no candidate qualifies, and value is
  that of the largest set, which has to hold by itself.
  """

  value: float
  alpha: float
  risk: float
  images: int
  left_out: int
  limited: bool


@dataclasses.dataclass(frozen=True)
class Kept:
  """Was the promise kept on test images? Their mean loss with its interval, and its spread."""

  loss: bootstrap.Interval
  alpha: float
  share_above: float
  """of images whose loss is above alpha; the promise is of the mean alone"""
  gap: float
  """mean |loss - alpha|: how far single images are from the promise"""

  @property
  def verdict(self) -> str:
    """Empty without a loss; else one of three.

    'holds': the mean loss is at most alpha. 'broken': its whole interval is above. 'undecided': the
    mean is above alpha, but images drawn again might give less; or there is no interval.
    """
    if np.isnan(self.loss.mean):
      return ''
    if self.loss.low > self.alpha + SLACK:
      return 'broken'
    within = self.loss.mean <= self.alpha + SLACK
    return 'holds' if within and not np.isnan(self.loss.low) else 'undecided'


def add_up(losses: np.ndarray, *, empty: str = 'leave_out') -> Losses:
  """losses [I, K] -> their sum. Rows of nan are of images with nothing to find.

  empty='leave_out': such images are no images, and the promise is for those with something to find;
  'zero': they have no loss, so that they buy smaller sets for the others.
  """
  if empty not in EMPTY:
    raise ValueError(f'empty must be one of {EMPTY}, not {empty!r}')
  losses = np.asarray(losses, np.float64)
  none = np.isnan(losses).any(-1)
  total = np.where(none[:, None], 0.0, losses).sum(0)
  left_out = int(none.sum()) if empty == 'leave_out' else 0
  return Losses(total, len(losses) - left_out, left_out)


def by_group(losses: np.ndarray, groups: Sequence) -> np.ndarray:
  """losses [I, K] of slices -> mean over the slices of each patient [G, K]; nan rows are left out.

  The patient is then the unit of the promise. Patients without any loss are rows of nan.
  """
  _, group = np.unique(np.asarray(groups), return_inverse=True)
  losses = np.asarray(losses, np.float64)
  kept = ~np.isnan(losses).any(-1)
  total, count = np.zeros((group.max() + 1, losses.shape[1])), np.bincount(group[kept])
  np.add.at(total, group[kept], losses[kept])
  count = np.pad(count, (0, len(total) - len(count)))[:, None]
  return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def choose(
  values: np.ndarray, losses: Losses, alpha: float, *, bound: float = 1.0, largest: float = 0.0
) -> Choice:
  """The smallest sets among candidates `values` [K] that qualify, see the module's docstring.

  bound: B. largest: the value of the largest set there is, whose loss is at most alpha for sure.
  Raises ValueError for losses that fall as sets shrink: take `monotone` ones.
  """
  values, n = np.asarray(values, np.float64), losses.images
  if np.any(np.diff(losses.total) < -SLACK * (n + 1)):
    raise ValueError('losses fall as sets shrink: use conformal.monotone')
  qualifies = losses.total + bound <= (alpha + SLACK) * (n + 1)
  count = len(values) if qualifies.all() else int(np.argmin(qualifies))
  limited = not count
  risk = losses.total[count - 1] / n if count and n else float('nan')
  value = float(largest if limited else values[count - 1])
  return Choice(value, alpha, float(risk), n, losses.left_out, limited)


def exact(
  scores: Sequence[np.ndarray],
  alpha: float,
  *,
  empty: str = 'leave_out',
  largest: float = 0.0,
) -> Choice:
  """The largest threshold t for the false negative rate of {p >= t}: one of the scores.

  scores: of each image those of the pixels to be found, in any shape. Takes all of them at once.
  """
  scores = [np.asarray(s, np.float64).reshape(-1) for s in scores]
  sizes = np.array([s.size for s in scores], int)
  every = np.concatenate([*scores, np.zeros(0)])
  share = np.repeat(1 / np.maximum(sizes, 1), sizes)
  values, at = np.unique(every, return_inverse=True)
  missed = np.cumsum(np.bincount(at, share, len(values)))
  total = np.concatenate([[0.0], missed])[: len(values)]  # below each value
  left_out = int(np.sum(sizes == 0)) if empty == 'leave_out' else 0
  return choose(values, Losses(total, len(sizes) - left_out, left_out), alpha, largest=largest)


def monotone(losses: np.ndarray) -> np.ndarray:
  """The largest loss of these sets or any larger ones [I, K]: what to control where losses fall.

  The running maximum from the large end (arXiv 2208.02814, section 4.1), such as of 1 - IoU.
  """
  return np.maximum.accumulate(losses, -1)


def kept(
  losses: np.ndarray,
  alpha: float,
  *,
  groups: np.ndarray | None = None,
  calibration: np.ndarray | None = None,
  calibration_groups: np.ndarray | None = None,
  **options: Any,
) -> Kept:
  """losses [I] of test images at the chosen threshold; nan ones are left out.

  calibration: losses of the calibration images there. The interval is then over both draws, as the
  promise is: other calibration images would have led to another threshold, and so to another loss.
  Without them it is that of one threshold. options: level, resamples and seed of the bootstrap.
  """
  losses = np.asarray(losses, np.float64)
  seen = losses[~np.isnan(losses)]
  above = float(np.mean(seen > alpha + SLACK)) if seen.size else float('nan')
  gap = float(np.mean(np.abs(seen - alpha))) if seen.size else float('nan')
  if calibration is None:
    return Kept(bootstrap.interval(losses, groups=groups, **options), alpha, above, gap)
  both = dict(groups=groups, other_groups=calibration_groups) | options
  return Kept(bootstrap.unpaired(losses, calibration, **both), alpha, above, gap)


def least_alpha(images: int, bound: float = 1.0) -> float:
  """Below this no calibration set of so many images allows more than the largest sets."""
  return bound / (images + 1)


def risk_limit(alpha: float, images: int, bound: float = 1.0) -> float:
  """The largest mean loss of the calibration images that qualifies."""
  return alpha - (bound - alpha) / images if images else float('-inf')
