"""Image and labels are always treated alike."""

import numpy as np
import pytest

from car_jax.data import transforms
from car_jax.errors import UserError


def example(h=6, w=8):
  image = np.arange(h * w, dtype=np.uint8).reshape(h, w, 1)
  return {'image': image, 'labels': np.stack([image[..., 0], image[..., 0] + 100]), 'id': 'x'}


def alike(e):
  grey = e['image'][..., 0]
  np.testing.assert_array_equal(e['labels'], np.stack([grey, grey + 100]))
  return grey


def test_the_central_crop():
  grey = alike(transforms.CentreCrop(4)(example(), None))
  np.testing.assert_array_equal(grey, example()['image'][1:5, 2:6, 0])


def test_random_crops_reach_every_window():
  rng = np.random.default_rng(0)
  corners = {int(alike(transforms.RandomCrop(5)(example(), rng))[0, 0]) for _ in range(200)}
  assert corners == {8 * top + left for top in range(2) for left in range(4)}


@pytest.mark.parametrize('crop', [transforms.CentreCrop, transforms.RandomCrop])
def test_a_crop_larger_than_the_image(crop):
  with pytest.raises(UserError, match='image x is 8x6, smaller than config.data.size 7\n.*=6'):
    crop(7)(example(), np.random.default_rng(0))


def test_flips_and_turns():
  rng, original = np.random.default_rng(0), example(6, 6)
  flipped = {alike(transforms.Mirror()(original, rng)).tobytes() for _ in range(30)}
  assert flipped == {x.tobytes() for x in (original['image'], original['image'][:, ::-1])}
  turned = {alike(transforms.Rot90()(original, rng)).tobytes() for _ in range(60)}
  assert turned == {np.rot90(original['image'], k).tobytes() for k in range(4)}


def test_nearest_resize():
  grey = alike(transforms.resize_nearest(example(), 3, 4))
  np.testing.assert_array_equal(grey, example()['image'][::2, ::2, 0])
  assert transforms.nearest_indices(3, 6).tolist() == [0, 0, 1, 1, 2, 2]
  assert transforms.nearest_indices(4, 3, scale=0.6).tolist() == [0, 1, 3]


def test_what_training_does_evaluation_does_not():
  config = dict(size=4, mirror=True, rot90=True)
  assert len(transforms.from_config(config, train=True)) == 3
  assert not transforms.from_config(config, train=False)
  assert len(transforms.from_config(config | dict(eval_size=4), train=False)) == 1
  assert transforms.from_config({'mirror': False}, train=True) == []


@pytest.mark.parametrize('channels', [1, 3])
def test_the_networks_image_is_rounded_once(channels):
  image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(channels, 2)
  out = transforms.model_image(image)
  want = (image[..., 0] / 255 * 2 - 1).astype(np.float32)
  assert out.dtype == np.float32
  for c in range(3):
    np.testing.assert_array_equal(out[..., c], want)


def test_the_list_alone_says_what_the_short_keys_say():
  short = dict(size=4, pad=True, crop='resized', scales=(0.5, 1.0), mirror=True, rotate=5.0)
  listed = [dict(name='pad', size=4), dict(name='resized_crop', size=4, scales=(0.5, 1.0))]
  listed += ['mirror', dict(name='rotate', degrees=5.0)]
  parts = lambda **data: transforms.from_config(data, train=True, ignore_label=9)
  assert parts(transforms=listed) == parts(**short)
