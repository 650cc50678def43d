"""Turning images and labels by any angle."""

import numpy as np
import pytest
import scipy.ndimage

from car_jax.data import transforms

rng = np.random.default_rng(0)


@pytest.mark.parametrize('degrees', [-9.3, 3.7, 10.0, 90.0])
def test_rotation_equals_scipys(degrees):
  """scipy maps output to input coordinates by a matrix on (row, column) about the same centre."""
  x = rng.random((20, 24, 2))
  a, b = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
  matrix, centre = np.array([[a, b], [-b, a]]), np.array([10.0, 12.0])
  offset = centre - matrix @ centre
  want = [
    scipy.ndimage.affine_transform(x[..., c], matrix, offset, order=1, mode='grid-constant')
    for c in range(2)
  ]
  got = transforms.rotated(x, degrees, nearest=False)
  np.testing.assert_allclose(got, np.stack(want, -1), atol=1e-6)


def test_no_angle_changes_nothing_and_labels_keep_their_classes():
  x = rng.integers(0, 5, (12, 12, 3)).astype(np.uint8)
  np.testing.assert_array_equal(transforms.rotated(x, 0, nearest=False), x)
  turned = transforms.rotated(x, 7, nearest=True)
  assert turned.dtype == np.uint8
  assert set(np.unique(turned)) <= set(range(5))


def test_image_and_labels_turn_together():
  mask = np.zeros((32, 32), np.uint8)
  mask[8:20, 10:26] = 1
  example = {'image': mask[..., None] * 200, 'labels': np.stack([mask, 1 - mask]), 'id': 'x'}
  for seed in range(8):
    found = transforms.rotate(30)(example, np.random.default_rng(seed))
    assert found['image'].dtype == np.uint8
    bright = found['image'][..., 0] > 150
    assert (bright == found['labels'][0]).mean() > 0.95
    flipped = transforms.flip_rows(example, np.random.default_rng(seed))
    assert (flipped['image'][..., 0] > 100).tolist() == (flipped['labels'][0] == 1).tolist()
