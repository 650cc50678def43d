"""The released weights of MoSE (a torch state dict, names starting with `module.`) in our names."""

import pathlib
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from car_jax import registry
from car_jax.errors import UserError, naming
from car_jax.importers import rules, tables, three_conv, torch_file
from car_jax.importers.rules import Rule, Weights, linear, norm, point, with_bias
from car_jax.importers.segmenters import first_state, with_net

WRAPPER = 'module.'


def _table(levels: int) -> list[Rule]:
  table = [Rule('mu', 'means'), Rule('log_sigma', 'log_deviations')]
  table += three_conv.unet('backbone', levels, norms=True)
  table += with_bias(r'gating\.fc_layer\.0', 'gate1', linear)
  table += with_bias(r'gating\.fc_layer\.2', 'gate2', linear)
  table += [Rule(r'gating\.fc_layer\.4\.weight', 'gate3/kernel', linear)]
  table += with_bias(r'fuse\.residual', 'shift', linear) + with_bias(
    r'fuse\.scale', 'scale', linear
  )
  table += with_bias(r'fuse\.last_layer', 'mix', point)
  for i in range(3):
    table += with_bias(rf'layers\.convolution\.{i}\.convolution\.0', f'head{i + 1}', point)
    table += norm(rf'layers\.convolution\.{i}\.convolution\.1', f'head_norm{i + 1}')
  return table + with_bias('last_layer', 'out', point)


def to_variables(weights: Weights, template: Any = None) -> dict[str, Any]:
  """A state dict as arrays -> {'params', 'batch_stats'} of nn.mose.MoSENet.

  Raises UserError naming everything left over on either side; see rules.convert.
  """
  weights = {name.removeprefix(WRAPPER): value for name, value in weights.items()}
  levels = 1 + max((int(n.split('.')[2]) for n in weights if 'contracting_path' in n), default=0)
  return rules.convert(_table(levels), weights, template)


def to_state(path: str | pathlib.Path, config: ConfigDict) -> tuple[Any, dict[str, Any]]:
  """The released file as a state of the config's method, and what is known of its data.

  Raises UserError for another kind of file, and for weights that the config's net does not take.
  """
  if config.method.name != 'mose':
    raise UserError(f'the config trains {config.method.name!r}, not MoSE; see --config')
  content = torch_file.read_saved(path, 'state_dict', 'weights')
  weights = tables.find(path, content, 'MoSE checkpoint')
  classes = rules.rows(weights, 'last_layer.weight')
  if not classes:
    raise UserError(f'{path} is no MoSE checkpoint: it has no last_layer.weight')
  net = registry.net(config.method.model.to_dict(), num_classes=classes)
  side = config.data.get('size') or net.multiple
  state = first_state(config, classes, side, bool(config.method.get('black_box')))
  with naming(path):
    variables = to_variables(weights, state.net.variables)
  if config.data.get('class_flips'):  # released with 'unlabelled' as class 0, which is our last
    head = variables['params']['out']
    variables['params']['out'] = {k: np.roll(v, -1, axis=-1) for k, v in head.items()}
  return with_net(state, variables), {'num_classes': classes}
