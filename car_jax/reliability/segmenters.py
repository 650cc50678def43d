"""Where logits come from: a checkpoint of ours, or files of anybody's.

A segmenter yields batches of `Predicted`. Letters: B images, H x W pixels, C classes, D features.
"""

import contextlib
import functools
import hashlib
import json
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jax.sharding import Mesh

from car_jax import paths, sharding
from car_jax.data import labels as cityscapes
from car_jax.data import opening, pipeline, prepared, sources
from car_jax.data import options as data_options
from car_jax.errors import UserError, nearest
from car_jax.evaluate import checkpointed, engine, predict
from car_jax.evaluate.engine import Predicted, Row
from car_jax.evaluate.predict import Prediction
from car_jax.metrics.base import Traits
from car_jax.predictions import sources as files
from car_jax.predictions.reading import Arrays
from car_jax.predictions.sources import Labels, Predictions
from car_jax.reliability import interpret
from car_jax.reliability.foreign import checked_labels
from car_jax.reliability.interpret import CLASSES_ONLY, KNOWN, Reading
from car_jax.reliability.study_options import ImageSet, Model


class Images(NamedTuple):
  """What a segmenter says of a set: how many images it has, names and colours of its classes.

  by_object: whether they are called OBJECT/NAME, by their unknown objects. files: what they are
  read from; none where they are made in memory.
  """

  size: int
  names: tuple[str, ...]
  palette: tuple[Any, ...]
  by_object: bool
  files: Sequence[pathlib.Path]


class Segmenter(Protocol):
  """Its batches have one row, of its name."""

  name: str
  about: str

  @property
  def fingerprint(self) -> str:
    """Changes when predictions do."""

  @property
  def has_features(self) -> bool | None:
    """None: not known before a batch is read."""

  def images(self, image_set: ImageSet) -> Images:
    """Of a set. Raises UserError where the segmenter has other classes."""

  def batches(
    self, image_set: ImageSet, only: Sequence[int] | None = None, features: bool = False
  ) -> Iterator[Predicted]:
    """All images of a set, or those at the indices `only`, in order. Raises UserError."""


class Checkpoint:
  """A run of ours. Methods with logits are asked for them, others for the mean of their samples."""

  def __init__(self, model: Model, mesh: Mesh, seed: int = 0):
    self.name, self._mesh, self._rng = model.name, mesh, jax.random.key(seed)
    loaded = checkpointed.load(model.path, str(model.step), mesh=mesh)
    method, self._state = loaded.method, loaded.state
    self._method, self._crc = method, loaded.crc
    self._lines: set[str] = set()  # of what was cut, printed once
    self._configs = [run.config.to_dict() for run in loaded.runs]
    self.config = self._configs[0]
    self._own = method.has_logits and not model.predictor
    self._samples_drawn = 1 if self._own else model.samples
    self._chunk = model.chunk
    known = method.predictors()
    wish = model.predictor or next(iter(known))
    if wish not in known:
      raise UserError(f'model {model.name!r} has no predictor {wish!r}\n{nearest(wish, known)}')
    self.about = f'{loaded.config.method.name}, {loaded.path}'
    self.about += '' if self._own else f', {wish}, {self._samples_drawn} samples'
    run = functools.partial(self._samples, known[wish], model.chunk)
    self._predict = jax.jit(self._logits if self._own else run)
    draws = not self._own and not known[wish].whole
    self._traits = Traits(draws=draws, logits=self._own, disagreement=not self._own)
    self.has_features = method.has_features
    self._features = jax.jit(method.features) if self.has_features else None
    self._everywhere = jax.jit(lambda tree: tree, out_shardings=sharding.replicated(mesh))

  @property
  def fingerprint(self) -> str:
    parts = () if self._own else (self._chunk,)  # which draws follow from
    return digest(self.about, *self._configs, self._crc, *parts)

  def _logits(self, state, batch) -> Prediction:
    return Prediction(logits=self._method.logits(state, batch))

  def _samples(self, predictor, chunk, state, batch) -> Prediction:
    ignore = self._method.ignored_class
    args = (predictor, self._samples_drawn, chunk, ignore, state, batch, self._rng)
    return predict.predict(*args, compare=True)

  def _open(self, image_set: ImageSet) -> tuple[sources.DataInfo, Any, dict[str, Any]]:
    """A set's DataInfo, records and data config: the run's own but for what the set says."""
    own = {
      k: v for k, v in self.config['data'].items() if k not in ('class_flips', 'source', 'target')
    }
    config = data_options.over(own, {'eval_batch': self._mesh.size} | dict(image_set.data))
    data = opening.open_dataset(config)
    if data.info.readers > 1:
      raise UserError(
        f'{config["name"]} has {data.info.readers} readers; reliability is scored on one label\n'
        '  car-jax eval --checkpoint scores against several readers'
      )
    return data.info, data.split(image_set.split or 'test'), config

  def images(self, image_set: ImageSet) -> Images:
    (info, source, config), own = self._open(image_set), self._method.num_classes
    if info.num_classes != own:
      raise UserError(
        f'model {self.name!r} says {own} classes, {info.name} has {info.num_classes}\n'
        '  leave one of them out of the study'
      )
    line = pipeline.cut(source, config)
    if line and line not in self._lines:
      sharding.say(f'{self.name}: {line}')
    self._lines.add(line)
    by_object = image_set.by_object or info.by_object
    names, palette = tuple(map(str, info.class_names)), tuple(info.palette)
    return Images(len(source), names, palette, by_object, prepared_files(config))

  def batches(
    self, image_set: ImageSet, only: Sequence[int] | None = None, features: bool = False
  ) -> Iterator[Predicted]:
    info, source, config = self._open(image_set)
    source = source if only is None else sources.Picked(source, only)
    whole = config['eval_batch'] == 1  # then every device sees it
    here = dict(host=jax.process_index(), hosts=jax.process_count())
    here = dict(host=0, hosts=1) if whole else here | dict(devices=self._mesh.size)
    place = sharding.place_whole if whole else sharding.place_batch
    state = self._state
    with contextlib.closing(pipeline.eval_batches(source, info, config, **here)) as batches:
      for host in batches:
        batch = place(host, self._mesh)
        onto = functools.partial(place, mesh=self._mesh)
        ids, groups, keep = engine.gathered(host, onto, self._fetch)
        rows = {self.name: Row(self._predict(state, batch), self._traits)}
        used = ('labels', 'label_weight', 'valid', 'image', 'unknown')
        arrays = {k: batch[k] for k in used if k in batch}
        if features and self._features:
          arrays['features'] = self._features(state, batch)
        yield Predicted(arrays, rows, ids, groups, keep, self._fetch)

  def _fetch(self, tree: Any) -> Any:
    return jax.device_get(self._everywhere(tree))


class Folder:
  """A model whose predictions lie in `path`; '{set}' in it stands for a set's name.

  class_names says what the arrays' class axis means; labels hold these classes' ids, 255 for pixels
  that do not count and 254 for objects of no known class.
  """

  has_features = None  # files tell when they are read

  def __init__(
    self,
    name: str,
    path: str,
    class_names: Sequence[str],
    palette: Sequence[Any] = (),
    *,
    kind: str = '',
    resize: str = '',
  ):
    """kind and resize: see interpret.Reading."""
    self.name, self.path = name, str(path)
    self.kind, self.resize = kind, resize
    self.names, self.palette = tuple(map(str, class_names)), tuple(palette)
    self.about = f'predictions in {path}'
    self._open: dict[tuple[str, str], tuple[Predictions, Labels]] = {}

  @property
  def fingerprint(self) -> str:
    return ', '.join(filter(None, (self.path, self.kind, self.resize)))

  def _opened(self, image_set: ImageSet) -> tuple[Predictions, Labels]:
    key = self.path.replace('{set}', image_set.name), image_set.labels
    if key not in self._open:
      place, labels = paths.fetched(key[0]), key[1] and str(paths.fetched(key[1]))
      self._open[key] = files.of_study(self.name, place, labels)
    return self._open[key]

  def images(self, image_set: ImageSet) -> Images:
    predictions, _ = self._opened(image_set)
    return Images(
      len(predictions.ids),
      predictions.names or self.names,
      self.palette,
      image_set.by_object,
      predictions.files,
    )

  def batches(
    self, image_set: ImageSet, only: Sequence[int] | None = None, features: bool = False
  ) -> Iterator[Predicted]:
    """One image at a time. Raises UserError that names the file."""
    (predictions, labels), first = self._opened(image_set), ''
    how = Reading(len(predictions.names or self.names), self.kind, self.resize)
    for id in predictions.ids if only is None else [predictions.ids[i] for i in only]:
      ((path, raw),) = predictions.arrays(id)
      arrays, own = read(path, raw, labels, id, how)
      kind = _kind(arrays, own)
      if not first and only is None and not predictions.names:
        sharding.say(f'{predictions.about}: read as {kind}{self._otherwise(kind)}', sys.stderr)
      if kind != (first := first or kind):
        raise UserError(
          f'{path} holds {kind}, files before it {first}\n  score them one by one, or give --kind'
        )
      traits = _traits(arrays, own)
      placed: Any = jax.device_put({k: np.asarray(v)[None] for k, v in arrays.items()})
      groups = [labels.group(id)]
      yield engine.of_logits(ids=[id], groups=groups, name=self.name, traits=traits, **placed)

  def _otherwise(self, kind: str) -> str:
    """What a user can do whose arrays were taken for what they are not."""
    if self.kind or kind not in KNOWN:
      return ''
    return f'; if they are {KNOWN[kind == KNOWN[0]]}, name the arrays so or give --kind'


def read(
  path: Any, raw: Arrays, labels: Labels, id: str, how: Reading
) -> tuple[dict[str, np.ndarray], bool]:
  """One image's arrays, of those of its file: logits [H, W, C] float32, labels [H, W] int32,
  unknown [H, W] bool; and where there are: disagreement [H, W] in nats, image [h, w, 3] in [-1, 1],
  features [D].

  And whether its file has logits. Raises UserError by path.
  """
  maps = labels.raw(id)
  if len(maps) != 1:
    raise UserError(
      f'{labels.place(id)} has {len(maps)} readers; reliability is scored on one label'
    )
  strange = cityscapes.UNKNOWN_LABEL if labels.unknown is None else labels.unknown
  truth = checked_labels(maps[0], how.classes, labels.ignored, strange, labels.place(id))
  arrays, own = interpret.predicted(raw, how, np.asarray(maps[0] != labels.ignored), path)
  if (image := labels.image(id)) is not None:
    arrays['image'] = np.asarray(image, np.float32) / 127.5 - 1
  return arrays | truth, own


def _kind(arrays: Mapping[str, Any], own: bool) -> str:
  if CLASSES_ONLY in arrays:
    return 'classes without a confidence, of which only accuracy is known'
  return 'samples' if 'disagreement' in arrays else KNOWN[not own]


def _traits(arrays: dict[str, Any], own: bool) -> Traits:
  """What kind of prediction arrays are; their mark of classes alone is taken out."""
  confident = arrays.pop(CLASSES_ONLY, None) is None
  samples = 'disagreement' in arrays
  return Traits(draws=samples, logits=own, confidence=confident, disagreement=samples)


def prepared_files(data: Mapping[str, Any]) -> list[pathlib.Path]:
  """Files of a prepared data set; none where it is made in memory."""
  root = paths.of(data.get('data_dir') or prepared.default_data_dir()).expanduser()
  folders = (root / data['name'], root / data['name'] / 'default')
  version = next(filter(None, map(prepared.version_folder, folders)), None)
  return sorted(paths.fetched(version).iterdir()) if version else []


def digest(*parts: Any) -> str:
  """A short text that changes when any of the parts, made of JSON's types, changes."""
  text = json.dumps(parts, sort_keys=True, default=str)
  return hashlib.sha256(text.encode()).hexdigest()[:16]
