"""Hints and crops of scenes."""

import numpy as np

from car_jax.data import labels
from car_jax.generate import style


def test_labels_survive_their_hint():
  ids = np.arange(34, dtype=np.uint8).reshape(2, 17)
  hint = style.label_hint(ids)
  assert hint.shape == (2, 17, 1)
  assert hint.dtype == np.float32
  assert (hint.min(), hint.max()) == (np.float32(1 / 34), 1)
  np.testing.assert_array_equal(style.labels_of_hint(hint), ids)


def test_ade20ks_colours():
  ids = np.array([[7, 24, 25], [33, 0, 31]])  # road, person, rider; bicycle, unlabelled, train
  expected = [
    [(140, 140, 140), (150, 5, 61), (150, 5, 61)],
    [(255, 245, 0), (0, 0, 0), (255, 0, 20)],
  ]
  np.testing.assert_allclose(style.ade20k_hint(ids) * 255, expected, atol=1e-4)
  assert {*style.ADE20K} == {*labels.CLASS_NAMES[: labels.SCORED]}


def test_rounded_pictures_come_back():
  pixels = np.arange(256, dtype=np.uint8)
  np.testing.assert_array_equal(style.pixels(style.model_range(pixels)), pixels)
  lost = pixels - style.pixels(style.model_range(pixels), truncated=True)
  assert {*lost} == {0, 1}
  np.testing.assert_array_equal(style.pixels(np.array([-3.0, 3.0])), [0, 255])


def test_square_crops_of_wide_and_of_tall_scenes():
  wide = np.arange(6 * 10).reshape(6, 10)
  assert style.offsets(6, 10) == style.offsets(10, 6) == 4
  np.testing.assert_array_equal(style.square(wide, 4, 6), wide[:, 4:])
  np.testing.assert_array_equal(style.square(wide, 1, 3), wide[::2, 1:7:2])
  np.testing.assert_array_equal(style.square(wide.T, 1, 3), wide[::2, 1:7:2].T)
  np.testing.assert_array_equal(style.square(wide, 0, 12), wide[:, :6].repeat(2, 0).repeat(2, 1))
