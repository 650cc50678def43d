"""A whole segmenter of mmsegmentation: our net from the `model` of its config, and its weights."""

from collections.abc import Iterator, Mapping
from typing import Any

from car_jax import lookup, registry
from car_jax.errors import UserError, nearest
from car_jax.importers import prefixes
from car_jax.importers.openmmlab import (
  attention,
  fcn,
  fpn,
  hierarchical,
  pyramids,
  realtime,
  resnets,
  segformer,
  transformers,
)
from car_jax.importers.openmmlab.translation import (
  Translation,
)
from car_jax.importers.rules import Rule, Weights, convert, separate
from car_jax.importers.settings import Settings
from car_jax.nn.composed import Composition

FAMILIES = (attention, fcn, fpn, hierarchical, pyramids, realtime, resnets, segformer, transformers)
KINDS = {'backbone': 'BACKBONES', 'neck': 'NECKS', 'decode_head': 'HEADS'}
# Training's other heads, pixel means, and indices that follow from a window's size; and ANN's other
# name of a projection that queries and keys share: torch, which reads both, keeps the queries'.
UNUSED = (
  r'auxiliary_head\..*',
  r'data_preprocessor\..*',
  r'.*\.relative_position_index',
  r'decode_head\.context\.stages\.\d+\.key_project\..*',
)


def spec(config: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
  """The dict `model` of a config -> our net, as config.method.model has it; its class count.

  Raises UserError for what no net here has.
  """
  of = Settings(config, 'model')
  of.only('type', 'EncoderDecoder')
  of.passed(
    'pretrained', 'auxiliary_head', 'train_cfg', 'test_cfg', 'init_cfg', 'data_preprocessor'
  )
  entry: dict[str, Any] = {'name': 'composed'}
  for kind, table in KINDS.items():
    if kind == 'neck' and not of('neck', None):
      continue
    part, known = of.part(kind), _translations(table)
    name = str(part('type')).removeprefix('mmcls.').removeprefix('mmpretrain.')
    if name not in known:
      raise UserError(
        f'its config has {part.where}.type = {name!r}, which no net here has\n'
        f'{nearest(name, known)}\n{prefixes.OWN}'
      )
    entry[kind.removeprefix('decode_')] = known[name].entry(part)
    part.finish()
  of.finish()
  head = of.part('decode_head')
  entry['align_corners'] = head.flag('align_corners')
  return entry, head('num_classes')


def net(config: Mapping[str, Any]) -> Composition:
  """The net that the dict `model` of a config describes. Raises UserError."""
  entry, classes = spec(config)
  return registry.net(entry, num_classes=classes)


def _translations(table: str) -> dict[str, Translation]:
  return {name: t for family in FAMILIES for name, t in getattr(family, table).items()}


def to_variables(net: Composition, weights: Weights, template: Any = None) -> dict[str, Any]:
  """A state dict -> variables of the net. Raises UserError."""
  return convert([*rules(net)], separate(weights), template, UNUSED)


def rules(net: Composition) -> Iterator[Rule]:
  """Where the weights of each part go. Raises UserError for a part that mmsegmentation has not."""
  for (kind, table), part in zip(KINDS.items(), net.parts(), strict=True):
    if part is None:
      continue
    classes = lookup.TABLES[kind.removeprefix('decode_')]
    known = {classes[t.part]: t for t in _translations(table).values()}
    place = f'{type(part).__module__}:{type(part).__name__}'
    if place not in known:
      raise UserError(f'mmsegmentation has no {type(part).__name__}')
    ours = '' if kind == 'decode_head' else f'{kind}/'
    yield from known[place].rules(rf'{kind}\.', ours, part)
