"""UPerNet of mmsegmentation, and the backbone that it takes from timm."""

import re
from typing import Any

from car_jax.errors import UserError
from car_jax.importers.openmmlab.translation import (
  Translation,
  classifier,
  common,
  normed,
  usual_norm,
)
from car_jax.importers.rules import Rule, convolution, layer_norm
from car_jax.importers.settings import REQUIRED, Settings
from car_jax.nn.resnet import BLOCKS


def _upernet(of: Settings) -> dict[str, Any]:
  of.only('input_transform', 'multiple_select')
  usual_norm(of, REQUIRED)
  entry = dict(name='upernet', index=of('in_index'), scales=of('pool_scales', (1, 2, 3, 6)))
  return common(of) | entry


def _upernet_rules(prefix: str, path: str, part: Any) -> list[Rule]:
  table = normed(rf'{prefix}psp_modules\.(\d+)\.1', r'pool/scale\1')
  for theirs, ours in (
    ('bottleneck', 'bottleneck'),
    (r'lateral_convs\.(\d+)', r'lateral\1'),
    (r'fpn_convs\.(\d+)', r'smooth\1'),
    ('fpn_bottleneck', 'fuse'),
  ):
    table += normed(prefix + theirs, ours)
  return table + classifier(prefix)


def _timm(of: Settings) -> dict[str, Any]:
  name = str(of('model_name'))
  match = re.fullmatch(r'resnetv2_(50|101|152)x([1-4])_bitm(_in21k)?', name)
  if match is None:
    raise UserError(
      f'its config has {of.where}.model_name = {name!r}, which no net here has\n'
      "  what can be read: 'resnetv2_50x1_bitm', and others of BiT's"
    )
  depth, factor = int(match[1]), int(match[2])
  of.only('features_only', True)
  of.only('in_channels', 3)
  of.only('out_indices', (0, 1, 2, 3, 4))
  of.passed('pretrained', 'checkpoint_path', 'init_cfg', 'zero_init_last')
  scaled = lambda width: _rounded(width * factor)
  widths = tuple(map(scaled, of('channels', (256, 512, 1024, 2048))))
  entry: dict[str, Any] = dict(name='resnetv2', blocks=BLOCKS[depth], widths=widths)
  entry |= dict(stem_channels=scaled(of('stem_chs', 64)), output_stride=of('output_stride', 32))
  return entry | dict(drop_path=float(of('drop_path_rate', 0.0)))


def _rounded(width: int) -> int:
  """To a multiple of 8 that is not below nine tenths of it, as timm makes widths."""
  near = max(8, (width + 4) // 8 * 8)
  return near + 8 if near < 0.9 * width else near


def _timm_rules(prefix: str, path: str, part: Any) -> list[Rule]:
  model = rf'{prefix}timm_model\.'
  table = [Rule(rf'{model}stem_conv\.weight', f'{path}stem_conv/kernel', convolution)]
  for k in range(len(part.blocks)):
    block, ours = rf'{model}stages_{k}\.blocks\.(\d+)', rf'{path}stage{k + 1}_block\1'
    skip = f'{ours}/conv_skip/kernel'
    table.append(Rule(rf'{block}\.downsample\.conv\.weight', skip, convolution))
    table.append(Rule(rf'{block}\.conv(\d)\.weight', rf'{ours}/conv\2/kernel', convolution))
    table += layer_norm(rf'{block}\.norm(\d)', rf'{ours}/norm\2')
  return table


BACKBONES = {'TIMMBackbone': Translation('resnetv2', _timm, _timm_rules)}
NECKS: dict[str, Translation] = {}
HEADS = {'UPerHead': Translation('upernet', _upernet, _upernet_rules)}
