"""Calibrators fitted to labelled images of a run's own data, of one reader or several.

A method with logits is calibrated on them, one that draws segmentations (MoSE, CAR) on the log of
its samples' mean, which is what car-jax predict puts through the calibrator. Every reader's label
counts alike, so that the NLL is the mean over readers.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from car_jax import sharding
from car_jax.calibrate import base, drawn
from car_jax.calibrate.base import Fit
from car_jax.data import opening, pipeline
from car_jax.errors import UserError
from car_jax.evaluate import checkpointed, engine, predict
from car_jax.evaluate.engine import Predicted, Row
from car_jax.evaluate.predict import Prediction
from car_jax.metrics.base import Traits

CHUNK = 16  # samples at a time


@dataclasses.dataclass(frozen=True)
class Drawn:
  """What a fit is made of. split: of the run's data; pixels: most of each image; samples: of
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
  if data.info.flips:
    raise UserError(
      f'{data.info.name} has every mode of its class flips as a reader, each with a probability of '
      'its own; a calibrator counts readers alike and would learn other frequencies\n'
      '  car-jax eval scores such a run as it is'
    )
  loaded = checkpointed.load(path, step, data.info)
  if not len(source := data.split(how.split)):
    raise UserError(f'split {how.split!r} of {data.info.name} has no image to calibrate on')
  mesh = sharding.make_mesh()
  batches = pipeline.eval_batches(source, data.info, config.data, devices=mesh.size)
  stream = _predicted(loaded, batches, how, mesh)
  ignore = data.info.ignore_label
  sample = base.joined([drawn.of_batch(batch, how.pixels, how.seed, ignore) for batch in stream])
  made = base.fit(kind, sample, seed=how.seed)
  samples = {} if loaded.method.has_logits else dict(samples=how.samples)
  about = dict(run=str(loaded.path), split=how.split, readers=data.info.readers, **samples)
  return Fit(made.calibrator, made.about | about)


def _predicted(
  loaded: checkpointed.Loaded, batches: Any, how: Drawn, mesh: Mesh
) -> Iterator[Predicted]:
  method, rng = loaded.method, jax.random.key(how.seed)
  ignore, subject = method.ignored_class, method.own_predictor

  @jax.jit
  def run(state: Any, batch: Any) -> Prediction:
    if method.has_logits:
      return Prediction(logits=method.logits(state, batch))
    return predict.predict(subject, how.samples, CHUNK, ignore, state, batch, rng)

  features = jax.jit(method.features) if method.has_features else None
  traits = Traits(draws=not method.has_logits, logits=method.has_logits)
  place = functools.partial(sharding.place_batch, mesh=mesh)
  for host in batches:
    batch = place(host)
    ids, groups, keep = engine.gathered(host, place, jax.device_get)
    row = Row(run(loaded.state, batch), traits)
    more = {} if features is None else {'features': features(loaded.state, batch)}
    yield Predicted(batch | more, {'run': row}, ids, groups, keep)
