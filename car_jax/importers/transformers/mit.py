"""SegFormer of transformers, and its encoder, the mix transformer."""

from typing import Any

import numpy as np
from ml_collections import ConfigDict

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
from car_jax.importers.segmenters import (
  check_config,
  count,
  segformer,
  set_width,
  supervised_state,
  use,
)
from car_jax.importers.settings import Settings
from car_jax.importers.spellings import from_newer

CLASSIFIER = 'decode_head.classifier.weight'
ENCODER = r'(?:segformer\.)?encoder\.'


def entry(of: Settings) -> dict[str, Any]:
  """config.json -> the options of nn.segformer. Raises UserError for what no net here has."""
  depths = of('depths', (2, 2, 2, 2))
  of.only('num_encoder_blocks', 4)
  of.only('num_channels', 3)
  of.only('patch_sizes', (7, 3, 3, 3))
  of.only('strides', (4, 2, 2, 2))
  of.only('mlp_ratios', (4, 4, 4, 4))
  of.only('hidden_act', 'gelu')
  of.only('reshape_last_stage', True)
  # Its layer norms have torch's epsilon, whatever the config says.
  of.passed('layer_norm_eps', 'hidden_dropout_prob', 'attention_probs_dropout_prob')
  of.passed('semantic_loss_ignore_index', 'image_size', 'downsampling_rates')
  entry = dict(name='segformer', widths=of('hidden_sizes', (32, 64, 160, 256)), depths=depths)
  entry |= dict(heads=of('num_attention_heads', (1, 2, 5, 8)), norm_epsilon=1e-5)
  entry |= dict(reductions=of('sr_ratios', (8, 4, 2, 1)), normed_projections=False)
  entry |= dict(features=of('decoder_hidden_size', 256))
  entry |= dict(dropout=float(of('classifier_dropout_prob', 0.1)))
  return entry | dict(drop_path=float(of('drop_path_rate', 0.1)))


def from_last_stage(a: np.ndarray) -> np.ndarray:
  """[out, 4 D, 1, 1], whose inputs begin with the last stage's D -> ours, the first stage's."""
  stages = a.reshape(len(a), 4, -1, 1, 1)[:, ::-1]
  return convolution(stages.reshape(a.shape))


def rules() -> list[Rule]:
  """Of the encoder, by the names on disk."""
  table = []
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
  return table


def to_variables(net: Any, weights: Weights, template: Any = None) -> dict[str, Any]:
  """A state dict -> variables of nn.segformer with linear projections. Raises UserError."""
  table = [Rule(r'decode_head\.linear_fuse\.weight', 'fuse/conv/kernel', from_last_stage)]
  table += norm(r'decode_head\.batch_norm', 'fuse/norm')
  table += with_bias(r'decode_head\.classifier', 'head', convolution)
  for k in range(4):
    table += with_bias(rf'decode_head\.linear_c\.{k}\.proj', f'project{k + 1}', linear)
  return convert(table + rules(), from_newer(weights), template)


def variant_of(weights: Weights) -> str:
  """b0 to b5, or '' for other sizes."""
  names = [f'segformer.encoder.patch_embeddings.{k}.proj.weight' for k in range(4)]
  widths = tuple(rows(weights, name) for name in names)
  depths = tuple(count(weights, rf'{ENCODER}block\.{k}\.(\d+)\..*') for k in range(4))
  return segformer(widths, depths)


def adapt(path: Any, config: ConfigDict, weights: Weights, **epsilons: float) -> None:
  """Sets a config's linear projections, width of the head and layer norms' epsilon, in which these
  weights differ from mmsegmentation's. Raises UserError for another net."""
  check_config(path, config, 'segformer', variant_of(weights))
  with config.unlocked():
    config.method.model.update(normed_projections=False, **epsilons)
  set_width(config, weights, 'decode_head.linear_fuse.weight')


def linear_state(
  path: Any, config: ConfigDict, weights: Weights, **epsilons: float
) -> tuple[Any, dict[str, Any]]:
  """Weights in transformers' names as a state of the config's method, which is adapted, and what
  is known of its data. Raises UserError."""
  adapt(path, config, weights, **epsilons)
  mend = use('segformer', variant_of(weights))
  return supervised_state(path, config, rows(weights, CLASSIFIER), to_variables, weights, mend)
