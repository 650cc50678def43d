"""A whole segmenter of mmsegmentation, from the `model` of its config: our net, its variables."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from car_jax.errors import UserError, nearest
from car_jax.importers.openmmlab import hierarchical, pyramids, resnets, segformer
from car_jax.importers.openmmlab.translation import Settings, Translation
from car_jax.importers.rules import Rule, Weights, convert

FAMILIES = (hierarchical, pyramids, resnets, segformer)
KINDS = {'backbone': 'BACKBONES', 'neck': 'NECKS', 'decode_head': 'HEADS'}
# Training's other heads, pixel means, and indices that follow from a window's size.
UNUSED = (r'auxiliary_head\..*', r'data_preprocessor\..*', r'.*\.relative_position_index')


class Model(NamedTuple):
  """spec: our net, as config.method.model has it. rules: where its weights go."""

  spec: dict[str, Any]
  rules: list[Rule]
  num_classes: int
  unused: tuple[str, ...] = UNUSED  # patterns of names that are passed over

  def variables(self, weights: Weights, template: Any = None) -> dict[str, Any]:
    """A state dict -> variables of the net. Raises UserError."""
    return convert(self.rules, separate(weights), template, self.unused)


def model(config: Mapping[str, Any]) -> Model:
  """What the dict `model` of a config describes. Raises UserError for what no net here has."""
  of = Settings(config, 'model')
  of.only('type', 'EncoderDecoder')
  of.passed(
    'pretrained', 'auxiliary_head', 'train_cfg', 'test_cfg', 'init_cfg', 'data_preprocessor'
  )
  spec, rules = {'name': 'composed'}, []
  for kind, table in KINDS.items():
    if kind == 'neck' and not of('neck', None):
      continue
    part = of.part(kind)
    translation = _translation(part, table)
    entry = translation.entry(part)
    part.finish()
    place = '' if kind == 'decode_head' else f'{kind}/'
    spec[kind.removeprefix('decode_')] = entry
    rules += translation.rules(rf'{kind}\.', place, entry)
  of.finish()
  head = of.part('decode_head')
  spec['align_corners'] = bool(head('align_corners', False))
  return Model(spec, rules, head('num_classes'))


def _translation(part: Settings, table: str) -> Translation:
  known = {name: t for family in FAMILIES for name, t in getattr(family, table).items()}
  name = str(part('type')).removeprefix('mmcls.').removeprefix('mmpretrain.')
  if name not in known:
    raise UserError(
      f'its config has {part.where}.type = {name!r}, which no net here has\n{nearest(name, known)}'
    )
  return known[name]


def separate(weights: Weights) -> dict[str, np.ndarray]:
  """With the joint projection of torch's MultiheadAttention, or Swin's, as three."""
  parts = {}
  for name, value in weights.items():
    match = re.fullmatch(r'(.*attn|.*\.w_msa)\.(?:in_proj_|qkv\.)(weight|bias)', name)
    if match and np.ndim(value) and len(value) % 3 == 0:
      for one, part in zip(('query', 'key', 'value'), np.split(value, 3), strict=True):
        parts[f'{match[1]}.{one}.{match[2]}'] = part
    else:
      parts[name] = value
  return parts
