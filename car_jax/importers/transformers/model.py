"""A whole segmenter of transformers: our net from its config.json, and its weights."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from car_jax import lookup
from car_jax.errors import UserError
from car_jax.importers.rules import Rule, Weights, convert, separate
from car_jax.importers.settings import Settings
from car_jax.importers.transformers import backbones, masks, mit, upernet
from car_jax.nn.composed import Composition


class Head(NamedTuple):
  """part: ours, as lookup.py calls it. entry: a config -> our backbone and head. encoder: the
  pattern of what stands before the backbone's names."""

  part: str
  entry: Callable[[Settings], tuple[dict[str, Any], dict[str, Any]]]
  rules: Callable[[], list[Rule]]
  encoder: str


HEADS = {
  'upernet': Head('upernet', upernet.entry, upernet.rules, r'backbone\.'),
  'maskformer': Head('maskformer', masks.maskformer, masks.maskformer_rules, masks.ENCODER),
  'mask2former': Head('mask2former', masks.mask2former, masks.mask2former_rules, masks.ENCODER),
}
SEGMENTERS = ('segformer', *HEADS)
ENCODERS = tuple(n.part if n.part != 'mit' else 'segformer' for n in backbones.NAMES)
# Training's other head, its loss' weights of classes; Swin's last norm, which no map passes; what
# follows from windows.
UNUSED = (
  r'auxiliary_head\..*',
  r'criterion\.empty_weight',
  r'(backbone|model\.pixel_level_module\.encoder)\.(swin\.|model\.)?layernorm\.(weight|bias)',
  r'.*\.relative_position_index',
)


def spec(config: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
  """A config.json -> our net, as config.method.model has it; its class count.

  Raises UserError for what no net here has.
  """
  of = Settings(config, 'config')
  kind = of('model_type')
  if kind not in SEGMENTERS:
    raise UserError(
      f'its config has model_type = {kind!r}, which no net here is\n'
      f'  what can be read: {", ".join(SEGMENTERS)}; as an encoder to start from: '
      f'{", ".join(ENCODERS)}'
    )
  of.passed(*backbones.GENERAL)
  if kind == 'segformer':
    entry = mit.entry(of)
  else:
    backbone, head = HEADS[kind].entry(of)
    entry = dict(name='composed', backbone=backbone, head=head, align_corners=False)
  of.finish()
  return entry, len(of('id2label', None) or (0, 1))  # two are not written down


def to_variables(net: Composition, weights: Weights, template: Any = None) -> dict[str, Any]:
  """A state dict -> variables of the net. Raises UserError."""
  backbone, _, head = net.parts()
  kind = next((h for h in HEADS.values() if lookup.find('head', h.part) is type(head)), None)
  parts = ('convnext', 'resnet', 'swin')
  if kind is None or type(backbone) not in [lookup.find('backbone', p) for p in parts]:
    raise UserError(f'transformers has no {type(head).__name__} on a {type(backbone).__name__}')
  rules = [*backbones.rules(kind.encoder, backbone), *kind.rules()]
  return convert(rules, separate(weights), template, UNUSED)
