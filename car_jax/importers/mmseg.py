"""Checkpoints of mmsegmentation, before and since its version 1, for SegFormer and DeepLabV3+."""

import pathlib
import re
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from car_jax.errors import UserError
from car_jax.importers import huggingface, prefixes, spellings, tables, torch_file
from car_jax.importers.rules import (
  Rule,
  Weights,
  convert,
  convolution,
  layer_norm,
  linear,
  norm,
  point,
  rows,
  with_bias,
)
from car_jax.importers.segmenters import check_config, count, segformer, set_width, supervised_state
from car_jax.nn.resnet import BLOCKS

UNUSED = (r'auxiliary_head\..*', r'data_preprocessor\..*')  # training's second head; pixel means


def _normed(pattern: str, path: str) -> list[Rule]:
  kernel = Rule(rf'{pattern}\.conv\.weight', f'{path}/conv/kernel', convolution)
  return [kernel, *norm(rf'{pattern}\.bn', f'{path}/norm')]


def _segformer() -> list[Rule]:
  table = with_bias(r'decode_head\.conv_seg', 'head', convolution)
  table += _normed(r'decode_head\.fusion_conv', 'fuse')
  for k in range(4):
    theirs, ours = rf'backbone\.layers\.{k}', f'backbone/stage{k + 1}'
    table += with_bias(rf'{theirs}\.0\.projection', f'{ours}_embed', convolution)
    table += layer_norm(rf'{theirs}\.0\.norm', f'{ours}_embed_norm')
    table += layer_norm(rf'{theirs}\.2', f'{ours}_norm')
    block, ours = rf'{theirs}\.1\.(\d+)', rf'{ours}_block\1'
    table += layer_norm(rf'{block}\.norm([12])', rf'{ours}/norm\2')
    table += with_bias(rf'{block}\.attn\.attn\.(query|key|value)', rf'{ours}/attention/\2', linear)
    table += with_bias(rf'{block}\.attn\.attn\.out_proj', f'{ours}/attention/out', linear)
    table += with_bias(rf'{block}\.attn\.sr', f'{ours}/attention/reduce', convolution)
    table += layer_norm(rf'{block}\.attn\.norm', f'{ours}/attention/reduce_norm')
    for i, (name, layout) in enumerate(
      (('expand', point), ('depthwise', convolution), ('contract', point))
    ):
      table += with_bias(rf'{block}\.ffn\.layers\.{(0, 1, 4)[i]}', f'{ours}/{name}', layout)
    table += _normed(rf'decode_head\.convs\.{k}', f'normed{k + 1}')
  return table


def _deeplabv3plus() -> list[Rule]:
  block, ours = r'backbone\.layer(\d)\.(\d+)\.', r'backbone/stage\1_block\2'
  table = [Rule(rf'{block}conv(\d)\.weight', rf'{ours}/conv\3/kernel', convolution)]
  table += norm(rf'{block}bn(\d)', rf'{ours}/norm\3')
  table.append(Rule(rf'{block}downsample\.0\.weight', f'{ours}/conv_skip/kernel', convolution))
  table += norm(rf'{block}downsample\.1', f'{ours}/norm_skip')
  for i in range(3):  # convolution, norm, ReLU
    stem = f'backbone/stem_conv{i + 1}/kernel'
    table.append(Rule(rf'backbone\.stem\.{3 * i}\.weight', stem, convolution))
    table += norm(rf'backbone\.stem\.{3 * i + 1}', f'backbone/stem_norm{i + 1}')
  head = r'decode_head\.'
  table += _normed(rf'{head}image_pool\.1', 'aspp/pool')
  table += _normed(rf'{head}aspp_modules\.0', 'aspp/point')
  table += _normed(rf'{head}bottleneck', 'aspp/project')
  table += _normed(rf'{head}c1_bottleneck', 'low_level')
  separable = [(rf'{head}aspp_modules\.{i}', f'aspp/rate{i}') for i in (1, 2, 3)]
  separable += [(rf'{head}sep_bottleneck\.{i}', f'decode{i + 1}') for i in (0, 1)]
  for theirs, path in separable:
    table += _normed(rf'{theirs}\.depthwise_conv', f'{path}/depthwise')
    table += _normed(rf'{theirs}\.pointwise_conv', f'{path}/point')
  return table + with_bias(rf'{head}conv_seg', 'head', convolution)


TABLES = {'segformer': _segformer, 'deeplabv3plus': _deeplabv3plus}


def to_variables(net: str, weights: Weights, template: Any = None) -> dict[str, Any]:
  """A state dict -> variables of the net that the registry calls `net`. Raises UserError."""
  return convert(TABLES[net](), _split(weights), template, UNUSED)


def _split(weights: Weights) -> dict[str, np.ndarray]:
  """Without the names that wrap a whole model; an attention's joint projection as three."""
  parts = {}
  for name, value in weights.items():
    name = name.removeprefix('module.')
    match = re.fullmatch(r'(.*\.attn)\.in_proj_(weight|bias)', name)
    if match and np.ndim(value) and len(value) % 3 == 0:
      for one, part in zip(('query', 'key', 'value'), np.split(value, 3), strict=True):
        parts[f'{match[1]}.{one}.{match[2]}'] = part
    else:
      parts[name] = value
  return parts


def read(path: str | pathlib.Path) -> dict[str, np.ndarray]:
  """The state dict of a checkpoint, whatever wraps it. Raises UserError."""
  content = torch_file.read_saved(path, 'state_dict', 'weights')
  return prefixes.unwrapped(path, tables.find(path, content, 'checkpoint of mmsegmentation'))


def kind_of(weights: Weights) -> tuple[str, str]:
  """(net, variant of its config) that a state dict holds; '' where there is none for its sizes."""
  if 'backbone.layers.0.0.projection.weight' in weights:
    stages = range(4)
    widths = tuple(rows(weights, f'backbone.layers.{k}.0.projection.weight') for k in stages)
    depths = tuple(count(weights, rf'backbone\.layers\.{k}\.1\.(\d+)\..*') for k in stages)
    return 'segformer', segformer(widths, depths)
  if 'decode_head.c1_bottleneck.conv.weight' in weights and 'backbone.stem.0.weight' in weights:
    blocks = tuple(count(weights, rf'backbone\.layer{k}\.(\d+)\..*') for k in range(1, 5))
    basic = 'backbone.layer1.0.conv3.weight' not in weights
    same = (f'r{d}' for d, of in BLOCKS.items() if of == blocks and (d < 50) == basic)
    return 'deeplabv3plus', next(same, '')
  return '', ''


def to_state(path: str | pathlib.Path, config: ConfigDict) -> tuple[Any, dict[str, Any]]:
  """The file as a state of the config's method, and what is known of its data.

  Sets the config's width of a SegFormer's head to the file's; of a file in NVlabs' names also what
  else differs. Raises UserError.
  """
  weights = read(path)
  if spellings.is_nvlabs(weights):
    epsilons = dict(norm_epsilon=1e-6, embed_epsilon=1e-5)
    return huggingface.linear_state(path, config, spellings.from_nvlabs(weights), **epsilons)
  net, variant = kind_of(weights)
  classes = rows(weights, 'decode_head.conv_seg.weight')
  if not net or not classes:
    raise UserError(
      f'{path} is neither SegFormer nor DeepLabV3+ as mmsegmentation names its parts: '
      f'{prefixes.described(weights)}'
    )
  check_config(path, config, net, variant)
  if net == 'segformer':
    set_width(config, weights, 'decode_head.fusion_conv.conv.weight')
  return supervised_state(path, config, classes, to_variables, weights, (net, variant))
