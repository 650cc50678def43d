"""Options of mmsegmentation's heads of ANN, APCNet, CCNet, GCNet: read, or refused by name."""

import json

import jax
import numpy as np
import pytest

from car_jax.errors import UserError
from car_jax.importers.openmmlab import model


def described(stem, **options):
  """-> (a recorded config with some of the head's options, names and shapes of its weights)."""
  with np.load(f'tests/golden/zoo/{stem}.npz') as z:
    config, shapes = json.loads(str(z['config'])), json.loads(str(z['manifest']))
  return config | {'decode_head': config['decode_head'] | options}, shapes


def fits(config, names):
  """The weights are those of the net that the config describes: all have a place, none lacks."""
  net = model.net(config)
  x = jax.ShapeDtypeStruct((1, 64, 96, 3), np.float32)
  made = jax.eval_shape(lambda x: net.init(jax.random.key(0), x, train=False), x)
  template = {k: made[k] for k in ('params', 'batch_stats')}
  weights = {name: np.zeros(shape, np.float32) for name, shape in names.items()}
  assert jax.tree.leaves(model.to_variables(net, weights, template))


def renamed(names, old, new):
  """Those with `old` in their names, `new` in its place."""
  return {name.replace(old, new): shape for name, shape in names.items() if old in name}


def without(names, *parts):
  return {name: shape for name, shape in names.items() if not any(p in name for p in parts)}


@pytest.mark.parametrize('stem', ['ann', 'apcnet', 'ccnet', 'gcnet'])
def test_every_weight_of_a_recorded_net_has_its_place(stem):
  fits(*described(stem))


def test_attentions_side_by_side():
  config, names = described('ann', query_scales=[1, 1])
  fits(config, names | renamed(names, '.stages.0.', '.stages.1.'))


def test_adaptive_context_without_its_last_convolution():
  config, names = described('apcnet', fusion=False)
  fits(config, without(names, 'fusion_conv'))


@pytest.mark.parametrize('stem', ['ccnet', 'gcnet'])
def test_a_head_that_does_not_see_its_input_again(stem):
  config, names = described(stem, concat_input=False)
  fits(config, without(names, 'conv_cat'))


def test_global_context_that_scales_by_a_plain_mean():
  config, names = described('gcnet', pooling_type='avg', fusion_types=['channel_mul'])
  scaling = renamed(names, 'channel_add', 'channel_mul')
  fits(config, without(names, 'channel_add', 'conv_mask') | scaling)
  config['decode_head']['fusion_types'] = ['channel_mul', 'channel_add']
  fits(config, without(names, 'conv_mask') | scaling)


@pytest.mark.parametrize(
  ('stem', 'option', 'value'),
  [
    ('ann', 'query_scales', [1, 2]),
    ('ccnet', 'num_convs', 1),
    ('ccnet', 'input_transform', 'resize_concat'),
    ('gcnet', 'pooling_type', 'max'),
    ('gcnet', 'fusion_types', []),
    ('gcnet', 'act_cfg', {'type': 'GELU'}),
  ],
)
def test_options_that_no_head_here_has(stem, option, value):
  config, _ = described(stem, **{option: value})
  with pytest.raises(UserError, match=rf'decode_head\.{option} = .*, which no net here has'):
    model.spec(config)
