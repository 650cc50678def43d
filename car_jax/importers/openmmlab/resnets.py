"""ResNets of mmsegmentation, and heads that read their last map or the last and the first."""

from typing import Any

from car_jax.errors import UserError
from car_jax.importers.openmmlab.translation import (
  Translation,
  classifier,
  head_settings,
  normed,
  usual_norm,
)
from car_jax.importers.rules import Rule, convolution, norm
from car_jax.importers.settings import Settings


def _resnet(of: Settings) -> dict[str, Any]:
  of.only('in_channels', 3)
  of.only('num_stages', 4)
  of.only('out_indices', (0, 1, 2, 3))
  of.only('style', 'pytorch')
  of.only('avg_down', False)
  of.only('dcn', None)
  of.only('plugins', None)
  of.only('conv_cfg', None)
  usual_norm(of)
  of.passed('norm_eval', 'init_cfg', 'pretrained', 'frozen_stages', 'with_cp')
  of.passed('zero_init_residual')
  deep = of.flag('deep_stem') or of.given['type'] == 'ResNetV1c'
  grid = of('multi_grid', None) or ()
  stem, width = of.size('stem_channels', 64), of.size('base_channels', 64)
  entry = dict(name='resnet', depth=of('depth'), stem_channels=stem, deep_stem=deep, width=width)
  entry |= dict(strides=of('strides', (1, 2, 2, 2)))
  entry |= dict(dilations=of('dilations', (1, 1, 1, 1)), multi_grid=grid)
  return entry | dict(dilate_first=not of.flag('contract_dilation'))


def _resnet_rules(prefix: str, path: str, part: Any) -> list[Rule]:
  block, ours = rf'{prefix}layer(\d)\.(\d+)\.', rf'{path}stage\1_block\2'
  table = [Rule(rf'{block}conv(\d)\.weight', rf'{ours}/conv\3/kernel', convolution)]
  table += norm(rf'{block}bn(\d)', rf'{ours}/norm\3')
  table.append(Rule(rf'{block}downsample\.0\.weight', f'{ours}/conv_skip/kernel', convolution))
  table += norm(rf'{block}downsample\.1', f'{ours}/norm_skip')
  if not part.deep_stem:
    table.append(Rule(rf'{prefix}conv1\.weight', f'{path}stem_conv/kernel', convolution))
    return table + norm(rf'{prefix}bn1', f'{path}stem_norm')
  for i in range(3):  # convolution, norm, ReLU
    stem = f'{path}stem_conv{i + 1}/kernel'
    table.append(Rule(rf'{prefix}stem\.{3 * i}\.weight', stem, convolution))
    table += norm(rf'{prefix}stem\.{3 * i + 1}', f'{path}stem_norm{i + 1}')
  return table


def _psp(of: Settings) -> dict[str, Any]:
  return head_settings(of, name='psp', scales=of('pool_scales', (1, 2, 3, 6)))


def _psp_rules(prefix: str, path: str, part: Any) -> list[Rule]:
  table = normed(rf'{prefix}psp_modules\.(\d+)\.1', r'pool/scale\1')
  return table + normed(rf'{prefix}bottleneck', 'bottleneck') + classifier(prefix)


def _deeplabv3plus(of: Settings) -> dict[str, Any]:
  if not of('c1_in_channels'):
    raise UserError(f'its config has {of.where}.c1_in_channels = 0, which no net here has')
  rates = of('dilations', (1, 6, 12, 18))[1:]
  of.only('dilations', (1, *rates))
  names = dict(name='deeplabv3plus', low_features=of('c1_channels'), rates=rates)
  return head_settings(of, **names)


def _deeplabv3plus_rules(prefix: str, path: str, part: Any) -> list[Rule]:
  table = normed(rf'{prefix}image_pool\.1', 'aspp/pool')
  table += normed(rf'{prefix}aspp_modules\.0', 'aspp/point')
  table += normed(rf'{prefix}bottleneck', 'aspp/project')
  table += normed(rf'{prefix}c1_bottleneck', 'low_level')
  separable = [(rf'aspp_modules\.{i + 1}', f'aspp/rate{i + 1}') for i in range(len(part.rates))]
  separable += [(rf'sep_bottleneck\.{i}', f'decode{i + 1}') for i in (0, 1)]
  for theirs, ours in separable:
    table += normed(rf'{prefix}{theirs}\.depthwise_conv', f'{ours}/depthwise')
    table += normed(rf'{prefix}{theirs}\.pointwise_conv', f'{ours}/point')
  return table + classifier(prefix)


BACKBONES = {
  name: Translation('resnet', _resnet, _resnet_rules) for name in ('ResNet', 'ResNetV1c')
}
NECKS: dict[str, Translation] = {}
HEADS = {
  'PSPHead': Translation('psp', _psp, _psp_rules),
  'DepthwiseSeparableASPPHead': Translation('deeplabv3plus', _deeplabv3plus, _deeplabv3plus_rules),
}
