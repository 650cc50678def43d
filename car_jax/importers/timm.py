"""ImageNet's weights as timm publishes them: starts of encoders, see encoders.py.

Those that its Swins and ConvNeXts come from, Microsoft's and Meta's own, have the names of its
older versions.
"""

import pathlib
from typing import Any

from car_jax.importers import encoders, families, tables
from car_jax.importers.rules import Rule, Weights, convolution, layer_norm, resnet

HEADS = (r'fc\..*', r'head\..*')  # ImageNet's classes


def _convnext(backbone: Any, weights: Weights) -> list[Rule]:
  def entry(k: int, place: int) -> str:
    """A convolution and a norm lead into the first stage, a norm and a convolution into others."""
    newer = rf'stages\.{k}\.downsample' if k else 'stem'
    return rf'(?:{newer}|downsample_layers\.{k})\.{1 - place if k else place}'

  return families.convnext(
    backbone,
    {
      'depthwise': r'(?:conv_dw|dwconv)',
      'norm': 'norm',
      'scale': 'gamma',
      'expand': r'(?:mlp\.fc1|pwconv1)',
      'contract': r'(?:mlp\.fc2|pwconv2)',
    },
    embed=lambda k: entry(k, 0),
    embed_norm=lambda k: entry(k, 1),
    block=lambda k: rf'stages\.{k}\.(?:blocks\.)?(\d+)',
  )


def _swin(backbone: Any, weights: Weights) -> list[Rule]:
  older = any(name.startswith('layers.0.downsample.') for name in weights)
  return families.swin(
    backbone,
    {**families.PUBLISHED, 'position_bias': r'attn\.relative_position_bias_table'},
    patches=r'patch_embed\.proj',
    patches_norm=r'patch_embed\.norm',
    block=lambda k: rf'layers\.{k}\.blocks\.(\d+)',
    merge=lambda k: rf'layers\.{k if older else k + 1}\.downsample',
  )


def _vit(backbone: Any, weights: Weights) -> list[Rule]:
  return families.vit(
    backbone,
    families.PUBLISHED,
    patches=r'patch_embed\.proj',
    class_token='cls_token',
    positions='pos_embed',
    last_norm='norm',
    block=r'blocks\.(\d+)',
  )


def _resnetv2(backbone: Any, weights: Weights) -> list[Rule]:
  table = [Rule(r'stem\.conv\.weight', 'backbone/stem_conv/kernel', convolution)]
  for k in range(len(backbone.blocks)):
    block, ours = rf'stages\.{k}\.blocks\.(\d+)', rf'backbone/stage{k + 1}_block\1'
    skip = rf'{block}\.downsample\.conv\.weight'
    table.append(Rule(skip, f'{ours}/conv_skip/kernel', convolution))
    table.append(Rule(rf'{block}\.conv(\d)\.weight', rf'{ours}/conv\2/kernel', convolution))
    table += layer_norm(rf'{block}\.norm(\d)', rf'{ours}/norm\2')
  return table


LAST = r'norm\..*'
NAMES = (
  encoders.Names('resnet', r'layer1\.0\.conv1\.weight', lambda *_: resnet(), HEADS),
  encoders.Names(
    'convnext', r'stages\.0\.(blocks\.)?0\.(conv_dw|dwconv)\.weight', _convnext, (*HEADS, LAST)
  ),
  encoders.Names(
    'swin',
    r'layers\.0\.blocks\.0\.attn\.relative_position_bias_table',
    _swin,
    (*HEADS, LAST, r'.*\.(relative_position_index|attn_mask)'),
  ),
  encoders.Names('vit', r'cls_token', _vit, (*HEADS, LAST, r'pre_logits\..*')),
  encoders.Names('resnetv2', r'stem\.conv\.weight', _resnetv2, (*HEADS, LAST)),
)


def opened(path: str | pathlib.Path) -> encoders.Encoder:
  """Raises UserError for what is no file of an encoder of timm."""
  return encoders.opened(path, tables.read(path, 'file of timm'), NAMES, 'timm')
