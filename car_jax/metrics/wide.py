"""Whole numbers of 64 bits on the device, where jax has none unless it is told to.

They are uint32 [.., 2], the high word first, and add up modulo 2^64, so that no order of additions
changes a sum. A negative number is its two's complement.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int32, Integer, UInt32

from car_jax.metrics import onepass
from car_jax.typing import Array

STEP = 2.0**-20  # of numbers that are kept as multiples of it
BLOCK = 1 << 20  # elements whose parts, see `onepass.fixed`, add up to less than 2^32


def of(x: Integer[Array, '*at']) -> UInt32[Array, '*at 2']:
  """int32 or uint32"""
  high = jnp.where(x < 0, jnp.uint32(0xFFFFFFFF), jnp.uint32(0))
  return jnp.stack([high, x.astype(jnp.uint32)], -1)


def steps(values: Float[Array, '*at']) -> UInt32[Array, '*at 2']:
  """The nearest multiples of STEP, as their numbers; of values below 2^31 in size."""
  whole = jnp.floor(values)
  high, low = jnp.moveaxis(of(whole.astype(jnp.int32)), -1, 0)
  shifted = jnp.stack([high << 20 | low >> 12, low << 20], -1)
  return add(shifted, of(jnp.round((values - whole) / STEP).astype(jnp.int32)))


def add(a: UInt32[Array, '*at 2'], b: UInt32[Array, '*at 2']) -> UInt32[Array, '*at 2']:
  return jnp.stack(_add((a[..., 0], a[..., 1]), (b[..., 0], b[..., 1])), -1)


def total(x: UInt32[Array, 'N *at 2']) -> UInt32[Array, '*at 2']:
  """The sum over the first axis."""
  zero = jnp.uint32(0)
  return jnp.stack(jax.lax.reduce((x[..., 0], x[..., 1]), (zero, zero), _add, (0,)), -1)


def int64(x: UInt32[Array, '*at 2']) -> Any:
  """int64 [..] of numpy, on the host."""
  words = np.asarray(x).astype(np.uint64)
  return (words[..., 0] << np.uint64(32) | words[..., 1]).view(np.int64)


@functools.partial(jax.jit, static_argnames='num_bins')
def count(
  bins: Int32[Array, ' N'], counted: Bool[Array, ' N'], num_bins: int
) -> UInt32[Array, 'K 2']:
  """How many of N < 2^32 are in each bin."""
  k = jnp.where(counted, bins, num_bins)
  return of(jnp.zeros(num_bins, jnp.uint32).at[k].add(1, mode='drop'))


@functools.partial(jax.jit, static_argnames='num_bins')
def add_up(
  bins: Int32[Array, ' N'],
  values: Float[Array, ' N'],
  counted: Bool[Array, ' N'],
  num_bins: int,
) -> UInt32[Array, 'K 2']:
  """Sums of values in [0, 1] by bin, in multiples of STEP."""
  k, blocks = jnp.where(counted, bins, num_bins), -(-len(bins) // BLOCK)
  parts = jnp.zeros((blocks, num_bins, 2), jnp.uint32)
  parts = parts.at[jnp.arange(len(bins)) // BLOCK, k].add(onepass.fixed(values), mode='drop')
  upper, lower = parts[..., 0], parts[..., 1]
  return total(add(jnp.stack([upper >> 22, upper << 10], -1), of(lower)))


def _add(a: Any, b: Any) -> tuple[Array, Array]:
  low = a[1] + b[1]
  return a[0] + b[0] + (low < b[1]).astype(jnp.uint32), low
