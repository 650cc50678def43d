"""mmsegmentation's feature pyramid network, and the head of semantic FPN."""

from typing import Any

from car_jax.importers.openmmlab.translation import (
  Translation,
  classifier,
  common,
  normed,
  usual_norm,
)
from car_jax.importers.rules import Rule, convolution, with_bias
from car_jax.importers.settings import REQUIRED, Settings


def _fpn(of: Settings) -> dict[str, Any]:
  of.only('end_level', -1)
  of.only('add_extra_convs', False)
  of.only('conv_cfg', None)
  of.only('norm_cfg', None)
  of.only('act_cfg', None)
  of.only('upsample_cfg', {'mode': 'nearest'})
  of.passed('in_channels', 'init_cfg', 'no_norm_on_lateral')
  of.passed('extra_convs_on_inputs', 'relu_before_extra_convs')  # of extra convolutions
  entry = dict(name='fpn', features=of('out_channels'), outputs=of('num_outs'))
  return entry | dict(first=of('start_level', 0))


def _fpn_rules(prefix: str, path: str, part: Any) -> list[Rule]:
  table = with_bias(rf'{prefix}lateral_convs\.(\d+)\.conv', rf'{path}lateral\1', convolution)
  return table + with_bias(rf'{prefix}fpn_convs\.(\d+)\.conv', rf'{path}smooth\1', convolution)


def _head(of: Settings) -> dict[str, Any]:
  usual_norm(of, REQUIRED)
  entry = common(of) | dict(name='semfpn', index=of('in_index'))
  return entry | dict(strides=of('feature_strides'))


def _head_rules(prefix: str, path: str, part: Any) -> list[Rule]:
  table = classifier(prefix)
  for i in range(max(part.strides).bit_length()):  # between convolutions, maps are enlarged
    table += normed(rf'{prefix}scale_heads\.(\d+)\.{2 * i}', rf'map\1_conv{i}')
  return table


BACKBONES: dict[str, Translation] = {}
NECKS = {'FPN': Translation('fpn', _fpn, _fpn_rules)}
HEADS = {'FPNHead': Translation('semfpn', _head, _head_rules)}
