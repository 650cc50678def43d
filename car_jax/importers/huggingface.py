"""Segmenters and encoders as Hugging Face's transformers saves them; see transformers/.

A folder's config.json says what the net is. A SegFormer's file alone is known by its names and
shapes, too; other files without it need a config of ours.
"""

import copy
import dataclasses
import pathlib
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from car_jax import config as configs
from car_jax import registry
from car_jax.errors import UserError, naming
from car_jax.importers import encoders, prefixes, spellings
from car_jax.importers.openmmlab.differences import differences
from car_jax.importers.rules import Weights, rows
from car_jax.importers.segmenters import (
  check_config,
  composition,
  count,
  segformer,
  set_width,
  supervised_state,
  use,
)
from car_jax.importers.transformers import backbones, folder, mit, model, processor

CLASSIFIER = 'decode_head.classifier.weight'
SEGFORMER = 'configs/segformer_cityscapes.py'
EXAMPLE = 'of the method supervised, such as configs/segmenters_cityscapes.py:VARIANT'


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """A segmenter: its weights, our options of the net ({} where no config.json says them), its
  classes, how images are prepared."""

  path: Any
  weights: Weights
  spec: dict[str, Any]
  classes: int
  images: processor.Images | None

  @property
  def is_segformer(self) -> bool:
    return not self.spec or self.spec['name'] == 'segformer'

  def config(self) -> ConfigDict:
    """Of a run of its net, which sees whole images."""
    if not self.spec:
      return configs.load(f'{SEGFORMER}:{variant_of(self.weights) or "b0"}')
    given = configs.load(f'{SEGFORMER}:b0').to_dict()
    given['method'] |= dict(model=self.spec, crop=0, stride=0)
    given['data']['fit'] = (self.images and self.images.fit) or ()
    if self.images and self.images.exact:
      height, width = self.images.exact
      print(
        f'{self.path}: its images were made {height} x {width} whatever their shape; here they are '
        'seen as they are\n  scaled into a frame: --data.fit=LONG,SHORT',
        flush=True,
      )
    return configs.complete(given)

  def check(self, config: ConfigDict) -> None:
    """Raises UserError where config.json says that its net computes something else."""
    if not self.spec:
      return
    config = copy.deepcopy(config)
    if self.is_segformer:
      self.adapt(config)
    ours, theirs = composition(self.path, config), registry.net(self.spec, num_classes=1)
    wrong = differences(ours, theirs)
    for key in ('mean', 'std'):
      a, b = getattr(ours, key), getattr(theirs, key)
      wrong += [] if tuple(a) == tuple(b) else [f'{key} is {a}, in the file {b}']
    if wrong:
      raise UserError(
        f'{self.path} and the config do not describe the same net:\n'
        + '\n'.join(f'  {line}' for line in wrong)
        + '\n  without --config the net is the one that the file describes'
      )

  def adapt(self, config: ConfigDict) -> None:
    """Sets a SegFormer's linear projections, width of the head and layer norms' epsilon, in which
    these files differ from mmsegmentation's. Raises UserError for another net."""
    linear(self.path, config, self.weights, norm_epsilon=1e-5)

  def state(self, config: ConfigDict) -> tuple[Any, dict[str, Any]]:
    """The weights as a state of the config's method, and what is known of their data.

    Sets what `adapt` does. Raises UserError.
    """
    if self.is_segformer:
      self.adapt(config)
      return segformer_state(self.path, config, self.weights)
    composition(self.path, config)
    return supervised_state(self.path, config, self.classes, model.to_variables, self.weights)


def opened(path: str | pathlib.Path) -> Checkpoint | encoders.Encoder:
  """A folder, or a file in it. Raises UserError for what is neither segmenter nor encoder."""
  path, weights, config, prepared = folder.opened(path)
  kind = config.get('model_type')
  known = kind is None or kind in (*model.SEGMENTERS, *model.ENCODERS)
  if kind == 'segformer' or kind is None:
    weights = spellings.from_newer(weights)
  whole = bool(rows(weights, CLASSIFIER)) or (kind in model.HEADS)
  if known and not whole and (names := encoders.find(backbones.NAMES, weights)):
    return encoders.Encoder(path, weights, names, 'transformers')
  if kind is None:
    if not rows(weights, CLASSIFIER):
      raise UserError(f'{path} is no SegFormer of transformers: {prefixes.described(weights)}')
    if not any(name.startswith('segformer.') for name in weights):
      raise UserError(
        f'{path} has weights without {folder.CONFIG}, which says what the net is\n'
        '  put it beside them'
      )
    return Checkpoint(path, weights, {}, rows(weights, CLASSIFIER), None)
  with naming(path):
    spec, classes = model.spec(config)
    images = processor.images(prepared) if prepared else None
  if images:
    spec |= dict(mean=images.mean, std=images.std)
  return Checkpoint(path, weights, spec, classes, images)


def to_state(path: str | pathlib.Path, config: ConfigDict) -> tuple[Any, dict[str, Any]]:
  """The file as a state of the config's method; see Checkpoint.state."""
  return opened(path).state(config)


def read(path: str | pathlib.Path) -> dict[str, np.ndarray]:
  """The state dict of either kind of file, without wrappers' prefixes. Raises UserError."""
  return dict(folder.opened(path).weights)


def variant_of(weights: Weights) -> str:
  """b0 to b5, or '' for other sizes."""
  names = [f'segformer.encoder.patch_embeddings.{k}.proj.weight' for k in range(4)]
  widths = tuple(rows(weights, name) for name in names)
  depths = tuple(count(weights, rf'{mit.ENCODER}block\.{k}\.(\d+)\..*') for k in range(4))
  return segformer(widths, depths)


def linear(path: Any, config: ConfigDict, weights: Weights, **epsilons: float) -> None:
  """Makes a config's SegFormer the one of weights in transformers' names."""
  check_config(path, config, 'segformer', variant_of(weights))
  with config.unlocked():
    config.method.model.update(normed_projections=False, **epsilons)
  set_width(config, weights, 'decode_head.linear_fuse.weight')


def segformer_state(path: Any, config: ConfigDict, weights: Weights) -> tuple[Any, dict[str, Any]]:
  """Of a config that is as `linear` makes it."""
  classes, mend = rows(weights, CLASSIFIER), use('segformer', variant_of(weights))
  return supervised_state(path, config, classes, mit.to_variables, weights, mend)
