"""Configs and names of transformers' MaskFormer and Mask2Former: older ones, refusals."""

import json
import pathlib
import re

import jax
import numpy as np
import pytest

from car_jax import registry
from car_jax.errors import UserError
from car_jax.importers.transformers.model import spec, to_variables

GOLDEN = pathlib.Path('tests/golden/zoo')
OLDER = (  # of Swin in transformers 4
  (r'encoder\.swin\.', 'encoder.'),
  (r'attention\.q_proj', 'attention.self.query'),
  (r'attention\.k_proj', 'attention.self.key'),
  (r'attention\.v_proj', 'attention.self.value'),
  (r'attention\.o_proj', 'attention.output.dense'),
  (r'attention\.relative_position_bias\.', 'attention.self.'),
  (r'(blocks\.\d+)\.mlp\.fc1', r'\1.intermediate.dense'),
  (r'(blocks\.\d+)\.mlp\.fc2', r'\1.output.dense'),
  # of MaskFormer there
  (r'(self_attn|encoder_attn)\.o_proj', r'\1.out_proj'),
  (r'(layers\.\d+)\.mlp\.(fc\d)', r'\1.\2'),
)


def recorded(stem):
  with np.load(GOLDEN / f'{stem}.npz') as z:
    return json.loads(str(z['config'])), json.loads(str(z['manifest']))


@pytest.mark.parametrize('stem', ['mask2former_hf', 'maskformer_hf'])
def test_older_names_are_read_as_the_newer(stem):
  config, manifest = recorded(stem)
  weights = {n: np.full(s, i, np.float32) for i, (n, s) in enumerate(manifest.items())}
  older = {}
  for name, value in weights.items():
    for pattern, new in OLDER:
      name = re.sub(pattern, new, name)
    older[name] = value
  assert len(older) == len(weights)
  assert older.keys() != weights.keys()
  entry, classes = spec(config)
  net = registry.net(entry, num_classes=classes)
  newer, actual = (to_variables(net, w) for w in (weights, older))
  jax.tree.map(np.testing.assert_array_equal, actual, newer)


@pytest.mark.parametrize(
  ('stem', 'options', 'message'),
  [
    ('mask2former_hf', dict(feature_size=64), 'config.feature_size = 64'),
    ('mask2former_hf', dict(activation_function='gelu'), "activation_function = 'gelu'"),
    ('mask2former_hf', dict(something=1), 'config.something'),
    ('maskformer_hf', dict(model_type='oneformer'), "model_type = 'oneformer'"),
    ('maskformer_hf', dict(decoder_config=dict(model_type='detr', d_mode=3)), 'd_mode'),
    ('maskformer_hf', dict(backbone_config=dict(model_type='bit')), "model_type = 'bit'"),
  ],
)
def test_what_no_net_here_has_is_refused(stem, options, message):
  config, _ = recorded(stem)
  with pytest.raises(UserError) as e:
    spec(config | options)
  assert message in str(e.value)


def test_a_config_says_two_classes_by_naming_none():
  config, _ = recorded('maskformer_hf')
  assert spec(config)[1] == 11
  del config['id2label']
  assert spec(config)[1] == 2
