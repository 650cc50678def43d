"""Bytes on their way to a device become there what the tables of numpy say, to the last bit."""

import jax
import numpy as np
import pytest

from car_jax import sharding
from car_jax.data import compact, transforms

LEVELS = np.arange(256, dtype=np.uint8)


def table(renormalise):
  """[256, 3] float32: the published formulas in float64, rounded once."""
  level = np.arange(256)[:, None] / 255 + np.zeros(3)
  if renormalise:
    mean, std = compact.renormalised()
    level = (level - mean) / std * np.array(compact.STD) + np.array(compact.MEAN)
  return (2 * level - 1).astype(np.float32)


@pytest.mark.parametrize('renormalise', [False, True])
def test_all_levels_are_the_tables(renormalise):
  image = np.repeat(LEVELS.reshape(1, 16, 16, 1), 3, -1)
  got = jax.jit(compact.scaled)(image, np.array([renormalise]))
  np.testing.assert_array_equal(got[0], table(renormalise)[image[0, ..., 0]])


def test_a_device_that_multiplies_and_adds_at_once_gives_the_same():
  for lines, renormalise in zip(compact._lines(), (False, True), strict=True):
    by, to, by_rest, to_rest = lines.astype(np.float64)
    level = LEVELS[:, None].astype(np.float64)
    coarse = level * by + to
    np.testing.assert_array_equal(coarse, coarse.astype(np.float32))  # exact in either way
    for rest in (level * by_rest + to_rest, (level * by_rest).astype(np.float32) + to_rest):
      got = (coarse.astype(np.float32) + rest.astype(np.float32)).astype(np.float32)
      np.testing.assert_array_equal(got, table(renormalise))
    fused = (coarse + level * by_rest + to_rest).astype(np.float32)
    np.testing.assert_array_equal(fused, table(renormalise))


def test_a_grey_image_has_three_channels_and_the_table_of_whole_pictures():
  image = LEVELS.reshape(1, 16, 16, 1)
  (got,) = compact.expanded(dict(image=image))['image']
  np.testing.assert_array_equal(got, transforms.model_image(image[0]))


def test_the_drawn_reader_is_the_label():
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 256, (5, 4, 3, 2), dtype=np.uint8)
  reader = np.array([3, 0, 1, 1, 2], np.uint8)
  full = compact.expanded(dict(labels=labels, reader=reader, id=np.array([*'abcde'])))
  assert set(full) == {'labels', 'label', 'id'}
  assert full['label'].dtype == full['labels'].dtype == np.int32
  np.testing.assert_array_equal(full['labels'], labels)
  np.testing.assert_array_equal(full['label'], labels[np.arange(5), reader])


def test_what_is_outside_of_a_window_is_imagenets_mean_and_its_own_label():
  rng = np.random.default_rng(1)
  image = rng.integers(0, 256, (4, 6, 8, 3), dtype=np.uint8)
  label = rng.integers(0, 20, (4, 6, 8), dtype=np.uint8)
  inside = np.zeros((4, 6, 8), bool)
  inside[0], inside[1, 1:4, 2:], inside[2, 5:, :1] = True, True, True  # and nothing of the last
  frame = np.concatenate(
    [compact.Frame.of(inside[:2], 255, True), compact.Frame.of(inside[2:], -1, False)]
  )
  full = compact.expanded(dict(target=image, target_label=label, target_frame=frame))
  assert set(full) == {'target', 'target_label'}
  for k in range(4):
    again, outside = k < 2, 255 if k < 2 else -1
    pixels = np.stack([table(again)[image[k, ..., c], c] for c in range(3)], -1)
    mean = np.float32(2 * np.array(compact.MEAN) - 1)
    np.testing.assert_array_equal(full['target'][k], np.where(inside[k, ..., None], pixels, mean))
    np.testing.assert_array_equal(
      full['target_label'][k], np.where(inside[k], label[k].astype(int), outside)
    )


def test_what_methods_get_already_stays_as_it_is():
  batch = dict(image=np.zeros((2, 3, 3, 3), np.float32), label=np.zeros((2, 3, 3), np.int32))
  assert not compact.is_compact(batch)
  for key, value in compact.expanded(batch).items():
    assert value is batch[key]


def test_a_placed_batch_is_the_one_that_methods_get():
  mesh = sharding.make_mesh()
  rows = mesh.size
  image = np.broadcast_to(LEVELS.reshape(1, 16, 16, 1), (rows, 16, 16, 1))
  batch = dict(image=image, id=np.array(['a'] * rows))
  for placed in (sharding.place_batch(batch, mesh), sharding.place_whole(batch, mesh)):
    assert set(placed) == {'image'}
    np.testing.assert_array_equal(placed['image'][0], transforms.model_image(image[0]))
  assert sharding.place_batch(batch, mesh)['image'].sharding == sharding.split(mesh)
