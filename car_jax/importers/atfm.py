"""Names of the net of ATFM's second stage, as its release calls its layers."""

import numpy as np

from car_jax.importers.rules import (
  Rule,
  Weights,
  convolution,
  layer_norm,
  linear,
  point,
  with_bias,
)
from car_jax.importers.segmenters import count


def unshuffled(a: np.ndarray) -> np.ndarray:
  """[out, (in, 2, 2), 1, 1], of pixels brought together four by four, as the convolution two
  apart that it is: [2, 2, in, out]."""
  return convolution(a.reshape(len(a), -1, 2, 2))


def _block(theirs: str, ours: str) -> list[Rule]:
  table = with_bias(rf'{theirs}\.mlp\.1', f'{ours}/time', linear)
  for k in (1, 2):
    table += with_bias(rf'{theirs}\.block{k}\.proj', f'{ours}/conv{k}', convolution)
    table += layer_norm(rf'{theirs}\.block{k}\.norm', f'{ours}/norm{k}')
  return table + with_bias(rf'{theirs}\.res_conv', f'{ours}/skip', convolution)


def _attention(theirs: str, ours: str, is_linear: bool) -> list[Rule]:
  inner = rf'{theirs}\.fn\.fn'
  table = layer_norm(rf'{theirs}\.fn\.norm', f'{ours}/norm')
  table.append(Rule(rf'{inner}\.to_qkv\.weight', f'{ours}/joint/kernel', point))
  if not is_linear:
    return table + with_bias(rf'{inner}\.to_out', f'{ours}/out', convolution)
  table += with_bias(rf'{inner}\.to_out\.0', f'{ours}/out', convolution)
  return table + layer_norm(rf'{inner}\.to_out\.1', f'{ours}/out_norm')


def unet(weights: Weights) -> list[Rule]:
  levels = count(weights, r'downs\.(\d+)\..*')
  table = with_bias('init_conv', 'stem', convolution)
  table += with_bias(r'time_mlp\.1', 'time1', linear) + with_bias(r'time_mlp\.3', 'time2', linear)
  for i in range(levels):
    k = levels - 1 - i  # those that expand are counted from the deepest
    for theirs, ours in ((rf'downs\.{i}', f'down{i}'), (rf'ups\.{i}', f'up{k}')):
      for j in (1, 2):
        table += _block(rf'{theirs}\.{j - 1}', f'{ours}_block{j}')
      table += _attention(rf'{theirs}\.2', f'{ours}_attention', True)
      table += with_bias(rf'{theirs}\.3', f'{ours}_conv', convolution)  # of the last alone
    table += with_bias(rf'downs\.{i}\.3\.1', f'down{i}_conv', unshuffled)
    table += with_bias(rf'ups\.{i}\.3\.1', f'up{k}_conv', convolution)
  for j in (1, 2):
    table += _block(f'mid_block{j}', f'middle_block{j}')
  table += _attention('mid_attn', 'middle_attention', False)
  return (
    table + _block('final_res_block', 'last_block') + with_bias('final_conv', 'out', convolution)
  )
