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
from car_jax.errors import UserError, naming, reading
from car_jax.importers import comparison, encoders, prefixes, spellings
from car_jax.importers.rules import Weights, rows
from car_jax.importers.segmenters import SEGFORMER, composition, run_config, supervised_state
from car_jax.importers.transformers import backbones, folder, mit, model, processor

HOLDS = 'a segmenter of transformers'
LONE = {mit.CLASSIFIER, 'class_predictor.weight'}  # of segmenters that names do not tell apart


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
  def described(self) -> bool:
    """Whether config.json says what net it holds."""
    return bool(self.spec)

  @property
  def is_segformer(self) -> bool:
    return not self.spec or self.spec['name'] == 'segformer'

  def config(self) -> ConfigDict:
    """Of a run of its net, which sees whole images."""
    if not self.spec:
      return configs.load(f'{SEGFORMER}:{mit.variant_of(self.weights) or "b0"}')
    frame = self.images.frame if self.images else {}
    if 'resize' in frame:
      height, width = frame['resize']
      print(
        f'{self.path}: images are made {height} x {width} whatever their shape, as its '
        "preprocessor_config.json says\n  as they are: --config.data.resize='()'",
        flush=True,
      )
    with naming(self.path):
      return run_config(self.spec, **dict(fit=()) | frame)

  def check(self, config: ConfigDict) -> None:
    """Raises UserError where config.json says that its net computes something else."""
    if not self.spec:
      return
    config = copy.deepcopy(config)
    if self.is_segformer:
      self.adapt(config)
    ours = composition(self.path, config, HOLDS)
    also = []
    for key in ('mean', 'std') if self.images else ():
      a, b = tuple(getattr(ours, key)), tuple(self.spec[key])
      also += [] if np.allclose(a, b) else [f'{key} is {a}, in the file {b}']
    comparison.check(self.path, ours, self.spec, also=also)

  def adapt(self, config: ConfigDict) -> None:
    mit.adapt(self.path, config, self.weights, norm_epsilon=1e-5)

  def state(self, config: ConfigDict) -> tuple[Any, dict[str, Any]]:
    """The weights as a state of the config's method, and what is known of their data.

    Sets of a SegFormer's config in what these files differ from mmsegmentation's. Raises UserError.
    """
    if self.is_segformer:
      return mit.linear_state(self.path, config, self.weights, norm_epsilon=1e-5)
    composition(self.path, config, HOLDS)
    return supervised_state(self.path, config, self.classes, model.to_variables, self.weights)


def opened(path: str | pathlib.Path) -> Checkpoint | encoders.Encoder:
  """A folder, or a file in it. Raises UserError for what is neither segmenter nor encoder."""
  path, weights, config, prepared = folder.opened(path)
  kind = config.get('model_type')
  known = kind is None or kind in (*model.SEGMENTERS, *model.ENCODERS)
  if kind == 'segformer' or kind is None:
    weights = spellings.from_newer(weights)
  whole = bool(rows(weights, mit.CLASSIFIER)) or (kind in model.HEADS)
  if known and not whole and (names := encoders.find(backbones.NAMES, weights)):
    return encoders.Encoder(path, weights, names, 'transformers')
  if kind is None:
    if LONE & set(weights) and not any(name.startswith('segformer.') for name in weights):
      raise UserError(
        f'{path} has weights without {folder.CONFIG}, which says what the net is\n'
        '  put it beside them'
      )
    if not rows(weights, mit.CLASSIFIER):
      raise UserError(f'{path} is no SegFormer of transformers: {prefixes.described(weights)}')
    return Checkpoint(path, weights, {}, rows(weights, mit.CLASSIFIER), None)
  with reading(path, 'the configs of a folder of transformers'), naming(path):
    spec, classes = model.spec(config)
    if kind == 'segformer' and config.get('id2label') and classes != rows(weights, mit.CLASSIFIER):
      has = rows(weights, mit.CLASSIFIER)
      raise UserError(f'its config has {classes} classes, its weights have {has}')
    images = processor.images(prepared) if prepared else None
  if images:
    spec |= dict(mean=images.mean, std=images.std)
  return Checkpoint(path, weights, spec, classes, images)
