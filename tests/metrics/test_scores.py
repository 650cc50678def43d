import jax.numpy as jnp
import numpy as np

from car_jax.metrics import scores

PROBS = np.array([[1.0, 0, 0], [0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3], [0.7, 0.2, 0.1]])


def test_entropy_is_its_definition_and_zero_probability_adds_zero():
  want = [0, np.log(2), np.log(3), -sum(p * np.log(p) for p in (0.7, 0.2, 0.1))]
  np.testing.assert_allclose(scores.entropy(jnp.asarray(PROBS)), want, atol=1e-6)
  assert not np.signbit(scores.entropy(jnp.asarray(PROBS))[0])


def test_published_entropy_floors_the_logarithm_alone():
  p = np.array([[1e-9, 1 - 1e-9]])
  want = -np.sum(p * np.log(np.maximum(p, 1e-7)))
  np.testing.assert_allclose(scores.entropy(jnp.asarray(p), floor=1e-7), [want], atol=1e-9)


def test_maps_are_float32_for_bfloat16_probabilities():
  p = jnp.asarray(PROBS, jnp.bfloat16)
  assert scores.entropy(p).dtype == jnp.float32
