"""mmsegmentation's fully convolutional head, of which others derive."""

from typing import Any

from car_jax.importers.openmmlab.translation import (
  Translation,
  classifier,
  head_settings,
  normed,
)
from car_jax.importers.rules import Rule
from car_jax.importers.settings import Settings


def fcn(of: Settings) -> dict[str, Any]:
  count, again = of('num_convs', 2), bool(of('concat_input', True))
  entry = head_settings(of, normed=count > 0 or again, name='fcn', num_convs=count)
  entry |= dict(kernel_size=of('kernel_size', 3), dilation=of('dilation', 1))
  return entry | dict(concat_input=again)


def fcn_rules(prefix: str, path: str, part: Any) -> list[Rule]:
  table = normed(rf'{prefix}conv_cat', 'join') + classifier(prefix)
  for i in range(part.num_convs):
    table += normed(rf'{prefix}convs\.{i}', f'conv{i + 1}')
  return table


BACKBONES: dict[str, Translation] = {}
NECKS: dict[str, Translation] = {}
HEADS = {'FCNHead': Translation('fcn', fcn, fcn_rules)}
