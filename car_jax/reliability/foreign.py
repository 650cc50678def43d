"""Predictions made elsewhere: arrays per image and their labels, from any framework.

Two layouts are read:
  a folder of NAME.npy, NAME.npz or NAME.safetensors, in any depth, with labels beside: a folder of
  pictures, or a CSV with the columns prediction, label and perhaps image, group (pairing.py);
  a folder that `car-jax eval --save logits` or `--save probabilities` wrote (it has an index.json).

An array is logits [H, W, C] or [C, H, W], probabilities of the same shape, samples of either with
one axis in front, segmentations [N, H, W] of class ids, or one map of them [H, W], as an array or
as a picture, of which only accuracy is known. A file of several arrays names them logits,
probabilities, samples; what one is that is not named, interpret.py finds out or refuses to guess.
Letters as in segmenters.py.
"""

import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from car_jax import arrays as array_files
from car_jax import files, paths, pictures, sharding
from car_jax.data import labels as cityscapes
from car_jax.errors import UserError, reading
from car_jax.evaluate import npy, save
from car_jax.evaluate.engine import Predicted
from car_jax.importers.safetensors_file import read_safetensors
from car_jax.metrics.base import Traits
from car_jax.reliability import interpret
from car_jax.reliability.interpret import CLASSES_ONLY, KNOWN, Reading
from car_jax.reliability.pairing import LABEL_ENDINGS, Pair, pairs
from car_jax.reliability.segmenters import predicted

__all__ = ['Folder', 'Pair', 'open_arrays', 'pairs', 'read', 'read_label']
INDEX = 'index.json'
IGNORED, UNKNOWN = cityscapes.IGNORED_TRAIN_ID, cityscapes.UNKNOWN_LABEL


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
    self.names = tuple(map(str, class_names))
    self.palette = tuple(palette)
    self.about = f'predictions in {path}'
    self._pairs: dict[tuple[pathlib.Path, str], list[Pair]] = {}

  @property
  def fingerprint(self) -> str:
    return ', '.join(filter(None, (self.path, self.kind, self.resize)))

  def where(self, spec: Mapping[str, Any]) -> tuple[pathlib.Path, str]:
    """A set's folder of predictions and its labels (folder, CSV, or '' for an index.json)."""
    place, labels = self.path.replace('{set}', spec['name']), spec.get('labels', '')
    return paths.fetched(place), labels and str(paths.fetched(labels))

  def size(self, spec: Mapping[str, Any]) -> int:
    folder, labels = self.where(spec)
    index = saved_index(folder)
    return len(index['ids'] if index else self.pairs_of(folder, labels))

  def pairs_of(self, folder: pathlib.Path, labels: str) -> list[Pair]:
    if (folder, labels) not in self._pairs:
      self._pairs[folder, labels] = pairs(folder, labels)
    return self._pairs[folder, labels]

  def classes(self, spec: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    folder, _ = self.where(spec)
    if index := saved_index(folder):
      return tuple(index['class_names']), self.palette
    return self.names, self.palette

  def by_object(self, spec: Mapping[str, Any]) -> bool:
    return bool(spec.get('by_object'))

  def batches(
    self, spec: Mapping[str, Any], only: Sequence[int] | None = None, features: bool = False
  ) -> Iterator[Predicted]:
    """One image at a time. Raises UserError that names the file."""
    folder, labels = self.where(spec)
    if index := saved_index(folder):
      yield from _saved(self.name, folder, index, only, self.resize)
      return
    every, first = self.pairs_of(folder, labels), ''
    for pair in every if only is None else [every[i] for i in only]:
      arrays, own = read(pair, len(self.names), kind=self.kind, resize=self.resize)
      kind = _kind(arrays, own)
      if not first and only is None:
        sharding.say(f'{folder}: read as {kind}{self._otherwise(kind)}', sys.stderr)
      if kind != (first := first or kind):
        raise UserError(
          f'{pair.prediction} holds {kind}, files before it {first}\n'
          '  score them one by one, or give --kind'
        )
      yield predicted(self.name, arrays, pair.id, pair.group, traits=_traits(arrays, own))

  def _otherwise(self, kind: str) -> str:
    """What a user can do whose arrays were taken for what they are not."""
    if self.kind or kind not in KNOWN:
      return ''
    return f'; if they are {KNOWN[kind == KNOWN[0]]}, name the arrays so or give --kind'


def _kind(arrays: Mapping[str, Any], logit_scores: bool) -> str:
  if CLASSES_ONLY in arrays:
    return 'classes without a confidence, of which only accuracy is known'
  return 'samples' if 'disagreement' in arrays else KNOWN[not logit_scores]


def _traits(arrays: dict[str, Any], logit_scores: bool) -> Traits:
  """What kind of prediction arrays are; their mark of classes alone is taken out."""
  confident = arrays.pop(CLASSES_ONLY, None) is None
  samples = 'disagreement' in arrays
  return Traits(draws=samples, logits=logit_scores, confidence=confident, disagreement=samples)


def read(
  pair: Pair, classes: int, *, kind: str = '', resize: str = ''
) -> tuple[dict[str, np.ndarray], bool]:
  """One image's arrays as in Predicted, without the batch axis, and whether the file has logits.

  kind and resize: see interpret.Reading. Raises UserError by path.
  """
  label = read_label(pair.label)
  truth = checked_labels(label, classes, IGNORED, UNKNOWN, pair.label)
  how = Reading(classes, kind, resize)
  counted = label != IGNORED
  arrays, logit_scores = interpret.predicted(
    open_arrays(pair.prediction), how, counted, pair.prediction
  )
  arrays |= truth
  if pair.image is not None:
    arrays['image'] = np.asarray(read_image(pair.image), np.float32) / 127.5 - 1
  return arrays, logit_scores


def checked_labels(
  label: np.ndarray, classes: int, ignored: int | None, unknown: int | None, path: Any
) -> dict[str, np.ndarray]:
  """labels and unknown as in Predicted. Raises UserError for an id that is neither a class,
  `ignored` nor `unknown`."""
  strange, void = label == unknown, label == ignored
  if (wrong := label[~(strange | void | ((label >= 0) & (label < classes)))]).size:
    raise UserError(
      f'{path}: label {wrong.min()} is no class; expected 0 to {classes - 1}, '
      f'{unknown} (unknown object) or {ignored} (does not count)'
    )
  return {'labels': np.where(strange | void, IGNORED, label).astype(np.int32), 'unknown': strange}


def read_label(path: pathlib.Path) -> np.ndarray:
  """A picture of class ids uint8 [H, W]; Cityscapes' label ids (by its name) become train ids.

  Raises UserError, by path, for another kind of picture, a damaged one, and ids of no class.
  """
  return _class_ids(path, pictures.open_picture(path))


def _class_ids(path: pathlib.Path, picture: pictures.Picture) -> np.ndarray:
  ids = picture.values.astype(np.uint8) if picture.values.dtype == bool else picture.values
  if ids.ndim != 2 or ids.dtype != np.uint8 or picture.alpha is not None:
    kind = 'colours' if ids.ndim == 3 else f'{ids.dtype} numbers'
    kind += '' if picture.alpha is None else ' and transparency'
    raise UserError(f'{path} is a picture of {kind}; expected 8-bit class numbers')
  if not path.stem.endswith('labelIds'):
    return ids
  if wrong := cityscapes.strange(ids, cityscapes.ACDC_IDS):
    raise UserError(f'{path}: {wrong}')
  return cityscapes.scored_train_ids(ids)


def read_image(path: pathlib.Path) -> np.ndarray:
  """uint8 [h, w, 3]. Raises UserError by path."""
  picture = pictures.open_picture(path)
  if picture.values.dtype not in (np.uint8, bool):
    raise UserError(f'{path} is a picture of {picture.values.dtype} numbers; expected 8 bits')
  shown = picture.shown
  shown = shown * np.uint8(255) if shown.dtype == bool else shown
  return shown if shown.ndim == 3 else np.repeat(shown[..., None], 3, -1)


def open_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
  """The arrays of a file by name; a nameless one, or a picture's, is called ''.

  Of several pages it is [N, H, W]. Raises UserError, by path, for damage.
  """
  path = files.check_regular(path)
  if path.suffix.lower() == '.safetensors':
    with reading(path, 'a .safetensors file'):
      return read_safetensors(path)
  if path.suffix.lower() in LABEL_ENDINGS:
    return {'': _maps(path)}
  return array_files.read(path)


def _maps(path: pathlib.Path) -> np.ndarray:
  """Class ids of a picture [H, W], or of its pages [N, H, W]."""
  maps = [_class_ids(path, page) for page in pictures.open_pages(path)]
  if len({m.shape for m in maps}) > 1:
    raise UserError(f'{path} has pages of several sizes: {sorted({m.shape for m in maps})}')
  return maps[0] if len(maps) == 1 else np.stack(maps)


def is_saved(folder: pathlib.Path) -> bool:
  return (folder / INDEX).is_file()


def saved_index(folder: pathlib.Path) -> dict[str, Any]:
  """What eval.py says of the arrays that it saved; {} for a folder of another kind.

  Raises UserError for an index.json that car-jax eval did not write, or not like that.
  """
  if not is_saved(folder):
    return {}
  path, again = folder / INDEX, 'save it again: car-jax eval --save logits; or remove it'
  index = files.read_json(path, keys=tuple(FIELDS), mend=again)
  with reading(path, 'the index of car-jax eval --save', again):
    for key, kinds in FIELDS.items():
      if type(index[key]) not in kinds:
        raise ValueError(f'{key} is {str(index[key])[:80]!r}')
    ids, names, groups = index['ids'], index['class_names'], index['groups']
    texts = [*ids, *names, *(groups or ()), *index['subjects'].values(), *index['arrays']]
    if strange := [t for t in texts if type(t) is not str]:
      raise ValueError(f'{str(strange[0])[:80]!r} is no name')
    if out := [t for t in [*index['subjects'].values(), *index['arrays']] if _leaves(t)]:
      raise ValueError(f'{out[0]!r} is no place in this folder')
    if len(groups or ids) != len(ids) or len({*ids}) < len(ids) or len(names) < 2:
      raise ValueError(f'{len(ids)} images, {len(groups or ids)} groups, {len(names)} classes')
    if index['num_classes'] != len(names):
      raise ValueError(f'{index["num_classes"]} classes of {len(names)} names')
    if wrong := [a for a in index['arrays'].values() if type(a) is not dict]:
      raise ValueError(f'{str(wrong[0])[:80]!r} is said of an array')
  return index


FIELDS: dict[str, tuple[type, ...]] = {
  'format': (str,),
  'ids': (list,),
  'groups': (list, type(None)),
  'class_names': (list,),
  'num_classes': (int,),
  'ignore_label': (int, type(None)),
  'subjects': (dict,),
  'arrays': (dict,),
}


def _leaves(place: str) -> bool:
  return pathlib.PurePath(place).is_absolute() or '..' in pathlib.PurePath(place).parts


def _chosen(folder: pathlib.Path, index: Mapping[str, Any]) -> tuple[str, str]:
  """The first subject's file that can be scored, and its kind: logits or else probabilities.

  Of a deterministic subject these are its own: the mean of its samples is one-hot.
  """
  arrays = index['arrays']
  for place in index['subjects'].values():
    logits, own, mean = (f'{place}/{name}.npy' for name in ('logits', 'own', 'probabilities'))
    if logits in arrays:
      return logits, 'logits'
    if mean in arrays:
      sharp = arrays[mean].get('one_hot')
      if sharp is None and own in arrays:  # saved by a version whose index lacks it
        sharp = all(map(save.one_hot, array_files.mapped(folder / mean)))
      return own if sharp and own in arrays else mean, 'probabilities'
  kinds = ', '.join(sorted({pathlib.Path(name).stem for name in arrays if '/' in name}))
  raise UserError(
    f'{folder} has no logits or probabilities, only {kinds}\n  car-jax eval --save logits'
  )


def _saved(
  name: str, folder: pathlib.Path, index: Any, only: Sequence[int] | None, resize: str = ''
) -> Iterator[Predicted]:
  file, kind = _chosen(folder, index)
  features = str(pathlib.Path(file).with_name('features.npy'))
  wanted = [file, 'readers.npy', *([features] if features in index['arrays'] else [])]
  open_array = lambda name: npy.opened(folder, index['arrays'][name], name)
  values, truth, *more = map(open_array, wanted)
  with reading(folder, 'what car-jax eval --save wrote', npy.AGAIN):
    if {len(values), len(truth), *map(len, more)} != {len(index['ids'])}:
      raise ValueError('other numbers of images than ids')
    readers, axes = len(truth[0]), np.ndim(truth[0])
    if axes != 3:
      raise ValueError(f'labels of {axes} axes')
  if readers > 1:
    raise UserError(f'{folder} has {readers} readers; reliability is scored on one label')
  groups = index['groups'] or index['ids']
  how = Reading(index['num_classes'], kind, resize)
  for i in range(len(values)) if only is None else only:
    label, at = np.asarray(truth[i][0]), f'image {i}'
    unknown = index.get('unknown_label')
    marks = index['ignore_label'], UNKNOWN if unknown is None else unknown
    labels = checked_labels(label, how.classes, *marks, f'{folder / "readers.npy"}, {at}')
    raw = {kind: values[i]} | ({'features': more[0][i]} if more else {})
    counted = label != index['ignore_label']
    arrays, logit_scores = interpret.predicted(
      raw, how, np.asarray(counted), f'{folder / file}, {at}'
    )
    arrays |= labels
    traits = _traits(arrays, logit_scores)
    yield predicted(name, arrays, index['ids'][i], groups[i], traits=traits)
