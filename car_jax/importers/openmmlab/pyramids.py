"""UPerNet of mmsegmentation."""

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


def _upernet(of: Settings) -> dict[str, Any]:
  of.only('input_transform', 'multiple_select')
  entry = dict(name='upernet', index=of('in_index'), scales=of('pool_scales', (1, 2, 3, 6)))
  return common(of) | entry


def _upernet_rules(prefix: str, path: str, entry: Mapping[str, Any]) -> list[Rule]:
  table = normed(rf'{prefix}psp_modules\.(\d+)\.1', r'pool/scale\1')
  for theirs, ours in (
    ('bottleneck', 'bottleneck'),
    (r'lateral_convs\.(\d+)', r'lateral\1'),
    (r'fpn_convs\.(\d+)', r'smooth\1'),
    ('fpn_bottleneck', 'fuse'),
  ):
    table += normed(prefix + theirs, ours)
  return table + classifier(prefix)


BACKBONES: dict[str, Translation] = {}
NECKS: dict[str, Translation] = {}
HEADS = {'UPerHead': Translation(_upernet, _upernet_rules)}
