"""Names of guided diffusion's U-Net, whose blocks are counted through all levels."""

import re

import numpy as np

from car_jax.importers.rules import Rule, Weights, convolution, layer_norm, linear, with_bias
from car_jax.importers.segmenters import count


def line(a: np.ndarray) -> np.ndarray:
  """[out, in, 1], of a convolution along one axis -> [in, out]"""
  return a[:, :, 0].T


def _residual(theirs: str, ours: str) -> list[Rule]:
  return [
    *layer_norm(rf'{theirs}\.in_layers\.0', f'{ours}/norm1'),
    *with_bias(rf'{theirs}\.in_layers\.2', f'{ours}/conv1', convolution),
    *with_bias(rf'{theirs}\.emb_layers\.1', f'{ours}/time_emb_proj', linear),
    *layer_norm(rf'{theirs}\.out_layers\.0', f'{ours}/norm2'),
    *with_bias(rf'{theirs}\.out_layers\.3', f'{ours}/conv2', convolution),
    *with_bias(rf'{theirs}\.skip_connection', f'{ours}/conv_shortcut', convolution),
  ]


def _attention(theirs: str, ours: str) -> list[Rule]:
  return [
    *layer_norm(rf'{theirs}\.norm', f'{ours}_attention/norm'),
    *with_bias(rf'{theirs}\.qkv', f'{ours}_attention/qkv', line),
    *with_bias(rf'{theirs}\.proj_out', f'{ours}_attention/proj_out', line),
  ]


def unet(weights: Weights) -> list[Rule]:
  """The first of a level's blocks halves the map before it, by a convolution, or without weights:
  then its number is missing."""
  inputs = count(weights, r'input_blocks\.(\d+)\..*')
  blocks = {n.split('.')[1] for n in weights if re.match(r'input_blocks\.\d+\.0\.in_layers', n)}
  halves = [k for k in range(1, inputs) if str(k) not in blocks]
  each = halves[0] - 1 if halves else inputs - 1
  table = with_bias(r'time_embed\.0', 'time_embedding/linear_1', linear)
  table += with_bias(r'time_embed\.2', 'time_embedding/linear_2', linear)
  table += with_bias(r'input_blocks\.0\.0', 'conv_in', convolution)
  level = j = 0
  for k in range(1, inputs):
    if k in halves:
      table += with_bias(rf'input_blocks\.{k}\.0\.op', f'halved{level}/conv', convolution)
      level, j = level + 1, 0
      continue
    table += _residual(rf'input_blocks\.{k}\.0', f'down{level}_{j}')
    table += _attention(rf'input_blocks\.{k}\.1', f'down{level}_{j}')
    j += 1
  for k, ours in ((0, 'middle0'), (2, 'middle1')):
    table += _residual(rf'middle_block\.{k}', ours)
  table += _attention(r'middle_block\.1', 'middle0')
  for k in range((each + 1) * (level + 1)):
    i, j = level - k // (each + 1), k % (each + 1)
    theirs, ours = rf'output_blocks\.{k}', f'up{i}_{j}'
    table += _residual(rf'{theirs}\.0', ours) + _attention(rf'{theirs}\.1', ours)
    if j == each:
      table += with_bias(rf'{theirs}\.[12]\.conv', f'doubled{i}/conv', convolution)
  table += layer_norm(r'out\.0', 'norm_out')
  return table + with_bias(r'out\.2', 'conv_out', convolution)
