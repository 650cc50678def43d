"""Where predictions and labels lie: folders of files, and folders that `car-jax eval --save` wrote.

A source of predictions has the images' ids and reads the samples of one; a source of labels reads
its readers. Letters as in reading.py.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from car_jax import sharding
from car_jax.errors import UserError, reading
from car_jax.evaluate import npy, save
from car_jax.evaluate.predict import READERS
from car_jax.predictions import grouping, slices
from car_jax.predictions import reading as files
from car_jax.predictions.reading import Arrays, Stored
from car_jax.reliability import foreign, pairing
from car_jax.reliability.interpret import Reading, understood
from car_jax.reliability.pairing import Group

SCORED = ('samples', 'probabilities', 'logits')  # arrays of --save, of which one must be there


class Predictions(Protocol):
  """Somebody's predictions; `about` says where from. names: the classes', () where unknown. files:
  what they and their labels are read from."""

  @property
  def name(self) -> str: ...

  @property
  def about(self) -> str: ...

  @property
  def names(self) -> tuple[str, ...]: ...

  @property
  def ids(self) -> list[str]: ...

  @property
  def files(self) -> list[pathlib.Path]: ...

  def read(self, id: str, how: Reading, counted: np.ndarray) -> Stored:
    """The samples of an image; counted: bool [H, W], pixels that some reader knows."""

  def arrays(self, id: str) -> list[tuple[Any, Arrays]]:
    """What lies in the files of an image, with their paths."""


class Labels(Protocol):
  """Readers of images. ignored: their label of pixels that nobody knows, or None; unknown: that of
  objects of no known class, where it is not among the ignored already."""

  @property
  def ignored(self) -> int | None: ...

  @property
  def unknown(self) -> int | None: ...

  def place(self, id: str) -> Any:
    """Where the labels of an image lie, for messages."""

  def raw(self, id: str) -> np.ndarray:
    """The labels of an image as they are kept, [M, H, W]."""

  def read(self, id: str, how: Reading) -> tuple[np.ndarray, np.ndarray]:
    """The same as class ids, checked, uint8, and the readers' weights [M]."""

  def group(self, id: str) -> str:
    """What was drawn independently, such as the patient."""

  def image(self, id: str) -> np.ndarray | None:
    """The picture itself, uint8 [h, w, 3], where it is known."""


@dataclasses.dataclass(frozen=True)
class Files:
  """Predictions in files of an image each, or of a sample each."""

  name: str
  about: str
  groups: Mapping[str, Group]
  names: tuple[str, ...] = ()

  @property
  def ids(self) -> list[str]:
    return [*self.groups]

  @property
  def files(self) -> list[pathlib.Path]:
    return [f for g in self.groups.values() for f in (*g.predictions, *g.labels, g.image) if f]

  def arrays(self, id: str) -> list[tuple[Any, Arrays]]:
    group = self.groups[id]
    return [(path, foreign.open_arrays(path, group.slice)) for path in group.predictions]

  def read(self, id: str, how: Reading, counted: np.ndarray) -> Stored:
    return files.read(self.arrays(id), how, counted)


@dataclasses.dataclass(frozen=True)
class LabelFiles:
  """Labels in files of an image each, or of a reader each."""

  groups: Mapping[str, Group]
  ignored: int | None = files.IGNORED
  unknown: int | None = None  # read as ignored

  def report_converted(self) -> None:
    """A line on stderr where label ids of Cityscapes become train ids."""
    every = [p for g in self.groups.values() for p in g.labels]
    if count := sum(map(foreign.has_label_ids, every)):
      text = "label files are named *labelIds: their ids become Cityscapes' train ids, 0 to 18"
      sharding.say(f'{count:,} {text}', sys.stderr)

  def place(self, id: str) -> pathlib.Path:
    first, *others = self.groups[id].labels
    return first.parent if others else first

  def raw(self, id: str) -> np.ndarray:
    return files.raw_readers(self.groups[id].labels, self.groups[id].slice)

  def read(self, id: str, how: Reading) -> tuple[np.ndarray, np.ndarray]:
    ids = how.ids(self.raw(id), self.place(id), self.ignored)
    marks = self.ignored, files.UNKNOWN
    checked = foreign.checked_labels(ids, how.classes, *marks, self.place(id))
    labels = checked['labels'].astype(np.uint8)
    return labels, np.full(len(labels), 1 / len(labels), np.float32)

  def group(self, id: str) -> str:
    return self.groups[id].group

  def image(self, id: str) -> np.ndarray | None:
    path = self.groups[id].image
    return None if path is None else foreign.read_image(path)


class Index:
  """A folder that `car-jax eval --save` wrote, with its readers as labels."""

  def __init__(self, folder: pathlib.Path):
    self.folder, self.index = folder, foreign.saved_index(folder)
    self.places: dict[str, int] = {name: i for i, name in enumerate(self.index['ids'])}
    self.groups = self.index['groups'] or self.index['ids']
    self.ignored, self.unknown = self.index['ignore_label'], self.index.get('unknown_label')
    self.names = tuple(self.index['class_names'])
    self._arrays: dict[str, Any] = {}

  def array(self, name: str) -> Any:
    """All images' rows of an array by its name in the index; None where it is not there."""
    if name not in self.index['arrays']:
      return None
    if name not in self._arrays:
      opened = npy.opened(self.folder, self.index['arrays'][name], name)
      if len(opened) != len(self.places):
        raise UserError(
          f'{self.folder / name} has {len(opened)} images of {len(self.places)}\n  {npy.AGAIN}'
        )
      self._arrays[name] = opened
    return self._arrays[name]

  def place(self, id: str) -> str:
    return f'{self.folder / "readers.npy"}, {id}'

  def raw(self, id: str) -> np.ndarray:
    return self._readers(id)[0]

  def _readers(self, id: str) -> tuple[np.ndarray, np.ndarray]:
    maps, weights = self.array('readers.npy'), self.array('reader_weight.npy')
    if maps is None or weights is None:
      raise UserError(f'{self.folder} has no readers\n  {npy.AGAIN}, or give --labels')
    with reading(self.folder / 'readers.npy', 'what car-jax eval --save wrote', npy.AGAIN):
      labels, weight = np.asarray(maps[self.places[id]]), np.asarray(weights[self.places[id]])
      if labels.ndim != 3 or weight.shape != labels.shape[:1] or not (weight >= 0).all():
        raise ValueError(f'readers {labels.shape} of weight {weight.shape}')
      return labels[weight > 0], weight[weight > 0]

  def read(self, id: str, how: Reading) -> tuple[np.ndarray, np.ndarray]:
    labels, weight = self._readers(id)
    marks = self.ignored, self.unknown
    foreign.checked_labels(labels, how.classes, *marks, self.place(id))
    return labels.astype(np.uint8), weight

  def group(self, id: str) -> str:
    return self.groups[self.places[id]]

  def image(self, id: str) -> None:
    return None

  @property
  def files(self) -> list[pathlib.Path]:
    return [self.folder / foreign.INDEX, *sorted(self.folder.rglob('*.npy'))]

  def scored(self) -> tuple[str, str, str]:
    """The first subject with an array that a study can score: its folder, the array, its kind.

    Of a deterministic subject these are its own: the mean of its samples is one-hot.
    """
    arrays = self.index['arrays']
    for place in self.index['subjects'].values():
      logits, own, mean = (f'{place}/{name}.npy' for name in ('logits', 'own', 'probabilities'))
      if logits in arrays:
        return place, 'logits', 'logits'
      if mean in arrays:
        sharp = arrays[mean].get('one_hot')
        if sharp is None and own in arrays:  # saved by a version whose index lacks it
          sharp = all(map(save.one_hot, self.array(mean)))
        return place, 'own' if sharp and own in arrays else 'probabilities', 'probabilities'
    kinds = ', '.join(sorted({pathlib.Path(name).stem for name in arrays if '/' in name}))
    raise UserError(
      f'{self.folder} has no logits or probabilities, only {kinds}\n  car-jax eval --save logits'
    )


@dataclasses.dataclass(frozen=True)
class Saved:
  """The predictions of one subject that `car-jax eval --save` wrote."""

  name: str
  about: str
  index: Index
  where: str

  @property
  def names(self) -> tuple[str, ...]:
    return self.index.names

  @property
  def ids(self) -> list[str]:
    return [*self.index.places]

  @property
  def files(self) -> list[pathlib.Path]:
    return self.index.files

  def arrays(self, id: str) -> list[tuple[Any, Arrays]]:
    rows = {kind: self._row(id, kind) for kind in (*SCORED, 'weight')}
    arrays = {kind: row for kind, row in rows.items() if row is not None}
    if 'samples' not in arrays:
      arrays.pop('weight', None)
    return [(f'{self.index.folder / self.where}, {id}', arrays)]

  def read(self, id: str, how: Reading, counted: np.ndarray) -> Stored:
    stored, own = files.read(self.arrays(id), how, counted), self._row(id, 'own')
    if own is None:
      return stored
    path = f'{self.index.folder / self.where / "own.npy"}, {id}'
    return dataclasses.replace(
      stored, own=understood('probabilities', own, how, counted, path).array
    )

  def _row(self, id: str, kind: str) -> np.ndarray | None:
    rows = self.index.array(f'{self.where}/{kind}.npy')
    return None if rows is None else np.asarray(rows[self.index.places[id]])


@dataclasses.dataclass(frozen=True)
class Scores(Saved):
  """Of these the logits or probabilities and the features, as a study takes them.

  file: the array that is scored, in words kind.
  """

  file: str = ''
  kind: str = ''

  def arrays(self, id: str) -> list[tuple[Any, Arrays]]:
    path = self.index.folder / f'{self.where}/{self.file}.npy'
    rows = {self.kind: self._row(id, self.file), 'features': self._row(id, 'features')}
    return [(f'{path}, {id}', {k: row for k, row in rows.items() if row is not None})]


def of_study(name: str, folder: pathlib.Path, labels: str) -> tuple[Predictions, Labels]:
  """One file for each image with its label, or the first subject of `car-jax eval --save` that has
  scores. Raises UserError."""
  if foreign.is_saved(folder):
    index = Index(folder)
    where, file, kind = index.scored()
    return Scores(name, f'{folder}', index, where, file, kind), index
  groups = {g.id: g for g in slices.of_volumes(pairing.pairs(folder, labels))}
  of = LabelFiles(groups)
  of.report_converted()
  return Files(name, str(folder), groups), of


def saved(name: str, folder: pathlib.Path) -> list[Saved]:
  """Every subject of a folder that `car-jax eval --save` wrote but the readers, who are drawn anew.

  Raises UserError where no array of SCORED is there.
  """
  index = Index(folder)
  subjects = [
    (subject, where)
    for subject, where in index.index['subjects'].items()
    if subject != READERS and any(f'{where}/{kind}.npy' in index.index['arrays'] for kind in SCORED)
  ]
  if not subjects:
    raise UserError(
      f'{folder} has none of {", ".join(SCORED)}\n  save them: car-jax eval --save samples'
    )
  title = lambda subject: f'{name}: {subject}' if len(subjects) > 1 else name
  return [Saved(title(subject), f'{folder}, {subject}', index, at) for subject, at in subjects]


def opened(
  name: str, folder: pathlib.Path, labels: str, file_per: str
) -> tuple[list[Predictions], Labels]:
  """A folder's predictions, perhaps of several subjects, and their labels. Raises UserError."""
  if not foreign.is_saved(folder):
    groups = {g.id: g for g in slices.of_volumes(grouping.groups(folder, labels, file_per))}
    return [Files(name, str(folder), groups)], LabelFiles(groups)
  of_index = saved(name, folder)
  if not labels:
    return [*of_index], of_index[0].index
  return [*of_index], _labels_of(of_index[0].index, labels)


def _labels_of(index: Index, labels: str) -> LabelFiles:
  """Files of labels for the images of an index, by its ids."""
  if not pathlib.Path(labels).is_dir():
    raise UserError(f'{labels!r} is no folder of labels for {index.folder}\n  leave --labels out')
  ids: pairing.Files = {key: (index.folder / key,) for key in index.places}
  groups = grouping.matched(index.folder, ids, labels, 'image')
  return LabelFiles({g.id: dataclasses.replace(g, group=index.group(g.id)) for g in groups})
