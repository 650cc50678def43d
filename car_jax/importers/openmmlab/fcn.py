"""mmsegmentation's fully convolutional head, of which others derive."""

from collections.abc import Mapping
from typing import Any

from car_jax.importers.openmmlab.translation import (
  Settings,
  Translation,
  classifier,
  common,
  normed,
)
from car_jax.importers.rules import Rule


def fcn(of: Settings) -> dict[str, Any]:
  of.only('input_transform', None)
  entry = common(of) | dict(name='fcn', num_convs=of('num_convs', 2), index=of('in_index', -1))
  entry |= dict(kernel_size=of('kernel_size', 3), dilation=of('dilation', 1))
  return entry | dict(concat_input=bool(of('concat_input', True)))


def fcn_rules(prefix: str, path: str, entry: Mapping[str, Any]) -> list[Rule]:
  table = normed(rf'{prefix}conv_cat', 'join') + classifier(prefix)
  for i in range(entry.get('num_convs', 2)):
    table += normed(rf'{prefix}convs\.{i}', f'conv{i + 1}')
  return table


BACKBONES: dict[str, Translation] = {}
NECKS: dict[str, Translation] = {}
HEADS = {'FCNHead': Translation('fcn', fcn, fcn_rules)}
