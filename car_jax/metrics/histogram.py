"""Whole numbers added up by bin, in the way that suits the platform."""

import jax
import jax.numpy as jnp
from jaxtyping import Int32, Integer

from car_jax.typing import Array

LANES = 128
DIGIT = 7  # bits: what an int8 holds


def histogram(k: Int32[Array, ' N'], length: int) -> Int32[Array, ' K']:
  """How many of k are 0, 1, .. length - 1; larger ones count nowhere, negative ones there are none.

  N is at most 2^24.
  """
  scattered = lambda k: jnp.zeros(length, jnp.int32).at[k].add(1, mode='drop')
  products = lambda k: _by_products(k, jnp.ones((len(k), 1), jnp.int32), length, 1)[:, 0]
  return jax.lax.platform_dependent(k, tpu=products, default=scattered)


def sums(
  k: Int32[Array, ' N'], weights: Integer[Array, 'N W'], length: int, most: int
) -> Integer[Array, 'K W']:
  """The summed weights, which are 0 to `most`, of each bin: see `histogram`.

  A TPU, which scatters one by one, multiplies which row and which column of a table each is in.
  """
  zeros = jnp.zeros((length, weights.shape[1]), weights.dtype)
  scattered = lambda k, weights: zeros.at[k].add(weights, mode='drop')
  products = lambda k, weights: _by_products(k, weights, length, most)
  return jax.lax.platform_dependent(k, weights, tpu=products, default=scattered)


def _by_products(k: Array, weights: Array, length: int, most: int) -> Array:
  """Of bytes, digit by digit of the weights; sums of up to 2^24 of them are exact in int32."""
  rows = jax.nn.one_hot(k // LANES, -(-length // LANES), dtype=jnp.int8)
  columns = jax.nn.one_hot(k % LANES, LANES, dtype=jnp.int8)
  shifts = jnp.arange(0, most.bit_length(), DIGIT).astype(weights.dtype)
  digits = (weights[..., None] >> shifts & (1 << DIGIT) - 1).astype(jnp.int8)  # [N, W, D]
  share = digits[..., None] * rows[:, None, None]
  table = jnp.einsum('nwdr,nc->rcwd', share, columns, preferred_element_type=jnp.int32)
  table = table.reshape(-1, *digits.shape[1:])[:length].astype(weights.dtype)
  return jnp.sum(table << shifts, -1, dtype=weights.dtype)
