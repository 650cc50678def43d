"""Boxes lie where the published rule says, and scenes too small for it are refused."""

import numpy as np
import pytest

from car_jax.errors import UserError
from car_jax.generate import boxes


def test_boxes_lie_in_the_lower_three_quarters():
  rng, scene = np.random.default_rng(0), np.arange(1024 * 2048).reshape(1024, 2048)
  drawn = [boxes.draw(rng, 1024, 2048) for _ in range(300)]
  assert {256 <= b.size <= 512 for b in drawn} == {True}
  for box in drawn[:50]:
    crop = box.crop_of(scene)
    assert crop.shape == (box.crop, box.crop) == (int(1.5 * box.size),) * 2
    assert crop[0, 0] // 2048 >= 256
    inner = crop[box.margin : box.margin + box.size, box.margin : box.margin + box.size]
    np.testing.assert_array_equal(inner.ravel(), scene[box.mask(1024, 2048) == 255])
  assert min(b.size for b in drawn) < 262
  assert max(b.size for b in drawn) > 506


def test_both_ends_of_a_range_are_drawn():
  rng = np.random.default_rng(0)
  drawn = {boxes.draw(rng, 8, 4, (2, 3)) for _ in range(200)}
  assert {b.size for b in drawn} == {2, 3}
  tops = {b.row - b.margin for b in drawn if b.size == 2}
  assert tops == {2, 3, 4, 5}
  assert {b.column - b.margin for b in drawn if b.size == 2} == {0, 1}
  assert {b.row - b.margin for b in drawn if b.size == 3} == {2, 3, 4}


def test_a_scene_without_place_names_the_largest_box():
  with pytest.raises(UserError, match='512x1024 has no place for a box of 300') as caught:
    boxes.crop_ranges(512, 1024, 300)
  most = int(str(caught.value).split()[-1])
  assert boxes.crop_ranges(512, 1024, most)
  with pytest.raises(UserError):
    boxes.crop_ranges(512, 1024, most + 1)


@pytest.mark.parametrize('size', [256, 301, 512])
def test_the_latent_mask_is_the_same_for_every_box(size):
  """As crops are half as large again: rows and columns 11 to 53, without the corners."""
  mask = boxes.latent_mask(boxes.blurred_mask(boxes.Box(0, 0, size, boxes.crop_side(size))))
  assert mask.shape == (64, 64)
  assert mask.sum() == 1_734
  assert [*np.flatnonzero(mask.any(0))[[0, -1]], *np.flatnonzero(mask.any(1))[[0, -1]]] == [
    *(11, 53, 11, 53),
  ]


def test_resized_pictures():
  image = np.random.default_rng(0).integers(0, 256, (24, 24, 3)).astype(np.uint8)
  np.testing.assert_array_equal(boxes.resized(image, 24, 24), image)
  flat = np.full((30, 20, 3), 77, np.uint8)
  np.testing.assert_array_equal(boxes.resized(flat, 50, 64), np.full((50, 64, 3), 77))
