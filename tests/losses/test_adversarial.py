"""Adversarial and calibration losses against numpy, at their clamps and by finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax.losses import adversarial
from tests.whole import whole

rng = np.random.default_rng(0)
REAL = rng.uniform(0.05, 0.95, 7).astype(np.float32)
FAKE = rng.uniform(0.05, 0.95, 12).astype(np.float32)


def test_the_two_sides_of_the_game():
  np.testing.assert_allclose(adversarial.nonsaturating(FAKE), -np.log(FAKE).mean(), rtol=1e-5)
  want = -np.log(REAL).mean() - np.log(1 - FAKE).mean()
  np.testing.assert_allclose(adversarial.critic(REAL, FAKE), want, rtol=1e-5)


@pytest.mark.parametrize(('score', 'target'), [(0.0, 1.0), (1.0, 0.0)])
def test_a_certain_mistake_costs_100(score, target):
  loss = adversarial.binary_cross_entropy(np.array([score, 0.5], np.float32), target)
  np.testing.assert_allclose(loss, (100 + np.log(2)) / 2, rtol=1e-5)


def test_accuracy_weighs_real_and_fake_alike_and_calls_a_half_fake():
  real, fake = jnp.array([0.9, 0.5]), jnp.array([0.5, 0.1, 0.6, 0.7, 0.8, 0.9])
  np.testing.assert_allclose(adversarial.critic_accuracy(real, fake), (1 / 2 + 2 / 6) / 2)


def test_r1_is_the_squared_gradient_norm_of_each_example():
  weights = rng.normal(0, 0.3, (3, 4, 2)).astype(np.float32)
  x = rng.normal(size=(5, 3, 4, 2)).astype(np.float32)

  def score(x):
    return jax.nn.sigmoid(jnp.sum(jnp.tanh(x) * weights, (1, 2, 3)))

  def score64(x):
    return 1 / (1 + np.exp(-np.sum(np.tanh(x) * weights, (1, 2, 3))))

  x64, step, total = x.astype(np.float64), 1e-5, np.zeros(5)
  for place in np.ndindex(3, 4, 2):
    bump = np.zeros((3, 4, 2))
    bump[place] = step
    total += ((score64(x64 + bump) - score64(x64 - bump)) / (2 * step)) ** 2
  np.testing.assert_allclose(adversarial.r1_penalty(score, x), total, rtol=1e-4)


def simplex(shape):
  x = rng.dirichlet(np.ones(3), shape).astype(np.float32)
  x[0, 0, 0] = (1, 0, 0)
  return x


MEAN, TARGET = simplex((2, 4, 5)), simplex((2, 4, 5))[:, ::-1]


def kl(mean, target, clamp=1e-3):
  p, q = (np.clip(x.astype(np.float64), clamp, 1 - clamp) for x in (mean, target))
  return np.sum(p * np.log(p / q), -1)


def test_calibration_kl_is_of_clamped_probabilities():
  want = kl(MEAN, TARGET).mean()
  np.testing.assert_allclose(whole(adversarial.calibration_kl)(MEAN, TARGET), want, rtol=1e-5)
  mask = rng.random((2, 4, 5)) < 0.5
  want = (kl(MEAN, TARGET) * mask).sum() / mask.size
  np.testing.assert_allclose(whole(adversarial.calibration_kl)(MEAN, TARGET, mask), want, rtol=1e-5)
  assert whole(adversarial.calibration_kl)(MEAN, MEAN) == 0


def test_its_gradient_stops_beyond_the_clamp_and_is_the_formulas_inside():
  grad = whole(jax.grad(adversarial.calibration_kl))(MEAN, TARGET)
  p, q = (np.clip(x.astype(np.float64), 1e-3, 1 - 1e-3) for x in (MEAN, TARGET))
  inside = (MEAN > 1e-3) & (MEAN < 1 - 1e-3)
  want = np.where(inside, np.log(p / q) + 1, 0) / (2 * 4 * 5)
  np.testing.assert_allclose(grad, want, rtol=1e-3, atol=1e-6)
  assert not grad[0, 0, 0].any()


def test_gaussian_kl_is_summed():
  mean, log_variance = rng.normal(size=(2, 3, 4))
  variance = np.exp(log_variance)
  want = np.sum((variance + mean**2 - 1 - log_variance) / 2)
  np.testing.assert_allclose(adversarial.gaussian_kl(mean, log_variance), want, rtol=1e-5)
  assert adversarial.gaussian_kl(jnp.zeros((2, 3)), jnp.zeros((2, 3))) == 0


@pytest.mark.parametrize('target', [0.0, 1.0])
def test_a_saturated_score_has_no_gradient_rather_than_nan(target):
  scores = jnp.array([0.0, 0.5, 1.0])
  loss, slope = whole(jax.value_and_grad(adversarial.binary_cross_entropy))(scores, target)
  wrong = 0 if target else 2
  assert loss == pytest.approx((100 + np.log(2)) / 3, rel=1e-5)
  assert slope[wrong] == 0
  assert np.isfinite(slope).all()
