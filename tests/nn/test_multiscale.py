"""Averages over scales and mirrored copies, against probabilities averaged by hand in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from car_jax.errors import UserError
from car_jax.nn import multiscale
from tests.whole import whole

SIZE = (12, 20)
IMAGE = np.random.default_rng(0).uniform(-1, 1, (2, *SIZE, 3)).astype(np.float32)


def predict(image):
  """Sees left from right, and answers at one size, as windows.predicted does."""
  x = image + 2 * jnp.roll(image, 1, 2) * image[..., ::-1]
  return jax.image.resize(3 * x, (len(image), *SIZE, 3), 'bilinear', antialias=False)


def resized(image, size):
  return jax.image.resize(image, (len(image), *size, 3), 'bilinear', antialias=False)


def test_the_mean_of_the_copies_probabilities():
  copies = []
  for size in ((9, 15), SIZE, (18, 30)):
    copy = np.asarray(resized(IMAGE, size))
    copies.append(predict(copy))
    copies.append(np.asarray(predict(copy[:, :, ::-1]))[:, :, ::-1])
  logits = np.stack(copies).astype(np.float64)
  run = jax.jit(lambda x: multiscale.averaged(predict, x, (0.75, 1, 1.5), True))
  got = run(IMAGE)
  want = special.softmax(logits, -1).mean(0)
  np.testing.assert_allclose(special.softmax(got, -1), want, atol=1e-5)
  assert np.abs(want - special.softmax(logits[2], -1)).max() > 0.1
  energy = special.logsumexp(logits, -1).mean(0)
  np.testing.assert_allclose(special.logsumexp(got, -1), energy, atol=1e-5)


def test_one_copy_is_returned_as_it_is():
  one = multiscale.averaged(predict, IMAGE, (1.0,), False)
  np.testing.assert_array_equal(one, predict(IMAGE))
  half = whole(multiscale.averaged)(predict, IMAGE, (0.5,), False)
  np.testing.assert_allclose(half, predict(resized(IMAGE, (6, 10))), atol=1e-5)


def test_equal_copies_give_the_logits_back():
  got = whole(multiscale.averaged)(predict, IMAGE, (1.0, 1.0, 1.0), False)
  np.testing.assert_allclose(got, predict(IMAGE), atol=1e-5)


def test_the_mirrored_images_prediction_is_the_mirrored_prediction():
  run = jax.jit(lambda x: multiscale.averaged(predict, x, (0.5, 1.0), True))
  got = run(IMAGE[:, :, ::-1])
  np.testing.assert_allclose(got, run(IMAGE)[:, :, ::-1], atol=1e-5)
  assert np.abs(predict(IMAGE[:, :, ::-1]) - predict(IMAGE)[:, :, ::-1]).max() > 1


def test_probabilities_that_float32_rounds_to_zero_stay_finite():
  extreme = lambda image: jnp.asarray([500.0, -500.0]) * jnp.ones((*image.shape[:3], 2))
  got = whole(multiscale.averaged)(extreme, IMAGE, (1.0, 1.0), True)
  np.testing.assert_allclose(got, extreme(IMAGE))


@pytest.mark.parametrize(
  ('size', 'scale', 'multiple', 'want'),
  [
    ((1024, 2048), 0.75, 1, (768, 1536)),
    ((1024, 2048), 1.1, 32, (1120, 2240)),
    ((1025, 2049), 0.5, 1, (512, 1024)),
    ((64, 128), 0.1, 32, (32, 32)),
    ((65, 129), 1.0, 32, (65, 129)),  # as before: the net itself refuses it
  ],
)
def test_sizes_are_the_nearest_that_the_net_takes(size, scale, multiple, want):
  assert multiscale.scaled(size, scale, multiple) == want


@pytest.mark.parametrize(
  ('scales', 'hint'),
  [
    ((), '1.0'),
    ((0.0,), '1.0'),
    ((0.5, -1.0, 1.25), '0.5,1.25'),
    ((float('inf'), 2), '2'),
    (('large',), '1.0'),
    (0.5, '0.5'),
  ],
)
def test_scales_that_are_none_are_refused(scales, hint):
  with pytest.raises(UserError, match=rf'(?s)config.method.scales is .*use .*scales={hint}$'):
    multiscale.check(scales)
