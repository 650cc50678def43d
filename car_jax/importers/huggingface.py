"""SegFormer as Hugging Face's transformers saves it: model.safetensors or pytorch_model.bin."""

import pathlib
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from car_jax.errors import UserError
from car_jax.importers import prefixes, spellings, tables, torch_file
from car_jax.importers.rules import (
  Rule,
  Weights,
  convert,
  convolution,
  layer_norm,
  linear,
  norm,
  rows,
  with_bias,
)
from car_jax.importers.safetensors_file import read_safetensors
from car_jax.importers.segmenters import (
  check_config,
  count,
  segformer,
  set_width,
  supervised_state,
  use,
)

CLASSIFIER = 'decode_head.classifier.weight'
ENCODER = r'segformer\.encoder\.'


def from_last_stage(a: np.ndarray) -> np.ndarray:
  """[out, 4 D, 1, 1], whose inputs begin with the last stage's D -> ours, the first stage's."""
  stages = a.reshape(len(a), 4, -1, 1, 1)[:, ::-1]
  return convolution(stages.reshape(a.shape))


def _table() -> list[Rule]:
  table = [Rule(r'decode_head\.linear_fuse\.weight', 'fuse/conv/kernel', from_last_stage)]
  table += norm(r'decode_head\.batch_norm', 'fuse/norm')
  table += with_bias(r'decode_head\.classifier', 'head', convolution)
  for k in range(4):
    ours = f'backbone/stage{k + 1}'
    table += with_bias(rf'{ENCODER}patch_embeddings\.{k}\.proj', f'{ours}_embed', convolution)
    table += layer_norm(rf'{ENCODER}patch_embeddings\.{k}\.layer_norm', f'{ours}_embed_norm')
    table += layer_norm(rf'{ENCODER}layer_norm\.{k}', f'{ours}_norm')
    block, ours = rf'{ENCODER}block\.{k}\.(\d+)', rf'{ours}_block\1'
    table += layer_norm(rf'{block}\.layer_norm_([12])', rf'{ours}/norm\2')
    attention, mine = rf'{block}\.attention\.self', f'{ours}/attention'
    table += with_bias(rf'{attention}\.(query|key|value)', rf'{mine}/\2', linear)
    table += with_bias(rf'{attention}\.sr', f'{mine}/reduce', convolution)
    table += layer_norm(rf'{attention}\.layer_norm', f'{mine}/reduce_norm')
    table += with_bias(rf'{block}\.attention\.output\.dense', f'{mine}/out', linear)
    table += with_bias(rf'{block}\.mlp\.dense1', f'{ours}/expand', linear)
    table += with_bias(rf'{block}\.mlp\.dwconv\.dwconv', f'{ours}/depthwise', convolution)
    table += with_bias(rf'{block}\.mlp\.dense2', f'{ours}/contract', linear)
    table += with_bias(rf'decode_head\.linear_c\.{k}\.proj', f'project{k + 1}', linear)
  return table


def to_variables(net: Any, weights: Weights, template: Any = None) -> dict[str, Any]:
  """A state dict -> variables of nn.segformer with linear projections. Raises UserError."""
  return convert(_table(), weights, template)


def read(path: str | pathlib.Path) -> dict[str, np.ndarray]:
  """The state dict of either kind of file, without wrappers' prefixes. Raises UserError."""
  path = pathlib.Path(path)
  if path.is_dir():
    raise UserError(f'{path} is a folder\n  give the file in it: {path / "model.safetensors"}')
  if path.suffix == '.safetensors':
    return prefixes.unwrapped(path, read_safetensors(path))
  content = torch_file.read_saved(path, 'state_dict', 'weights')
  return prefixes.unwrapped(path, tables.find(path, content, 'SegFormer of transformers'))


def variant_of(weights: Weights) -> str:
  """b0 to b5, or '' for other sizes."""
  names = [f'segformer.encoder.patch_embeddings.{k}.proj.weight' for k in range(4)]
  widths = tuple(rows(weights, name) for name in names)
  depths = tuple(count(weights, rf'{ENCODER}block\.{k}\.(\d+)\..*') for k in range(4))
  return segformer(widths, depths)


def to_state(path: str | pathlib.Path, config: ConfigDict) -> tuple[Any, dict[str, Any]]:
  """The file as a state of the config's method, and what is known of its data.

  Sets the config's linear projections, width of the head and layer norms' epsilon, in which these
  files differ from mmsegmentation's. Raises UserError.
  """
  weights = spellings.from_newer(read(path))
  if not rows(weights, CLASSIFIER):
    what = prefixes.described(weights)
    raise UserError(f'{path} is no SegFormer of transformers (no decode_head.classifier): {what}')
  return linear_state(path, config, weights, norm_epsilon=1e-5)


def linear_state(
  path: Any, config: ConfigDict, weights: Weights, **epsilons: float
) -> tuple[Any, dict[str, Any]]:
  """As `to_state`, of weights in transformers' names."""
  kind = 'segformer', variant_of(weights)
  check_config(path, config, *kind)
  with config.unlocked():
    config.method.model.update(normed_projections=False, **epsilons)
  set_width(config, weights, 'decode_head.linear_fuse.weight')
  classes = rows(weights, CLASSIFIER)
  return supervised_state(path, config, classes, to_variables, weights, use(*kind))
