"""Common corruptions: stronger is further from the image, and nothing but the id decides a draw."""

import numpy as np
import pytest
from scipy import ndimage

from car_jax.data import compact, corruptions, pipeline
from car_jax.data.sources import DataInfo, Source
from car_jax.errors import UserError

NAMES = sorted(corruptions.CORRUPTIONS)


def picture(h, w, seed=0):
  """Soft patches with edges, as photographs have, uint8 [h, w, 3]."""
  rng = np.random.default_rng(seed)
  side = min(h, w)
  smooth = ndimage.gaussian_filter(rng.random((h, w, 3)), (side / 12, side / 12, 0))
  smooth = (smooth - smooth.min()) / np.ptp(smooth)
  return np.uint8(40 + 150 * smooth + 40 * (smooth[..., :1] > 0.5))


def corrupted(image, name, severity, seed=5):
  return corruptions.corrupt(image, name, severity, np.random.default_rng(seed))


@pytest.mark.parametrize('shape', [(48, 64), (300, 260)])
@pytest.mark.parametrize('name', NAMES)
def test_severity_takes_the_image_further_away(name, shape):
  image = picture(*shape)
  found = [corrupted(image, name, severity) for severity in range(1, 6)]
  apart = [np.abs(x.astype(float) - image).mean() for x in found]
  assert all(x.shape == (*shape, 3) and x.dtype == np.uint8 for x in found)
  assert apart[0] > 0.1
  assert (np.diff(apart) > 0).all(), apart


@pytest.mark.parametrize('name', NAMES)
def test_the_seed_decides_and_the_image_is_left_alone(name):
  image = picture(40, 56)
  kept = image.copy()
  np.testing.assert_array_equal(corrupted(image, name, 3), corrupted(image, name, 3))
  np.testing.assert_array_equal(image, kept)
  drawn = name.endswith('noise') or name in ('motion_blur', 'snow', 'fog', 'elastic')
  assert (corrupted(image, name, 3) != corrupted(image, name, 3, seed=6)).any() == drawn


@pytest.mark.parametrize('name', ['defocus_blur', 'motion_blur', 'elastic', 'pixelate'])
def test_lengths_grow_with_the_image(name):
  """Twice as large and corrupted, then halved, is about corrupted at its own size."""
  large = picture(480, 480)
  halved = lambda x: x.astype(float).reshape(240, 2, 240, 2, 3).mean((1, 3))
  small = np.uint8(np.round(halved(large)))
  apart = lambda image, by: np.abs(by - image.astype(float)).mean()
  one = apart(small, corrupted(small, name, 3))
  two = apart(halved(large), halved(corrupted(large, name, 3)))
  assert 0.6 < two / one < 1.7


def test_the_published_levels_of_noise_and_contrast():
  grey = np.full((200, 200, 3), 128, np.uint8)
  noisy = corrupted(grey, 'gaussian_noise', 1).astype(float)
  assert abs(noisy.std() / 255 - 0.08) < 0.002
  hit = (corrupted(grey, 'impulse_noise', 5) != 128).mean()
  assert abs(hit - 0.27) < 0.01
  photons = corrupted(grey, 'shot_noise', 1).astype(float) / 255
  assert abs(photons.var() - (128 / 255) / 60) < 5e-4
  image = picture(60, 60)
  np.testing.assert_allclose(
    corrupted(image, 'contrast', 5).std((0, 1)), 0.05 * image.std((0, 1)), atol=0.4
  )
  np.testing.assert_array_equal(corrupted(grey, 'brightness', 2), np.uint8(round(128 + 0.2 * 255)))


def test_a_disc_blurs_a_point_to_its_radius():
  image = np.zeros((224, 224, 3), np.uint8)
  image[112, 112] = 255
  kernel = corruptions.CORRUPTIONS['defocus_blur'](image / np.float32(255), 0, None)[..., 0]
  rows, columns = np.nonzero(kernel > 1e-6)
  assert np.hypot(rows - 112, columns - 112).max() == pytest.approx(3, abs=0.5)
  assert kernel.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
  ('text', 'told'),
  [
    ('fgo:3', r"unknown 'fgo'\n  did you mean: fog"),
    ('fog', r"'fog': the severity is absent, not 1 to 5\n  use --config.data.corruption=fog:3"),
    ('fog:6', 'the severity is 6, not 1 to 5'),
    ('frost:2', "unknown 'frost'"),
  ],
)
def test_what_is_no_corruption(text, told):
  with pytest.raises(UserError, match=told):
    corruptions.parse(text)


class Records(Source):
  def __len__(self):
    return 5

  def __getitem__(self, i):
    image = picture(24, 24, seed=i)[..., :1]
    return {'image': image, 'labels': image[None, ..., 0] // 128, 'id': f'id{i}', 'group': 'g'}


INFO = DataInfo('test', 2, ('a', 'b'), ((0, 0, 0),) * 2, 1)


def test_evaluation_is_corrupted_alike_in_any_batch_and_training_is_not():
  found = []
  for config in (dict(batch=2), dict(batch=5), dict(batch=5, corruption='')):
    config = dict(corruption='gaussian_noise:3') | config
    batches = [*map(compact.expanded, pipeline.eval_batches(Records(), INFO, config))]
    found.append({n: x for b in batches for n, x in zip(b['id'], b['image'], strict=True)})
  two, five, plain = found
  for i in range(5):
    np.testing.assert_array_equal(two[f'id{i}'], five[f'id{i}'])
    grey = Records()[i]['image'][..., 0] / 127.5 - 1
    np.testing.assert_allclose(plain[f'id{i}'][..., 0], grey, atol=1e-6)
    assert np.abs(five[f'id{i}'] - plain[f'id{i}']).mean() > 0.1
  noise = [five[f'id{i}'] - plain[f'id{i}'] for i in range(2)]
  assert np.abs(noise[0] - noise[1]).mean() > 0.1
  config = dict(batch=5, corruption='gaussian_noise:3')
  batch = compact.expanded(next(pipeline.train_batches(Records(), INFO, config, seed=0)))
  for name, image in zip(batch['id'], batch['image'], strict=True):
    np.testing.assert_array_equal(image, plain[name])


def test_a_mistake_in_the_config_is_told_at_once():
  with pytest.raises(UserError, match='did you mean: fog'):
    next(pipeline.eval_batches(Records(), INFO, dict(batch=2, corruption='fogg:2')))
