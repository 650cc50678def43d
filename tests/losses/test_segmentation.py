"""Per-pixel losses against loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np

from car_jax.losses import segmentation

rng = np.random.default_rng(0)
LOGITS = rng.normal(0, 3, (2, 4, 5, 3)).astype(np.float32)
LABEL = rng.integers(0, 3, (2, 4, 5)).astype(np.int32)
MASK = LABEL != 2


def softmax(x):
  e = np.exp(x.astype(np.float64) - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def log_of_label(probs, floor):
  return np.array(
    [
      [
        [np.log(max(probs[b, i, j, LABEL[b, i, j]], floor)) for j in range(probs.shape[2])]
        for i in range(probs.shape[1])
      ]
      for b in range(len(probs))
    ]
  )


def test_cross_entropy_is_the_mean_over_pixels():
  want = -log_of_label(softmax(LOGITS), 1e-7).mean()
  np.testing.assert_allclose(segmentation.cross_entropy(LOGITS, LABEL), want, rtol=1e-5)


def test_masked_pixels_add_nothing_but_count_in_the_mean():
  want = -(log_of_label(softmax(LOGITS), 1e-7) * MASK).sum() / LABEL.size
  loss, grad = jax.value_and_grad(segmentation.cross_entropy)(LOGITS, LABEL, MASK)
  np.testing.assert_allclose(loss, want, rtol=1e-5)
  assert not grad[~MASK].any()
  assert grad[MASK].any()


def test_a_hopeless_pixel_costs_the_floor_and_has_no_gradient():
  logits = np.zeros((1, 1, 2, 2), np.float32)
  logits[0, 0, :, 0] = (100, 1)
  label = np.ones((1, 1, 2), np.int32)
  loss, grad = jax.value_and_grad(segmentation.cross_entropy)(logits, label)
  np.testing.assert_allclose(loss, (-np.log(1e-7) + np.log(1 + np.e)) / 2, rtol=1e-5)
  assert not grad[0, 0, 0].any()
  np.testing.assert_allclose(grad[0, 0, 1, 0], np.e / (1 + np.e) / 2, rtol=1e-5)


def test_low_precision_logits_are_summed_in_float32():
  loss = segmentation.cross_entropy(jnp.asarray(LOGITS, jnp.bfloat16), LABEL)
  assert loss.dtype == jnp.float32


def test_negative_log_probability_takes_probabilities_down_to_its_floor():
  probs = softmax(LOGITS).astype(np.float32)
  probs[0, 0, 0] = np.eye(3)[(LABEL[0, 0, 0] + 1) % 3]
  want = -log_of_label(probs, 1e-11).mean()
  loss, grad = jax.value_and_grad(segmentation.negative_log_probability)(probs, LABEL)
  np.testing.assert_allclose(loss, want, rtol=1e-5)
  assert not grad[0, 0, 0].any()
  assert np.isfinite(grad).all()
