"""64-bit sums on the device against Python's whole numbers."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from car_jax.metrics import wide

WHOLE = st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=8)


def words(number):
  number %= 2**64
  return np.array([number >> 32, number & 0xFFFFFFFF], np.uint32)


@settings(max_examples=60, deadline=None)
@given(WHOLE, st.integers(-(2**62), 2**62))
def test_sums_are_exact(numbers, start):
  total = wide.total(wide.of(jnp.array(numbers, jnp.int32)))
  assert wide.int64(total) == sum(numbers)
  assert wide.int64(wide.add(words(start), total)) == start + sum(numbers)


def test_what_int32_and_uint32_cannot_hold():
  large = jnp.full(1000, 2**32 - 1, jnp.uint32)
  assert wide.int64(wide.total(wide.of(large))) == 1000 * (2**32 - 1)
  doubled = wide.total(wide.of(large))
  for _ in range(20):
    doubled = jax.jit(wide.add)(doubled, doubled)
  assert wide.int64(doubled) == 1000 * (2**32 - 1) << 20


def test_a_bin_with_more_than_a_block_of_ones():
  n = wide.BLOCK + 5
  bins, ones = jnp.zeros(n, jnp.int32), jnp.ones(n)
  found = wide.add_up(bins, ones, jnp.arange(n) != n - 1, 2)
  assert (wide.int64(found) * wide.STEP).tolist() == [n - 1, 0]
  assert wide.int64(wide.count(bins, jnp.ones(n, bool), 2)).tolist() == [n, 0]


def test_sums_of_shares_are_as_fine_as_a_step():
  rng = np.random.default_rng(0)
  k, x, counted = rng.integers(0, 5, 3000), rng.random(3000), rng.random(3000) < 0.7
  found = wide.add_up(jnp.array(k, jnp.int32), jnp.array(x, jnp.float32), jnp.array(counted), 5)
  want = np.bincount(k[counted], x[counted], 5)
  np.testing.assert_allclose(wide.int64(found) * wide.STEP, want, atol=3000 * wide.STEP)
  wrong = np.bincount(k[counted], np.floor(x[counted] * 1000) / 1000, 5)
  assert np.abs(wrong - want).max() > 3000 * wide.STEP  # the tolerance would see coarser steps
