"""More scores of a set of samples against a set of readers, one value per image.

Letters as in stochastic.py; T thresholds. The scores of D-Persona (arXiv 2403.13438) beside its
Dice_max, which is `stochastic.max_dice`, and the collective insight of arXiv 2304.04745.
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, Integer, Real
from scipy.optimize import linear_sum_assignment

from car_jax.metrics import calibration, overlap
from car_jax.metrics.confusion_matrix import ratio
from car_jax.metrics.stochastic import Comparison
from car_jax.typing import Array

SOFT_THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)
TIE = 1e-5  # means this near to a threshold are equal to it, whatever float32 made of them


def dice_each(compared: Comparison, *, unmatched: str = 'nan') -> Float[np.ndarray, 'B M']:
  """Each reader's Dice with the sample it is matched to, one to one at the largest total.

  Unlike in HM-IoU no map is repeated: of more samples than readers the rest is left over. With
  fewer samples an image is nan, or unmatched='zero' counts 0 for a reader without one. Readers and
  samples of weight 0 are padding; a padding reader is nan.
  """
  if unmatched not in ('nan', 'zero'):
    raise ValueError(f"unmatched must be 'nan' or 'zero', not {unmatched!r}")
  readers, samples = (np.asarray(w) > 0 for w in compared[2:])
  table = np.asarray(compared.dice, np.float64)[:, : readers.shape[1], readers.shape[1] :]
  out = np.full(readers.shape, np.nan)
  for i, (dice, m, n) in enumerate(zip(table, readers, samples, strict=True)):
    dice = dice[m][:, n]
    if np.isnan(dice).any() or (unmatched == 'nan' and m.sum() > n.sum()):
      continue
    row, column = linear_sum_assignment(dice, maximize=True)
    best = np.zeros(len(dice))
    best[row] = dice[row, column]
    out[i, m] = best
  return out


def dice_match(compared: Comparison, *, unmatched: str = 'nan') -> Float[np.ndarray, ' B']:
  """Mean of `dice_each` over the readers that are no padding."""
  each = dice_each(compared, unmatched=unmatched)
  return ratio(np.nansum(each, 1), np.sum(~np.isnan(each), 1))


class SoftCounts(NamedTuple):
  """Pixels in both, in the samples' and in the readers' region at each threshold."""

  both: Int[Array, 'B T']
  samples: Int[Array, 'B T']
  readers: Int[Array, 'B T']


def soft_counts(
  probs: Float[Array, 'B N H W'],
  readers: Integer[Array, 'B M H W'],
  *,
  class_id: int = 1,
  thresholds: tuple[float, ...] = SOFT_THRESHOLDS,
  sample_weight: Real[Array, 'B N'] | None = None,
  reader_weight: Real[Array, 'B M'] | None = None,
  ignore: int | None = None,
) -> SoftCounts:
  """Where the samples' mean probability, and the share of readers, is above (>) each threshold.

  Of the readers that know a pixel; what none knows does not count.
  """
  ones = lambda w, like: jnp.ones(like.shape[:2]) if w is None else w
  votes, seen = calibration.votes(readers, ones(reader_weight, readers), ignore)
  share = jnp.sum(jnp.where(readers == class_id, votes, 0), 1)
  weight = ones(sample_weight, probs)
  mean = jnp.einsum('bnhw,bn->bhw', probs, weight / jnp.sum(weight, 1, keepdims=True))
  limit = jnp.asarray(thresholds)[:, None, None] + TIE
  said, truth = ((x[:, None] > limit) & seen[:, None] for x in (mean, share))
  count = lambda x: jnp.sum(x, (2, 3), dtype=jnp.int32)
  return SoftCounts(count(said & truth), count(said), count(truth))


def dice_soft(counts: SoftCounts, *, absent: str = 'one') -> Float[np.ndarray, ' B']:
  """Mean over thresholds of the Dice of the two regions; two empty ones are worth `absent`.

  An image in which no pixel counts has empty regions: leave it out.
  """
  both, said, truth = (np.asarray(x, np.float64) for x in counts)
  dice = ratio(2 * both, said + truth)
  dice = np.where(np.isnan(dice), overlap.ABSENT[absent], dice)
  return ratio(np.nansum(dice, 1), np.sum(~np.isnan(dice), 1))


@dataclasses.dataclass(frozen=True)
class CollectiveInsight:
  """value and its three parts, each [B]."""

  value: np.ndarray
  sensitivity: np.ndarray
  max_dice: np.ndarray
  diversity: np.ndarray


def collective_insight(
  samples: Integer[Array, 'B N H W'],
  readers: Integer[Array, 'B M H W'],
  *,
  class_id: int = 1,
  pairs: str = 'distinct',
  mean: str = 'published',
) -> CollectiveInsight:
  """CI of arXiv 2304.04745, which has no published code: S, D and A in one number.

    S  share of the pixels that any reader marks which any sample marks; 1 where no reader marks one
    D  mean over readers of the best Dice over samples, two empty masks 1
    A  1 - (|max V_y - max V_s| + |min V_y - min V_s|) / 2, V the variance over pixels of the
       difference of two readers' (samples') masks. V is near 0 for small objects and A near 1
  mean='published' is 3 S D A / (S + D + A), which the paper calls the harmonic mean; 'harmonic' is
  that. pairs='self' also has pairs of a map and itself, so that min V is 0; with 'distinct' an
  image of one reader or sample is nan. All pixels count.
  """
  if pairs not in ('distinct', 'self') or mean not in ('published', 'harmonic'):
    raise ValueError(f'pairs={pairs!r}, mean={mean!r} is not known')
  M, pixels = readers.shape[1], readers.shape[2] * readers.shape[3]
  counts = overlap.overlap((jnp.asarray(readers), jnp.asarray(samples)), (class_id,))
  both, first, second = (np.asarray(x, np.float64)[..., 0] for x in counts)
  dice = ratio(2 * both, first + second)[:, :M, M:]
  best = np.where(np.isnan(dice), 1.0, dice).max(2).mean(1)
  union = jnp.any(readers == class_id, 1), jnp.any(samples == class_id, 1)
  marked, met = (np.asarray(jnp.sum(x, (1, 2))) for x in (union[0], union[0] & union[1]))
  sensitivity = np.where(marked > 0, ratio(met, marked), 1.0)
  spread = (first + second - 2 * both) / pixels - ((first - second) / pixels) ** 2
  ends = [_ends(spread[:, at, at], pairs == 'self') for at in (slice(M), slice(M, None))]
  diversity = 1 - np.abs(ends[0] - ends[1]).mean(0)
  parts = np.stack([sensitivity, best, diversity])
  if mean == 'harmonic':
    value = ratio(3, np.sum(1 / np.where(parts > 0, parts, 1), 0)) * np.all(parts > 0, 0)
  else:
    value = np.nan_to_num(ratio(3 * parts.prod(0), parts.sum(0)), nan=0)
  value = np.where(np.isnan(diversity), np.nan, value)
  return CollectiveInsight(value, sensitivity, best, diversity)


def _ends(spread: np.ndarray, own: bool) -> np.ndarray:
  """The largest and the smallest of all pairs of maps [B, I, I], with their diagonal or without."""
  keep = np.ones(spread.shape[1:], bool) if own else ~np.eye(spread.shape[1], dtype=bool)
  values = spread[:, keep]
  if not values.shape[1]:
    return np.full((2, len(values)), np.nan)
  return np.stack([values.max(1), values.min(1)])
