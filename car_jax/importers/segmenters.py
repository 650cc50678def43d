"""What importers of segmenters share: which config fits a file, the state of its weights."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from car_jax import config as configs
from car_jax import registry
from car_jax.errors import UserError, naming
from car_jax.importers.rules import Weights, rows
from car_jax.nn.composed import Composition
from car_jax.nn.segformer import VARIANTS

SEGFORMER = 'configs/segformer_cityscapes.py'
FRAME = ('fit', 'fit_multiple', 'resize')  # how config.data says which size images are seen at


def count(weights: Weights, pattern: str) -> int:
  """How many numbers, from 0, the pattern's group takes among the names."""
  matches = (re.fullmatch(pattern, name) for name in weights)
  return 1 + max((int(match[1]) for match in matches if match), default=-1)


def segformer(widths: tuple[int, ...], depths: tuple[int, ...]) -> str:
  """The variant of these sizes, b0 to b5, or '' for others."""
  sizes = ((name, (of.widths, of.depths)) for name, of in VARIANTS.items())
  return next((name for name, size in sizes if size == (widths, depths)), '')


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
    raise UserError(f'{path} holds {net!r}, the config trains {what!r}\n  {use(net, variant)}')


def use(net: str, variant: str) -> str:
  return f'use --config configs/{net}_cityscapes.py{variant and ":"}{variant}'


def composition(path: Any, config: ConfigDict, holds: str) -> Composition:
  """What the config trains. Raises UserError unless it is put together from parts."""
  what = config.method.name
  if what == 'supervised':
    what = config.method.model.name
    net = registry.net(config.method.model.to_dict(), num_classes=1)
    if isinstance(net, Composition):
      return net
  raise UserError(
    f'{path} holds {holds}, the config trains {what!r}\n'
    '  without --config the file says what it is, or '
    '--config configs/segmenters_cityscapes.py:VARIANT'
  )


def run_config(spec: Mapping[str, Any], **of: Any) -> ConfigDict:
  """The config of a run of a net on Cityscapes; of: windows (crop, stride) and FRAME.

  Without, whole images are seen at once.
  """
  given = configs.load(f'{SEGFORMER}:b0').to_dict()
  given['data'] |= {k: of.pop(k) for k in FRAME if k in of}
  given['method'] |= dict(model=spec, crop=0, stride=0) | of
  return configs.complete(given)


def supervised_state(
  path: Any, config: ConfigDict, classes: int, translate: Any, weights: Weights, mend: str = ''
) -> tuple[Any, dict[str, Any]]:
  """A state of the supervised method with `translate(net, weights, template)` as its net's
  variables; `mend` is what to do where they do not fit."""
  with naming(path), configs.setting_up('method.model'):
    net = registry.net(config.method.model.to_dict(), num_classes=classes)
    state = first_state(config, classes, side=max(64, net.least))
  shape = lambda a: jax.ShapeDtypeStruct(np.shape(a), a.dtype)
  template = jax.tree.map(shape, state.net.variables)
  bare = state.replace(net=state.net.replace(**dict.fromkeys(template)))
  del state  # its weights would lie in memory beside the file's and those made of them
  with naming(path, mend):
    variables = translate(net, weights, template)
  return with_net(bare, {k: {} for k in template} | variables), {'num_classes': classes}


def first_state(
  config: ConfigDict, num_classes: int, side: int = 64, black_box: bool = False
) -> Any:
  """The state that the config's method starts from, shaped by a batch to predict on."""
  spec = config.method.to_dict() | {'num_classes': num_classes}
  batch = {'image': np.zeros((1, side, side, 3), np.float32)}
  if black_box:
    batch['black_box'] = np.zeros((1, side, side), np.int32)
  return registry.method(spec, steps_per_epoch=1).init(config.seed, batch)


def with_net(state: Any, variables: Any) -> Any:
  """The state with these variables as its net, and as its teacher where it has one."""
  state = state.replace(net=state.net.replace(**variables))
  if hasattr(state, 'teacher'):
    state = state.replace(teacher=state.teacher.replace(**variables))
  return state
