"""Prediction by sliding windows: which images go by them, and what they are averaged to."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import car_jax
from car_jax import predictor
from car_jax.errors import UserError
from car_jax.methods.base import Method, Samples, example_keys
from car_jax.predict import windowed
from tests.predict.models import saved, scene


class Pixels(Method):
  """Each sample is an image through a threshold that its draw moves: no pixel sees another one."""

  num_classes, ignore_label = 2, None

  def __init__(self, seen=0.0):
    self.seen = seen  # how much the mean of what is seen counts

  def predictors(self):
    def predict(state, batch, rng, n):
      z = jax.vmap(lambda key: jax.random.normal(key, (n,)))(example_keys(rng, batch))
      image = jnp.asarray(batch['image'])[..., 0]
      x = image[:, None] + z[..., None, None] + self.seen * image.mean((1, 2))[:, None, None, None]
      share = jnp.abs(z) / jnp.abs(z).sum(1, keepdims=True)
      return Samples(jnp.stack([jax.nn.sigmoid(x), jax.nn.sigmoid(-x)], -1), share)

    return {'pixels': predict}


def predicted(method, batch, n=3):
  predict = next(iter(method.predictors().values()))
  return predictor.outputs(method, predict, None, batch, jax.random.key(0), n)


def test_windows_of_what_sees_single_pixels_are_the_whole():
  rng = np.random.default_rng(0)
  batch = dict(image=rng.uniform(-1, 1, (2, 37, 50, 3)).astype('f4'), example=np.uint32([3, 4]))
  whole = predicted(Pixels(), batch)
  parts = predicted(windowed.windowed(Pixels(), (16, 20), (11, 7)), batch)
  for key in dataclasses.fields(predictor.Outputs):
    np.testing.assert_allclose(getattr(parts, key.name), getattr(whole, key.name), atol=1e-5)


def test_windows_are_averaged():
  rng = np.random.default_rng(1)
  image = rng.uniform(-1, 1, (1, 8, 12, 3)).astype('f4')
  batch = dict(image=image, example=np.uint32([9]))
  out = predicted(windowed.windowed(Pixels(2.0), 8, 4), batch)
  near = np.array([1, 2, 3, 4, 4.5, 3.5, 2.5, 1.5])[:, None]  # to a window's middle
  total, weight = np.zeros((8, 12, 2)), np.zeros((12, 1))
  for left in (0, 4):
    window = dict(batch, image=image[:, :, left : left + 8])
    total[:, left : left + 8] += near * predicted(Pixels(2.0), window).probabilities[0]
    weight[left : left + 8] += near
  np.testing.assert_allclose(out.probabilities[0], total / weight, atol=1e-5)


class Maps(Pixels):
  """Each sample is a map of labels that are drawn anew at every place of what is seen."""

  def predictors(self):
    def predict(state, batch, rng, n):
      shape = (n, *batch['image'].shape[1:3])
      drawn = jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, shape))(example_keys(rng, batch))
      probs = jax.nn.one_hot(drawn.astype(jnp.int32), 2)
      return Samples(probs, jnp.full(probs.shape[:2], 1 / n))

    return {'maps': predict}


@pytest.mark.parametrize('stride', [(16, 8), (8, 8), (11, 7)])
def test_where_windows_disagree_no_class_is_preferred(stride):
  batch = dict(image=np.zeros((1, 96, 96, 3), 'f4'), example=np.uint32([1]))
  samples = predicted(windowed.windowed(Maps(), 16, stride), batch, 8).samples
  assert abs(float(samples.mean()) - 0.5) < 0.03


def test_which_images_go_by_windows(tmp_path):
  model = car_jax.load(saved(tmp_path, 'mose'))
  of = lambda shape, **chosen: predictor.Windows(**chosen).of(shape, model)
  assert of((1024, 2048)) == predictor.Windows(0, 0)
  assert of((1024, 2049)) == predictor.Windows((32, 32), (21, 21))
  assert of((4096, 4096), crop=0) == predictor.Windows(0, 0)
  model.size = None  # of an imported model
  assert of((4096, 4096)) == predictor.Windows((1024, 1024), (682, 682))
  assert of((10, 10), crop=9) == predictor.Windows(9, (6, 6))
  assert of((10, 10), crop=9, stride=2) == predictor.Windows(9, 2)
  assert model.predict(scene(40, 50, 0), crop=16).mask.shape == (40, 50)


@pytest.mark.parametrize(
  ('crop', 'stride', 'text'),
  [
    (16, 17, 'windows of 16 are 1 to 16 apart; without a stride, 10'),
    ((16, 20), (4, 21), 'windows of 20 are 1 to 20 apart'),
    (None, 9, 'stride is 9 without a crop'),
    (0, 9, 'whole images have no stride'),
  ],
)
def test_windows_that_leave_gaps(crop, stride, text):
  with pytest.raises(UserError, match=text):
    predictor.Windows(crop, stride)


@pytest.mark.parametrize('data', [dict(resize=(32, 32)), dict(fit=(40, 40))])
@pytest.mark.parametrize('variant', ['supervised', 'ssn'])
def test_windows_are_for_what_the_net_sees(tmp_path, monkeypatch, variant, data):
  monkeypatch.setattr(predictor, 'MOST_WHOLE', 2_000)
  model = car_jax.load(saved(tmp_path, variant, **data))
  image = scene(60, 64, 3)
  same(model.predict(image, 2, names=['a']), model.predict(image, 2, names=['a'], crop=0))


def test_windows_of_the_models_own(tmp_path, monkeypatch):
  folder = saved(tmp_path, 'supervised', method=dict(crop=16, stride=12))
  image = scene(40, 52, 4)
  model, changes = car_jax.load(folder), [('method.crop', '0'), ('method.stride', '0')]
  own, whole = model.predict(image), car_jax.load(folder, changes=changes).predict(image)
  assert np.abs(own.probabilities - whole.probabilities).max() > 1e-3
  same(model.predict(image, crop=0), whole)
  monkeypatch.setattr(predictor, 'MOST_WHOLE', 2_000)
  same(model.predict(image), own)
  ensemble = car_jax.load(f'ensemble:{folder}')
  close(ensemble.predict(image), own)
  close(ensemble.predict(image, crop=0), whole)


def same(one, other):
  np.testing.assert_array_equal(one.probabilities, other.probabilities)
  np.testing.assert_array_equal(one.samples, other.samples)


def close(one, other):
  np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)
