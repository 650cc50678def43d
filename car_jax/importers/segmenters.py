"""What importers of segmenters share: which config fits a file, the state of its weights."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from car_jax import registry
from car_jax.errors import UserError
from car_jax.importers.rules import Rule, rows

Weights = Mapping[str, np.ndarray]


def layer_norm(pattern: str, path: str) -> list[Rule]:
  return [
    Rule(rf'{pattern}\.weight', f'{path}/scale'),
    Rule(rf'{pattern}\.bias', f'{path}/bias'),
  ]


def count(weights: Weights, pattern: str) -> int:
  """How many numbers, from 0, the pattern's group takes among the names."""
  matches = (re.fullmatch(pattern, name) for name in weights)
  return 1 + max((int(match[1]) for match in matches if match), default=-1)


def set_width(config: ConfigDict, weights: Weights, name: str) -> None:
  """The config's width of a SegFormer's head is that of the weights `name` [width, 4 width, 1, 1],
  unless it says one: mmsegmentation's is 256 in every variant, NVlabs' and transformers' 768 from
  B2 on."""
  width = rows(weights, name)
  if np.shape(weights.get(name, ())) == (width, 4 * width, 1, 1):
    with config.unlocked():
      config.method.model.features = config.method.model.get('features') or width


def check_config(path: Any, config: ConfigDict, net: str, variant: str) -> None:
  """Raises UserError unless the config trains `net` by the supervised method."""
  if config.method.name != 'supervised' or config.method.model.name != net:
    model = config.method.get('model', {}).get('name', '')
    what = config.method.name if config.method.name != 'supervised' else model
    raise UserError(f'{path} holds {net!r}, the config trains {what!r}\n  {_use(net, variant)}')


def _use(net: str, variant: str) -> str:
  return f'use --config configs/{net}_cityscapes.py{variant and ":"}{variant}'


def supervised_state(
  path: Any,
  config: ConfigDict,
  classes: int,
  translate: Any,
  weights: Weights,
  kind: tuple[str, str],
) -> tuple[Any, dict[str, Any]]:
  """A state of the supervised method with `translate(net, weights, template)` as its net."""
  spec = config.method.to_dict() | {'num_classes': classes}
  method = registry.method(spec, steps_per_epoch=1)
  state = method.init(config.seed, {'image': np.zeros((1, 64, 64, 3), np.float32)})
  try:
    variables = translate(kind[0], weights, state.net.variables)
  except UserError as e:
    raise UserError(f'{path}: {e}\n  {_use(*kind)}') from None
  return state.replace(net=state.net.replace(**variables)), {'num_classes': classes}
