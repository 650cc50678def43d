"""Sliding windows against a plain loop, and what they must leave alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax.nn import windows


def loop(apply, image, crop, stride):
  total, visits, rows = 0, 0, []
  for size, c, s in zip(image.shape[1:3], crop, stride, strict=True):
    begin, found = 0, []
    while begin + c < size:
      found.append(begin)
      begin += s
    rows.append([*found, max(size - c, 0)])
  for top in rows[0]:
    for left in rows[1]:
      here = np.zeros((*image.shape[:3], 2))
      seen = np.zeros((*image.shape[:3], 1))
      part = np.s_[:, top : top + crop[0], left : left + crop[1]]
      here[part], seen[part] = apply(image[part]), 1
      total, visits = total + here, visits + seen
  return total / visits


def channels(x):
  """Not the same for a pixel in every window: it sees the window's mean."""
  return jnp.stack([x[..., 0] * jnp.mean(x), x[..., 1] + jnp.max(x)], -1)


@pytest.mark.parametrize(
  ('size', 'crop', 'stride'),
  [
    ((9, 14), (4, 6), (3, 4)),
    ((8, 8), (4, 4), (4, 4)),
    ((9, 5), (4, 7), (1, 2)),
    ((5, 6), (3, 3), (3, 3)),
  ],
)
def test_the_mean_over_the_windows_on_a_pixel(size, crop, stride):
  image = np.random.default_rng(0).random((2, *size, 3)).astype(np.float32)
  got = jax.jit(lambda x: windows.sliding(channels, x, crop, stride))(image)
  np.testing.assert_allclose(got, loop(channels, image, crop, stride), rtol=1e-5)


def test_a_crop_that_covers_the_image_is_the_image():
  image = np.random.default_rng(0).random((1, 5, 6, 3)).astype(np.float32)
  got = windows.sliding(channels, image, (99, 99), (1, 1))
  np.testing.assert_array_equal(got, channels(image))


@pytest.mark.parametrize(
  ('size', 'crop', 'stride', 'places'),
  [
    (2048, 1024, 768, [0, 768, 1024]),
    (1024, 1024, 768, [0]),
    (2049, 769, 513, [0, 513, 1026, 1280]),
    (1025, 769, 513, [0, 256]),
    (1822, 769, 513, [0, 513, 1026, 1053]),
    (500, 769, 513, [0]),
  ],
)
def test_places_of_the_published_windows(size, crop, stride, places):
  assert windows.starts(size, crop, stride) == places


def test_one_compiled_window_serves_all():
  calls = []

  def apply(x):
    calls.append(x.shape)
    return x

  jax.jit(lambda x: windows.sliding(apply, x, (4, 4), (1, 1)))(np.ones((1, 32, 32, 3), np.float32))
  assert set(calls) == {(1, 4, 4, 3)}
  assert len(calls) <= 2


def test_windows_of_float64():
  image = np.random.default_rng(0).random((1, 9, 7, 2))
  with jax.enable_x64(True):
    found = jax.jit(lambda x: windows.sliding(channels, x, (4, 5), (3, 2)))(image)
  np.testing.assert_allclose(found, loop(channels, image, (4, 5), (3, 2)), rtol=0, atol=1e-6)
  assert found.dtype == np.float64


def test_a_program_holds_no_array_as_large_as_the_image():
  image = jax.ShapeDtypeStruct((1, 300, 400, 3), np.float32)
  lowered = jax.jit(lambda x: windows.sliding(channels, x, (200, 200), (150, 150))).lower(image)
  assert len(lowered.as_text()) < 300 * 400  # a float32 would be eight letters for each pixel
