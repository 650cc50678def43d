import jax.numpy as jnp
import numpy as np

from car_jax.metrics.streaming import Streaming


def test_totals_are_float64_and_int64_however_the_data_is_cut():
  rng = np.random.default_rng(0)
  x = rng.random((40, 5)).astype(np.float32)
  want = x.astype(np.float64).sum(), x.size
  for cuts in ([], [1], [13, 27]):
    acc = Streaming(lambda x: {'sum': x, 'n': jnp.ones(x.shape, jnp.int32)}, lambda t: t)
    for part in np.split(x, cuts):
      acc.update(part)
    total = acc.result()
    assert total['sum'].dtype == np.float64
    assert total['n'].dtype == np.int64
    np.testing.assert_allclose((total['sum'].sum(), total['n'].sum()), want, rtol=1e-12)


def test_counts_beyond_what_float32_and_int32_can_hold():
  acc = Streaming(lambda x: x, int)
  for _ in range(3):
    acc.update(np.array([2**31 - 1, 1], np.int32))
  assert acc.result() == 3 * 2**31


def test_sums_computed_elsewhere_may_be_added():
  acc = Streaming(lambda x: x, float)
  acc.add(np.array([0.25, 0.5], np.float32))
  acc.update(jnp.array([1.0]))
  assert acc.result() == 1.75


def test_nothing_added_is_nan():
  assert np.isnan(Streaming(lambda x: x, float).result())
