"""Names in the published CAR code's checkpoints -> our networks, one table per network."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from car_jax.errors import UserError, naming
from car_jax.importers import tables, torch_file
from car_jax.importers.rules import (
  Rule,
  convert,
  convolution,
  linear,
  norm,
  point,
  resnet,
  rows,
  transposed,
  with_bias,
)
from car_jax.importers.segmenters import first_state


def _segnet() -> list[Rule]:
  table = []
  for i in range(4):  # conv, norm, relu, dropout
    path = rf'enc\1_conv{i + 1}'
    table += with_bias(rf'enc(\d)\.{4 * i}', f'{path}/layer', convolution)
    table += norm(rf'enc(\d)\.{4 * i + 1}', f'{path}/norm')
  table += with_bias(r'dec5\.0', 'dec5_up', transposed, 'transposed_kernel')
  table += with_bias(r'dec5\.(?:1|5|9|13)', 'dec5_middle/layer', convolution)
  table += norm(r'dec5\.(?:2|6|10|14)', 'dec5_middle/norm')
  table += with_bias(r'dec(\d)\.decode\.0', r'dec\1_up', transposed, 'transposed_kernel')
  places = [('1', '2', '1-4', 'first'), ('5|9', '6|10', '34', 'middle')]
  places += [('13', '14', '34', 'last'), ('5', '6', '12', 'last')]
  for layer, normed, which, unit in places:
    stem = rf'dec([{which}])\.decode\.'
    table += with_bias(rf'{stem}(?:{layer})', rf'dec\1_{unit}/layer', convolution)
    table += norm(rf'{stem}(?:{normed})', rf'dec\1_{unit}/norm')
  return table + with_bias(r'out\.1', 'head', convolution)


def _toy_calnet() -> list[Rule]:
  table = with_bias(r'model\.21', 'head', convolution)
  for k in range(4):
    table += with_bias(rf'model\.{5 * k + 1}', f'conv{k + 1}', convolution)
    table += norm(rf'model\.{5 * k + 3}', f'norm{k + 1}')
  return table


def _unet_generator() -> list[Rule]:
  table = with_bias(r'enc(\d)\.0', r'enc\1_conv', convolution)
  table += norm(r'enc(\d)\.1', r'enc\1_norm')
  table += with_bias(r'dec(\d)\.0', r'dec\1_up', transposed, 'transposed_kernel')
  table += norm(r'dec(\d)\.1', r'dec\1_norm')
  for theirs, ours in (('zres1', 'noise1'), ('zres2', 'noise2'), ('out', 'head')):
    table += with_bias(rf'{theirs}\.residual', f'{ours}/shift', linear)
    table += with_bias(rf'{theirs}\.scale', f'{ours}/scale', linear)
    table += with_bias(rf'{theirs}\.last_layer', f'{ours}/mix', point)
  return table


def _unet_vae_generator() -> list[Rule]:
  return _unet_generator() + with_bias(r'(mu|logvar)\.1', r'\1', linear)


def _pixel_discriminator() -> list[Rule]:
  names = {1: 'pixel1', 4: 'pixel2', 7: 'pixel3', 10: 'down1', 13: 'down2', 16: 'down3'}
  names |= {19: 'wide1', 22: 'wide2'}
  table = with_bias(r'out\.1', 'score', linear)
  for k, name in names.items():
    table += with_bias(rf'model\.{k}', name, convolution)
  return table


def _deeplabv3() -> list[Rule]:
  table = resnet(r'model\.backbone\.')
  head = r'model\.classifier\.'
  units = [('0.convs.0.0', '0.convs.0.1', 'point'), ('0.convs.4.1', '0.convs.4.2', 'pool')]
  units += [(f'0.convs.{i}.0', f'0.convs.{i}.1', f'rate{i}') for i in (1, 2, 3)]
  units += [('0.project.0', '0.project.1', 'project')]
  for layer, normed, name in units:
    layer, normed = (head + part.replace('.', r'\.') for part in (layer, normed))
    table.append(Rule(rf'{layer}\.weight', f'aspp/{name}_conv/kernel', convolution))
    table += norm(normed, f'aspp/{name}_norm')
  table.append(Rule(rf'{head}1\.weight', 'head_conv/kernel', convolution))
  return table + norm(rf'{head}2', 'head_norm') + with_bias(rf'{head}4', 'head', convolution)


TABLES = {
  'segnet': _segnet,
  'toy_calnet': _toy_calnet,
  'deeplabv3': _deeplabv3,
  'unet_generator': _unet_generator,
  'unet_vae_generator': _unet_vae_generator,
  'pixel_discriminator': _pixel_discriminator,
}
UNUSED = {'unet_vae_generator': (r'project_z\..*',)}  # saved by the authors, never called


def to_variables(
  net: str, weights: Mapping[str, np.ndarray], template: Any = None
) -> dict[str, Any]:
  """A state dict -> variables of the net that the registry calls `net`. Raises UserError."""
  variables = convert(TABLES[net](), weights, template, UNUSED.get(net, ()))
  return {'params': variables['params'], 'batch_stats': variables.get('batch_stats', {})}


KEYS = {'calnet': ('calibration_net', 'prior'), 'generator': ('generator',)}
KEYS |= {'discriminator': ('discriminator',)}


def read(path: str | pathlib.Path) -> dict[str, dict[str, np.ndarray] | None]:
  """The published pickle -> {'calnet', 'generator', 'discriminator'}: state dicts or None.

  Released files call the calibration net 'prior', new ones 'calibration_net'. Raises UserError.
  """
  content = torch_file.read_saved(path, 'generator', 'generator')
  nets = {}
  for ours, names in KEYS.items():
    name = next((n for n in names if isinstance(content, dict) and n in content), None)
    if name is None:
      raise UserError(f'{path} is no CAR checkpoint: it has no {" or ".join(map(repr, names))}')
    weights = tables.module_state(content[name])
    if weights is not None and not isinstance(weights, Mapping):
      raise UserError(f'{path} is no CAR checkpoint: its {name!r} is no table of weights')
    nets[ours] = tables.named(path, weights, name) if weights else None  # empty: a net left out
  return nets


def to_state(path: str | pathlib.Path, config: ConfigDict) -> tuple[Any, dict[str, Any]]:
  """The published file as a state of the config's method, and what is known of its data.

  A part that the file leaves empty, or that the config leaves out, must be so in both.
  """
  if config.method.name != 'car':
    raise UserError(f'the config trains {config.method.name!r}, no method of CAR; see --config')
  if not (size := config.data.get('size')):
    raise UserError('config.data.size is needed: the image size that the nets were trained on')
  nets = read(path)
  classes = _classes(path, nets)
  seen = {np.shape(w)[1] for w in (nets['calnet'] or {}).values() if np.ndim(w) == 4}
  black_box = 3 + classes in seen and 3 not in seen  # the image and one channel per class
  state = first_state(config, classes, size, black_box)
  for part, weights in nets.items():
    ours = getattr(state, part)
    if (ours is None) != (weights is None):
      raise UserError(f'{path}: {part} is in the {"config" if weights is None else "file"} only')
    if ours is not None and weights is not None:
      name = config.method[part].name
      with naming(f'{path}, {part} as {name}'):
        variables = to_variables(name, weights, ours.variables)
      state = state.replace(**{part: ours.replace(**variables)})
  return state, {'num_classes': classes}


def _classes(path: str | pathlib.Path, nets: Mapping[str, Any]) -> int:
  classes = rows(nets['generator'] or {}, 'out.last_layer.weight')
  if not classes:
    raise UserError(f'{path}: the generator has no out.last_layer.weight')
  return classes
