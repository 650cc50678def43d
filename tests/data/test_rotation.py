"""Turning images and labels by any angle."""

import numpy as np
import pytest

from car_jax.data import compact, pipeline, transforms
from car_jax.data.sources import DataInfo

rng = np.random.default_rng(0)


def by_hand(x, degrees, nearest, fill):
  """Each output pixel looks up its source: bilinear between four neighbours, or the nearest one."""
  h, w = x.shape[:2]
  a, b = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
  rows, columns = np.indices((h, w)) - np.array([h / 2, w / 2])[:, None, None]
  source = b * columns + a * rows + h / 2, a * columns - b * rows + w / 2

  def pick(row, column):
    inside = (row >= 0) & (row < h) & (column >= 0) & (column < w)
    found = x[np.clip(row, 0, h - 1), np.clip(column, 0, w - 1)]
    return np.where(inside[..., None], found, fill)

  if nearest:
    return pick(*(np.floor(v + 0.5).astype(int) for v in source))
  row, column = (np.floor(v).astype(int) for v in source)
  down, right = ((v - np.floor(v))[..., None] for v in source)
  upper = pick(row, column) * (1 - right) + pick(row, column + 1) * right
  lower = pick(row + 1, column) * (1 - right) + pick(row + 1, column + 1) * right
  return upper * (1 - down) + lower * down


@pytest.mark.parametrize('degrees', [-9.3, 3.7, 10.0])
@pytest.mark.parametrize('nearest', [True, False])
def test_every_pixel_comes_from_where_it_was(degrees, nearest):
  x = rng.random((20, 24, 2))
  got = transforms.rotated(x, degrees, nearest=nearest, fill=0.3)
  np.testing.assert_allclose(got, by_hand(x, degrees, nearest, 0.3), atol=1e-6)


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
    found = transforms.Rotate(30)(example, np.random.default_rng(seed))
    assert found['image'].dtype == np.uint8
    bright = found['image'][..., 0] > 150
    assert (bright == found['labels'][0]).mean() > 0.95
    flipped = transforms.MirrorRows()(example, np.random.default_rng(seed))
    assert (flipped['image'][..., 0] > 100).tolist() == (flipped['labels'][0] == 1).tolist()


@pytest.mark.parametrize('ignored', [None, 255])
def test_what_turns_in_from_outside_is_ignored_or_the_published_class_0(ignored):
  example = {'image': np.zeros((32, 40, 1), np.uint8), 'labels': np.full((4, 32, 40), 7, np.uint8)}
  corners = 0
  for seed in range(6):
    draws = np.random.default_rng(seed)
    turned = draws.random() >= 0.5
    angle = draws.uniform(-30, 30) if turned else 0.0
    outside = by_hand(np.ones((32, 40, 1), int), angle, True, 0)[..., 0] == 0
    found = transforms.Rotate(30, ignored)(example, np.random.default_rng(seed))
    want = np.where(outside, 0 if ignored is None else ignored, 7)
    np.testing.assert_array_equal(found['labels'], np.stack([want] * 4))
    corners += outside.sum()
  assert corners > 100


def test_no_geometry_of_training_invents_a_class_in_labels_or_black_box():
  class Scenes:
    def __len__(self):
      return 8

    def __getitem__(self, k):
      maps = {'labels': np.full((1, 40, 56), 7, np.uint8), 'black_box': np.full((40, 56), 9)}
      return maps | {'image': np.full((40, 56, 3), k, np.uint8), 'id': str(k), 'group': str(k)}

  names = tuple(map(str, range(19)))
  info = DataInfo('scenes', 19, names, (), 1, ignore_label=255, black_box=True)
  config = dict(batch=8, size=48, pad=True, crop='random', rotate=30, threads=0)
  config |= dict.fromkeys(('mirror', 'mirror_rows', 'rot90'), True)
  batch = compact.expanded(next(pipeline.train_batches(Scenes(), info, config, seed=0)))
  for key, number in (('label', 7), ('labels', 7), ('black_box', 9)):
    assert set(np.unique(batch[key])) == {number, 255}
  np.testing.assert_array_equal(batch['label'] == 255, batch['black_box'] == 255)
