"""Predictions as plain .npy files with an index, for any other tool (`car-jax eval --save`).

  FOLDER/index.json           what follows, in words: ids, classes, shapes, types, meaning
  FOLDER/readers.npy          [I, M, H, W] the readers' class ids; of an absent one the first's
  FOLDER/reader_weight.npy    [I, M] 1 / number of readers, 0 for absent ones
  FOLDER/SUBJECT/samples.npy        [I, N, H, W] class ids           (samples)
  FOLDER/SUBJECT/weight.npy         [I, N] how much each sample counts; sums to one (samples)
  FOLDER/SUBJECT/probabilities.npy  [I, H, W, C] mean of the samples (probabilities)
  FOLDER/SUBJECT/own.npy            [I, H, W, C] the method's own, where it has them
  FOLDER/SUBJECT/logits.npy         [I, H, W, C] before the softmax  (logits)
  FOLDER/SUBJECT/features.npy       [I, D] of whole images           (features)
  FOLDER/SUBJECT/class_ids/ID.png ..  or Cityscapes' own ids, see label_maps.py  (labels; not
                                      of single draws of readers or pixels)

Letters: I images in the order of the index's ids, N samples, M readers, H x W pixels, C classes.
Of probabilities the index says whether they are `one_hot`: the samples of a deterministic method
are its likeliest class, and so is their mean; what it believes is in own.npy.
Files are written while the evaluation runs and can be larger than memory; read them with
`np.load(path, mmap_mode='r')`. The folder appears under its name when it is complete.
Of images of several sizes, an array with rows and columns is a folder of the array's name with a
file for each image, 000000.npy and so on; the index says so by `files`, and by None in its shape.
"""

import contextlib
import json
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from car_jax import folders, paths
from car_jax.errors import UserError, parts
from car_jax.evaluate import label_maps, npy
from car_jax.evaluate.predict import Prediction, label_type
from car_jax.evaluate.results import Results
from car_jax.typing import Array

KINDS = ('samples', 'probabilities', 'logits', 'features', 'labels')
OWN = {
  'logits': ('image, row, column, class', 'logits of the classes'),
  'features': ('image, feature', "pooled features of the net's last backbone stage"),
}
INDEX = 'index.json'
FORMAT = 'segmentation arrays, version 1'
FORMAT_OF_SEVERAL_SIZES = 'segmentation arrays, version 2'


def one_hot(probs: np.ndarray) -> bool:
  """Whether every pixel of probs [.., C] is certain of its class."""
  return bool((probs.max(-1) > 1 - 1e-5).all())


class Saver:
  """Give it to an Evaluator, then `close` it with the Results; `abort` it on an error.

  kinds: names, or one text with commas. info: the data set's DataInfo. images: how many the split
  has, all processes together; several_sizes: whether they differ in size. Processes other than the
  first do nothing. Raises UserError for an unknown kind, a folder that holds something else, and a
  full disk.
  """

  def __init__(
    self,
    folder: str | pathlib.Path,
    kinds: Sequence[str] | str,
    info: Any,
    images: int,
    *,
    several_sizes: bool = False,
  ):
    self.kinds = parts(kinds if isinstance(kinds, str) else ','.join(kinds), KINDS, 'save')
    self.folder, self.info, self.images = paths.of(folder), info, images
    self.several_sizes = several_sizes
    self.active = jax.process_index() == 0
    self._arrays: dict[str, dict[str, Any]] = {}  # path -> what the index says of it
    self._open: dict[str, npy.Growing | npy.PerImage] = {}
    self._folders: dict[str, str] = {}  # subject -> its folder
    self._ids: np.ndarray = np.array([], str)  # of the batch at hand
    self._part = folders.begin(self.folder, INDEX) if self.active else self.folder

  def examples(self, ids: np.ndarray) -> None:
    """The ids of the rows of the batch that follows, padding included."""
    self._ids = ids

  def readers(self, labels: np.ndarray, weight: np.ndarray, valid: np.ndarray) -> None:
    kind = label_type(max(self.info.num_classes, 1 + (self.info.ignore_label or 0)))
    text = 'class ids that each reader gave; an absent reader has weight 0'
    self._write('readers.npy', labels.astype(kind), valid, 'image, reader, row, column', text)
    text = 'one over the number of readers, 0 for absent ones'
    self._write('reader_weight.npy', weight, valid, 'image, reader', text)

  def prediction(
    self, subject: str, prediction: Prediction, valid: np.ndarray, *, maps: bool = True
  ) -> None:
    """maps: whether the likeliest classes are saved as pictures, where these are wanted."""
    where = self._folder_of(subject)
    if 'labels' in self.kinds and self.active and maps:
      for k in np.flatnonzero(valid):
        classes = np.asarray(prediction.mean[k]).argmax(-1)
        with npy.room(self._part, classes.nbytes):
          label_maps.save(self._part / where, str(self._ids[k]), classes, self.info)
    if 'samples' in self.kinds:
      axes, text = 'image, sample, row, column', 'class ids of each sampled segmentation'
      self._write(f'{where}/samples.npy', prediction.labels, valid, axes, text)
      text = 'how much each sample counts'
      self._write(f'{where}/weight.npy', prediction.weight, valid, 'image, sample', text)
    if 'probabilities' in self.kinds:
      axes, text = 'image, row, column, class', "mean of the samples' class probabilities"
      self._write(f'{where}/probabilities.npy', prediction.mean, valid, axes, text)
      self._note(f'{where}/probabilities.npy', prediction.mean, valid)
      if prediction.own is not None:
        text = 'class probabilities that the method states itself'
        self._write(f'{where}/own.npy', prediction.own, valid, axes, text)

  def own(self, subject: str, kind: str, rows: np.ndarray, valid: np.ndarray) -> None:
    """rows [B, ..] of 'logits' or 'features' (kind), of a subject whose method has them."""
    self._write(f'{self._folder_of(subject)}/{kind}.npy', rows, valid, *OWN[kind])

  def _note(self, path: str, rows: Array, valid: np.ndarray) -> None:
    """Into the index: whether all probabilities so far are one-hot."""
    if self.active:
      entry = self._arrays[path]
      sharp = entry.get('one_hot', True) and one_hot(np.asarray(rows)[np.asarray(valid, bool)])
      entry['one_hot'] = sharp

  def _folder_of(self, subject: str) -> str:
    """The subject's folder; names that differ in punctuation alone get different ones."""
    if subject not in self._folders:
      base, taken, k = folders.slug(subject), {*self._folders.values()}, 2
      name = base
      while name in taken:
        name, k = f'{base}-{k}', k + 1
      self._folders[subject] = name
    return self._folders[subject]

  def _write(self, path: str, rows: Array, valid: np.ndarray, axes: str, text: str) -> None:
    if not self.active:
      return
    rows = np.asarray(rows)[np.asarray(valid, bool)]
    if path not in self._open:
      shape: list[int | None] = [self.images, *rows.shape[1:]]
      entry = dict(shape=shape, dtype=str(rows.dtype), axes=axes, meaning=text)
      place = self._part / path
      if self.several_sizes and 'row' in axes:
        names = axes.split(', ')
        shape[names.index('row')] = shape[names.index('column')] = None
        place = place.with_suffix('')
        entry['files'] = f'{place.relative_to(self._part).as_posix()}/000000.npy and so on'
        self._open[path] = npy.PerImage(place, self.images)
      else:
        self._open[path] = npy.Growing(place, rows.dtype, (self.images, *rows.shape[1:]))
      self._arrays[path] = entry
    self._open[path].add(rows)

  def close(self, results: Results, **about: Any) -> pathlib.Path:
    """Writes the index, with `about` in it, and puts the folder in place -> the folder."""
    if not self.active:
      return self.folder
    for path, array in self._open.items():
      if array.filled != self.images:
        raise ValueError(f'{path}: {array.filled} of {self.images} images')
      array.close()
    self._open.clear()
    info = self.info
    index = dict(
      format=FORMAT_OF_SEVERAL_SIZES if self.several_sizes else FORMAT,
      **about,
      data=info.name,
      num_classes=int(info.num_classes),
      class_names=[str(n) for n in info.class_names],
      ignore_label=None if info.ignore_label is None else int(info.ignore_label),
      unknown_label=None if info.unknown_label is None else int(info.unknown_label),
      subjects=self._folders,
      arrays=self._arrays,
      ids=[str(i) for i in results.ids],
      groups=None if results.groups is None else [str(g) for g in results.groups],
    )
    with npy.room(self._part, 0):
      (self._part / INDEX).write_text(json.dumps(index, indent=1) + '\n')
    folders.finish(self._part, self.folder, INDEX)
    return self.folder

  def abort(self) -> None:
    for array in self._open.values():
      with contextlib.suppress(OSError, UserError):
        array.close()
    self._open.clear()
    if self.active:
      shutil.rmtree(self._part, ignore_errors=True)

  def __enter__(self) -> 'Saver':
    return self

  def __exit__(self, kind, value, trace) -> None:
    if kind is not None:
      self.abort()
