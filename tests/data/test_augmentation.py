"""Operations of augmented calibration sets against Pillow and by hand."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from car_jax.data import augmentation
from car_jax.errors import UserError

IMAGE = np.random.default_rng(0).integers(0, 256, (17, 24, 3)).astype(np.uint8)
PICTURE = Image.fromarray(IMAGE)


def apply(name, level=None, draw=None, image=IMAGE):
  return augmentation.composed(image, [name], [level], [draw])


@pytest.mark.parametrize('level', [0.2, 0.9, 1.0, 1.0089887, 1.8])
def test_enhancements_are_pillows(level):
  for name, enhance in (
    ('brightness', ImageEnhance.Brightness),
    ('color', ImageEnhance.Color),
    ('contrast', ImageEnhance.Contrast),
  ):
    np.testing.assert_array_equal(apply(name, level), np.asarray(enhance(PICTURE).enhance(level)))


@pytest.mark.parametrize('level', [-60, -7, 0, 33, 90, 180, 214, 270])
def test_rotations_are_pillows(level):
  want = PICTURE.rotate(level, Image.Resampling.BILINEAR)
  np.testing.assert_array_equal(apply('rotate', level), np.asarray(want))
  if level in (90, 180, 270):
    np.testing.assert_array_equal(apply(f'rotate_{level}'), np.asarray(want))


def test_solarize_and_invert_are_pillows():
  np.testing.assert_array_equal(apply('solarize', 128), np.asarray(ImageOps.solarize(PICTURE, 128)))
  np.testing.assert_array_equal(apply('invert'), np.asarray(ImageOps.invert(PICTURE)))


def test_blur_is_the_mean_of_a_ring_and_leaves_the_edges():
  found = apply('blur')
  ring = [(i, j) for i in range(-2, 3) for j in range(-2, 3) if max(abs(i), abs(j)) == 2]
  for y, x in ((2, 2), (8, 11), (14, 21)):
    want = np.floor(np.mean([IMAGE[y + i, x + j] for i, j in ring], 0) + 0.5)
    np.testing.assert_array_equal(found[y, x], want)
  for edge in (np.s_[:2], np.s_[-2:], np.s_[:, :2], np.s_[:, -2:]):
    np.testing.assert_array_equal(found[edge], IMAGE[edge])


def test_what_is_added_is_cut_off_at_black_and_white():
  found = apply('RGB_rand', 120, np.array([-120, 0, 119]))
  assert found[..., 0].min() == 0
  np.testing.assert_array_equal(found[..., 1], IMAGE[..., 1])
  np.testing.assert_array_equal(found[..., 2], np.minimum(IMAGE[..., 2].astype(int) + 119, 255))
  noise = np.full(IMAGE.shape, -0.5)
  np.testing.assert_array_equal(
    apply('gaussian_noise', 1, noise), np.maximum(IMAGE.astype(int) - 1, 0)
  )


def test_black_and_white_darkens():
  white = np.full((2, 2, 3), 200, np.uint8)
  np.testing.assert_array_equal(apply('black_and_white', image=white), np.uint8(182))


def test_copies_follow_the_seed():
  copies = [augmentation.augmented(IMAGE, np.random.RandomState(s)) for s in (1, 1, 2)]
  np.testing.assert_array_equal(copies[0], copies[1])
  assert (copies[0] != copies[2]).any()
  assert copies[0].shape == IMAGE.shape
  assert copies[0].dtype == np.uint8


def test_every_operation_can_be_drawn():
  rng = np.random.RandomState(0)
  for name in augmentation.OPERATIONS:
    for _ in range(3):
      found = augmentation.augmented(IMAGE, rng, count=2, among=(name,))
      assert found.shape == IMAGE.shape
      assert found.dtype == np.uint8


def test_an_unknown_operation():
  with pytest.raises(UserError, match=r"no augmentation 'blurr'\n  did you mean: blur"):
    apply('blurr')
