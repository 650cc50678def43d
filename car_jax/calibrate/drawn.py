"""Pixels drawn from predicted batches, which calibrators are fitted to.

Letters: B images, M readers, H x W pixels, S of them drawn, C classes.
"""

import zlib
from collections.abc import Iterable

import jax.numpy as jnp
import numpy as np

from car_jax.calibrate.base import Sample
from car_jax.evaluate.engine import Predicted
from car_jax.metrics.base import Outputs
from car_jax.metrics.pixel_counts import known


def pixels(ids: Iterable[str], count: int, drawn: int, seed: int) -> np.ndarray:
  """`drawn` different ones of an image's `count` pixels, or all: [B, S], by id and seed alone."""
  keyed = lambda name: np.random.default_rng([seed, zlib.crc32(str(name).encode())])
  chosen = [keyed(i).choice(count, min(drawn, count), replace=False) for i in ids]
  return np.stack(chosen).astype(np.int32)


def of_batch(predicted: Predicted, drawn: int, seed: int, ignore: int | None) -> Sample:
  """`drawn` random pixels of each image, 0 for all, each with every reader's label: [B, M S].

  Pixels among them whose label is `ignore` or no class stay, with the label -1, as do those of a
  reader who is not there. Images smaller than that give all their pixels.
  """
  batch, keep = predicted.batch, np.asarray(predicted.keep)
  (row,) = predicted.rows.values()
  logits = Outputs(row.prediction).logits
  b, h, w, c = logits.shape
  m = batch['labels'].shape[1]
  at = pixels(predicted.ids, h * w, drawn or h * w, seed)
  logits = jnp.take_along_axis(logits.reshape(b, h * w, c), at[..., None], 1)
  labels = jnp.where(known(batch, c, ignore), batch['labels'], -1).reshape(b, m, h * w)
  labels = jnp.take_along_axis(labels, at[:, None], 2).reshape(b, -1)
  logits, labels, features = predicted.fetch((logits, labels, batch.get('features')))
  return Sample(
    np.tile(np.asarray(logits, np.float32)[keep], (1, m, 1)),
    np.asarray(labels, np.int32)[keep],
    None if features is None else np.asarray(features, np.float32)[keep],
  )
