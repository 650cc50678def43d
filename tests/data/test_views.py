"""Views of target images and windows of source images: coordinates, padding, draws, messages."""

import numpy as np
import pytest
from scipy import ndimage

from car_jax.data import compact, photometric, views

SIZE = (24, 40)
QUIET = dict(blur=(), jitter=0.0, greyscale=0.0)


def group(*args, **kw):
  return compact.expanded(views.group(*args, **kw))


def source(*args, **kw):
  return compact.expanded(views.source(*args, **kw))


def coordinates(height, width):
  """uint8 [height, width, 3] whose red is the column and green the row, three levels a pixel."""
  row, column = np.mgrid[:height, :width]
  return np.stack([3 * column, 3 * row, 0 * row], -1).astype(np.uint8)


def pictured(h, w, seed=0):
  rng = np.random.default_rng(seed)
  smooth = ndimage.gaussian_filter(rng.random((h, w, 3)), (2, 2, 0))
  return np.uint8(255 * (smooth - smooth.min()) / np.ptp(smooth))


def found_at(image, matrix, height, width):
  """What a window's pixels see in a view through `matrix`, nan outside: [height, width, 3]."""
  u, v = (2 * np.arange(width) + 1) / width - 1, (2 * np.arange(height) + 1) / height - 1
  at = np.stack([*np.broadcast_arrays(u, v[:, None]), np.ones((height, width))])
  x, y = np.einsum('ij,jhw->ihw', matrix, at)
  place = [((y + 1) * height - 1) / 2, ((x + 1) * width - 1) / 2]
  planes = np.moveaxis(image.astype(float), -1, 0)
  return np.stack([ndimage.map_coordinates(p, place, order=1, cval=np.nan) for p in planes], -1)


@pytest.mark.parametrize('zoom', [(0.4, 1.0), (0.5, 1.6), (1.0, 1.4)])
def test_an_affine_map_finds_each_pixel_of_the_window_in_its_view(zoom):
  rng = np.random.default_rng(3)
  height, width = 32, 64
  image = coordinates(height, width)
  base = views.Window(np.array([height, width]), np.zeros(2, int), False)
  drawn = views.zooms(rng, (height, width), views=12, zoom=zoom, mirror_views=True)
  assert drawn.mirrored.any()
  assert not drawn.mirrored.all()
  label = np.zeros((height, width), np.int32)
  shown, labels = views.viewed(image, label, base, drawn, size=(height, width))
  of = views.parameters(drawn, (height, width))
  matrix = views.affine(of, (height, width))
  for k in range(12):
    seen = np.where((labels[k] == compact.PADDED)[..., None], np.nan, shown[k].astype(float))
    seen = found_at(seen, matrix[k], height, width)
    there = np.isfinite(seen).all(-1)
    # Drawn scales and whole pixels differ by one pixel at most; borders of padding are blended.
    there = ndimage.binary_erosion(there, iterations=3)
    assert there.mean() > 0.05
    assert np.abs(seen - image)[there].max() <= 3 * 1.3


def test_the_inverse_undoes_the_map():
  rng = np.random.default_rng(0)
  away, zero, scale = rng.uniform(-9, 9, (2, 20)), np.zeros(20), rng.uniform(0.7, 2, 20)
  of = np.stack([*away, zero, scale, rng.choice([-1.0, 1.0], 20)], -1)
  of[:5, 2], of[:5, 4] = rng.uniform(-20, 20, 5), 1.0  # turned, but not flipped
  matrix = views.affine(of, SIZE)
  undone = views.inverse(matrix, of, SIZE)
  assert matrix.dtype == undone.dtype == np.float32
  square = lambda m: np.concatenate([m, np.tile([[[0, 0, 1]]], (len(m), 1, 1))], 1)
  np.testing.assert_allclose(
    square(matrix) @ square(undone), np.tile(np.eye(3), (20, 1, 1)), atol=1e-5
  )


def test_a_group_has_an_unzoomed_first_view_and_its_affine_maps():
  image, label = pictured(48, 80), np.arange(48 * 80).reshape(48, 80) % 19
  options = dict(size=SIZE, views=5, scale=(1.0, 1.0), mirror=False, mirror_views=False)
  made = group(image, label, np.random.default_rng(1), **options, **QUIET)
  assert made['target'].shape == made['student'].shape == (5, *SIZE, 3)
  assert made['target'].dtype == np.float32
  assert made['target_label'].dtype == np.int32
  np.testing.assert_array_equal(made['student'], made['target'])
  np.testing.assert_allclose(made['affine'][0], [[1, 0, 0], [0, 1, 0]], atol=1e-6)
  assert (made['affine'][1:, 0, 0] > 1).all()
  np.testing.assert_array_equal(made['target_label'][0], label[1::2, 1::2])
  half = image.reshape(24, 2, 40, 2, 3).astype(float)
  weighted = np.average(half, axis=(1, 3))  # Pillow's triangle is wider than that box
  shown = (made['target'][0] + 1) / 2 * 255
  assert np.abs(shown - weighted).mean() < 4


def test_noise_is_the_students_alone_and_differs_between_views():
  image = pictured(*SIZE)
  options = dict(size=SIZE, views=3, zoom=(), mirror_views=False)
  made = group(image, np.full(SIZE, 255), np.random.default_rng(0), **options)
  np.testing.assert_array_equal(made['target'][0], made['target'][1])
  apart = np.abs(made['student'] - made['target']).mean((1, 2, 3))
  assert (apart > 0.01).all()
  assert np.abs(made['student'][0] - made['student'][1]).mean() > 0.01
  assert (made['target_label'] == 255).all()


def test_views_with_a_frame_are_padded_with_imagenets_mean():
  image = np.full((*SIZE, 3), 200, np.uint8)
  options = dict(size=SIZE, scale=(1.0, 1.0), zoom=(1.3, 1.5))
  made = group(image, np.full(SIZE, 7), np.random.default_rng(0), **options)
  padded = made['target_label'] == compact.PADDED
  assert not padded[0].any()
  assert 0.3 < padded[1:].mean() < 0.6
  assert set(np.unique(made['target_label'])) == {-1, 7}
  for name in ('target', 'student'):
    mean = 2 * np.array(compact.MEAN, np.float32) - 1
    np.testing.assert_allclose(made[name][padded] - mean, 0, atol=1e-6)
    assert (np.abs(made[name][~padded] - mean) > 1e-3).any(-1).all()


def test_the_generator_decides():
  image, make = pictured(40, 60), lambda seed: np.random.default_rng(seed)
  label = np.full((40, 60), 255)
  for run in (
    lambda seed: group(image, label, make(seed), size=SIZE),
    lambda seed: source(image, label, make(seed), size=SIZE, jitter=0.4),
  ):
    one, again, other = run(1), run(1), run(2)
    for key in one:
      np.testing.assert_array_equal(one[key], again[key])
    assert any((one[key] != other[key]).any() for key in one)


def test_draws_reach_both_ends_of_their_ranges():
  rng = np.random.default_rng(0)
  drawn = [
    views.zooms(rng, (10, 20), views=3, zoom=(0.5, 1.5), mirror_views=True) for _ in range(600)
  ]
  parts = np.concatenate([d.sizes[1:] for d in drawn])
  corners = np.concatenate([d.corners[1:] for d in drawn])
  inside = parts < [10, 20]
  assert (corners[inside] >= 0).all()
  assert ((corners + parts)[inside] <= np.tile([10, 20], (1200, 1))[inside]).all()
  assert (corners[~inside] <= 0).all()
  assert ((corners + parts)[~inside] >= np.tile([10, 20], (1200, 1))[~inside]).all()
  assert corners[:, 0].min() == -4
  assert corners[:, 0].max() == 5
  assert abs(np.mean([d.mirrored for d in drawn]) - 0.5) < 0.05
  windows = [
    views.window(rng, (20, 30), (16, 12), scale=(0.5, 1.0), mirror=True) for _ in range(600)
  ]
  sizes, corners = (np.array([getattr(w, k) for w in windows]) for k in ('size', 'corner'))
  assert set(sizes[:, 0]) == set(range(10, 20))
  assert (corners[:, 0] <= np.maximum(0, sizes[:, 0] - 16)).all()
  assert (corners >= 0).all()
  assert corners[:, 1].max() >= 15
  assert abs(np.mean([w.mirrored for w in windows]) - 0.5) < 0.06


def test_noise_is_drawn_as_often_and_as_far_as_asked():
  rng = np.random.default_rng(0)
  drawn = [photometric.noise(rng, blur=(0.5, 1.0), jitter=0.3, greyscale=0.2) for _ in range(2000)]
  radius, factors = (np.array([getattr(d, k) for d in drawn]) for k in ('radius', 'factors'))
  assert radius.min() >= 0.5
  assert radius.max() <= 1.0
  assert abs(np.mean([d.jittered for d in drawn]) - 0.5) < 0.04
  assert abs(np.mean([d.grey for d in drawn]) - 0.2) < 0.04
  np.testing.assert_allclose(factors.min(0), [0.7, 0.7, 0.7, -0.1], atol=0.01)
  np.testing.assert_allclose(factors.max(0), [1.3, 1.3, 1.3, 0.1], atol=0.01)
  assert len({tuple(d.order) for d in drawn}) == 24
  plain = [photometric.source_noise(rng, jitter=0.7, blur=True) for _ in range(1000)]
  assert abs(np.mean([d.radius == 1.0 for d in plain]) - 0.5) < 0.06
  assert {d.radius for d in plain} == {0.0, 1.0}
  assert not any(d.grey for d in plain)
  assert 0.45 < max(d.factors[3] for d in plain) <= 0.5


def test_a_source_window_smaller_than_the_crop_is_in_the_middle_of_ignored_pixels():
  image, label = np.full((20, 30, 3), 90, np.uint8), np.full((20, 30), 4)
  options = dict(size=(30, 40), scale=(1.0, 1.0), ignore_label=19)
  made = source(image, label, np.random.default_rng(0), **options)
  expected = np.pad(label, 5, constant_values=19)
  np.testing.assert_array_equal(made['label'], expected)
  normal = lambda image: ((image + 1) / 2 - compact.MEAN) / compact.STD
  np.testing.assert_allclose(normal(made['image'])[expected == 19], 0, atol=1e-6)
  mean, std = compact.renormalised()
  np.testing.assert_allclose(normal(made['image'])[15, 20], (90 / 255 - mean) / std, rtol=1e-5)
  plain = source(image, label, np.random.default_rng(0), renormalise=False, **options)
  np.testing.assert_allclose(plain['image'][15, 20], 2 * 90 / 255 - 1, rtol=1e-5)


def test_renormalised_source_colours_are_where_the_targets_are():
  mean, std = compact.renormalised()
  of_source = (np.array(compact.GTA5_MEAN) - mean) / std
  of_target = (np.array(compact.CITYSCAPES_MEAN) - compact.MEAN) / compact.STD
  np.testing.assert_allclose(of_source, of_target, atol=1e-9)
  np.testing.assert_allclose(
    np.array(compact.GTA5_STD) / std, np.array(compact.CITYSCAPES_STD) / compact.STD
  )


def test_blur_is_as_wide_as_the_gaussian():
  image = np.zeros((9, 60, 3), np.uint8)
  image[:, 30:] = 250
  for radius in (0.4, 0.8, 1.4, 2.0):
    noise = photometric.Noise(radius, False, (), np.zeros(4), False)
    rise = np.diff(photometric.noisy(image, noise)[4, :, 0].astype(float)) / 250
    assert (rise >= 0).all()
    assert abs(np.sum(rise * (np.arange(59) - 29) ** 2) / radius**2 - 1) < 0.06
