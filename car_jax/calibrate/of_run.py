"""Calibrators fitted to labelled images of a run's own data, of one reader or several.

A method with logits is calibrated on them, one that draws segmentations (MoSE, CAR) on the log of
its samples' mean, which is what car-jax predict puts through the calibrator. Every reader's label
counts alike, so that the NLL is the mean over readers. Letters: B images, M readers, H x W pixels,
S of them drawn, C classes, D features.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from car_jax import sharding
from car_jax.calibrate import base
from car_jax.calibrate.base import Fit, Sample
from car_jax.data import opening, pipeline
from car_jax.errors import UserError
from car_jax.evaluate import checkpointed, predict
from car_jax.evaluate.predict import Prediction
from car_jax.metrics.base import Outputs

CHUNK = 16  # samples at a time


@dataclasses.dataclass(frozen=True)
class Drawn:
  """What a fit is made of. split: of the run's data; pixels: S at most of each image; samples: of
  each image, where the method draws."""

  split: str = 'validation'
  pixels: int = 20_000
  samples: int = 16
  seed: int = 0


def fit(path: str, config: ConfigDict, kind: str, how: Drawn, step: str = '') -> Fit:
  """A calibrator of a kind (`base.KINDS`) for a run. config: its own, whose data may be elsewhere.

  Raises UserError.
  """
  base.find(kind)  # a wrong name is said before anything is read
  data = opening.open_dataset(config.data)
  loaded = checkpointed.load(path, step, data.info)
  if not len(source := data.split(how.split)):
    raise UserError(f'split {how.split!r} of {data.info.name} has no image to calibrate on')
  batches = pipeline.eval_batches(source, data.info, config.data)
  made = base.fit(kind, base.joined([*_parts(loaded, batches, how)]), seed=how.seed)
  drawn = {} if loaded.method.has_logits else dict(samples=how.samples)
  about = dict(run=str(loaded.path), split=how.split, readers=data.info.readers, **drawn)
  return Fit(made.calibrator, made.about | about)


def _parts(loaded: checkpointed.Loaded, batches: Any, how: Drawn) -> Iterator[Sample]:
  """The pixels of each batch; the same of an image whatever the batch."""
  method, mesh, rng = loaded.method, sharding.make_mesh(), jax.random.key(how.seed)
  ignore, subject = method.ignore_label, next(iter(method.predictors().values()))

  @jax.jit
  def logits(state: Any, batch: Any) -> Any:
    if method.has_logits:
      return Outputs(Prediction(logits=method.logits(state, batch))).logits
    return Outputs(predict.predict(subject, how.samples, CHUNK, ignore, state, batch, rng)).logits

  features = jax.jit(method.features) if method.has_features else None
  for host in batches:
    batch, keep = sharding.place_batch(host, mesh), host['valid']
    scores = np.asarray(logits(loaded.state, batch), np.float32)
    more = None if features is None else np.asarray(features(loaded.state, batch), np.float32)[keep]
    yield _sample(
      scores[keep], {k: host[k][keep] for k in ('labels', 'label_weight', 'id')}, more, how
    )


def _sample(scores: np.ndarray, of: Any, features: np.ndarray | None, how: Drawn) -> Sample:
  """scores [B, H, W, C] and labels [B, M, H, W] -> a Sample of [B, M S] pixels; -1 where a reader
  gives no class or is not there."""
  B, H, W, C = scores.shape
  M = of['labels'].shape[1]
  at = base.drawn_pixels(of['id'], H * W, how.pixels, how.seed)
  logits = np.take_along_axis(scores.reshape(B, H * W, C), at[..., None], 1)
  labels = np.take_along_axis(of['labels'].reshape(B, M, H * W), at[:, None], 2).astype(np.int32)
  counted = (labels >= 0) & (labels < C) & (of['label_weight'] > 0)[..., None]
  labels = np.where(counted, labels, -1).reshape(B, -1)
  return Sample(np.tile(logits, (1, M, 1)), labels, features)
