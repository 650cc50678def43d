"""Checkpoints of mmsegmentation, before and since its version 1.

A checkpoint of its trainings carries their config as text, which says what the net is and how it is
tested; see openmmlab/. One without, such as a table of weights alone, needs a config of ours.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from car_jax import config as configs
from car_jax.errors import UserError, naming, reading
from car_jax.importers import comparison, prefixes, spellings, tables, torch_file
from car_jax.importers.openmmlab import config_text, model, testing
from car_jax.importers.rules import Weights, rows
from car_jax.importers.segmenters import (
  SEGFORMER,
  composition,
  count,
  run_config,
  segformer,
  set_width,
  supervised_state,
)
from car_jax.importers.transformers import mit
from car_jax.nn.composed import Composition

# Weights with a row for each class, of whose kind a head has one.
CLASSES = ('decode_head.conv_seg.weight', 'decode_head.mask_norm.weight')
TEXT = 'the config of a checkpoint of mmsegmentation'


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """What a file holds: weights by name, and what its config says, {} for none."""

  path: Any
  weights: Weights
  text: dict[str, Any]

  @property
  def described(self) -> bool:
    """Whether the file says itself what net it holds."""
    return bool(self.text)

  def config(self) -> ConfigDict:
    """Of a run of its net, tested as it was. Raises UserError where the file does not say."""
    if self.text:
      return self.from_text()
    if spellings.is_nvlabs(self.weights):
      transformers = spellings.from_nvlabs(self.weights)
      return configs.load(f'{SEGFORMER}:{mit.variant_of(transformers) or "b0"}')
    if 'backbone.layers.0.0.projection.weight' in self.weights:
      return configs.load(f'{SEGFORMER}:{segformer_variant(self.weights) or "b0"}')
    if not any(name in self.weights for name in CLASSES):
      raise UserError(f'{self.path} is no segmenter: {prefixes.described(self.weights)}')
    raise UserError(
      f'{self.path} has weights without the config of their training, and names and shapes do not '
      'tell dilations and how images are resized\n'
      '  name the net: --config configs/segmenters_cityscapes.py:VARIANT'
    )

  @property
  def classes(self) -> int:
    """0 where the file is no segmenter's."""
    return next((rows(self.weights, n) for n in CLASSES if n in self.weights), 0)

  def spec(self) -> dict[str, Any]:
    """The net that the text describes. Raises UserError, also where the weights are of another."""
    with reading(self.path, TEXT), naming(self.path):
      entry, classes = model.spec(self.text['model'])
      if self.classes and classes != self.classes:
        raise UserError(f'its config has {classes} classes, its weights have {self.classes}')
    backbone = entry['backbone']
    if backbone['name'] == 'vit' and 'backbone.patch_embed.projection.bias' not in self.weights:
      backbone['embed_bias'] = False  # the default since version 1, which the text leaves out
    return entry

  def from_text(self) -> ConfigDict:
    """The config that the text describes."""
    spec = self.spec()
    with reading(self.path, TEXT), naming(self.path):
      test = testing.testing(self.text)
      testing.check_frame(test)
    if test.mean is not None:
      spec |= dict(mean=test.mean, std=test.std)
    fit = {'fit': test.fit} if test.fit else {}
    with naming(self.path):
      config = run_config(spec, crop=_side(test.crop), stride=_side(test.stride), **fit)
    if not fit:
      print(
        f'{self.path}: its config does not say how large test images are; '
        f'they are fitted into {config.data.fit}, as those of Cityscapes\n'
        "  another frame: --config.data.fit='(LONGER, SHORTER)'; as they are: ='()'",
        flush=True,
      )
    return config

  def state(self, config: ConfigDict) -> tuple[Any, dict[str, Any]]:
    """The weights as a state of the config's method, and what is known of their data.

    Sets the config's width of a SegFormer's head to the file's; of a file in NVlabs' names also
    what else differs. Raises UserError.
    """
    if spellings.is_nvlabs(self.weights):
      transformers = spellings.from_nvlabs(self.weights)
      epsilons = dict(norm_epsilon=1e-6, embed_epsilon=1e-5)
      return mit.linear_state(self.path, config, transformers, **epsilons)
    if not self.classes or not any(name.startswith('backbone.') for name in self.weights):
      raise UserError(
        f'{self.path} is no segmenter as mmsegmentation names its parts: '
        f'{prefixes.described(self.weights)}'
      )
    self.net(config)
    return supervised_state(self.path, config, self.classes, model.to_variables, self.weights)

  def net(self, config: ConfigDict) -> Composition:
    """What the config trains. Raises UserError unless it is put together from parts."""
    if config.method.get('model', {}).get('name') == 'segformer':
      set_width(config, self.weights, 'decode_head.fusion_conv.conv.weight')
    return composition(self.path, config, 'a segmenter of mmsegmentation')

  def check(self, config: ConfigDict) -> None:
    """Raises UserError where the file says that its net computes something else."""
    if self.text:
      comparison.check(self.path, self.net(config), self.spec())


def _side(pair: tuple[int, int]) -> int | tuple[int, int]:
  return pair[0] if pair[0] == pair[1] else pair


def opened(path: str | pathlib.Path) -> Checkpoint:
  """Raises UserError for what is no file of weights."""
  content = torch_file.read_saved(path, 'state_dict', 'weights')
  text: dict[str, Any] = {}
  if isinstance(content, Mapping) and isinstance(content.get('meta'), Mapping):
    meta = content['meta']
    config = meta.get('cfg') or meta.get('config')
    if isinstance(config, str) and config.strip():
      text = config_text.read(config, path)
    content = {key: value for key, value in content.items() if key != 'meta'}
  weights = prefixes.unwrapped(path, tables.find(path, content, 'checkpoint of mmsegmentation'))
  return Checkpoint(path, weights, text if isinstance(text.get('model'), Mapping) else {})


def segformer_variant(weights: Weights) -> str:
  """b0 to b5, or '' for other sizes."""
  stages = range(4)
  widths = tuple(rows(weights, f'backbone.layers.{k}.0.projection.weight') for k in stages)
  depths = tuple(count(weights, rf'backbone\.layers\.{k}\.1\.(\d+)\..*') for k in stages)
  return segformer(widths, depths)
