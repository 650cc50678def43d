"""Resizing against OpenCV itself, padding, and the crops that the config asks for."""

import cv2
import numpy as np
import pytest

from car_jax.data import transforms
from car_jax.errors import UserError
from tests.data.test_transforms import alike, example

SCALES = np.linspace(0.6, 1, 4)


@pytest.mark.parametrize('source', [8, 50, 153, 217, 255])
def test_nearest_neighbours_are_opencvs(source):
  row = np.arange(source, dtype=np.float32)[None]
  for target in range(5, 300, 3):
    want = cv2.resize(row, (target, 1), interpolation=cv2.INTER_NEAREST)[0]
    np.testing.assert_array_equal(transforms.nearest_indices(source, target), want)
  for scale in SCALES:
    want = cv2.resize(row, None, fx=scale, fy=1, interpolation=cv2.INTER_NEAREST)[0]
    np.testing.assert_array_equal(transforms.nearest_indices(source, len(want), scale), want)


def test_the_published_crops_of_street_scenes():
  image = np.random.default_rng(0).integers(0, 256, (256, 512, 1)).astype(np.uint8)
  labels = np.stack([image[..., 0], image[..., 0] + 100])
  sides, windows = set(), set()
  for seed in range(30):
    rng = np.random.default_rng(seed)
    e = transforms.RandomCrop(217)({'image': image, 'labels': labels, 'id': 'x'}, rng)
    e = transforms.RandomRescale(SCALES)(e, rng)
    sides.add(alike(e).shape)
    windows.add(alike(transforms.RandomCrop(128)(e, rng)).tobytes())
  assert sides == {(n, n) for n in (130, 159, 188, 217)}
  assert len(windows) == 30


@pytest.mark.parametrize('size', [7, 20])
def test_padding_mirrors_or_ignores(size):
  whole = example()
  mirrored = alike(transforms.Pad(size)(whole, None))
  assert mirrored.shape == (size, max(size, 8))
  np.testing.assert_array_equal(mirrored[:6, :8], whole['image'][..., 0])
  np.testing.assert_array_equal(mirrored[6], mirrored[5])
  ignored = transforms.Pad(size, ignore_label=255)(whole, None)
  np.testing.assert_array_equal(ignored['labels'][:, :6, :8], whole['labels'])
  assert (ignored['labels'][:, 6:] == 255).all()
  np.testing.assert_array_equal(ignored['image'][..., 0], mirrored)


def test_the_config_crops_at_random_in_training_only():
  config = dict(size=4, crop='random', eval_size=4)

  def windows(train):
    (crop,) = transforms.from_config(config, train)
    return {alike(crop(example(), np.random.default_rng(s))).tobytes() for s in range(60)}

  assert len(windows(train=True)) == 3 * 5
  assert len(windows(train=False)) == 1


def test_the_config_pads_with_the_data_sets_ignore_label():
  chain = transforms.from_config(dict(size=8, eval_size=8, pad=True), train=False, ignore_label=9)
  e = example()
  for transform in chain:
    e = transform(e, np.random.default_rng(0))
  assert e['image'].shape == (8, 8, 1)
  assert (e['labels'][:, 6:] == 9).all()


def test_an_unknown_crop_names_the_nearest():
  with pytest.raises(UserError, match="config.data.crop is 'center'\n  did you mean: centre"):
    transforms.from_config(dict(size=4, crop='center'), train=True)
