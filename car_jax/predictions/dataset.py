"""Folders of predictions and their labels as an evaluation takes them: batches and subjects.

Everything is read once before anything is scored, so that a fault in any file ends in its message
at once, and that the largest numbers of samples and readers are known. Letters as in reading.py.
"""

import dataclasses
import pathlib
from collections.abc import Generator, Sequence
from typing import Any

import numpy as np

from car_jax import paths
from car_jax.data import pipeline
from car_jax.data.sources import DataInfo, Source
from car_jax.errors import UserError, nearest
from car_jax.evaluate import predict
from car_jax.evaluate.gallery import as_large
from car_jax.evaluate.options import MOST_SAMPLES
from car_jax.evaluate.predict import Prediction, Subject
from car_jax.metrics.base import Traits
from car_jax.predictions import classes as class_names
from car_jax.predictions import sources
from car_jax.predictions.reading import Stored
from car_jax.predictions.sources import Labels, Predictions
from car_jax.reliability.interpret import Reading

BATCH_BYTES = 1 << 28
MOST_BATCH = 16
GREY = 127  # of an image that is not there


@dataclasses.dataclass
class Summary:
  """What is known of one subject when all of its images were read: what its files hold, the least
  and the largest N, whether no sample weighs more than another, whether there are `mean`, `own`."""

  kind: str = ''
  least: int = MOST_SAMPLES
  samples: int = 0
  equal: bool = True
  mean: bool = False
  own: bool = False

  def add(self, stored: Stored, where: str) -> None:
    if stored.kind != (self.kind or stored.kind):
      raise UserError(
        f'{where} holds {stored.kind}, files before it {self.kind}\n'
        '  score them one by one, or give --kind'
      )
    n = len(stored.labels)
    self.kind, self.least, self.samples = stored.kind, min(self.least, n), max(self.samples, n)
    self.equal &= stored.equal
    self.mean, self.own = stored.mean is not None, stored.own is not None

  @property
  def traits(self) -> Traits:
    single = self.samples == 1
    return Traits(draws=self.equal, single=single, confidence=self.mean or not single)

  @property
  def words(self) -> str:
    if self.samples == 1:
      return f'one for each image, {self.kind}'
    span = '' if self.least == self.samples else f'{self.least:,} to '
    words = f'{span}{self.samples:,} samples for each image, {self.kind}'
    return words if self.equal else f'{words}, with weights'


class Dataset(Source):
  """Images with their readers and what everybody predicted.

  info: DataInfo. subjects: rows of the report, whose predictions come with `batches`. summaries:
  of each subject. samples: the largest N of all.
  """

  def __init__(
    self,
    given: Sequence[tuple[str, str]],
    labels: str,
    *,
    classes: str = '',
    kind: str = '',
    resize: str = '',
    file_per: str = '',
  ):
    """given: names and folders; the others are options of car-jax eval. Raises UserError."""
    labels = str(paths.fetched(labels)) if labels else ''
    opened = [sources.opened(name, paths.fetched(at), labels, file_per) for name, at in given]
    self.predictions: list[Predictions] = [p for several, _ in opened for p in several]
    self.labels: Labels = opened[0][1]
    if isinstance(self.labels, sources.LabelFiles):
      self.labels.report_converted()
    _check_names([predictions.name for predictions in self.predictions])
    self.ids = _same_ids(self.predictions)
    if not pathlib.Path(labels or '?').is_dir():  # which is the same for all of them
      _check_same_labels([own for _, own in opened], [at for _, at in given], self.ids)
    names, values = class_names.given(classes)
    if values and any(p.names for p in self.predictions):
      raise UserError(
        '--classes VALUE:NAME is of files; what car-jax eval --save wrote has class ids'
      )
    names = names or class_names.names(self.labels, self.predictions, self.ids)
    self.how = Reading(len(names), kind, resize, values)
    self.summaries = [Summary() for _ in self.predictions]
    self.sizes: list[tuple[int, int]] = []
    marks = [mark for mark in (self.labels.ignored, self.labels.unknown) if mark is not None]
    void, readers, most = any(mark < len(names) for mark in marks), 0, 0
    for id in self.ids:
      maps = self._add(id)
      marked = np.isin(maps, marks)
      void, readers = void or bool(marked.any()), max(readers, len(maps))
      most = max(most, int(maps.max(initial=0, where=~marked)))
    if void and not most and not values:
      raise class_names.masks(labels or given[0][1])
    self.samples = max(summary.samples for summary in self.summaries)
    self.info = DataInfo(
      name=pathlib.Path(labels or given[0][1]).absolute().name,
      num_classes=len(names),
      class_names=names,
      palette=class_names.palette(names),
      readers=readers,
      ignore_label=self.labels.ignored if void else None,  # else conventions would name it
      unknown_label=self.labels.unknown if void else None,
    )
    self.subjects = [self._subject(k) for k in range(len(self.predictions))]

  @property
  def uneven(self) -> str:
    """How subjects with different numbers of samples are compared; '' where all have as many."""
    if len({(s.least, s.samples) for s in self.summaries}) < 2:
      return ''
    span = lambda s: ' to '.join(f'{n:,}' for n in dict.fromkeys((s.least, s.samples)))
    parts = zip(self.predictions, self.summaries, strict=True)
    counts = ', '.join(f'{p.name} {span(s)}' for p, s in parts)
    least = min(s.least for s in self.summaries)
    text = (
      f'Different numbers of samples are compared ({counts}), each with all that it has: GED[v], '
      'dice_max and scores of the mean favour the larger number, GED[u] does not.'
    )
    mend = f'--config.report.samples={least} compares sets of the first {least:,} of each'
    return text if least == 1 else f'{text}\n  {mend}; means stay those of all.'

  def _add(self, id: str) -> np.ndarray:
    """Reads an image into the summaries -> its readers' labels [M, H, W]."""
    maps, _ = self.labels.read(id, self.how)
    counted = _counted(maps, self.labels.ignored)
    for predictions, summary in zip(self.predictions, self.summaries, strict=True):
      summary.add(predictions.read(id, self.how, counted), f'{predictions.about}: {id}')
    self.sizes.append(counted.shape)
    return maps

  def _subject(self, k: int) -> Subject:
    summary, of = self.summaries[k], self.predictions[k]
    name = _key(k)

    def stored(state: Any, batch: Any, rng: Any, n: int) -> Prediction:
      labels, weight = batch[f'{name}/labels'], batch[f'{name}/weight']
      mean = batch.get(f'{name}/mean')
      if mean is None:
        mean = predict.shares(labels, weight, self.how.classes)
      return Prediction(labels, weight, mean, batch.get(f'{name}/own'))

    note = f'{of.about}: {summary.words}'
    return Subject(of.name, stored, None, note, traits=summary.traits, summarised=True)

  def batches(
    self, *, host: int = 0, hosts: int = 1, devices: int = 1
  ) -> Generator[dict[str, Any], None, None]:
    """Every image once, in order, as pipeline.eval_batches gives them, with the predictions."""
    numbers = sum(s.samples + 8 * self.how.classes for s in self.summaries) + 4 * self.info.readers
    pixels = max(h * w for h, w in self.sizes)
    size = (
      max(1, min(MOST_BATCH, len(self), BATCH_BYTES // (numbers * pixels)) // devices) * devices
    )
    shares = dict(host=host, hosts=hosts, devices=devices)
    for batch in pipeline.eval_batches(self, self.info, dict(batch=size), **shares):
      yield batch | self._predicted(batch)

  def _predicted(self, batch: dict[str, Any]) -> dict[str, np.ndarray]:
    """The predictions of a batch's images: KEY/labels [B, N, H, W], KEY/weight [B, N] and, where
    there are any, KEY/mean and KEY/own [B, H, W, C]; an image with fewer samples has some of
    weight 0."""
    out: dict[str, list[np.ndarray]] = {}
    present = batch['label_weight'] > 0
    masks = [
      _counted(maps[m], self.info.ignore_label)
      for maps, m in zip(batch['labels'], present, strict=True)
    ]
    for k, (predictions, summary) in enumerate(zip(self.predictions, self.summaries, strict=True)):
      for id, counted in zip(batch['id'], masks, strict=True):
        stored = predictions.read(str(id), self.how, counted)
        rest = summary.samples - len(stored.labels)
        parts = {
          'labels': np.pad(stored.labels, ((0, rest), (0, 0), (0, 0))),
          'weight': np.pad(stored.weight, (0, rest)),
          'mean': stored.mean,
          'own': stored.own,
        }
        for part, value in parts.items():
          if value is not None:
            out.setdefault(f'{_key(k)}/{part}', []).append(value)
    return {key: np.stack(rows) for key, rows in out.items()}

  def __len__(self) -> int:
    return len(self.ids)

  def __getitem__(self, i: int) -> dict[str, Any]:
    """As in data/sources.py; a picture of another size is brought to that of its labels."""
    id = self.ids[i]
    labels, weight = self.labels.read(id, self.how)
    image = self.labels.image(id)
    if image is None:
      image = np.full((*labels.shape[1:], 3), GREY, np.uint8)
    image = as_large(image, labels.shape[1:])
    group = self.labels.group(id)
    return dict(image=image, labels=labels, label_weight=weight, id=id, group=group)


def _key(k: int) -> str:
  return f'prediction {k}'


def _counted(maps: np.ndarray, ignored: int | None) -> np.ndarray:
  """Pixels [H, W] of which some of the readers [M, H, W] knows something."""
  return np.ones(maps.shape[1:], bool) if ignored is None else (maps != ignored).any(0)


def _check_names(names: Sequence[str]) -> None:
  """Raises UserError for a name that two rows of the report would have."""
  rows = [*names, predict.READERS]
  if twice := [name for name in names if rows.count(name) > 1]:
    raise UserError(f'two rows would be called {twice[0]!r}\n  give --predictions NAME=FOLDER')


def _same_ids(predictions: Sequence[Predictions]) -> list[str]:
  """The ids that all have. Raises UserError for images that only some have."""
  first, *others = predictions
  for other in others:
    for one, two in ((first, other), (other, first)):
      known = {*two.ids}
      if missing := [id for id in one.ids if id not in known]:
        listed = '\n'.join(f'  {id}' for id in missing[:20])
        raise UserError(
          f'{len(missing)} images of {one.about} have no prediction in {two.about}:\n{listed}\n'
          f'{nearest(missing[0], two.ids)}\n  or score the folders one by one'
        )
  return first.ids


def _check_same_labels(labels: Sequence[Labels], places: Sequence[str], ids: Sequence[str]) -> None:
  """Raises UserError where two folders bring labels that differ."""
  first, *others = labels
  for other, place in zip(others, places[1:], strict=True):
    for id in ids:
      if not np.array_equal(first.raw(id), other.raw(id)):
        raise UserError(
          f'{id} has other labels in {place} than in {places[0]}\n'
          '  give --labels FOLDER for both, or score them one by one'
        )
