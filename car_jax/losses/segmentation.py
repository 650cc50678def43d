"""Per-pixel classification losses. Letters: B images, H x W pixels, C classes."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Integer

from car_jax.clamp import clamp
from car_jax.typing import Array


def cross_entropy(
  logits: Float[Array, 'B H W C'],
  label: Integer[Array, 'B H W'],
  mask: Bool[Array, 'B H W'] | None = None,
  floor: float = 1e-7,
) -> Float[Array, '']:
  """Mean cross entropy over pixels; probabilities are floored at `floor`.

  Pixels outside `mask` add nothing, whatever their label, but still count in the mean, as
  in the published code of CAR (arXiv 2006.13144, Eq. 4).
  """
  wide = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
  logp = clamp(jax.nn.log_softmax(wide), math.log(floor))
  picked = jnp.take_along_axis(logp, label[..., None], axis=-1)[..., 0]
  return -jnp.mean(picked if mask is None else jnp.where(mask, picked, 0))


def log_likelihood(
  logits: Float[Array, '*B _ _ _'],
  label: Integer[Array, '*#B H W'],
  mask: Bool[Array, '*#B H W'] | None = None,
  axis: int = -1,
) -> Float[Array, '*B']:
  """Of whole label maps, in nats: the sum over the pixels of `mask`, by their softmax.

  Logits are [.., H, W, C], or with axis=-3 [.., C, H, W]. A label's is selected among all classes:
  the gradient of reading it would be scattered.
  """
  wide = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
  own = jax.nn.one_hot(label, logits.shape[axis], dtype=bool, axis=axis)
  if mask is not None:
    own &= jnp.expand_dims(mask, axis)
  return jnp.sum(jnp.where(own, jax.nn.log_softmax(wide, axis), 0), (-3, -2, -1))


def negative_log_probability(
  probs: Float[Array, 'B H W C'],
  label: Integer[Array, 'B H W'],
  mask: Bool[Array, 'B H W'] | None = None,
  floor: float = 1e-11,
) -> Float[Array, '']:
  """Cross entropy of probabilities instead of logits (CAR's optional pixel loss).

  The mask is as in `cross_entropy`; the published code has none, and there ignored pixels have a
  class whose probability is 1, which comes to the same.
  """
  picked = jnp.take_along_axis(probs, label[..., None], axis=-1)[..., 0]
  return -jnp.mean(jnp.log(clamp(picked if mask is None else jnp.where(mask, picked, 1), floor)))
