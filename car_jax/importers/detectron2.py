"""Mask2Former and MaskFormer as their authors publish them: files of detectron2.

Model zoos have a plain pickle of numpy arrays (.pkl), trainings what torch.save writes (.pth). The
YAML that describes a net lies beside the file: the shapes in it say its sizes, and what no shape
tells is as in all published settings. `--config.method.model...` says otherwise.
"""

import dataclasses
import math
import pathlib
import re
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from car_jax.errors import UserError, naming
from car_jax.importers import comparison, prefixes, tables, torch_file
from car_jax.importers.detectron2_names import to_variables
from car_jax.importers.rules import Weights, rows
from car_jax.importers.segmenters import composition, run_config, supervised_state

HEAD = 'sem_seg_head.'
PIXELS, PREDICTOR = f'{HEAD}pixel_decoder.', f'{HEAD}predictor.'
CLASSES = f'{PREDICTOR}class_embed.weight'
STAGES = range(4)
POINTS = 12  # that a head of deformable attention looks at: four on each of three maps
# Names that only some kind of other net has -> what a file is that has them.
FOREIGN = {
  r'(backbone\.bottom_up|proposal_generator|roi_heads|ins_embed_head)\..*': (
    'a detection or panoptic model of detectron2'
  ),
  rf'{PREDICTOR}(weight|transformer\..*)': "MaskFormer's baseline, which classifies pixels",
  r'(stem\.conv1|patch_embed\.proj|backbone\.(stem\.conv1|patch_embed\.proj))\.weight|conv1_w': (
    'an encoder alone'
  ),
}


class Sizes:
  """Lengths of the weights' axes."""

  def __init__(self, weights: Weights):
    self.weights = weights

  def __call__(self, name: str, axis: int = 0) -> int:
    """Raises UserError for a weight that is missing or has no such axis."""
    value = self.weights.get(name)
    if value is None:
      raise UserError(f'{name} is not in the file')
    if value.ndim <= axis:
      raise UserError(f'{name} {value.shape} has other axes')
    return rows({name: np.moveaxis(value, axis, 0)}, name)

  def of(self, pattern: str) -> int:
    """How many different numbers the pattern's group takes among the names."""
    return len({m[1] for name in self.weights if (m := re.fullmatch(pattern, name))})


def spec(weights: Weights) -> dict[str, Any]:
  """The net of these weights, as config.method.model has it. Raises UserError."""
  of = Sizes(weights)
  backbone = _swin if 'backbone.patch_embed.proj.weight' in weights else _resnet
  head = _mask2former if f'{PREDICTOR}query_feat.weight' in weights else _maskformer
  entry = dict(name='composed', backbone=backbone(of), head=head(of), align_corners=False)
  for ours in ('mean', 'std'):
    if (value := weights.get(f'pixel_{ours}')) is None:
      continue
    if value.size != 3:
      raise UserError(f'pixel_{ours} {value.shape} is not one number for each of RGB')
    entry[ours] = tuple(float(x) for x in value.ravel())
  return entry


def _swin(of: Sizes) -> dict[str, Any]:
  embed, stage = 'backbone.patch_embed.', 'backbone.layers.{}.blocks.0.'
  first = stage.format(0)
  width = of(f'{embed}proj.weight')
  table = 'attn.relative_position_bias_table'
  entry = dict(name='swin', width=width, patch=of(f'{embed}proj.weight', 2))
  entry |= dict(depths=tuple(of.of(rf'backbone\.layers\.{k}\.blocks\.(\d+)\..*') for k in STAGES))
  entry |= dict(heads=tuple(of(stage.format(k) + table, 1) for k in STAGES))
  entry |= dict(window=(math.isqrt(of(first + table)) + 1) // 2)
  entry |= dict(expansion=of(f'{first}mlp.fc1.weight') / max(width, 1))
  entry |= dict(qkv_bias=f'{first}attn.qkv.bias' in of.weights)
  return entry | dict(patch_norm=f'{embed}norm.weight' in of.weights, drop_path=0.3)


def _resnet(of: Sizes) -> dict[str, Any]:
  """With DeepLab's stem of three convolutions also its dilations in the last stage, 1, 2 and 4."""
  deep = 'backbone.stem.conv3.weight' in of.weights
  blocks = tuple(of.of(rf'backbone\.res{k + 2}\.(\d+)\..*') for k in STAGES)
  entry = dict(name='resnet', depth=50, blocks=blocks, deep_stem=deep)
  entry |= dict(stem_channels=of(f'backbone.stem.conv{3 if deep else 1}.weight'))
  entry |= dict(width=of('backbone.res2.0.conv1.weight'))
  return entry | (dict(multi_grid=(1, 2, 4)) if deep and blocks[-1] == 3 else {})


def _mask2former(of: Sizes) -> dict[str, Any]:
  layer = f'{PIXELS}transformer.encoder.layers.'
  entry = dict(name='mask2former', features=of(f'{PIXELS}input_proj.0.0.weight'))
  entry |= dict(mask_features=of(f'{PIXELS}mask_features.weight'))
  entry |= dict(queries=of(f'{PREDICTOR}query_feat.weight'))
  entry |= dict(depth=of.of(rf'{PREDICTOR}transformer_ffn_layers\.(\d+)\..*'))
  entry |= dict(expansion=of(f'{PREDICTOR}transformer_ffn_layers.0.linear1.weight'))
  entry |= dict(heads=of(f'{layer}0.self_attn.attention_weights.weight') // POINTS)
  entry |= dict(pixel_depth=of.of(rf'{layer}(\d+)\..*'))
  entry |= dict(pixel_expansion=of(f'{layer}0.linear1.weight'))
  return entry | dict(norm_first=False, dropout=0.0)


def _maskformer(of: Sizes) -> dict[str, Any]:
  encoders = f'{PREDICTOR}transformer.encoder.', f'{PIXELS}transformer.'
  if name := next((n for n in of.weights if n.startswith(encoders)), ''):
    raise UserError(
      f'{name} belongs to a transformer encoder, as for panoptic segmentation\n'
      '  MaskFormers for semantic segmentation have none'
    )
  layer = f'{PREDICTOR}transformer.decoder.layers.'
  entry = dict(name='maskformer', features=of(f'{PIXELS}layer_4.weight'))
  entry |= dict(mask_features=of(f'{PIXELS}mask_features.weight'))
  entry |= dict(queries=of(f'{PREDICTOR}query_embed.weight'))
  entry |= dict(width=of(f'{PREDICTOR}query_embed.weight', 1))
  entry |= dict(depth=of.of(rf'{layer}(\d+)\..*'), expansion=of(f'{layer}0.linear1.weight'))
  return entry | dict(heads=8, dropout=0.1, inner_dropout=0.1)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """What a file holds: weights by the names of today's repositories."""

  path: Any
  weights: Weights

  def spec(self) -> dict[str, Any]:
    with naming(f'{self.path} is not read'):
      return spec(self.weights)

  @property
  def described(self) -> bool:
    """Whether the file says itself what net it holds: its shapes do."""
    return True

  def config(self) -> ConfigDict:
    """Of a run of its net on Cityscapes, where the whole image is seen at once."""
    return run_config(self.spec())

  def check(self, config: ConfigDict) -> None:
    """Raises UserError where the config's net is another one."""
    ours = composition(self.path, config, 'a segmenter of detectron2')
    mend = 'leave --config out; where its training was another, --config.method.model... says so'
    comparison.check(self.path, ours, self.spec(), mend=mend)

  def state(self, config: ConfigDict) -> tuple[Any, dict[str, Any]]:
    """The weights as a state of the config's method, and what is known of their data."""
    composition(self.path, config, 'a segmenter of detectron2')
    classes = rows(self.weights, CLASSES) - 1  # the last is of no class
    return supervised_state(self.path, config, classes, to_variables, self.weights)


def opened(path: str | pathlib.Path) -> Checkpoint:
  """Raises UserError for what is no file of a MaskFormer or Mask2Former."""
  content = torch_file.read_saved(path, 'model', 'weights')
  weights = prefixes.unwrapped(path, tables.find(path, content, 'checkpoint of detectron2'))
  with naming(path):
    weights = renamed(weights)
  if rows(weights, CLASSES) < 2:
    known = (w for p, w in FOREIGN.items() if any(re.fullmatch(p, n) for n in weights))
    what = next((f'it is {w}' for w in known), '') or prefixes.described(weights)
    raise UserError(f'{path} is no MaskFormer or Mask2Former of detectron2: {what}')
  return Checkpoint(path, weights)


def renamed(weights: Weights) -> dict[str, np.ndarray]:
  """In the names of today's repositories, which read older ones too. Raises UserError for both."""
  new: dict[str, np.ndarray] = {}
  for name, value in weights.items():
    name = re.sub(rf'^{HEAD}(?!predictor\.|pixel_decoder\.)', PIXELS, name)
    name = name.replace('.static_query.', '.query_feat.')
    if name in new:
      raise UserError(f'{name} is there under its older name too')
    new[name] = value
  return new
