"""Dropout whose mask costs little to draw and is drawn once."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from car_jax.typing import Array


class Dropout(nn.Dropout):
  """flax's: x [..] -> x, with a share `rate` of its numbers zero and the others larger for it.

  The mask is another one than flax's for a key: see `bernoulli_mask`. For a TPU it is an array of
  its own, a byte for each number, since XLA would draw it again in every convolution that reads the
  result.
  """

  @nn.compact
  def __call__(self, x: Array, deterministic: bool | None = None, rng: Any = None) -> Array:
    if nn.merge_param('deterministic', self.deterministic, deterministic) or not self.rate:
      return x
    if self.rate == 1:  # a quotient by zero would have no gradient
      return jnp.zeros_like(x)
    shape = [1 if axis in self.broadcast_dims else side for axis, side in enumerate(x.shape)]
    rng = self.make_rng(self.rng_collection) if rng is None else rng
    mask = jax.lax.platform_dependent(
      bernoulli_mask(rng, 1 - self.rate, tuple(shape)),
      tpu=jax.lax.optimization_barrier,
      default=lambda mask: mask,
    )
    return jnp.where(mask, x / (1 - self.rate), 0)


def bernoulli_mask(key: Array, share: float, shape: tuple[int, ...]) -> Array:
  """-> bool of that shape, that share of them true, independent as far as dropout can tell.

  Each number's place is hashed with the key: twice the last steps of MurmurHash3 (Appleby, 2011),
  where threefry of jax.random has twenty rounds, for far sharper tests, and takes 27 times as long
  on a CPU.
  """
  seed, other_seed = jax.random.bits(key, (2,), jnp.uint32)
  place = jnp.zeros(shape, jnp.uint32)
  for axis, side in enumerate(shape):
    place = place * jnp.asarray(side, jnp.uint32) + jax.lax.broadcasted_iota(
      jnp.uint32, shape, axis
    )
  threshold = min(round(share * 2**32), 2**32 - 1)
  return _hashed(_hashed(place + seed) ^ other_seed) < np.uint32(threshold)


def _hashed(x: Array) -> Array:
  """MurmurHash3's finaliser: each bit of x changes each of the result half the time."""
  x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
  x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
  return x ^ (x >> 16)
