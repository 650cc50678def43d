"""Views on a device against the host's: their pixels by the same draws, and how they are drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax.data import device_photometric, device_views, photometric, views
from tests.data.test_views import pictured

SIZE = (24, 40)


def on_device(drawn):
  return jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), drawn)


def keys(n, seed=0):
  return jax.random.split(jax.random.key(seed), n)


@pytest.mark.parametrize(
  ('shape', 'scale', 'zoom'),
  [((47, 83), (0.6, 1.3), (0.5, 1.4)), (SIZE, (1.0, 1.1), (0.5, 1.0)), ((60, 50), (1.0, 1.0), ())],
)
def test_target_views_are_the_hosts(shape, scale, zoom):
  rng = np.random.default_rng(0)
  image, label = pictured(*shape), rng.integers(0, 19, shape, np.int32)
  there = jnp.asarray(image), jnp.asarray(label)
  run = jax.jit(
    lambda *drawn: device_views.viewed(*there, *drawn, size=SIZE, scale=scale, zoom=zoom)
  )
  padded = 0
  for _ in range(6):
    base = views.window(rng, SIZE, SIZE, scale=scale, flip=True)
    drawn = views.zooms(rng, SIZE, views=3, zoom=zoom, flip_views=True)
    want, labels = views.viewed(image, label, base, drawn, size=SIZE)
    found, marks = run(on_device(base), on_device(drawn))
    apart = np.abs(np.asarray(found).astype(int) - want)
    assert apart.max() <= 1
    assert (apart > 0).mean() < (0.001 if shape != (60, 50) else 0.3)  # see resampled
    # Halfway between two pixels either is the nearest: a row or a column of an odd size.
    assert (np.asarray(marks) != labels).mean() < 0.12
    padded += (labels == views.PADDED).sum()
  assert (padded > 0) == (min(scale) < 1)


@pytest.mark.parametrize('noise', [{}, dict(jitter=0.5), dict(jitter=0.4, blur=True)])
@pytest.mark.parametrize('size', [(20, 24), (70, 90)])
def test_source_windows_are_the_hosts(noise, size):
  rng = np.random.default_rng(1)
  image, label, scale = pictured(37, 61), rng.integers(0, 19, (37, 61)), (0.5, 1.5)
  kind = dict(jitter=0.0, blur=False) | noise
  fixed = dict(size=size, scale=scale, **kind)
  run = jax.jit(
    lambda *drawn: device_views.source_window(image, jnp.asarray(label), *drawn, **fixed)
  )
  for _ in range(6):
    drawn = views.window(rng, label.shape, size, scale=scale, flip=True)
    added = photometric.source_noise(rng, **kind)
    want, labels = views.windowed(image, label, drawn, added, size=size)
    found, marks = run(on_device(drawn), on_device(added))
    shown = labels != views.PADDED
    apart = np.abs(np.asarray(found).astype(int) - want)[shown]
    assert (apart > (6 if noise else 1)).mean() < 0.002
    assert (apart > 1).mean() < (0.03 if noise else 0.0001)
    assert (np.asarray(marks) != labels).mean() < 0.12
    np.testing.assert_array_equal(np.asarray(marks) == views.PADDED, ~shown)


def test_noise_is_the_hosts():
  rng = np.random.default_rng(2)
  image = pictured(40, 56)
  image[:4] = rng.integers(0, 256, (4, 56, 3))  # any colour at all
  run = jax.jit(lambda d: device_photometric.noisy(image, d, blur=2.0, jitter=True, greyscale=True))
  kinds = set()
  for _ in range(30):
    drawn = photometric.noise(rng)
    apart = np.abs(np.asarray(run(on_device(drawn))).astype(int) - photometric.noisy(image, drawn))
    assert (apart > 6).mean() < 0.001
    assert (apart > 1).mean() < 0.01
    kinds.add((drawn.jittered, drawn.grey))
  assert len(kinds) == 4


@pytest.mark.parametrize('turn', [-0.5, -0.1, 0.0, 0.03, 0.4])
def test_a_hue_of_any_colour_is_within_six_levels(turn):
  levels = [0, 1, 7, 63, 64, 100, 127, 128, 200, 254, 255]
  image = np.stack(np.meshgrid(levels, levels, range(0, 256, 3)), -1).astype(np.uint8)
  image = image.reshape(-1, 86, 3)
  noise = photometric.Noise(0.0, True, (photometric.HUE,), [0, 0, 0, turn], False)
  want = photometric.noisy(image, noise).astype(int)
  found = device_photometric.shifted_hue(jnp.moveaxis(image, -1, 0), jnp.float32(turn))
  apart = np.abs(np.moveaxis(np.asarray(found), 0, -1) - want)
  assert apart.max() <= 6
  assert (apart > 0).any(-1).mean() < 0.01


def test_a_batch_has_the_hosts_arrays_and_each_images_are_by_its_key():
  images = np.stack([pictured(30, 50, seed) for seed in range(2)])
  options = dict(size=SIZE, zoom=(0.5, 1.3), views=3)
  swapped, rng = slice(None, None, -1), np.random.default_rng(0)
  made = device_views.group(images, None, keys(2), **options)
  other = device_views.group(images[swapped], None, keys(2)[swapped], **options)
  for name, value in views.group(images[0], None, rng, **options).items():
    assert made[name].shape == (6, *value.shape[1:])
    assert made[name].dtype == value.dtype, name
    again = np.concatenate([other[name][3:], other[name][:3]])
    np.testing.assert_array_equal(made[name], again, err_msg=name)
  padded = np.asarray(made['target_label']) == views.PADDED
  assert (np.asarray(made['target_label'])[~padded] == 255).all()
  for name in ('target', 'student'):
    assert (np.asarray(made[name])[padded] == 0).all()
  assert (made['student'] != made['target']).any((1, 2, 3)).all()
  labels = np.uint8(rng.integers(0, 19, (2, 30, 50)))
  made = device_views.source(images, labels, keys(2), size=SIZE)
  other = device_views.source(images[swapped], labels[swapped], keys(2)[swapped], size=SIZE)
  for name, value in views.source(images[0], labels[0], rng, size=SIZE).items():
    assert made[name].shape == (2, *value.shape)
    assert made[name].dtype == value.dtype, name
    np.testing.assert_array_equal(made[name], other[name][swapped], err_msg=name)


def moments(values):
  values = np.asarray(values, float).reshape(len(values), -1)
  return np.concatenate([values.mean(0), values.std(0)])


def test_draws_are_distributed_as_the_hosts():
  n, rng = 2000, np.random.default_rng(0)
  zoom = dict(views=3, zoom=(0.5, 1.4), flip_views=True)
  frame = dict(scale=(0.5, 1.5), flip=True)
  noise = dict(blur=(0.1, 2.0), jitter=0.4, greyscale=0.2)
  pairs = (
    (lambda r: views.zooms(r, SIZE, **zoom), lambda k: device_views.zooms(k, SIZE, **zoom)),
    (
      lambda r: views.window(r, (30, 50), SIZE, **frame),
      lambda k: device_views.window(k, (30, 50), SIZE, **frame),
    ),
    (lambda r: photometric.noise(r, **noise), lambda k: device_photometric.noise(k, **noise)),
    (
      lambda r: photometric.source_noise(r, jitter=0.7, blur=True),
      lambda k: device_photometric.source_noise(k, jitter=0.7, blur=True),
    ),
  )
  for host, device in pairs:
    one = [host(rng) for _ in range(n)]
    other = jax.jit(jax.vmap(device))(keys(n, 3))
    for name in other._fields:
      ours, theirs = np.array([getattr(d, name) for d in one], float), getattr(other, name)
      assert ours.shape == theirs.shape, name
      spread = np.maximum(ours.std(0).ravel(), 1e-6)
      apart = np.abs(moments(ours) - moments(theirs)) / np.concatenate([spread, spread])
      assert apart.max() < 0.15, name
      assert abs(ours.min() - theirs.min()) <= 0.05 * max(1, np.ptp(ours)), name
      assert abs(ours.max() - theirs.max()) <= 0.05 * max(1, np.ptp(ours)), name


def test_an_affine_map_on_a_device_is_the_hosts():
  drawn = views.zooms(np.random.default_rng(0), SIZE, views=6, zoom=(0.5, 1.4), flip_views=True)
  of = views.parameters(drawn, SIZE)
  matrix = views.affine(of, SIZE)

  @jax.jit
  def run(drawn):
    of = views.parameters(drawn, SIZE)
    matrix = views.affine(of, SIZE)
    return of, matrix, views.inverse(matrix, of, SIZE)

  want = of, matrix, views.inverse(matrix, of, SIZE)
  for found, expected in zip(run(on_device(drawn)), want, strict=True):
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_blur_ends_where_the_image_does():
  image = pictured(20, 30)
  larger = np.full((26, 33, 3), 255, np.uint8)
  larger[:20, :30] = image
  kind = dict(most=2.0, extent=jnp.array([20, 30]))
  found = device_photometric.blurred(jnp.moveaxis(larger, -1, 0), jnp.float32(1.7), **kind)
  noise = photometric.Noise(1.7, False, (), np.zeros(4), False)
  np.testing.assert_array_equal(
    np.moveaxis(np.asarray(found), 0, -1)[:20, :30], photometric.noisy(image, noise)
  )
