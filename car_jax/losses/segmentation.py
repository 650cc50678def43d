"""Per-pixel classification losses. Letters: B images, H x W pixels, C classes."""

import math

import jax
import jax.numpy as jnp

from car_jax.clamp import clamp
from car_jax.typing import Array


def cross_entropy(
  logits: Array, label: Array, mask: Array | None = None, floor: float = 1e-7
) -> Array:
  """logits [B, H, W, C], label [B, H, W] int -> scalar; probabilities are floored at `floor`.

  Pixels outside `mask` [B, H, W] add nothing, whatever their label, but still count in the mean, as
  in the published code of CAR (arXiv 2006.13144, Eq. 4).
  """
  wide = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
  logp = clamp(jax.nn.log_softmax(wide), math.log(floor))
  picked = jnp.take_along_axis(logp, label[..., None], axis=-1)[..., 0]
  return -jnp.mean(picked if mask is None else jnp.where(mask, picked, 0))


def negative_log_probability(
  probs: Array, label: Array, mask: Array | None = None, floor: float = 1e-11
) -> Array:
  """Cross entropy of probabilities [B, H, W, C] instead of logits (CAR's optional pixel loss).

  The mask is as in `cross_entropy`; the published code has none, and there ignored pixels have a
  class whose probability is 1, which comes to the same.
  """
  picked = jnp.take_along_axis(probs, label[..., None], axis=-1)[..., 0]
  return -jnp.mean(jnp.log(clamp(picked if mask is None else jnp.where(mask, picked, 1), floor)))
