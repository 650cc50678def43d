"""Soft Dice Confidence: the Dice score that a model expects of its own mask (arXiv 2402.10665).

Letters: B images, H x W pixels, C classes. For a mask y and probabilities p of the foreground
  SDC = 2 sum p y / (sum p + sum y)
which estimates E[Dice] by a ratio of expectations, for pixels that are independent. A mask without
a pixel has no such ratio, and `empty` says what it is worth:
  zero   0, as published, where two empty masks have Dice 0. A sure and right empty image is then
         the worst of all.
  share  how probable an empty image is, which is E[Dice] where two empty masks have Dice 1: the
         share of samples without a foreground pixel, or without samples prod (1 - p), which holds
         for independent pixels and is 0 for nearly any image.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Integer

from car_jax.typing import Array

EMPTY = ('share', 'zero')
STEPS = 1 << 17  # of a probability: a row of 2^14 - 1 pixels fits into int32


def soft_dice(
  p: Float[Array, 'B H W'], mask: Bool[Array, 'B H W'], valid: Bool[Array, 'B H W'] | None = None
) -> Float[Array, ' B']:
  """2 sum p y / (sum p + sum y) over valid pixels; nan where the mask has none of them."""
  p, mask = jnp.where(_all(valid, mask), p, 0), mask & _all(valid, mask)
  size = jnp.sum(mask, (1, 2))
  score = 2 * _sum(jnp.where(mask, p, 0)) / jnp.maximum(_sum(p) + size, 1)
  return jnp.where(size > 0, score, jnp.nan)


def confidence(
  p: Float[Array, 'B H W'],
  mask: Bool[Array, 'B H W'] | None = None,
  *,
  empty: str = 'share',
  samples: Integer[Array, 'B N H W'] | None = None,
  valid: Bool[Array, 'B H W'] | None = None,
) -> Float[Array, ' B']:
  """SDC of a foreground; the mask is p > 0.5 unless given. `samples`: label maps, 0 background."""
  mask = p > 0.5 if mask is None else mask
  score = soft_dice(p, mask, valid)
  marked = None if samples is None else samples != 0
  return jnp.where(jnp.isnan(score), _of_empty(p, empty, marked, valid), score)


def class_confidence(
  probs: Float[Array, 'B H W C'],
  predicted: Integer[Array, 'B H W'] | None = None,
  *,
  classes: tuple[int, ...] | None = None,
  empty: str = 'share',
  samples: Integer[Array, 'B N H W'] | None = None,
  sample_weight: Float[Array, 'B N'] | None = None,
  valid: Bool[Array, 'B H W'] | None = None,
) -> Float[Array, ' B']:
  """Mean of `class_scores` over those of the classes (1 .. C-1) that are predicted.

  Where none is, `empty` of all of them. Nothing is published for several classes.
  """
  chosen = jnp.array(range(1, probs.shape[-1]) if classes is None else classes)
  score = jnp.nanmean(class_scores(probs, predicted, valid)[:, chosen], 1)
  none = jnp.isnan(score)

  def without() -> Array:
    listed = jnp.zeros(probs.shape[-1], bool).at[chosen].set(True)
    marked = None if samples is None else listed[samples]
    p = jnp.minimum(jnp.sum(jnp.where(listed, probs, 0), -1), 1)
    return _of_empty(p, empty, marked, valid, sample_weight)

  # the worth of an empty map costs more than the score
  return jnp.where(none, jax.lax.cond(jnp.any(none), without, lambda: score), score)


def class_scores(
  probs: Float[Array, 'B H W C'],
  predicted: Integer[Array, 'B H W'] | None = None,
  valid: Bool[Array, 'B H W'] | None = None,
) -> Float[Array, 'B C']:
  """SDC of each class where it is predicted, which is where it is likeliest unless given; nan where
  it is nowhere."""
  predicted = jnp.argmax(probs, -1) if predicted is None else predicted
  seen, classes = _all(valid, predicted), probs.shape[-1]
  own = jnp.take_along_axis(probs, predicted[..., None], -1)[..., 0]
  # both sums of a row by one scatter, of integers, so that their order does not matter
  terms = jnp.stack([jnp.round(own * STEPS).astype(jnp.int32), jnp.ones(own.shape, jnp.int32)], -1)
  row = lambda at, x: jnp.zeros((classes, 2), jnp.int32).at[at].add(x, mode='drop')
  rows = jax.vmap(jax.vmap(row))(jnp.where(seen, predicted, classes), terms)
  inside, size = jnp.moveaxis(jnp.sum(rows.astype(jnp.float32), 1), -1, 0)
  inside = inside / STEPS
  counted = jnp.where(seen[..., None], probs, 0)  # may be nan where it does not count
  ones = jnp.ones(seen.shape)  # a product is quicker than a sum over a middle axis
  total = jnp.sum(jnp.einsum('bhwc,bhw->bhc', counted, ones, precision='highest'), 1)
  return jnp.where(size > 0, 2 * inside / jnp.maximum(total + size, 1), jnp.nan)


def convention(empty: str, mask: str = 'p>0.5') -> str:
  """The score's name with what it depends on, such as 'sdc[p>0.5,empty=share]'."""
  return f'sdc[{mask},empty={empty}]'


def _of_empty(
  p: Array, empty: str, marked: Array | None, valid: Array | None, weight: Array | None = None
) -> Array:
  """marked: where samples have a foreground [B, N, H, W]; weight: of the samples [B, N]."""
  if empty not in EMPTY:
    raise ValueError(f'empty must be one of {EMPTY}, not {empty!r}')
  seen = jnp.any(_all(valid, p), (1, 2))
  if empty == 'zero':
    score = jnp.zeros(len(p))
  elif marked is None:
    score = jnp.exp(_sum(jnp.where(_all(valid, p), jnp.log1p(-p), 0)))
  else:
    score = 1 - jnp.average(jnp.any(marked & _all(valid, p)[:, None], (2, 3)), 1, weight)
  return jnp.where(seen, score, jnp.nan)


def _all(valid: Array | None, like: Array) -> Array:
  return jnp.ones(like.shape, bool) if valid is None else valid


def _sum(x: Array) -> Array:
  """[B, H, W] -> [B], rows first, so that float32 rounding does not add up."""
  return jnp.sum(jnp.sum(x, -1), -1)
