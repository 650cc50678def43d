"""Weights of parts that several libraries publish, each under names of its own.

A library says what it calls the parts: patterns of names without `.weight` and `.bias`. Letters: D
channels, L the side of a table of position biases, P positions.
"""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np

from car_jax.importers.rules import (
  Rule,
  as_is,
  convolution,
  dense,
  layer_norm,
  linear,
  with_bias,
)
from car_jax.nn.convnext import ConvNeXt
from car_jax.nn.resize import resize_bicubic
from car_jax.nn.swin import SwinTransformer, merged
from car_jax.nn.vit import VisionTransformer

Place = Callable[[int], str]  # of a stage, counted from 0
Layout = Callable[[np.ndarray], np.ndarray]
ATTENTION = ('query', 'key', 'value', 'out')
# A block of Swin or ViT as their authors call its parts, and timm.
PUBLISHED = {name: rf'attn\.{name}' for name in ('query', 'key', 'value')}
PUBLISHED |= {'norm1': 'norm1', 'norm2': 'norm2', 'out': r'attn\.proj'}
PUBLISHED |= {'expand': r'mlp\.fc1', 'contract': r'mlp\.fc2'}


def swin(
  backbone: SwinTransformer,
  parts: Mapping[str, str],
  *,
  patches: str,
  patches_norm: str,
  block: Place,
  merge: Place,
  stage_norm: Place | None = None,
  adapted: bool = True,
) -> list[Rule]:
  """`block` holds a group for its number; `merge` gives what merges a stage's places into the
  next's, `stage_norm` the norm of a stage's map, where there is one.

  parts: norm1, norm2, query, key, value, out, expand, contract and the table position_bias, below
  a block. If `adapted`, a table for windows of another size is resized, and channels are brought in
  the order that the backbone merges them in; else they are the backbone's.
  """
  table = with_bias(patches, 'backbone/embed', convolution)
  table += layer_norm(patches_norm, 'backbone/embed_norm')
  order = merged_order(backbone) if adapted else as_is
  biases = window_biases(backbone.window) if adapted else as_is
  for k in range(len(backbone.depths)):
    ours = f'backbone/stage{k + 2}_merge'
    table += [
      Rule(rf'{merge(k)}\.norm\.weight', f'{ours}_norm/scale', order),
      Rule(rf'{merge(k)}\.norm\.bias', f'{ours}_norm/bias', order),
      Rule(rf'{merge(k)}\.reduction\.weight', f'{ours}/kernel', lambda a: order(linear(a))),
    ]
    theirs, ours = rf'{block(k)}\.', rf'backbone/stage{k + 1}_block\1'
    table += attention_block(theirs, ours, parts)
    place = f'{ours}/attention/position_bias'
    table.append(Rule(theirs + parts['position_bias'], place, biases))
  return table + stage_norms(backbone, stage_norm)


def attention_block(theirs: str, ours: str, parts: Mapping[str, str]) -> list[Rule]:
  """Two norms, the projections of attention, a feed-forward net."""
  table = layer_norm(theirs + parts['norm1'], f'{ours}/norm1')
  table += layer_norm(theirs + parts['norm2'], f'{ours}/norm2')
  for name in ATTENTION:
    table += with_bias(theirs + parts[name], f'{ours}/attention/{name}', linear)
  for name in ('expand', 'contract'):
    table += with_bias(theirs + parts[name], f'{ours}/{name}', linear)
  return table


def stage_norms(backbone: SwinTransformer | ConvNeXt, norm: Place | None) -> list[Rule]:
  """Those of the maps that stages give."""
  stages = range(len(backbone.depths) if norm else 0)
  return [r for k in stages for r in layer_norm(norm(k), f'backbone/stage{k + 1}_norm')]  # type: ignore[misc]


def merged_order(backbone: SwinTransformer) -> Layout:
  """The first axis, 4 D channels of merged places, from the published order to the backbone's."""
  if not backbone.merge_by_channel:
    return as_is

  def ordered(a: np.ndarray) -> np.ndarray:
    numbers = np.arange(len(a))
    places = np.empty((1, 2, 2, len(a) // 4), int)  # whose merging gives 0, 1, 2, ..
    places[0] = numbers.reshape(2, 2, -1).swapaxes(0, 1)
    return a[np.asarray(merged(places, by_channel=True)).reshape(-1)]

  return ordered


def window_biases(side: int) -> Layout:
  """[L * L, heads] -> the table of windows of `side` places, resized where theirs differ."""

  def fitted(a: np.ndarray) -> np.ndarray:
    theirs = round(len(a) ** 0.5)
    if theirs**2 != len(a) or theirs == 2 * side - 1:
      return a
    grid = jnp.asarray(a, jnp.float32).reshape(theirs, theirs, -1)
    return np.asarray(resize_bicubic(grid, (2 * side - 1,) * 2)).reshape(-1, a.shape[-1])

  return fitted


def convnext(
  backbone: ConvNeXt,
  parts: Mapping[str, str],
  *,
  embed: Place,
  embed_norm: Place,
  block: Place,
  stage_norm: Place | None = None,
  factors: Layout = as_is,
) -> list[Rule]:
  """`embed` and `embed_norm` are what leads into a stage; `block` holds a group for its number.

  parts: depthwise, norm, expand, contract and `scale`, whose `factors` become [D], below a block.
  """
  table = []
  for k in range(len(backbone.depths)):
    ours = f'backbone/stage{k + 1}'
    table += with_bias(embed(k), f'{ours}_embed', convolution)
    table += layer_norm(embed_norm(k), f'{ours}_embed_norm')
    theirs, ours = rf'{block(k)}\.', rf'{ours}_block\1'
    table += with_bias(theirs + parts['depthwise'], f'{ours}/depthwise', convolution)
    table += layer_norm(theirs + parts['norm'], f'{ours}/norm')
    table += with_bias(theirs + parts['expand'], f'{ours}/expand', dense)
    table += with_bias(theirs + parts['contract'], f'{ours}/contract', dense)
    table.append(Rule(theirs + parts['scale'], f'{ours}/scale', factors))
  return table + stage_norms(backbone, stage_norm)


def vit(
  backbone: VisionTransformer,
  parts: Mapping[str, str],
  *,
  patches: str,
  class_token: str,
  positions: str,
  last_norm: str,
  block: str,
) -> list[Rule]:
  """`block` holds a group for its number. Codes for images of another size are resized.

  parts: norm1, norm2, query, key, value, out, expand and contract, below a block.
  """
  table = with_bias(patches, 'backbone/embed', convolution)
  table.append(Rule(class_token, 'backbone/class_token'))
  table.append(Rule(positions, 'backbone/positions', position_codes(backbone)))
  if backbone.final_norm:
    table += layer_norm(last_norm, 'backbone/norm')
  return table + attention_block(rf'{block}\.', r'backbone/block\1', parts)


def position_codes(backbone: VisionTransformer) -> Layout:
  """[1, 1 + P, D] -> the codes of the backbone's image size, from those of a square image."""
  size = tuple(side // backbone.patch for side in backbone.image_size)

  def fitted(a: np.ndarray) -> np.ndarray:
    theirs = round((a.shape[1] - 1) ** 0.5)
    if theirs**2 != a.shape[1] - 1 or a.shape[1] - 1 == size[0] * size[1]:
      return a
    codes = jnp.asarray(a, jnp.float32)
    grid = resize_bicubic(codes[:, 1:].reshape(1, theirs, theirs, -1), size)
    return np.concatenate([codes[:, :1], grid.reshape(1, -1, a.shape[2])], 1)

  return fitted


def deformable_attention(theirs: str, ours: str) -> list[Rule]:
  """Of Mask2Former's pixel decoder."""
  names = {'sampling_offsets': 'offsets', 'attention_weights': 'weights'}
  names |= {'value_proj': 'value', 'output_proj': 'out'}
  parts = names.items()
  return [
    r for name, own in parts for r in with_bias(rf'{theirs}\.{name}', f'{ours}/{own}', linear)
  ]
