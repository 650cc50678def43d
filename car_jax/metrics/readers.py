"""More scores of a set of samples against a set of readers, one value per image.

Letters as in stochastic.py; T thresholds. The scores of D-Persona (arXiv 2403.13438) beside its
Dice_max, which is `stochastic.max_dice`; the CRPS of areas; the collective insight of arXiv
2304.04745. Those of pairs of maps take the result of `stochastic.compare`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Integer, Real
from optax import assignment

from car_jax.metrics import calibration, overlap, stochastic, volumes
from car_jax.metrics.stochastic import Comparison
from car_jax.typing import Array

SOFT_THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)
TIE = 1e-5  # means this near to a threshold are equal to it, whatever float32 made of them


def dice_each(compared: Comparison, *, unmatched: str = 'nan') -> Float[Array, 'B M']:
  """Each reader's Dice with the sample it is matched to, one to one at the largest total.

  Unlike in HM-IoU no map is repeated: of more samples than readers the rest is left over. With
  fewer samples an image is nan, or unmatched='zero' counts 0 for a reader without one. A sample of
  any weight above 0 is one sample. Readers and samples of weight 0 are padding; a padding reader is
  nan. In the total readers weigh what they do in `dice_match`.
  """
  if unmatched not in ('nan', 'zero'):
    raise ValueError(f"unmatched must be 'nan' or 'zero', not {unmatched!r}")
  by_reader, M = compared.reader_weight, compared.reader_weight.shape[1]
  there = by_reader > 0
  used = there[..., None] & (compared.sample_weight > 0)[:, None]
  dice = compared.dice[:, :M, M:]
  unknown = jnp.any(used & jnp.isnan(dice), (1, 2))
  dice = jnp.where(used, jnp.nan_to_num(dice), 0.0)
  importance = by_reader / jnp.max(by_reader, 1, keepdims=True)
  # padding costs more than all that another match can gain
  cost = jnp.where(used, -dice * jnp.where(there, importance, 0.0)[..., None], M + 1.0)
  # `base_` chooses among equal totals as scipy does, with which the published scores were made
  at = jax.vmap(assignment.base_hungarian_algorithm)(cost)
  pairs = jax.vmap(lambda chosen, i, j: chosen.at[i, j].set(True))(jnp.zeros(used.shape, bool), *at)
  matched = pairs & used
  if unmatched == 'nan':
    unknown |= jnp.any(there & ~jnp.any(matched, -1), 1)
  each = jnp.sum(jnp.where(matched, dice, 0.0), -1)
  return jnp.where(there & ~unknown[:, None], each, jnp.nan)


def dice_match(compared: Comparison, *, unmatched: str = 'nan') -> Float[Array, ' B']:
  """Mean of `dice_each` over the readers by their weight."""
  each = dice_each(compared, unmatched=unmatched)
  return stochastic.weighted_sum(each, compared.reader_weight, (1,))


def crps_area(compared: Comparison, *, estimator: str = 'v') -> Float[Array, ' B']:
  """CRPS of the samples' areas in pixels for each reader's, mean over readers and over classes.

  Areas for a reader are those within the pixels that this reader knows, the samples' among each
  other as well, so that it is a proper score for every reader. See `volumes.crps` for estimator.
  An ignored label that is a class changes no area.
  """
  M, real = compared.reader_weight.shape[1], jnp.result_type(float)
  areas = jnp.moveaxis(compared.counts.second[:, :M], 2, 3).astype(real)  # [B, M, K, L]
  of_reader = jnp.moveaxis(jnp.diagonal(areas, axis1=1, axis2=3), -1, 1)  # [B, M, K]
  weight = compared.sample_weight[:, None, None]
  each = volumes.crps_for_one(areas[..., M:], of_reader, weight, estimator=estimator)
  return stochastic.weighted_sum(jnp.mean(each, -1), compared.reader_weight, (1,))


def dice_soft(
  probs: Float[Array, 'B H W C'],
  readers: Integer[Array, 'B M H W'],
  reader_weight: Real[Array, 'B M'] | None = None,
  *,
  classes: tuple[int, ...] = (1,),
  thresholds: tuple[float, ...] = SOFT_THRESHOLDS,
  absent: str = 'one',
  ignore: int | None = None,
) -> Float[Array, ' B']:
  """Dice of where a class's probability, and its share of readers, is above (>) each threshold.

  probs are the mean of the samples'. Mean over classes, a region that neither has is worth `absent`
  there, then over thresholds. A pixel counts where some reader knows it, and there the readers who
  do share one vote; an image without such a pixel is nan.
  """
  weight = jnp.ones(readers.shape[:2]) if reader_weight is None else reader_weight
  votes, seen = calibration.votes(readers, weight, ignore)
  limit = jnp.asarray(thresholds)[:, None, None] + TIE

  def of(k):
    share = jnp.sum(jnp.where(readers == k, votes, 0.0), 1)
    said, truth = (
      (x[:, None] > limit) & seen[:, None] for x in (jnp.take(probs, k, axis=-1), share)
    )
    count = lambda x: jnp.sum(x, (2, 3), dtype=jnp.int32)
    return count(said & truth), count(said) + count(truth)

  both, size = jax.lax.map(of, jnp.asarray(classes))  # [K, B, T]
  both = both.astype(jnp.result_type(float))
  dice = jnp.where(size > 0, 2 * both / jnp.maximum(size, 1), jnp.nan)
  each = overlap.class_mean(jnp.moveaxis(dice, 0, -1), absent)
  return jnp.where(jnp.any(seen, (1, 2)), jnp.nanmean(each, -1), jnp.nan)


class CollectiveInsight(NamedTuple):
  """value and its three parts."""

  value: Float[Array, ' B']
  sensitivity: Float[Array, ' B']
  max_dice: Float[Array, ' B']
  diversity: Float[Array, ' B']


def collective_insight(
  samples: Integer[Array, 'B N H W'],
  readers: Integer[Array, 'B M H W'],
  compared: Comparison,
  *,
  classes: tuple[int, ...] = (1,),
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
  image of one reader or sample is nan. `compared` are the same maps of the same classes, whose mean
  all values are, and says which pixels count for which pair. Maps of weight 0 are padding; beyond
  that weights are those of readers in D.
  """
  if pairs not in ('distinct', 'self') or mean not in ('published', 'harmonic'):
    raise ValueError(f'pairs={pairs!r}, mean={mean!r} is not known')
  M = compared.reader_weight.shape[1]
  second = compared.counts.second
  first = jnp.swapaxes(second, 1, 2)
  both = compared.counts.both
  pixels = compared.pixels[..., None]
  known = lambda x: jnp.where(pixels > 0, x, jnp.nan)
  real = lambda x: x.astype(jnp.result_type(float)) / jnp.maximum(pixels, 1)
  spread = known(real(first + second - 2 * both) - real(first - second) ** 2)
  weights = compared.reader_weight, compared.sample_weight
  dice = overlap.dice(overlap.Overlap(both, first, second))
  best = _best(known(jnp.where(jnp.isnan(dice), 1.0, dice))[:, :M, M:], *weights)
  blocks = spread[:, :M, :M], spread[:, M:, M:]
  of_readers, of_samples = (
    _ends(x, w, pairs == 'self') for x, w in zip(blocks, weights, strict=True)
  )
  diversity = 1 - jnp.mean(jnp.abs(of_readers - of_samples), 0)
  covered = _sensitivity(samples, readers, *weights, classes)
  parts = jnp.stack([covered, best, diversity])
  if mean == 'harmonic':
    value = 3 / jnp.sum(1 / jnp.maximum(parts, 1e-30), 0)
  else:
    value = 3 * jnp.prod(parts, 0) / jnp.maximum(jnp.sum(parts, 0), 1e-30)
  return CollectiveInsight(*(jnp.mean(x, -1) for x in (value, *parts)))


def _best(dice: Array, by_reader: Array, by_sample: Array) -> Array:
  """Each reader's largest Dice [B, M, N, K], mean over readers [B, K]."""
  used = (by_sample > 0)[:, None, :, None]
  largest = jnp.max(jnp.where(used, dice, -jnp.inf), 2)
  largest = jnp.where(jnp.any(used, 2), largest, jnp.nan)
  return stochastic.weighted_sum(largest, by_reader[..., None], (1,))


def _sensitivity(samples, readers, by_reader, by_sample, classes) -> Array:
  """The share of pixels that a reader marks which a sample marks, of each class [B, K]."""
  used = lambda w: (w > 0)[..., None, None]

  def of(k):
    marked = jnp.any((readers == k) & used(by_reader), 1)
    met = jnp.any((samples == k) & used(by_sample), 1) & marked
    return jnp.sum(met, (1, 2)), jnp.sum(marked, (1, 2))

  met, marked = jax.lax.map(of, jnp.asarray(classes))
  share = met.astype(jnp.result_type(float)) / jnp.maximum(marked, 1)
  return jnp.where(marked > 0, share, 1.0).T


def _ends(spread: Array, weight: Array, own: bool) -> Array:
  """The largest and the smallest over pairs of maps [B, I, I, K], with a map and itself or not."""
  used = (weight > 0)[:, :, None] & (weight > 0)[:, None]
  used = (used if own else used & ~jnp.eye(spread.shape[1], dtype=bool))[..., None]
  if not spread.shape[1]:
    return jnp.full((2, len(spread), spread.shape[-1]), jnp.nan)
  ends = [
    f(jnp.where(used, spread, e), (1, 2)) for f, e in ((jnp.max, -jnp.inf), (jnp.min, jnp.inf))
  ]
  return jnp.where(jnp.any(used, (1, 2)), jnp.stack(ends), jnp.nan)
