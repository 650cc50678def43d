"""Vision transformers of mmsegmentation, and what it puts on them: SETR and Segmenter."""

from typing import Any

from car_jax.importers import families
from car_jax.importers.openmmlab.translation import (
  Translation,
  classifier,
  common,
  head_settings,
  layer_norms,
  normed,
  usual_norm,
)
from car_jax.importers.rules import Rule, convolution, layer_norm, linear, with_bias
from car_jax.importers.settings import REQUIRED, Settings

LN = {'type': 'LN', 'eps': 1e-6}  # what SETR's parts have, if nothing else is said


def _vit(of: Settings) -> dict[str, Any]:
  of.only('in_channels', 3)
  of.only('output_cls_token', False)
  of.only('interpolate_mode', 'bicubic', 'bilinear')
  of.only('patch_pad', 'corner')
  of.only('pre_norm', False)
  of.only('out_origin', False)
  of.passed('norm_eval', 'with_cp', 'pretrained', 'init_cfg', 'frozen_exclude')
  size, depth, outputs = of('img_size', 224), of('num_layers', 12), of('out_indices', -1)
  size = size if isinstance(size, tuple) else (size,)
  last = isinstance(outputs, int) and outputs == -1
  outputs = outputs if isinstance(outputs, tuple) else (outputs,)
  entry = dict(name='vit', width=of('embed_dims', 768), depth=depth, patch=of('patch_size', 16))
  entry |= dict(image_size=size * 2 if len(size) == 1 else size)
  entry |= dict(outputs=() if last else tuple(i for i in range(depth) if i in outputs))
  entry |= dict(keep_class_token=of('with_cls_token', True), final_norm=of('final_norm', False))
  entry |= dict(embed_bias=of('patch_bias', True))
  entry |= dict(embed_norm=of('patch_norm', False), interpolation=of('interpolate_mode', 'bicubic'))
  entry |= dict(heads=of('num_heads', 12), drop_path=float(of('drop_path_rate', 0.0)))
  return entry | _blocks(of)


def _blocks(of: Settings) -> dict[str, Any]:
  """What a backbone and a head made of the same blocks have in common."""
  of.only('num_fcs', 2)
  of.only('attn_drop_rate', 0)
  of.only('act_cfg', {'type': 'GELU'})
  of.only('attn_cfg', {})
  of.only('ffn_cfg', {})
  entry = dict(expansion=of('mlp_ratio', 4), attention_bias=of('qkv_bias', True))
  return entry | dict(dropout=float(of('drop_rate', 0.0)), epsilon=layer_norms(of))


def _vit_rules(prefix: str, path: str, part: Any) -> list[Rule]:
  table = [Rule(f'{prefix}cls_token', f'{path}class_token')]
  table.append(Rule(f'{prefix}pos_embed', f'{path}positions'))
  table += with_bias(rf'{prefix}patch_embed\.projection', f'{path}embed', convolution)
  table += layer_norm(rf'{prefix}patch_embed\.norm', f'{path}embed_norm')
  return table + layer_norm(f'{prefix}ln1', f'{path}norm') + _block_rules(prefix, path)


def _block_rules(prefix: str, path: str) -> list[Rule]:
  names = {'norm1': 'ln1', 'norm2': 'ln2', 'out': r'attn\.attn\.out_proj'}
  names |= {name: rf'attn\.attn\.{name}' for name in ('query', 'key', 'value')}
  names |= {'expand': r'ffn\.layers\.0\.0', 'contract': r'ffn\.layers\.1'}
  return families.attention_block(rf'{prefix}layers\.(\d+)\.', rf'{path}block\1', names)


def _mla_neck(of: Settings) -> dict[str, Any]:
  of.passed('in_channels')
  usual_norm(of, REQUIRED)
  of.only('act_cfg', {'type': 'ReLU'}, default=None)
  return dict(name='mla', features=of('out_channels'), epsilon=layer_norms(of, LN, 'norm_layer'))


def _mla_neck_rules(prefix: str, path: str, part: Any) -> list[Rule]:
  table = layer_norm(rf'{prefix}norm\.(\d+)', rf'{path}norm\1')
  table += normed(rf'{prefix}mla\.channel_proj\.(\d+)', rf'{path}project\1')
  return table + normed(rf'{prefix}mla\.feat_extract\.(\d+)', rf'{path}extract\1')


def _setr_up(of: Settings) -> dict[str, Any]:
  entry = head_settings(of, name='setr_up', epsilon=layer_norms(of, LN, 'norm_layer'))
  entry |= dict(convolutions=of('num_convs', 1), scale=of('up_scale', 4))
  return entry | dict(kernel=of('kernel_size', 3))


def _setr_up_rules(prefix: str, path: str, part: Any) -> list[Rule]:
  table = layer_norm(f'{prefix}norm', 'norm')
  return table + normed(rf'{prefix}up_convs\.(\d+)\.0', r'up\1') + classifier(prefix)


def _setr_mla(of: Settings) -> dict[str, Any]:
  usual_norm(of, REQUIRED)
  of.only('input_transform', 'multiple_select')
  entry = dict(name='setr_mla', indices=of('in_index'), scale=of('up_scale', 4))
  return common(of) | entry | dict(features=of('mla_channels', 128))


def _setr_mla_rules(prefix: str, path: str, part: Any) -> list[Rule]:
  table = normed(rf'{prefix}up_convs\.(\d+)\.([01])', r'level\1_conv\2')
  return table + classifier(prefix)


def _segmenter(of: Settings) -> dict[str, Any]:
  of.passed('init_std')
  of.only('input_transform', None)
  entry = dict(name='segmenter', features=of('embed_dims'), index=of('in_index', -1))
  entry |= dict(depth=of('num_layers'), heads=of('num_heads'))
  entry |= dict(drop_path=float(of('drop_path_rate', 0.1)))
  return common(of, act='GELU') | entry | _blocks(of)


def _segmenter_rules(prefix: str, path: str, part: Any) -> list[Rule]:
  table = [Rule(f'{prefix}cls_emb', 'class_tokens'), *_block_rules(prefix, path)]
  table += with_bias(f'{prefix}dec_proj', 'project', linear)
  for theirs, ours in (('patch', 'patches'), ('classes', 'classes')):
    table.append(Rule(rf'{prefix}{theirs}_proj\.weight', f'project_{ours}/kernel', linear))
  table += layer_norm(f'{prefix}decoder_norm', 'norm')
  return table + layer_norm(f'{prefix}mask_norm', 'mask_norm')


BACKBONES = {'VisionTransformer': Translation('vit', _vit, _vit_rules)}
NECKS = {'MLANeck': Translation('mla', _mla_neck, _mla_neck_rules)}
HEADS = {
  'SETRMLAHead': Translation('setr_mla', _setr_mla, _setr_mla_rules),
  'SETRUPHead': Translation('setr_up', _setr_up, _setr_up_rules),
  'SegmenterMaskTransformerHead': Translation('segmenter', _segmenter, _segmenter_rules),
}
