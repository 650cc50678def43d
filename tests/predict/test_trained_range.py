"""What black and white were in training is known to the model, from files to masks."""

import cv2
import numpy as np

import car_jax
from car_jax import config as configs
from car_jax import loop
from car_jax.data import opening
from tests.datasets.files import run
from tests.predict.models import scene


def test_deep_pictures_are_seen_as_those_of_the_training(tmp_path):
  """Prepared with --range, trained on, and predicted: the net sees the record of the data set."""
  deep = {f'{k}': scene(32, 32, k, colour=False).astype(np.uint16) * 12 + 50 for k in range(12)}
  for kind in ('images', 'labels'):
    (tmp_path / 's' / kind).mkdir(parents=True)
  for name, image in deep.items():
    assert cv2.imwrite(str(tmp_path / 's' / 'images' / f'{name}.png'), image)
    label = np.uint8(image > image.mean())
    assert cv2.imwrite(str(tmp_path / 's' / 'labels' / f'{name}.png'), label)
  data = tmp_path / 'd'
  assert run('folder', tmp_path / 's', data, '--variant', 'x', '--range', '60,3000') == 0
  config = configs.load('tests/small.py:supervised')
  config.data = dict(name='folder/x', data_dir=str(data), batch=4)
  config.steps, config.eval_every, config.evals, config.best = 1, 0, {}, ''
  loop.train(config, tmp_path / 'run')
  model = car_jax.load(tmp_path / 'run')
  assert model.info.range == '60,3000'
  records = opening.open_dataset(config.data).split('train')
  record = records[0]
  expected = model.predict(record['image'])
  found = model.predict(tmp_path / 's' / 'images' / f'{record["id"]}.png')
  np.testing.assert_array_equal(found.probabilities, expected.probabilities)
