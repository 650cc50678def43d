"""A model in Python: what it says of an image follows from its method's own predictions."""

import subprocess
import sys
import zlib

import jax
import numpy as np
import pytest
from PIL import Image
from scipy.special import log_softmax, softmax, xlogy

import car_jax
from car_jax.calibrate import base, files
from car_jax.calibrate.temperature import Temperature
from car_jax.data import transforms
from car_jax.errors import UserError
from tests.predict.models import saved, scene


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """variant -> a run of it, made once."""
  made = {}

  def run(variant):
    if variant not in made:
      made[variant] = saved(tmp_path_factory.mktemp(variant), variant)
    return made[variant]

  return run


def entropy(p):
  return -xlogy(p, p).sum(-1)


def drawn(model, images, names, n, seed):
  """What the method's own predictor says, in float64: probabilities [B, N, H, W, C]."""
  keys = np.array([zlib.crc32(name.encode()) for name in names], np.uint32)
  batch = dict(image=np.stack([transforms.model_image(x) for x in images]), example=keys)
  predict = jax.jit(next(iter(model.method.predictors().values())), static_argnums=3)
  return batch, np.asarray(predict(model.state, batch, jax.random.key(seed), n).probs, np.float64)


@pytest.mark.parametrize('variant', ['car', 'mose'])
def test_samples_and_what_follows_from_them(runs, variant):
  model = car_jax.load(runs(variant))
  images, names = [scene(32, 40, k) for k in range(3)], ['a', 'b/c', 'd']
  out = model.predict(np.stack(images), samples=4, seed=7, names=names)
  _, probs = drawn(model, images, names, 4, 7)
  mean = probs.mean(1)
  np.testing.assert_array_equal(out.samples, probs.argmax(-1))
  np.testing.assert_allclose(out.weights, 0.25)
  np.testing.assert_allclose(out.probabilities, mean, atol=1e-5)
  np.testing.assert_allclose(out.entropy, entropy(mean), atol=1e-5)
  mutual = entropy(mean) - entropy(probs).mean(1)
  np.testing.assert_allclose(out.mutual_information, mutual, atol=1e-5)
  sure = np.abs(np.diff(mean)[..., 0]) > 1e-4
  np.testing.assert_array_equal(out.mask[sure], mean.argmax(-1)[sure])
  assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(out))


@pytest.mark.parametrize('variant', ['supervised', 'sac', 'lts'])
def test_a_method_with_logits_says_their_softmax(runs, variant):
  model = car_jax.load(runs(variant))
  image = scene(33, 30, 0)
  out = model.predict(image, samples=4)
  batch, _ = drawn(model, [image], ['a'], 1, 0)
  logits = np.asarray(jax.jit(model.method.logits)(model.state, batch), np.float64)[0]
  np.testing.assert_allclose(out.probabilities, softmax(logits, -1), atol=1e-5)
  np.testing.assert_allclose(out.entropy, entropy(softmax(logits, -1)), atol=1e-5)
  assert out.samples.shape == (1, 33, 30)
  np.testing.assert_array_equal(out.samples[0], out.mask)
  assert not out.mutual_information.any()


@pytest.mark.parametrize('variant', ['car', 'supervised'])
def test_a_calibrator_divides_logits(runs, variant, tmp_path):
  path = tmp_path / 'fit.npz'
  about = dict(kind='temperature', classes=2)
  files.save(path, base.Fit(Temperature(np.float32(2.5)), about))
  plain, model = car_jax.load(runs(variant)), car_jax.load(runs(variant), calibrator=path)
  image = scene(32, 32, 1)
  one, two = plain.predict(image), model.predict(image)
  expected = softmax(log_softmax(np.log(one.probabilities.astype(np.float64)), -1) / 2.5, -1)
  np.testing.assert_allclose(two.probabilities, expected, atol=1e-5)
  np.testing.assert_allclose(two.entropy, entropy(expected), atol=1e-5)
  np.testing.assert_array_equal(one.samples, two.samples)
  np.testing.assert_array_equal(one.mutual_information, two.mutual_information)
  assert ', calibrated' in repr(model)


def test_nobody_says_an_ignored_class(tmp_path):
  for variant in ('mose', 'supervised'):
    model = car_jax.load(
      saved(tmp_path / variant, variant, info=dict(ignore_label=2), num_classes=3)
    )
    out = model.predict(scene(32, 32, 0), samples=3)
    assert not out.probabilities[..., 2].any()
    np.testing.assert_allclose(out.probabilities.sum(-1), 1, atol=1e-6)
    assert out.mask.max() <= 1
    assert out.samples.max() <= 1
    assert np.isfinite(out.entropy).all()


def test_an_image_is_predicted_alike_in_any_batch(runs):
  model = car_jax.load(runs('mose'))
  images = [scene(*size, k) for k, size in enumerate([(32, 32), (20, 45), (32, 32), (32, 32)])]
  together = model.predict(images, samples=4)
  assert [x.mask.shape for x in together] == [x.shape[:2] for x in images]
  for image, one in zip(images, together, strict=True):
    alone = model.predict(image, samples=4)
    np.testing.assert_array_equal(alone.samples, one.samples)
    np.testing.assert_allclose(alone.probabilities, one.probabilities, atol=1e-6)
  other = model.predict(images, samples=4, seed=1)
  for a, b in zip(together, other, strict=True):
    assert (a.probabilities != b.probabilities).any()


def test_every_form_of_one_image(runs, tmp_path):
  model, image = car_jax.load(runs('mose')), scene(32, 40, 3, colour=False)
  np.save(tmp_path / 'x.npy', image)
  grey = lambda x: model.predict(x, samples=2, names=['x'])
  expected = grey(image)
  floats = image / np.float32(255)
  forms = [image[..., None], np.repeat(image[..., None], 3, 2), floats, floats * 2 - 1]
  forms += [tmp_path / 'x.npy', str(tmp_path / 'x.npy')]
  for form in forms:
    np.testing.assert_allclose(grey(form).probabilities, expected.probabilities, atol=1e-5)
  deep = model.predict(image.astype(np.uint16) * 16, 2, names=['x'], range=(0, 255 * 16))
  np.testing.assert_array_equal(deep.probabilities, expected.probabilities)
  batch = grey(image[None, ..., None])
  np.testing.assert_array_equal(batch.mask[0], expected.mask)
  (listed,) = grey([image])
  np.testing.assert_array_equal(listed.mask, expected.mask)


def test_pictures_are_taken_as_they_are_seen(runs, tmp_path):
  model, image = car_jax.load(runs('supervised')), scene(32, 40, 3)
  expected = model.predict(image)
  alpha = np.full((32, 40, 1), 9, np.uint8)
  Image.fromarray(np.concatenate([image, alpha], -1)).save(tmp_path / 'alpha.png')
  Image.fromarray(image).save(tmp_path / 'plain.tif')
  few = Image.fromarray(image).quantize(7)
  few.save(tmp_path / 'palette.png')
  for name in ('alpha.png', 'plain.tif'):
    found = model.predict(tmp_path / name)
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)
  found = model.predict(tmp_path / 'palette.png')
  seen = model.predict(np.asarray(few.convert('RGB')))
  np.testing.assert_array_equal(found.probabilities, seen.probabilities)


@pytest.mark.parametrize(
  ('array', 'text'),
  [
    (
      np.zeros((2, 8, 8), np.uint8),
      r'shape \(2, 8, 8\); expected \[H, W\], .* images\[..., None\]',
    ),
    (np.zeros((3, 8, 8), np.uint8), r'channels come last'),
    (np.zeros((8, 8, 4), np.uint8), r'leave transparency out'),
    (np.zeros((0, 8, 3), np.uint8), r'shape \(0, 8, 3\)'),
    (np.zeros((8, 8), complex), r'type complex128'),
    (np.full((8, 8), 300, np.uint16), r'uint16 from 300 to 300.*range=\(LOW, HIGH\)'),
    (np.full((8, 8), 1.5), r'float64 from 1.5 to 1.5'),
    (np.full((8, 8), np.nan), '64 of its values are not finite'),
  ],
)
def test_arrays_that_are_no_image_are_one_message(runs, array, text):
  with pytest.raises(UserError, match=f'(?s){text}'):
    car_jax.load(runs('supervised')).predict(array)


def test_a_range_of_the_training_data_is_taken(tmp_path):
  image = scene(32, 32, 0, colour=False)
  runs = {
    text: car_jax.load(saved(tmp_path / name, 'supervised', info=dict(range=text)))
    for name, text in (('own', '100,2650'), ('ct', '-1000,400 HU'), ('each', '0%,100%'))
  }
  expected = runs['100,2650'].predict(image).mask
  deep = image.astype(np.uint16) * 10 + 100
  np.testing.assert_array_equal(runs['100,2650'].predict(deep).mask, expected)
  with pytest.raises(UserError, match='which of them are black'):
    runs['-1000,400 HU'].predict(deep)  # a picture's values are no Hounsfield units
  floats = image / np.float32(255)  # which say themselves what is black
  np.testing.assert_array_equal(runs['100,2650'].predict(floats).mask, expected)
  each = runs['0%,100%']
  low, high = int(deep.min()), int(deep.max())
  np.testing.assert_array_equal(each.predict(deep).mask, each.predict(deep, range=(low, high)).mask)


def test_images_are_sized_as_in_evaluation_and_masks_are_not(tmp_path):
  model = car_jax.load(saved(tmp_path, 'supervised', fit=(60, 24)))
  image = scene(32, 40, 2)
  out = model.predict(image)
  assert out.mask.shape == (32, 40)
  fitted = transforms.Fit(60, 24)({'image': image})['image']
  assert fitted.shape == (24, 30, 3)
  batch = dict(image=transforms.model_image(fitted)[None], labels=np.zeros((1, 1, 32, 40), int))
  logits = np.asarray(model.method.logits(model.state, batch), np.float64)[0]
  np.testing.assert_allclose(out.probabilities, softmax(logits, -1), atol=1e-5)


@pytest.mark.parametrize('seed', [-1, 2**32])
def test_seeds_are_of_32_bits(runs, seed):
  with pytest.raises(UserError, match='expected 0 to 4294967295'):
    car_jax.load(runs('mose')).predict(scene(32, 32, 0), seed=seed)


def test_pages_of_several_sizes_are_one_message(runs, tmp_path):
  first, *others = (Image.fromarray(scene(h, 40, h)) for h in (33, 20))
  first.save(tmp_path / 'x.tif', save_all=True, append_images=others)
  with pytest.raises(UserError, match='pages of 40x20, 40x33'):
    car_jax.load(runs('mose')).predict(tmp_path / 'x.tif')


def test_what_a_model_prints(runs):
  model = car_jax.load(runs('mose'))
  assert model.classes == ('background', 'disc 1')
  first, second, third = repr(model).split('\n')
  assert first.startswith('mose (mose), samples, of ')
  assert second == 'trained on fake, 3 steps (latest checkpoint)'
  assert third == 'predicts 2 classes: background, disc 1'


def test_a_model_that_needs_more_than_an_image_is_refused(tmp_path):
  run = saved(tmp_path, 'car', black_box=True)
  with pytest.raises(UserError, match="another model's prediction"):
    car_jax.load(run)
  other = car_jax.load(saved(tmp_path / 'other', 'supervised', black_box=True))
  assert other.predict(scene(32, 32, 0)).mask.shape == (32, 32)


def test_the_package_is_imported_without_jax():
  code = "import car_jax, sys; assert not {'jax', 'numpy'} & {*sys.modules}"
  subprocess.run([sys.executable, '-c', code], check=True)
  with pytest.raises(AttributeError, match='no attribute'):
    _ = car_jax.nothing
