"""Both ways to count, against numpy's."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from car_jax.metrics import histogram

BLOCK = 1 << 18  # pixels that onepass counts at a time


@pytest.mark.parametrize('length', [1, 7, 128, 1000])
def test_products_count_as_scattering_does(length):
  rng = np.random.default_rng(length)
  k = rng.integers(0, 2 * length, 5000).astype(np.int32)
  k[:3] = np.iinfo(np.int32).max  # what onepass gives to pixels that do not count
  weights = rng.integers(0, 1025, (5000, 2)).astype(np.uint32)
  counts = np.bincount(k[k < length], minlength=length)
  add = lambda w: np.bincount(k[k < length], w[k < length], minlength=length)
  want = np.stack([add(w) for w in weights.T], -1)
  np.testing.assert_array_equal(histogram.histogram(jnp.asarray(k), length), counts)
  scattered = functools.partial(histogram.sums, length=length, most=1024)
  products = functools.partial(histogram._by_products, length=length, most=1024)
  for way in (scattered, products):
    made = way(jnp.asarray(k), jnp.asarray(weights))
    assert made.dtype == jnp.uint32
    np.testing.assert_array_equal(made, want)


def test_products_add_a_whole_block_of_the_largest_weights_in_one_bin():
  k, weights = jnp.full(BLOCK, 5, jnp.int32), jnp.full((BLOCK, 1), 1024, jnp.uint32)
  made = histogram._by_products(k, weights, 9, 1024)[:, 0]
  assert made.tolist() == [0] * 5 + [BLOCK * 1024] + [0] * 3
