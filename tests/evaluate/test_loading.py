"""A trained model in Python: a checkpoint is all that is needed, and an image without labels."""

import dataclasses
import json
import types

import jax
import numpy as np
import pytest

from car_jax import checkpoints, folders, loop
from car_jax import config as configs
from car_jax.data import opening, sources
from car_jax.errors import UserError
from car_jax.evaluate import checkpointed
from car_jax.methods.base import Sampler


def test_a_model_segments_an_image_without_labels(tmp_path):
  config = configs.load('tests/small.py:mose')
  config.method.model.experts = 3
  data = opening.open_dataset(config.data)
  method = loop.build_method(config, data.info, 8)
  state = method.init(0, {'image': np.zeros((1, 32, 32, 3), np.float32)})
  meta = dict(config=config.to_dict(), data=dataclasses.asdict(data.info), image=[32, 32, 3])
  with checkpoints.Checkpoints(tmp_path / 'checkpoints', keep=1) as saved:
    saved.save(3, state, meta)
  model = checkpointed.load(tmp_path)
  assert model.step == 3
  image = np.random.default_rng(0).uniform(-1, 1, (2, 64, 32, 3)).astype(np.float32)
  found = model.method.likeliest(model.state, {'image': image})
  assert found.shape == (2, 64, 32, 2)
  np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)
  broken = jax.tree.map(np.array, state.net.params)
  jax.tree.leaves(broken)[0][...] = np.nan
  with checkpoints.Checkpoints(tmp_path / 'checkpoints', keep=2) as saved:
    saved.save(4, state.replace(net=state.net.replace(params=broken)), meta)
  with pytest.raises(UserError, match=r'checkpoints/4: net/params/.* numbers that are not finite'):
    checkpointed.load(tmp_path, 'latest')


def test_what_is_known_of_the_data_survives_json():
  info = opening.open_dataset(
    dict(name='fake', readers=1, num_classes=3, class_flips='disc 1:1/4', black_box=True)
  ).info
  again = sources.from_json(json.loads(json.dumps(dataclasses.asdict(info))))
  assert dataclasses.replace(again, palette=info.palette) == info
  assert np.array_equal(again.palette, info.palette)
  assert sources.from_json({'num_classes': 2}).num_classes == 2


def test_a_folder_of_trainings_is_its_runs_by_their_seeds(tmp_path):
  for name in ('seed10', 'seed2', 'seed', 'other'):
    (tmp_path / 'mose' / name / 'checkpoints').mkdir(parents=True)
  (tmp_path / 'mose' / 'seed3').mkdir()  # was never trained
  (tmp_path / 'car' / 'checkpoints').mkdir(parents=True)
  runs = folders.named_trainings('MoSE', str(tmp_path / 'mose'))
  assert [*runs] == ['MoSE/seed2', 'MoSE/seed10']
  assert runs['MoSE/seed2'] == str(tmp_path / 'mose' / 'seed2')
  assert folders.named_trainings('CAR', str(tmp_path / 'car')) == {'CAR': str(tmp_path / 'car')}
  seeds = {'MoSE': [*runs]}
  subjects = ['MoSE/seed2: samples', 'MoSE/seed2: mean', 'MoSE/seed10: samples', 'CAR: samples']
  assert checkpointed.by_predictor(seeds, subjects) == {
    'MoSE: samples': ['MoSE/seed2: samples', 'MoSE/seed10: samples'],
    'MoSE: mean': ['MoSE/seed2: mean'],
  }


def loaded(path, *predictors):
  """A checkpoint whose method has such predictors."""
  method = types.SimpleNamespace(
    has_logits=False,
    has_features=False,
    predictors=lambda: dict.fromkeys(predictors, Sampler(lambda *_: None)),
  )
  return types.SimpleNamespace(method=method, state=None, path=path)


def test_a_single_predictor_stands_under_the_name_of_its_checkpoint():
  names = lambda *how: [row.name for row in checkpointed.named(*how)]
  net, ensemble = loaded('a', 'argmax', 'pixels'), loaded('b', 'ensemble')
  assert names([net, ensemble], ['net', 'five']) == ['net: argmax', 'net: pixels', 'five']
  assert names([net, ensemble], ['net', 'five'], ['argmax', 'ensemble']) == ['net', 'five']
  assert names([net], ['net'], ['pixels']) == ['pixels']
  with pytest.raises(UserError, match="predictor 'argmix'\n.*'?argmax"):
    names([net, ensemble], ['net', 'five'], ['ensemble', 'argmix'])
  with pytest.raises(UserError, match="no --predictor is one of five\n  it has 'ensemble'"):
    names([net, ensemble], ['net', 'five'], ['argmax'])


def test_trainings_of_a_single_predictor_are_those_of_their_model():
  seeds = {'m': ['m/seed0', 'm/seed1']}
  assert checkpointed.by_predictor(seeds, ['m/seed0', 'm/seed1', 'o']) == {'m': seeds['m']}
