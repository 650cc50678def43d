"""Divergences of normal distributions against plain numpy."""

import jax.numpy as jnp
import numpy as np
import pytest

from car_jax import gaussian
from car_jax.gaussian import Gaussian
from tests.whole import whole

RNG = np.random.default_rng(0)


def pair(shape=(3, 2, 5)):
  made = lambda: Gaussian(RNG.normal(size=shape), RNG.uniform(0.2, 3, shape))
  return made(), made()


def flat(a):
  return a.reshape(len(a), -1).sum(1)


def test_the_divergence_is_the_formula():
  q, p = pair()
  far = (q.deviation**2 + (q.mean - p.mean) ** 2) / (2 * p.deviation**2)
  want = flat(np.log(p.deviation / q.deviation) + far - 0.5)
  got = whole(gaussian.divergence)(q, p)
  np.testing.assert_allclose(got, want, rtol=1e-5)
  np.testing.assert_allclose(whole(gaussian.divergence)(q, q), 0, atol=1e-6)


def test_the_divergence_of_the_port_is_another():
  q, p = pair()
  ratio = q.deviation / p.deviation
  far = (q.mean - p.mean) ** 2 / (q.deviation * p.deviation)
  want = flat(ratio - np.log(ratio) - 1 + far) / 2
  np.testing.assert_allclose(whole(gaussian.divergence)(q, p, swapped=True), want, rtol=1e-5)
  np.testing.assert_allclose(whole(gaussian.divergence)(q, q, swapped=True), 0, atol=1e-6)


@pytest.mark.parametrize('swapped', [False, True])
def test_a_deviation_of_zero_is_finite_with_an_epsilon(swapped):
  q, p = (Gaussian(jnp.zeros((1, 2)), jnp.array([[0.0, 1.0]])) for _ in range(2))
  got = gaussian.divergence(q, p, epsilon=1e-10, swapped=swapped)
  assert np.isfinite(got).all()
