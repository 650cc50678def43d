"""Swin transformers of mmsegmentation, ConvNeXts of mmclassification."""

from collections.abc import Mapping
from typing import Any

from car_jax.errors import UserError, nearest
from car_jax.importers import families
from car_jax.importers.openmmlab.translation import (
  Translation,
  layer_norms,
)
from car_jax.importers.rules import Rule
from car_jax.importers.settings import Settings

# Blocks of the third stage, channels of the first.
CONVNEXTS = {'tiny': (9, 96), 'small': (27, 96), 'base': (27, 128), 'large': (27, 192)}
CONVNEXTS |= {'xlarge': (27, 256)}


def _swin(of: Settings) -> dict[str, Any]:
  depths = of('depths', (2, 2, 6, 2))
  patch = of('patch_size', 4)
  of.only('in_channels', 3)
  of.only('strides', (patch, *(2,) * (len(depths) - 1)))
  of.only('use_abs_pos_embed', False)
  of.only('act_cfg', {'type': 'GELU'})
  of.passed('drop_rate', 'attn_drop_rate')
  of.passed('pretrain_img_size', 'init_cfg', 'pretrained', 'with_cp', 'frozen_stages')
  entry = dict(name='swin', width=of('embed_dims', 96), depths=depths, patch=patch)
  entry |= dict(heads=of('num_heads', (3, 6, 12, 24)), window=of('window_size', 7))
  entry |= dict(expansion=float(of('mlp_ratio', 4)), qkv_bias=of('qkv_bias', True))
  entry |= dict(scale=float(of('qk_scale', None) or 0), patch_norm=of('patch_norm', True))
  entry |= dict(outputs=of('out_indices', (0, 1, 2, 3)), merge_by_channel=True)
  entry |= dict(epsilon=layer_norms(of))
  return entry | dict(drop_path=float(of('drop_path_rate', 0.1)))


def _swin_rules(prefix: str, path: str, part: Any) -> list[Rule]:
  return families.swin(
    part,
    {
      'norm1': 'norm1',
      'norm2': 'norm2',
      'out': r'attn\.w_msa\.proj',
      **{name: rf'attn\.w_msa\.{name}' for name in ('query', 'key', 'value')},
      'expand': r'ffn\.layers\.0\.0',
      'contract': r'ffn\.layers\.1',
      'position_bias': r'attn\.w_msa\.relative_position_bias_table',
    },
    patches=rf'{prefix}patch_embed\.projection',
    patches_norm=rf'{prefix}patch_embed\.norm',
    block=lambda k: rf'{prefix}stages\.{k}\.blocks\.(\d+)',
    merge=lambda k: rf'{prefix}stages\.{k}\.downsample',
    stage_norm=lambda k: rf'{prefix}norm{k}',
    adapted=False,
  )


def _convnext(of: Settings) -> dict[str, Any]:
  arch = of('arch', 'tiny')
  shape = of.part('arch') if isinstance(arch, Mapping) else Settings(_named(arch), 'arch')
  depths = shape('depths')
  entry = dict(name='convnext', widths=shape('channels'), depths=depths)
  shape.finish()
  of.only('in_channels', 3)
  of.only('act_cfg', {'type': 'GELU'})
  if of('gap_before_final_norm', True):
    raise UserError(
      f'its config has no {of.where}.gap_before_final_norm = False\n'
      '  without, it gives one vector for each image'
    )
  of.passed('linear_pw_conv', 'frozen_stages', 'with_cp', 'init_cfg', 'pretrained')
  outputs = of('out_indices', -1)
  outputs = [outputs] if isinstance(outputs, int) else outputs
  epsilon = layer_norms(of, {'type': 'LN2d', 'eps': 1e-6})
  # mmclassification makes those between stages with torch's own epsilon, mmpretrain does not.
  shrink = epsilon if of.given['type'].startswith('mmpretrain.') else 1e-5
  entry |= dict(patch=of('stem_patch_size', 4), epsilon=epsilon, shrink_epsilon=shrink)
  entry |= dict(outputs=tuple(k + len(depths) if k < 0 else k for k in outputs))
  entry |= dict(layer_scale=float(of('layer_scale_init_value', 1e-6)))
  return entry | dict(drop_path=float(of('drop_path_rate', 0.0)))


def _named(arch: str) -> dict[str, Any]:
  """Sizes of a published ConvNeXt. Raises UserError."""
  if arch not in CONVNEXTS:
    raise UserError(f'no ConvNeXt {arch!r}\n{nearest(arch, CONVNEXTS)}')
  depth, width = CONVNEXTS[arch]
  return dict(depths=(3, 3, depth, 3), channels=tuple(width * 2**k for k in range(4)))


def _convnext_rules(prefix: str, path: str, part: Any) -> list[Rule]:
  entry = rf'{prefix}downsample_layers\.'
  return families.convnext(
    part,
    {
      'depthwise': 'depthwise_conv',
      'norm': 'norm',
      'scale': 'gamma',
      'expand': 'pointwise_conv1',
      'contract': 'pointwise_conv2',
    },
    embed=lambda k: rf'{entry}{k}\.{min(k, 1)}',
    embed_norm=lambda k: rf'{entry}{k}\.{1 - min(k, 1)}',
    block=lambda k: rf'{prefix}stages\.{k}\.(\d+)',
    stage_norm=lambda k: rf'{prefix}norm{k}',
  )


BACKBONES = {
  'ConvNeXt': Translation('convnext', _convnext, _convnext_rules),
  'SwinTransformer': Translation('swin', _swin, _swin_rules),
}
NECKS: dict[str, Translation] = {}
HEADS: dict[str, Translation] = {}
