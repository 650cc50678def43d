"""Names of Mask2Former's and MaskFormer's parts in their authors' repositories -> ours."""

from typing import Any

from car_jax.errors import UserError
from car_jax.importers import families
from car_jax.importers.rules import (
  Rule,
  Weights,
  convert,
  convolution,
  counted,
  layer_norm,
  linear,
  norm,
  point,
  separate,
  with_bias,
)
from car_jax.nn.composed import Composition
from car_jax.nn.mask2former import Mask2FormerHead
from car_jax.nn.maskformer import MaskFormerHead
from car_jax.nn.resnet import ResNet
from car_jax.nn.swin import SwinTransformer

PIXELS = r'sem_seg_head\.pixel_decoder\.'
PREDICTOR = r'sem_seg_head\.predictor\.'
# The loss' weights of classes; pixels' mean and deviation, which become options; what follows from
# the size of windows.
UNUSED = (r'criterion\.empty_weight', r'pixel_(mean|std)', r'.*\.relative_position_index')


def to_variables(net: Composition, weights: Weights, template: Any = None) -> dict[str, Any]:
  """A state dict -> variables of the net. Raises UserError.

  Frozen batch norms have no count of their updates: it begins at 0.
  """
  backbone, _, head = net.parts()
  if type(backbone) not in BACKBONES or type(head) not in HEADS:
    raise UserError(f'detectron2 has no {type(head).__name__} on a {type(backbone).__name__}')
  table = [*BACKBONES[type(backbone)](backbone), *HEADS[type(head)]()]
  return convert(table, separate(counted(weights)), template, UNUSED)


def _normed(theirs: str, convolved: str, normalised: str) -> list[Rule]:
  """A convolution of detectron2, without bias, and the batch norm that is part of it."""
  kernel = Rule(rf'{theirs}\.weight', f'{convolved}/kernel', convolution)
  return [kernel, *norm(rf'{theirs}\.norm', normalised)]


def _resnet(net: ResNet) -> list[Rule]:
  stem, which = (r'conv([123])', r'\1') if net.deep_stem else ('conv1', '')
  ours = 'backbone/stem'
  table = _normed(rf'backbone\.stem\.{stem}', f'{ours}_conv{which}', f'{ours}_norm{which}')
  for k in range(4):
    theirs, ours = rf'backbone\.res{k + 2}\.(\d+)', rf'backbone/stage{k + 1}_block\1'
    table += _normed(rf'{theirs}\.conv([123])', rf'{ours}/conv\2', rf'{ours}/norm\2')
    table += _normed(rf'{theirs}\.shortcut', f'{ours}/conv_skip', f'{ours}/norm_skip')
  return table


def _swin(net: SwinTransformer) -> list[Rule]:
  return families.swin(
    net,
    {**families.PUBLISHED, 'position_bias': r'attn\.relative_position_bias_table'},
    patches=r'backbone\.patch_embed\.proj',
    patches_norm=r'backbone\.patch_embed\.norm',
    block=lambda k: rf'backbone\.layers\.{k}\.blocks\.(\d+)',
    merge=lambda k: rf'backbone\.layers\.{k}\.downsample',
    stage_norm=lambda k: rf'backbone\.norm{k}',
  )


def _attention(theirs: str, ours: str) -> list[Rule]:
  table = with_bias(rf'{theirs}\.(query|key|value)', rf'{ours}/\2', linear)
  return table + with_bias(rf'{theirs}\.out_proj', f'{ours}/out', linear)


def _feed_forward(theirs: str, ours: str) -> list[Rule]:
  table = with_bias(rf'{theirs}\.linear1', f'{ours}/feed_forward/expand', linear)
  return table + with_bias(rf'{theirs}\.linear2', f'{ours}/feed_forward/contract', linear)


def _shared() -> list[Rule]:
  """What both heads have: how queries become masks, and convolutions with group norms."""
  table = with_bias(rf'{PREDICTOR}class_embed', 'classify', linear)
  table += with_bias(rf'{PREDICTOR}mask_embed\.layers\.(\d)', r'mask_embed/layer\1', linear)
  table.append(Rule(rf'{PREDICTOR}query_embed\.weight', 'query_codes'))
  table += with_bias(rf'{PIXELS}mask_features', 'pixels/project', convolution)
  for theirs, ours in (('adapter', 'lateral'), ('layer', 'smooth')):
    unit, path = rf'{PIXELS}{theirs}_(\d)', rf'pixels/{ours}\1'
    table.append(Rule(rf'{unit}\.weight', f'{path}/conv/kernel', convolution))
    table += layer_norm(rf'{unit}\.norm', f'{path}/norm')
  return table


def _mask2former() -> list[Rule]:
  table = _shared() + layer_norm(rf'{PREDICTOR}decoder_norm', 'norm')
  for theirs, ours in (
    ('self_attention_layers', 'self'),
    ('cross_attention_layers', 'image'),
    ('ffn_layers', 'forward'),
  ):
    layer = rf'{PREDICTOR}transformer_{theirs}\.(\d+)'
    table += layer_norm(rf'{layer}\.norm', rf'layer\1/{ours}_residual/norm')
    if ours == 'forward':
      table += _feed_forward(layer, r'layer\1')
    else:
      table += _attention(rf'{layer}\.(?:self|multihead)_attn', rf'layer\1/{ours}_attention')
  table.append(Rule(rf'{PREDICTOR}query_feat\.weight', 'query'))
  table.append(Rule(rf'{PREDICTOR}level_embed\.weight', 'level_codes'))
  table.append(Rule(rf'{PIXELS}transformer\.level_embed', 'pixels/level_codes'))
  for k in range(3):
    projected, ours = rf'{PIXELS}input_proj\.{k}', f'pixels/project{4 - k}'
    table += with_bias(rf'{projected}\.0', f'{ours}/conv', convolution)
    table += layer_norm(rf'{projected}\.1', f'{ours}/norm')
  layer, ours = rf'{PIXELS}transformer\.encoder\.layers\.(\d+)', r'pixels/layer\1'
  table += _feed_forward(layer, ours)
  table += layer_norm(rf'{layer}\.norm1', f'{ours}/self_residual/norm')
  table += layer_norm(rf'{layer}\.norm2', f'{ours}/forward_residual/norm')
  return table + families.deformable_attention(rf'{layer}\.self_attn', f'{ours}/attention')


def _maskformer() -> list[Rule]:
  decoder = rf'{PREDICTOR}transformer\.decoder\.'
  table = _shared() + layer_norm(rf'{decoder}norm', 'norm')
  table += with_bias(rf'{PREDICTOR}input_proj', 'project', point)
  layer, ours = rf'{decoder}layers\.(\d+)', r'layer\1'
  table += _attention(rf'{layer}\.self_attn', f'{ours}/self_attention')
  table += _attention(rf'{layer}\.multihead_attn', f'{ours}/image_attention')
  table += _feed_forward(layer, ours)
  for k, name in enumerate(('self', 'image', 'forward'), 1):
    table += layer_norm(rf'{layer}\.norm{k}', f'{ours}/{name}_residual/norm')
  return table


BACKBONES: dict[type, Any] = {ResNet: _resnet, SwinTransformer: _swin}
HEADS: dict[type, Any] = {MaskFormerHead: _maskformer, Mask2FormerHead: _mask2former}
