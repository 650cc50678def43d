"""Predictions made elsewhere: arrays per image and their labels, from any framework.

Two layouts are read:
  a folder of NAME.npy, NAME.npz or NAME.safetensors, in any depth, with labels beside: a folder of
  PNGs, or a CSV with the columns prediction, label and perhaps image, group;
  a folder that `eval.py --save logits` or `--save probabilities` wrote (it has an index.json).

An array is logits [H, W, C] or [C, H, W], probabilities of the same shape, samples of either with
one axis in front, or segmentations [N, H, W] of class ids. A file of several arrays names them
logits, probabilities, samples; one that is not named is taken for probabilities where it is
non-negative and sums to one over the classes, else for logits. Letters as in segmenters.py.
"""

import csv
import dataclasses
import json
import pathlib
import sys
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from car_jax.data import labels as cityscapes
from car_jax.errors import UserError, nearest
from car_jax.evaluate import npy, save
from car_jax.importers.huggingface import read_safetensors
from car_jax.metrics import scores
from car_jax.reliability.segmenters import Predicted

ENDINGS = ('.npy', '.npz', '.safetensors')
KINDS = ('logits', 'probabilities', 'samples')
# endings of Cityscapes' file names, of which none is part of an image's name
LABEL_ENDS = ('_gtFine_labelTrainIds', '_gtFine_labelIds', '_gt_labelTrainIds', '_gt_labelIds')
IMAGE_ENDS = ('_leftImg8bit', '_rgb_anon', '_logits', '_probabilities', '_samples')
FLOOR = 1e-12  # of probabilities, before their logarithm
INDEX = 'index.json'
PLACES = ('prediction', 'label', 'image')  # a CSV's columns of files
IGNORED, UNKNOWN = cityscapes.IGNORED_TRAIN_ID, cityscapes.UNKNOWN_LABEL
Files = dict[str, pathlib.Path]


@dataclasses.dataclass(frozen=True)
class Pair:
  id: str
  group: str
  prediction: pathlib.Path
  label: pathlib.Path
  image: pathlib.Path | None = None


class Folder:
  """A model whose predictions lie in `path`; '{set}' in it stands for a set's name.

  class_names says what the arrays' class axis means; labels hold these classes' ids, 255 for pixels
  that do not count and 254 for objects of no known class.
  """

  has_features = None  # files tell when they are read

  def __init__(self, name: str, path: str, class_names: Sequence[str], palette: Sequence[Any] = ()):
    self.name, self.path = name, str(path)
    self.names = tuple(map(str, class_names))
    self.palette = tuple(palette)
    self.about = f'predictions in {path}'
    self._pairs: dict[tuple[pathlib.Path, str], list[Pair]] = {}

  @property
  def fingerprint(self) -> str:
    return self.path

  def where(self, spec: Mapping[str, Any]) -> tuple[pathlib.Path, str]:
    """A set's folder of predictions and its labels (folder, CSV, or '' for an index.json)."""
    return pathlib.Path(self.path.replace('{set}', spec['name'])), spec.get('labels', '')

  def size(self, spec: Mapping[str, Any]) -> int:
    folder, labels = self.where(spec)
    index = saved_index(folder)
    return len(index['ids'] if index else self._found(folder, labels))

  def _found(self, folder: pathlib.Path, labels: str) -> list[Pair]:
    if (folder, labels) not in self._pairs:
      self._pairs[folder, labels] = pairs(folder, labels)
    return self._pairs[folder, labels]

  def classes(self, spec: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    folder, _ = self.where(spec)
    if index := saved_index(folder):
      return tuple(index['class_names']), self.palette
    return self.names, self.palette

  def batches(
    self, spec: Mapping[str, Any], only: Sequence[int] | None = None, features: bool = False
  ) -> Iterator[Predicted]:
    """One image at a time. Raises UserError that names the file."""
    folder, labels = self.where(spec)
    if index := saved_index(folder):
      yield from _saved(folder, index, only)
      return
    found = self._found(folder, labels)
    for pair in found if only is None else [found[i] for i in only]:
      yield _batch(*read(pair, len(self.names)), pair.id, pair.group)


def _batch(arrays: Mapping[str, np.ndarray], logit_scores: bool, id: str, group: str) -> Predicted:
  placed = jax.device_put({k: np.asarray(v)[None] for k, v in arrays.items()})
  return Predicted(placed, np.array([id]), np.array([group]), np.array([True]), logit_scores)


def pairs(folder: pathlib.Path, labels: str) -> list[Pair]:
  """Every prediction with its label, in the order of their paths.

  A label is at the same place in its folder as the prediction in its own, or it is the only one of
  its name. Raises UserError for a folder without predictions, for a prediction with two labels, and
  one that names predictions without any. Labels without a prediction are counted on stderr.
  """
  if labels.endswith('.csv'):
    return _listed(folder, pathlib.Path(labels))
  if not folder.is_dir():
    raise UserError(f'no folder of predictions {folder}\n  see docs/reliability.md for its layout')
  found = sorted(p for p in folder.rglob('*') if p.suffix in ENDINGS)
  if not found:
    raise UserError(f'{folder} holds no prediction ({", ".join(ENDINGS)})')
  if not labels or not pathlib.Path(labels).is_dir():
    raise UserError(f'no labels {labels!r} for {folder}\n  give --labels FOLDER or FILE.csv')
  ids: Files = {}
  for path in found:
    key = str(path.relative_to(folder).with_name(_bare(path, IMAGE_ENDS)))
    if ids.setdefault(key, path) != path:
      raise UserError(f'one image has two predictions:\n  {ids[key]}\n  {path}')
  return [Pair(key, key, ids[key], label) for key, label in _labelled(ids, labels).items()]


def _labelled(ids: Files, labels: str) -> Files:
  """Predictions by id -> their labels, in the same order."""
  known, named = _label_files(pathlib.Path(labels))
  taken = {known[key] for key in ids if key in known}  # not free for others of the name
  out: Files = {}
  for key, path in ids.items():
    alike = [p for p in named.get(pathlib.Path(key).name, ()) if p not in taken]
    fits = [known[key]] if key in known else alike
    if len(fits) > 1:
      raise UserError(
        f'{path} has no label at its place and two of its name:\n  {fits[0]}\n  {fits[1]}\n'
        f'  put it at {pathlib.Path(labels) / key}.png, or give --labels FILE.csv'
      )
    out.update(zip([key], fits, strict=False))
  if missing := [key for key in ids if key not in out]:
    shown = '\n'.join(f'  {ids[key]}' for key in missing[:20])
    close = nearest(pathlib.Path(missing[0]).name, named) if named else '  it holds no PNG'
    raise UserError(f'{len(missing)} predictions have no label in {labels}:\n{shown}\n{close}')
  end = lambda p: p.stem.removeprefix(_bare(p, LABEL_ENDS))
  ends = {end(p) for p in out.values()}  # pictures of other kinds are no labels
  unused = {p for p in known.values() if end(p) in ends} - {*out.values()}
  if unused and jax.process_index() == 0:
    print(f'{len(unused)} labels in {labels} have no prediction: not scored', file=sys.stderr)
  return out


def _label_files(folder: pathlib.Path) -> tuple[Files, dict[str, list[pathlib.Path]]]:
  """PNGs by their place in the folder, and by name alone. Train ids go before label ids."""
  known: Files = {}
  named: dict[str, list[pathlib.Path]] = {}
  for path in sorted(folder.rglob('*.png'), reverse=True):
    name = _bare(path, LABEL_ENDS)
    other = known.setdefault(str(path.relative_to(folder).with_name(name)), path)
    if other == path:
      named.setdefault(name, []).insert(0, path)
    elif other.name != path.name.replace('_labelIds', '_labelTrainIds'):
      raise UserError(f'one image has two labels:\n  {path}\n  {other}')
  return known, named


def _bare(path: pathlib.Path, ends: Sequence[str]) -> str:
  stem = path.name.removesuffix(path.suffix)
  for end in ends:
    stem = stem.removesuffix(end)
  return stem


def _listed(folder: pathlib.Path, table: pathlib.Path) -> list[Pair]:
  """Rows of a CSV; relative paths start from the folder of predictions, then from the CSV's."""
  if not table.is_file():
    raise UserError(f'no such list of labels {table}')
  try:
    with table.open(newline='', encoding='utf-8-sig') as file:
      rows = list(csv.DictReader(file))
  except (UnicodeDecodeError, csv.Error) as e:
    raise UserError(f'{table} is no CSV in UTF-8 ({e})\n  save it as UTF-8') from None
  has = [*rows[0]] if rows else []
  if {'prediction', 'label'} - {*has}:
    raise UserError(f'{table} needs the columns prediction and label; it has {has}')
  out, missing = [], []
  for k, row in enumerate(rows):
    if not (row['prediction'] and row['label']):
      raise UserError(f'{table}: row {k + 2} lacks a prediction or a label: {[*row.values()]}')
    at = {c: _place(row[c], folder, table.parent) for c in PLACES if row.get(c)}
    missing += [f'  {c} {row[c]}' for c, p in at.items() if not p.is_file()]
    key = str(pathlib.Path(row['prediction']).with_suffix(''))
    group = row.get('group') or key
    out.append(Pair(key, group, at['prediction'], at['label'], at.get('image')))
  if missing:
    raise UserError(f'{len(missing)} files of {table} are missing:\n' + '\n'.join(missing[:20]))
  return out


def _place(text: str, *starts: pathlib.Path) -> pathlib.Path:
  return next((p for start in starts if (p := start / text).is_file()), pathlib.Path(text))


def read(pair: Pair, classes: int) -> tuple[dict[str, np.ndarray], bool]:
  """One image's arrays as in Predicted, without the batch axis, and whether the file has logits.

  Raises UserError by path.
  """
  label = read_label(pair.label)
  arrays = open_arrays(pair.prediction)
  found, logit_scores = predicted(arrays, classes, label.shape, pair.prediction)
  ids = np.where(label == UNKNOWN, IGNORED, label)
  odd = np.setdiff1d(np.unique(ids), [*range(classes), IGNORED])
  if odd.size:
    raise UserError(
      f'{pair.label}: label {odd[0]} is no class; expected 0 to {classes - 1}, '
      f'{UNKNOWN} (unknown object) or {IGNORED} (does not count)'
    )
  found |= {'labels': ids.astype(np.int32), 'unknown': label == UNKNOWN}
  if pair.image is not None:
    rgb = _picture(pair.image, 'an image').convert('RGB')
    found['image'] = np.asarray(rgb, np.float32) / 127.5 - 1
  return found, logit_scores


def read_label(path: pathlib.Path) -> np.ndarray:
  """A PNG of class ids [H, W]; Cityscapes' label ids (by the file's name) become train ids."""
  picture = _picture(path, 'a PNG')
  if picture.mode not in ('L', 'P'):
    raise UserError(f'{path} is a picture of mode {picture.mode}; expected 8-bit class numbers')
  found = np.asarray(picture)
  return cityscapes.scored_train_ids(found) if path.stem.endswith('labelIds') else found


def _picture(path: pathlib.Path, what: str) -> Any:
  from PIL import Image

  try:
    picture = Image.open(path)
    picture.load()
  except (OSError, SyntaxError, ValueError) as e:
    raise UserError(f'{path} cannot be read as {what} ({str(e).partition(" <_io")[0]})') from None
  return picture


def open_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
  """The arrays of a file by name; a nameless one is called ''. Raises UserError for damage."""
  try:
    if path.suffix == '.safetensors':
      return read_safetensors(path)
    found = np.load(path, allow_pickle=False)
    if isinstance(found, np.ndarray) != (path.suffix == '.npy'):
      raise UserError(f'{path} is no {path.suffix} file, by its content\n  change its ending')
    if path.suffix == '.npy':
      return {'': found}
    with found:
      return {k: found[k] for k in found.files}
  except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as e:
    raise UserError(f'{path} is truncated or no {path.suffix} file ({e})') from None


def predicted(
  arrays: Mapping[str, np.ndarray], classes: int, size: tuple[int, int], path: Any
) -> tuple[dict[str, np.ndarray], bool]:
  """logits [H, W, C] float32, and disagreement and features where the file has them.

  And whether the file gave logits, whose size means something, and not probabilities or samples.
  """
  names = [k for k in arrays if k in KINDS]
  if not names and len(arrays) != 1:
    raise UserError(f'{path} holds {sorted(arrays)}; name one of them {" or ".join(KINDS)}')
  kind = names[0] if names else ''
  raw = arrays[kind] if names else next(iter(arrays.values()))
  found = {k: np.asarray(arrays[k], np.float32) for k in ('features',) if k in arrays}
  if raw.dtype.kind in 'iub':
    if kind not in ('', 'samples') or raw.ndim != 3 or raw.shape[1:] != size:
      raise UserError(f'{path}: class ids {raw.shape}; expected samples [N, {size[0]}, {size[1]}]')
    return found | _of_ids(raw, classes, path), False
  if raw.dtype.kind != 'f' and raw.dtype != jax.numpy.bfloat16:
    raise UserError(f'{path}: numbers of type {raw.dtype}; expected float32, or class ids')
  x = _classes_last(np.asarray(raw, np.float32), classes, size, path)
  _check_finite(x, kind, path)
  likely = kind == 'probabilities' or (kind != 'logits' and _sums_to_one(x))
  if kind == 'probabilities' and not _sums_to_one(x):
    raise UserError(f'{path}: the probabilities do not sum to one over {classes} classes')
  if x.ndim == 3:
    return found | {'logits': np.log(np.maximum(x, FLOOR)) if likely else x}, not likely
  probs = x if likely else np.asarray(jax.nn.softmax(x))
  return found | _of_samples(probs), False


def _check_finite(x: np.ndarray, kind: str, path: Any) -> None:
  """A logit may be -inf, but not those of all classes of a pixel."""
  if np.isfinite(x).all():
    return
  nan = np.isnan(x).sum()
  if nan or kind == 'probabilities' or (x == np.inf).any():
    raise UserError(f'{path}: {nan or (~np.isfinite(x)).sum()} of {x.size} values are not finite')
  if none := np.isneginf(x).all(-1).sum():
    raise UserError(f'{path}: {none} pixels have no class, all their logits are -inf')


def _classes_last(x: np.ndarray, classes: int, size: tuple[int, int], path: Any) -> np.ndarray:
  """[.., H, W, C] of an array that has its classes last or before the pixels."""
  if x.ndim in (3, 4) and x.shape[-3:] == (*size, classes):
    return x
  if x.ndim in (3, 4) and x.shape[-3:] == (classes, *size):
    return np.moveaxis(x, -3, -1)
  if x.ndim in (3, 4) and (x.shape[-3:-1] == size or x.shape[-2:] == size):
    other = x.shape[-1] if x.shape[-3:-1] == size else x.shape[-3]
    raise UserError(f'{path}: {other} classes; the study has {classes}\n  see config.classes')
  raise UserError(
    f'{path}: shape {x.shape}; its label is {size[0]} x {size[1]}\n'
    f'  expected [{size[0]}, {size[1]}, {classes}] or [{classes}, {size[0]}, {size[1]}]'
  )


def _sums_to_one(x: np.ndarray) -> bool:
  return bool(x.min(initial=0) >= -1e-6 and np.abs(x.sum(-1) - 1).max(initial=0) < 1e-2)


def _of_samples(probs: np.ndarray) -> dict[str, np.ndarray]:
  """probs [N, H, W, C] of samples -> logarithms of their mean, and their disagreement."""
  mean = probs.mean(0)
  spread = np.asarray(scores.entropy(mean)) - np.asarray(scores.entropy(probs)).mean(0)
  return {'logits': np.log(np.maximum(mean, FLOOR)), 'disagreement': np.maximum(spread, 0)}


def _of_ids(ids: np.ndarray, classes: int, path: Any) -> dict[str, np.ndarray]:
  if ids.min(initial=0) < 0 or ids.max(initial=0) >= classes:
    raise UserError(f'{path}: class id {ids.max()}; expected 0 to {classes - 1}')
  mean = np.stack([(ids == c).mean(0) for c in range(classes)], -1).astype(np.float32)
  spread = np.asarray(scores.entropy(mean))
  return {'logits': np.log(np.maximum(mean, FLOOR)), 'disagreement': spread}


def is_saved(folder: pathlib.Path) -> bool:
  return (folder / INDEX).is_file()


def saved_index(folder: pathlib.Path) -> dict[str, Any]:
  """What eval.py says of the arrays that it saved; {} for a folder of another kind."""
  try:
    return json.loads((folder / INDEX).read_text()) if is_saved(folder) else {}
  except ValueError as e:
    raise UserError(f'{folder / INDEX} is damaged ({e})') from None


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
      if sharp is None and own in arrays:  # saved before the index told
        sharp = all(map(save.one_hot, np.load(folder / mean, mmap_mode='r')))
      return own if sharp and own in arrays else mean, 'probabilities'
  held = ', '.join(sorted({pathlib.Path(name).stem for name in arrays if '/' in name}))
  raise UserError(f'{folder} has no logits or probabilities, only {held}\n  eval.py --save logits')


def _saved(folder: pathlib.Path, index: Any, only: Sequence[int] | None) -> Iterator[Predicted]:
  open_array = lambda name: npy.opened(folder, index['arrays'][name], name)
  try:
    file, kind = _chosen(folder, index)
    features = str(pathlib.Path(file).with_name('features.npy'))
    values, truth = open_array(file), open_array('readers.npy')
    more = {'features': open_array(features)} if features in index['arrays'] else {}
  except (OSError, ValueError, EOFError) as e:
    raise UserError(f'{folder} is damaged: {e}\n  save it again') from None
  if len(truth[0]) > 1:
    raise UserError(f'{folder} has {len(truth[0])} readers; reliability is scored on one label')
  classes, groups = index['num_classes'], index['groups'] or index['ids']
  for i in range(len(values)) if only is None else only:
    label = np.asarray(truth[i][0])
    where = f'{folder / file}, image {i}'
    found, logit_scores = predicted({kind: values[i]}, classes, label.shape, where)
    found |= {k: np.asarray(v[i], np.float32) for k, v in more.items()}
    strange = label == (UNKNOWN if index.get('unknown_label') is None else index['unknown_label'])
    ignored = label == index['ignore_label']
    found['labels'] = np.where(strange | ignored, IGNORED, label).astype(np.int32)
    found['unknown'] = strange
    yield _batch(found, logit_scores, index['ids'][i], groups[i])
