"""SegFormer of mmsegmentation."""

from typing import Any

from car_jax.importers.openmmlab.translation import (
  Translation,
  classifier,
  common,
  layer_norms,
  normed,
  usual_norm,
)
from car_jax.importers.rules import Rule, convolution, layer_norm, linear, point, with_bias
from car_jax.importers.settings import REQUIRED, Settings


def _mit(of: Settings) -> dict[str, Any]:
  of.only('in_channels', 3)
  of.only('num_stages', 4)
  of.only('out_indices', (0, 1, 2, 3))
  of.only('patch_sizes', (7, 3, 3, 3))
  of.only('strides', (4, 2, 2, 2))
  of.only('mlp_ratio', 4)
  of.only('qkv_bias', True)
  of.only('act_cfg', {'type': 'GELU'})
  of.passed('drop_rate', 'attn_drop_rate', 'init_cfg', 'pretrained', 'with_cp')
  epsilon = layer_norms(of, {'type': 'LN', 'eps': 1e-6})
  heads = of('num_heads', (1, 2, 4, 8))
  widths = tuple(of('embed_dims', 64) * h for h in heads)
  entry = dict(name='mit', widths=widths, heads=heads, depths=of('num_layers', (3, 4, 6, 3)))
  entry |= dict(reductions=of('sr_ratios', (8, 4, 2, 1)), epsilon=epsilon, embed_epsilon=epsilon)
  return entry | dict(drop_path=float(of('drop_path_rate', 0.0)))


def _mit_rules(prefix: str, path: str, part: Any) -> list[Rule]:
  table = []
  for k in range(4):
    theirs, ours = rf'{prefix}layers\.{k}', f'{path}stage{k + 1}'
    table += with_bias(rf'{theirs}\.0\.projection', f'{ours}_embed', convolution)
    table += layer_norm(rf'{theirs}\.0\.norm', f'{ours}_embed_norm')
    table += layer_norm(rf'{theirs}\.2', f'{ours}_norm')
    block, ours = rf'{theirs}\.1\.(\d+)', rf'{ours}_block\1'
    table += layer_norm(rf'{block}\.norm([12])', rf'{ours}/norm\2')
    table += with_bias(rf'{block}\.attn\.attn\.(query|key|value)', rf'{ours}/attention/\2', linear)
    table += with_bias(rf'{block}\.attn\.attn\.out_proj', f'{ours}/attention/out', linear)
    table += with_bias(rf'{block}\.attn\.sr', f'{ours}/attention/reduce', convolution)
    table += layer_norm(rf'{block}\.attn\.norm', f'{ours}/attention/reduce_norm')
    for i, name, layout in (
      (0, 'expand', point),
      (1, 'depthwise', convolution),
      (4, 'contract', point),
    ):
      table += with_bias(rf'{block}\.ffn\.layers\.{i}', f'{ours}/{name}', layout)
  return table


def _head(of: Settings) -> dict[str, Any]:
  of.only('in_index', (0, 1, 2, 3))
  usual_norm(of, REQUIRED)
  of.only('interpolate_mode', 'bilinear')
  return common(of) | dict(name='segformer')


def _head_rules(prefix: str, path: str, part: Any) -> list[Rule]:
  table = normed(rf'{prefix}fusion_conv', 'fuse') + classifier(prefix)
  for k in range(4):
    table += normed(rf'{prefix}convs\.{k}', f'normed{k + 1}')
  return table


BACKBONES = {'MixVisionTransformer': Translation('mit', _mit, _mit_rules)}
NECKS: dict[str, Translation] = {}
HEADS = {'SegformerHead': Translation('segformer', _head, _head_rules)}
