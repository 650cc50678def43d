"""Heads of mmsegmentation that bring context to each place of a dilated ResNet's features."""

from typing import Any

import numpy as np

from car_jax.importers.openmmlab.fcn import fcn, fcn_rules
from car_jax.importers.openmmlab.translation import (
  Translation,
  classifier,
  common,
  head_settings,
  normed,
  usual_norm,
)
from car_jax.importers.rules import Rule, convolution, norm, with_bias
from car_jax.importers.settings import REQUIRED, Settings


def _ann(of: Settings) -> dict[str, Any]:
  queries = of('query_scales', (1,))
  count = len(queries) if isinstance(queries, tuple) else 1
  of.only('query_scales', (1,) * count)  # theirs fails with others
  of.only('input_transform', 'multiple_select')
  usual_norm(of, REQUIRED)
  entry = common(of) | dict(name='ann', inner=of('project_channels'), attentions=count)
  return entry | dict(scales=of('key_pool_scales', (1, 3, 6, 8)), indices=of('in_index'))


def _ann_rules(prefix: str, path: str, part: Any) -> list[Rule]:
  table = normed(rf'{prefix}bottleneck', 'bottleneck') + classifier(prefix)
  for block in ('fusion', 'context'):
    join = rf'{prefix}{block}\.bottleneck'
    table.append(Rule(rf'{join}\.conv\.weight', f'{block}/join/kernel', convolution))
    table += norm(rf'{join}\.bn', f'{block}/join_norm')
    for i in range(part.attentions):
      theirs, ours = rf'{prefix}{block}\.stages\.{i}\.', f'{block}/attention{i + 1}'
      for name in ('query', 'key'):
        table += normed(rf'{theirs}{name}_project', f'{ours}/{name}')
      table += with_bias(rf'{theirs}(value|out)_project', rf'{ours}/\1', convolution)
  return table


def _apc(of: Settings) -> dict[str, Any]:
  scales, fusion = of('pool_scales', (1, 2, 3, 6)), bool(of('fusion', True))
  return head_settings(of, name='apc', scales=scales, fusion=fusion)


def _apc_rules(prefix: str, path: str, part: Any) -> list[Rule]:
  table = normed(rf'{prefix}bottleneck', 'bottleneck') + classifier(prefix)
  context = rf'{prefix}acm_modules\.(\d+)\.'
  table += with_bias(rf'{context}gla', r'scale\1/affinity', convolution)
  for theirs, ours in (
    ('pooled_redu_conv', 'pooled'),
    ('input_redu_conv', 'reduce'),
    ('global_info', 'whole'),
    ('residual_conv', 'residual'),
    ('fusion_conv', 'fuse'),
  ):
    table += normed(f'{context}{theirs}', rf'scale\1/{ours}')
  return table


def _derived(of: Settings, **entry: Any) -> dict[str, Any]:
  """Of a head that derives from FCN's, with two convolutions always."""
  of.only('num_convs', 2)
  shared = fcn(of)
  del shared['num_convs']
  return shared | entry


def _cc(of: Settings) -> dict[str, Any]:
  return _derived(of, name='cc', passes=of('recurrence', 2))


def _cc_rules(prefix: str, path: str, part: Any) -> list[Rule]:
  table = fcn_rules(prefix, path, part)
  table.append(Rule(rf'{prefix}cca\.gamma\.scale', 'attention/gamma'))
  return table + with_bias(rf'{prefix}cca\.(query|key|value)_conv', r'attention/\1', convolution)


def _gc(of: Settings) -> dict[str, Any]:
  of.only('pooling_type', 'att', 'avg')
  pooling = {'att': 'attention', 'avg': 'mean'}[of('pooling_type', 'att')]
  fusions = of('fusion_types', ('channel_add',))
  known = 'channel_add', 'channel_mul'
  of.only('fusion_types', known[:1], known[1:], known, known[::-1])
  how = dict(scales='channel_mul' in fusions, shifts='channel_add' in fusions)
  return _derived(of, name='gc', ratio=float(of('ratio', 0.25)), pooling=pooling, **how)


def _gc_rules(prefix: str, path: str, part: Any) -> list[Rule]:
  table, block = fcn_rules(prefix, path, part), rf'{prefix}gc_block\.'
  table += with_bias(rf'{block}conv_mask', 'context/mask', convolution)
  for theirs, ours in (('channel_add_conv', 'shift'), ('channel_mul_conv', 'scale')):
    for i, name in ((0, 'contract'), (3, 'expand')):
      table += with_bias(rf'{block}{theirs}\.{i}', f'context/{ours}_{name}', convolution)
    for leaf, name in (('weight', 'scale'), ('bias', 'bias')):
      table.append(Rule(rf'{block}{theirs}\.1\.{leaf}', f'context/{ours}_norm/{name}', _column))
  return table


def _column(a: np.ndarray) -> np.ndarray:
  """[D, 1, 1] -> [D]"""
  return a[:, 0, 0]


BACKBONES: dict[str, Translation] = {}
NECKS: dict[str, Translation] = {}
HEADS = {
  'ANNHead': Translation('ann', _ann, _ann_rules),
  'APCHead': Translation('apc', _apc, _apc_rules),
  'CCHead': Translation('cc', _cc, _cc_rules),
  'GCHead': Translation('gc', _gc, _gc_rules),
}
