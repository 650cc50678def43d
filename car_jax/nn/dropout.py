"""Dropout whose mask is drawn once."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from car_jax.typing import Array


class Dropout(nn.Dropout):
  """flax's: x [..] -> x, with a share `rate` of its numbers zero and the others larger for it.

  For a TPU the mask is an array of its own, a byte for each number. XLA would fuse its drawing, the
  twenty rounds of threefry, into every convolution that reads the result, forward and for the
  gradient; each would draw it again, and be long code.
  """

  @nn.compact
  def __call__(self, x: Array, deterministic: bool | None = None, rng: Any = None) -> Array:
    if nn.merge_param('deterministic', self.deterministic, deterministic) or not self.rate:
      return x
    if self.rate == 1:  # a quotient by zero would have no gradient
      return jnp.zeros_like(x)
    shape = [1 if axis in self.broadcast_dims else side for axis, side in enumerate(x.shape)]
    rng = self.make_rng(self.rng_collection) if rng is None else rng
    mask = jax.random.bernoulli(rng, 1 - self.rate, shape)
    mask = jax.lax.platform_dependent(
      mask, tpu=jax.lax.optimization_barrier, default=lambda mask: mask
    )
    return jnp.where(mask, x / (1 - self.rate), 0)
