"""config.data.fit, resize: the image at the size a net was trained on, the labels at their own."""

import math
from fractions import Fraction

import numpy as np
import pytest

from car_jax.data import compact, pipeline, transforms
from car_jax.data.fake import open_dataset
from car_jax.errors import UserError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
  ('size', 'fitted'),
  [
    ((1024, 2048), (1025, 2049)),
    ((1080, 1920), (1025, 1822)),
    ((1920, 1080), (1822, 1025)),
    ((720, 1280), (1025, 1822)),
    ((512, 512), (1025, 1025)),
    ((4096, 4096), (1025, 1025)),
  ],
)
def test_the_largest_that_fits_either_way_round(size, fitted):
  assert transforms.fitted_size(*size, 2049, 1025) == fitted


def plain_bilinear(x, height, width):
  """Half-pixel centres, edges repeated, no antialiasing."""
  places = []
  for source, target in zip(x.shape, (height, width), strict=False):
    at = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    low = np.minimum(at.astype(int), source - 2)
    places.append((low, at - low))
  (top, v), (left, u) = places
  v, u = v[:, None, None], u[None, :, None]
  rows = lambda i: x[i][:, left] * (1 - u) + x[i][:, left + 1] * u
  return rows(top) * (1 - v) + rows(top + 1) * v


@pytest.mark.parametrize('channels', [1, 3])
def test_the_image_alone_is_resized(channels):
  image = RNG.integers(0, 256, (18, 30, channels), np.uint8)
  labels = RNG.integers(0, 5, (2, 18, 30), np.uint8)
  found = transforms.Fit(41, 25)({'image': image, 'labels': labels}, RNG)
  assert found['image'].shape == (25, 41, channels)
  assert found['image'].dtype == np.uint8
  want = plain_bilinear(image.astype(np.float64), 25, 41)
  assert np.abs(found['image'] - want).max() <= 1
  np.testing.assert_array_equal(found['labels'], labels)


@pytest.mark.parametrize('change', [transforms.Fit(8, 4), transforms.Resize(4, 8)])
def test_an_image_of_that_size_stays(change):
  image = RNG.integers(0, 256, (4, 8, 3), np.uint8)
  assert change({'image': image}, RNG)['image'] is image


def shortest_and_longest_edge(height, width, short, long):
  """What transformers makes of an image before it rounds up, by fractions."""
  low, high = min(height, width), max(height, width)
  edge = Fraction(short)
  if edge * high / low > long:
    edge = Fraction(long * low, high)
  other = int(edge * high / low)
  return (round(edge), other) if height <= width else (other, round(edge))


@pytest.mark.parametrize('frame', [(1333, 800), (2048, 1024), (640, 640)])
def test_sides_are_rounded_up_as_transformers_has_it(frame):
  for size in (
    (720, 1280),
    (1080, 1920),
    (1024, 2048),
    (500, 375),
    (333, 500),
    (64, 64),
    (97, 131),
  ):
    height, width = shortest_and_longest_edge(*size, frame[1], frame[0])
    want = 32 * math.ceil(height / 32), 32 * math.ceil(width / 32)
    assert transforms.rounded_size(*size, *frame, 32) == want
    assert transforms.rounded_size(*size, *frame, 1) == (height, width)


@pytest.mark.parametrize(
  ('size', 'frame', 'want'),
  [
    ((245, 961), (960, 245), (245, 961)),  # the shorter side is as wanted: the longer one stays
    ((100, 190), (230, 128), (121, 230)),
    ((1050, 2009), (2048, 1024), (1024, 1959)),
  ],
)
def test_sides_of_transformers_without_a_multiple(size, frame, want):
  """By `get_size_with_aspect_ratio` of transformers 5.24."""
  assert transforms.rounded_size(*size, *frame, 1) == want
  image = np.zeros((*size, 3), np.uint8)
  (change,) = transforms.from_config(dict(fit=frame, fit_multiple=1), False)
  assert change({'image': image}, RNG)['image'].shape == (*want, 3)


def antialiased(x, height, width):
  """Each new pixel the mean of what lies below a triangle, as wide as a pixel of the smaller."""
  for axis, target in enumerate((height, width)):
    scale = x.shape[axis] / target
    centres = (np.arange(target) + 0.5) * scale
    away = np.abs(np.arange(x.shape[axis]) + 0.5 - centres[:, None]) / max(scale, 1)
    share = np.maximum(1 - away, 0)
    x = np.moveaxis(np.tensordot(share / share.sum(1, keepdims=True), x, (1, axis)), 0, axis)
  return x


@pytest.mark.parametrize('channels', [1, 3])
@pytest.mark.parametrize(
  ('config', 'size'),
  [
    (dict(resize=(10, 45)), (10, 45)),
    (dict(fit=(16, 12), fit_multiple=4), (12, 16)),
    (dict(fit=(16, 12), fit_multiple=1), (10, 16)),
  ],
)
def test_the_image_is_shrunk_without_aliases(channels, config, size):
  image = RNG.integers(0, 256, (30, 50, channels), np.uint8)
  labels = RNG.integers(0, 5, (2, 30, 50), np.uint8)
  (change,) = transforms.from_config(config, False)
  actual = change({'image': image, 'labels': labels}, RNG)
  assert actual['image'].shape == (*size, channels)
  assert np.abs(actual['image'] - antialiased(image.astype(float), *size)).max() <= 1.01
  np.testing.assert_array_equal(actual['labels'], labels)


def test_one_size_of_an_image():
  with pytest.raises(UserError, match='both size the image\n  leave one out'):
    transforms.from_config(dict(fit=(4, 3), resize=(2, 2)), False)


def test_batches_hold_images_and_labels_of_different_sizes():
  data = open_dataset(size=16, count=8)
  config = dict(batch=2, threads=0, fit=(41, 24))
  source = data.split('train')
  batch, *_ = map(compact.expanded, pipeline.eval_batches(source, data.info, config))
  assert batch['image'].shape == (2, 24, 24, 3)
  assert batch['labels'].shape == (2, 4, 16, 16)
  trained = compact.expanded(next(pipeline.train_batches(source, data.info, config, seed=0)))
  assert trained['image'].shape == (2, 16, 16, 3)


@pytest.mark.parametrize('sides', [(2048,), (1, 2, 3), (2048, 0), (10.5, 3), ('a', 'b')])
def test_sides_that_are_no_two_whole_numbers(sides):
  with pytest.raises(
    UserError, match=r'config.data.fit is .*\n  it is a list of 2: a whole number'
  ):
    transforms.from_config(dict(fit=sides), False)
