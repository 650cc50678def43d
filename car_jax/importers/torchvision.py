"""ImageNet's weights as torchvision publishes them, for the encoders of nets still to be trained.

The checkpoint made of a file is where a run starts: `config.init.net = 'DIR:net'`, for CAR
`config.init.calnet`.
"""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from car_jax.errors import UserError, naming
from car_jax.importers import sac, tables, torch_file
from car_jax.importers.rules import Rule, Weights, convert, resnet
from car_jax.importers.segmenters import first_state, with_net
from car_jax.nn.vgg import DEPTHS

UNUSED = (r'fc\..*', r'classifier\..*')  # ImageNet's thousand classes
# net -> the architecture of its encoder
ENCODERS = {
  'deeplabv2_resnet': 'resnet',
  'deeplabv3': 'resnet',
  'deeplabv2_vgg': 'vgg',
  'fcn8s_vgg': 'vgg',
  'segnet': 'vgg',
}
PARTS = r'backbone|enc\d_conv\d'  # of our nets: what is encoder


def table_of(net: str, weights: Weights) -> list[Rule]:
  """The names of the file's architecture; UserError for one that is not the net's encoder."""
  convolutions = sum(w.ndim == 4 for n, w in weights.items() if n.startswith('features.'))
  family = 'resnet' if 'layer1.0.conv1.weight' in weights else 'vgg' if convolutions else ''
  if not family:
    raise UserError('these are neither the weights of a ResNet nor of a VGG of torchvision')
  if net not in ENCODERS:
    known = ', '.join(ENCODERS)
    raise UserError(f'the net {net!r} has no encoder of torchvision\n  nets that have: {known}')
  if ENCODERS[net] != family:
    raise UserError(f'the encoder of {net!r} is a {ENCODERS[net]}, the file holds a {family}')
  if family == 'resnet':
    return resnet()
  depths = next((d for d in DEPTHS.values() if sum(d) == convolutions), None)
  if depths is None or 'features.1.running_mean' not in weights:
    raise UserError('of the VGGs of torchvision, vgg16_bn and vgg19_bn are read')
  if net == 'segnet':
    return sac.vgg(r'features\.', depths, path='enc{0}_conv{1}/{2}', parts=('layer', 'norm'))
  return sac.vgg(r'features\.', depths)


def to_variables(net: str, weights: Weights, template: Mapping[str, Any]) -> dict[str, Any]:
  """`template`, variables of the net that the registry calls `net`, with the file's encoder.

  All of the encoder must be in the file; of the file, only its classifier is left out. Raises
  UserError.
  """
  encoder = {
    group: {part: tree for part, tree in parts.items() if re.fullmatch(PARTS, part)}
    for group, parts in template.items()
  }
  converted = convert(table_of(net, weights), sac.counted(weights), encoder, UNUSED)
  return {group: {**parts, **converted[group]} for group, parts in template.items()}


def read(path: str | pathlib.Path) -> dict[str, np.ndarray]:
  """The state dict. Raises UserError."""
  content = torch_file.read_saved(path, 'state_dict', 'weights')
  return tables.find(path, content, 'file of torchvision')


def to_state(path: str | pathlib.Path, config: ConfigDict) -> tuple[Any, dict[str, Any]]:
  """The config's first state, its net's encoder from the file, and what is known of its data.

  The config's data say how many classes there are, so they must be prepared. Raises UserError.
  """
  weights = read(path)
  name = config.method.get('model', {}).get('name', '')
  if not name:
    raise UserError(
      f'the method {config.method.name!r} has several nets; use the config of the method '
      "'supervised' with the net to start from, then config.init to take it over"
    )
  from car_jax.data import opening

  classes = opening.open_dataset(config.data).info.num_classes
  state = first_state(config, classes)
  with naming(path):
    variables = to_variables(name, weights, state.net.variables)
  return with_net(state, variables), {'num_classes': classes}
