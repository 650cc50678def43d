"""Rendered slices: what may be read from them, and what may not."""

import cv2
import numpy as np
import pytest

from car_jax.datasets.lidc_masks import render
from car_jax.datasets.lidc_masks.lidc_masks_dataset_builder import FILE, centre

RATINGS = np.full((4, 5), 4, np.uint8)


@pytest.fixture(scope='module')
def slices():
  """Masks [200, 4, 64, 64] of the shipped file, every 80th, and their ratings."""
  data = np.load(FILE)
  packed = data['masks'][::80][:190]
  masks = np.unpackbits(packed, axis=1).reshape(-1, 4, 128, 128)
  return np.stack([centre(m, 64) for m in masks]), data['ratings'][::80]


def disc(radius, x=0.0):
  rows, columns = np.mgrid[:64, :64] - 31.5
  return (np.hypot(rows, columns - x) < radius).astype(np.uint8)


def test_who_drew_which_outline_cannot_be_read():
  """Two large and two small outlines, or pieces of each exchanged: the same image."""
  masks = np.stack([disc(12), disc(12), disc(7), disc(7)])
  image = render.slice_image(masks, RATINGS, seed=1)
  np.testing.assert_array_equal(render.slice_image(masks[::-1].copy(), RATINGS, seed=1), image)
  left = np.arange(64) < 32
  mixed = np.where(left, masks, masks[[2, 3, 0, 1]])
  assert (mixed.sum(0) == masks.sum(0)).all()
  np.testing.assert_array_equal(render.slice_image(mixed, RATINGS, seed=1), image)


def steepest(images):
  """Where along the middle row, right of the nodule's centre, each image falls most: [N]."""
  rows = np.stack([cv2.GaussianBlur(i.astype(np.float32), (0, 0), 1)[32] for i in images])
  return 37 + np.argmin(np.diff(rows, axis=1)[:, 37:50], axis=1)


def test_no_outline_is_an_edge():
  """Where an image is steepest wanders, while the outlines stay at columns 39 and 45."""
  masks = np.stack([disc(14), disc(14), disc(8), disc(8)])
  images = [render.slice_image(masks, RATINGS, seed=s, noise=0.0) for s in range(40)]
  assert (np.abs(steepest(images)[:, None] - [39, 45]).min(1) > 1).mean() > 0.3
  naive = [cv2.GaussianBlur(100.0 * masks.mean(0), (0, 0), 1)]
  assert np.abs(steepest(naive)[:, None] - [39, 45]).min() <= 1


def test_where_readers_differ_shows_as_a_soft_rim():
  """Nothing drawn < some drew < all drew, in the image's mean over slices."""
  masks = np.stack([disc(14), disc(14), disc(7), disc(7)])
  inner, rim, outside = disc(5) > 0, (disc(12) - disc(9)) > 0, (disc(24) - disc(19)) > 0
  images = [render.slice_image(masks, RATINGS, seed=s).astype(float) for s in range(30)]
  levels = [np.mean([i[where].mean() for i in images]) for where in (outside, rim, inner)]
  assert levels[0] + 10 < levels[1] < levels[2] - 10


def test_how_many_drew_shows_but_not_surely(slices):
  """Rank correlation between readers and the brightness in the middle: clear, far from perfect."""
  masks, ratings = slices
  readers = masks.any((2, 3)).sum(1)
  brightness = [
    cv2.GaussianBlur(render.slice_image(m, r, seed=i), (0, 0), 1.5)[30:34, 30:34].mean()
    for i, (m, r) in enumerate(zip(masks, ratings, strict=False))
  ]
  rank = lambda x: np.argsort(np.argsort(x, kind='stable'), kind='stable')
  assert 0.4 < np.corrcoef(rank(readers), rank(brightness))[0, 1] < 0.9


def test_faint_kinds_are_fainter():
  def brightness(**rated):
    ratings = RATINGS.copy()
    for column, value in rated.items():
      ratings[:, dict(subtlety=0, texture=4)[column]] = value
    masks = np.stack([disc(8)] * 4)
    return np.mean([render.slice_image(masks, ratings, seed=s)[28:36, 28:36] for s in range(8)])

  assert brightness(subtlety=1) + 8 < brightness(subtlety=5)
  assert brightness(texture=1) + 20 < brightness(texture=5)


def test_noise_and_contrast_are_strengths():
  masks = np.stack([disc(8)] * 4)
  image = lambda **kw: render.slice_image(masks, RATINGS, seed=5, **kw).astype(float)
  middle = [image(contrast=c)[28:36, 28:36].mean() for c in (0, 0.5, 1)]
  assert middle[0] < middle[1] < middle[2]
  rough = lambda x: np.abs(np.diff(x)).mean()
  assert rough(image(noise=0)) < rough(image()) < rough(image(noise=3))


@pytest.mark.parametrize('size', [1, 2, 17, 128])
def test_any_size_and_no_mask_at_all(size):
  empty = render.slice_image(np.zeros((4, size, size), np.uint8), np.zeros((4, 5)), seed=0)
  assert empty.shape == (size, size)
  assert empty.dtype == np.uint8


def test_distractors_look_like_small_nodules():
  """Without any mask there are still spots brighter than a nodule that one reader saw."""
  blank, one = np.zeros((4, 64, 64), np.uint8), np.stack([disc(3)] + [disc(0)] * 3)
  spots = [
    cv2.GaussianBlur(render.slice_image(blank, RATINGS, seed=s), (0, 0), 1).max() for s in range(20)
  ]
  seen = [render.slice_image(one, RATINGS, seed=s)[30:34, 30:34].mean() for s in range(20)]
  assert np.median(spots) > np.median(seen)
