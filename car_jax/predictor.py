"""A trained model that predicts pictures of one's own: masks, samples and how sure it is.

  model = car_jax.load('runs/mose')
  out = model.predict(image, samples=8)  # .mask .samples .weights .probabilities .entropy ..

Letters: B images, N samples, H x W pixels, C classes.
"""

import functools
import pathlib
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from car_jax import sharding
from car_jax.calibrate import base as calibrators
from car_jax.calibrate import files as calibrator_files
from car_jax.errors import UserError
from car_jax.evaluate import checkpointed, engine
from car_jax.evaluate import predict as predictions
from car_jax.evaluate.predict import Prediction
from car_jax.methods.base import Batch, Method
from car_jax.metrics.scores import entropy
from car_jax.typing import Array


class Outputs(flax.struct.PyTreeNode):
  """What a model says of images; a single image of `Predictor.predict` has no axis B.

  mask [B, H, W]: the likeliest class by `probabilities`, the lowest of equal ones, uint8 (int32
  from 257 classes on). samples [B, N, H, W]: the class of every pixel in each segmentation that was
  drawn, and weights [B, N], which sum to one. probabilities [B, H, W, C]: the mean of the samples'
  or, of a method with logits, their softmax; through the calibrator if there is one. entropy
  [B, H, W]: theirs in nats. mutual_information [B, H, W]: how much the samples differ, in nats: the
  entropy of their mean minus their mean entropy, before any calibration.
  """

  mask: Any
  samples: Any
  weights: Any
  probabilities: Any
  entropy: Any
  mutual_information: Any


def outputs(
  method: Method,
  predict: Callable,
  state: Any,
  batch: Batch,
  key: Array,
  samples: int,
  calibrator: Any = None,
  chunk: int = 16,
) -> Outputs:
  """What `predict`, one of the method's predictors, says of images without labels. Pure.

  batch: image [B, h, w, 3] in [-1, 1] and example [B]; labels [B, 1, H, W] where the size of the
  prediction is another than the image's, whose values mean nothing. No one says an ignored class.
  chunk: as in evaluate/predict.py.
  """
  image = jnp.asarray(batch['image'])
  labels = jnp.full_like(batch.get('labels', image[:, None, ..., 0]), -1, jnp.int32)
  batch = {**batch, 'labels': labels, 'label_weight': jnp.ones(labels.shape[:2])}
  ignore = method.ignore_label if (method.ignore_label or 0) < method.num_classes else None
  drawn = predictions.predict(predict, samples, chunk, ignore, state, batch, key, compare=True)
  assert drawn.disagreement is not None
  probs = drawn.mean
  if method.has_logits or calibrator is not None:
    stated = drawn
    if method.has_logits:
      stated = Prediction(logits=method.logits(state, batch), disagreement=drawn.disagreement)
    if calibrator is not None:
      if calibrators.needs(calibrator) == 'features':
        batch = {**batch, 'features': method.features(state, batch)}
      stated = engine.calibrated(calibrator, stated, batch)
    logits = stated.logits
    if ignore is not None:
      logits = jnp.where(jnp.arange(method.num_classes) == ignore, -jnp.inf, logits)
    probs = jax.nn.softmax(logits)
  return Outputs(
    mask=jnp.argmax(probs, -1).astype(drawn.labels.dtype),
    samples=drawn.labels,
    weights=drawn.weight,
    probabilities=probs,
    entropy=entropy(probs),
    mutual_information=drawn.disagreement,
  )


class Predictor:
  """A trained model; `load` makes one. `method`, `state`, `info` (of its data) and `config` are
  those of its run."""

  def __init__(self, loaded: checkpointed.Loaded, calibrator: Any = None):
    self.method, self.state, self.config = loaded.method, loaded.state, loaded.config
    self.info, self.step, self.path = loaded.info, loaded.step, loaded.path
    self.calibrator = calibrator
    if calibrators.needs(calibrator) == 'features' and not self.method.has_features:
      raise UserError('the calibrator needs features of images, which this model does not have')
    self.name, self._predict = next(iter(self.method.predictors().items()))
    self._compiled: dict[int, Callable] = {}

  def __repr__(self) -> str:
    about = self.info
    net = f'{self.config.method.name} model, {self.path}'
    calibrated = ', calibrated' if self.calibrator is not None else ''
    return '\n'.join(
      [
        f'{net}{calibrated}',
        f'trained on {about.name or "unnamed data"} for {self.step:,} steps',
        f'predicts {about.num_classes} classes: {", ".join(about.class_names)}',
      ]
    )

  def predict(self, image: Any, samples: int = 8, *, seed: int = 0) -> Outputs:
    """image uint8 [H, W], [H, W, 3] or [B, H, W, 3], or float in [-1, 1] -> numpy Outputs."""
    image = np.asarray(image)
    single = image.ndim < 4
    batch = image[None] if single else image
    batch = batch[..., None] if batch.ndim == 3 else batch
    from car_jax.data import transforms

    if batch.dtype == np.uint8:
      batch = np.stack([transforms.model_image(x) for x in batch])
    batch = np.broadcast_to(batch, (*batch.shape[:3], 3)).astype(np.float32)
    ids = np.array([zlib.crc32(np.ascontiguousarray(x)) for x in batch], np.uint32)  # type: ignore[arg-type]
    out = jax.device_get(self.batch(dict(image=batch, example=ids), samples, seed))
    return jax.tree.map(lambda x: x[0], out) if single else out

  def batch(self, batch: Batch, samples: int, seed: int = 0) -> Outputs:
    """A batch as `outputs` takes it; the method's own predictor on it."""
    if samples not in self._compiled:
      run = functools.partial(outputs, self.method, self._predict)
      self._compiled[samples] = jax.jit(
        lambda state, batch, key, calibrator: run(state, batch, key, samples, calibrator)
      )
    return self._compiled[samples](self.state, batch, jax.random.key(seed), self.calibrator)


def load(path: str | pathlib.Path, *, step: str = '', calibrator: Any = None) -> Predictor:
  """The model of a run. step: a step, 'best' or 'latest'; '' is the best one.

  calibrator: the .npz of one, or one itself. Raises UserError.
  """
  loaded = checkpointed.load(path, step)
  if isinstance(calibrator, (str, pathlib.Path)):
    calibrator = calibrator_files.load(calibrator, classes=loaded.method.num_classes).calibrator
  return Predictor(loaded, calibrator)
