"""A study's models: one is in memory at a time; and what they and their data are recognised by."""

import gc
import pathlib
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from car_jax import combined, paths, saved_steps
from car_jax.errors import UserError
from car_jax.evaluate.engine import Predicted
from car_jax.reliability import foreign
from car_jax.reliability.plan import Plan
from car_jax.reliability.segmenters import Checkpoint, Folder, Images, Segmenter, digest
from car_jax.reliability.study_options import ImageSet, Model

# One of these lies in a run's folder.
RUN = (saved_steps.LATEST, 'config.json', '_CHECKPOINT_METADATA')


class LazySegmenter:
  """A segmenter that is opened when it is used; then another one of the same `memory` is closed.

  What is asked of a closed one (about, images, prints) stays known.
  """

  def __init__(self, model: Model, plan: Plan, mesh: Mesh, memory: dict[str, Segmenter]):
    self.name, self._model, self._plan, self._mesh = model.name, model, plan, mesh
    self._memory = memory if is_run(model.path) else {}  # a folder has no weights
    self._images: dict[str, tuple[Images, str]] = {}
    one = self._opened()
    self.about, self.has_features = one.about, one.has_features
    self.fingerprint = one.fingerprint

  def _opened(self) -> Segmenter:
    if self.name not in self._memory:
      if self._memory:
        self._memory.clear()
        gc.collect()  # its compiled functions and it refer to each other
      self._memory[self.name] = open_segmenter(self._model, self._plan, self._mesh)
    return self._memory[self.name]

  def images(self, image_set: ImageSet) -> Images:
    return self._of(image_set)[0]

  def data_print(self, image_set: ImageSet) -> str:
    """Changes when a set's files, or what is done to them, change."""
    return self._of(image_set)[1]

  def _of(self, image_set: ImageSet) -> tuple[Images, str]:
    if image_set.name not in self._images:
      keys = dict(
        data=image_set.data, split=image_set.split, labels=image_set.labels, absent=image_set.absent
      )
      seen = {k: v for k, v in keys.items() if v not in ('', ())}
      images = self._opened().images(image_set)
      self._images[image_set.name] = images, agreed(digest(seen, [*map(_stamp, images.files)]))
    return self._images[image_set.name]

  def batches(
    self, image_set: ImageSet, only: Sequence[int] | None = None, features: bool = False
  ) -> Iterator[Predicted]:
    return self._opened().batches(image_set, only, features)

  def first(self, image_set: ImageSet) -> set[str]:
    """What a batch of a folder's set has besides logits and labels, by its first image."""
    return {key for one in self.batches(image_set, [0], True) for key in one.batch}


def open_segmenter(model: Model, plan: Plan, mesh: Mesh) -> Segmenter:
  """A run of ours, or else a folder of predictions, after `check_data`. Raises UserError."""
  if is_run(model.path):
    return Checkpoint(model, mesh, plan.config.seed)
  c = plan.config
  how = dict(kind=c.kind, resize=c.resize)
  return Folder(model.name, model.path, c.classes, c.palette, **how)


def is_run(path: str) -> bool:
  folder = paths.of(path)
  return (
    combined.is_named(path)
    or folder.name.isdigit()
    or any((folder / part).exists() for part in RUN)
  )


def check_data(model: Model, sets: Sequence[ImageSet], on: ImageSet | None) -> None:
  """Raises UserError for a model that is not there, and where it is not clear which data or
  predictions of a set are meant."""
  path, all_sets = model.path, [*sets, *([on] if on and on not in sets else [])]
  if is_run(path):
    if without := [s.name for s in all_sets if not s.data]:
      raise UserError(
        f'model {model.name!r} is a run, and set {without[0]!r} has no data\n'
        '  set data=dict(name=.., data_dir=..)'
      )
    return
  if '{set}' in path:
    return
  if not paths.of(path).is_dir():
    raise UserError(
      f'model {model.name!r}: no run and no folder of predictions {path}\n'
      '  train it first, or leave it out of config.models'
    )
  labels = [s.labels for s in all_sets]
  if len({*labels}) < len(labels) or (len(labels) > 1 and foreign.is_saved(paths.of(path))):
    names = ', '.join(s.name for s in all_sets)
    raise UserError(
      f'model {model.name!r}: the folder {path} would stand for all of: {names}\n'
      f'  make a folder of predictions for each, called as here, and write {path}/{{set}}'
    )


def _stamp(path: pathlib.Path) -> tuple[str, int, int]:
  try:
    status = path.stat()
  except OSError:  # an error when it is read
    return str(path), -1, -1
  return str(path), status.st_size, status.st_mtime_ns


def agreed(text: str) -> str:
  """Process 0's text, for what files of one machine tell; all must be of one length."""
  if jax.process_count() == 1:
    return text
  codes = multihost_utils.broadcast_one_to_all(np.frombuffer(text.encode(), np.uint8))
  return bytes(np.asarray(codes, np.uint8)).decode()
