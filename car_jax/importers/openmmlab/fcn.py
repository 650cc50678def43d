"""mmsegmentation's fully convolutional head, of which others derive."""

from collections.abc import Mapping
from typing import Any

from car_jax.importers.openmmlab.translation import (
  Settings,
  Translation,
  classifier,
  head_settings,
  normed,
)
from car_jax.importers.rules import Rule


def fcn(of: Settings) -> dict[str, Any]:
  count, again = of('num_convs', 2), bool(of('concat_input', True))
  entry = head_settings(of, normed=count > 0 or again, name='fcn', num_convs=count)
  entry |= dict(kernel_size=of('kernel_size', 3), dilation=of('dilation', 1))
  return entry | dict(concat_input=again)


def fcn_rules(prefix: str, path: str, entry: Mapping[str, Any]) -> list[Rule]:
  table = normed(rf'{prefix}conv_cat', 'join') + classifier(prefix)
  for i in range(entry.get('num_convs', 2)):
    table += normed(rf'{prefix}convs\.{i}', f'conv{i + 1}')
  return table


BACKBONES: dict[str, Translation] = {}
NECKS: dict[str, Translation] = {}
HEADS = {'FCNHead': Translation('fcn', fcn, fcn_rules)}
