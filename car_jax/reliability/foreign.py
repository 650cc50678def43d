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
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from car_jax.data import labels as cityscapes
from car_jax.errors import UserError, nearest
from car_jax.importers.huggingface import read_safetensors
from car_jax.metrics import scores
from car_jax.reliability.segmenters import Predicted

ENDINGS = ('.npy', '.npz', '.safetensors')
KINDS = ('logits', 'probabilities', 'samples')
EXTRAS = ('features',)
# endings of Cityscapes' file names, of which none is part of an image's name
LABEL_ENDS = ('_gtFine_labelTrainIds', '_gtFine_labelIds', '_gt_labelTrainIds', '_gt_labelIds')
IMAGE_ENDS = ('_leftImg8bit', '_rgb_anon', '_logits', '_probabilities', '_samples')
FLOOR = 1e-12  # of probabilities, before their logarithm
INDEX = 'index.json'
IGNORED, UNKNOWN = cityscapes.IGNORED_TRAIN_ID, cityscapes.UNKNOWN_LABEL


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

  logit_scores = True

  def __init__(self, name: str, path: str, class_names: Sequence[str], palette: Sequence[Any] = ()):
    self.name, self.path = name, str(path)
    self.names = tuple(map(str, class_names))
    self.palette = tuple(palette)
    self.about = f'predictions in {path}'

  @property
  def fingerprint(self) -> str:
    return self.path

  def where(self, spec: Mapping[str, Any]) -> tuple[pathlib.Path, str]:
    """A set's folder of predictions and its labels (folder, CSV, or '' for an index.json)."""
    return pathlib.Path(self.path.replace('{set}', spec['name'])), spec.get('labels', '')

  def size(self, spec: Mapping[str, Any]) -> int:
    folder, labels = self.where(spec)
    return len(saved_index(folder)['ids']) if is_saved(folder) else len(pairs(folder, labels))

  def classes(self, spec: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    folder, _ = self.where(spec)
    if is_saved(folder):
      index = saved_index(folder)
      return tuple(index['class_names']), self.palette
    return self.names, self.palette

  def batches(
    self, spec: Mapping[str, Any], only: Sequence[int] | None = None, features: bool = False
  ) -> Iterator[Predicted]:
    """One image at a time. Raises UserError that names the file."""
    folder, labels = self.where(spec)
    if is_saved(folder):
      yield from _saved(folder, only)
      return
    found = pairs(folder, labels)
    for pair in found if only is None else [found[i] for i in only]:
      arrays = read(pair, len(self.names))
      yield Predicted(
        jax.device_put({k: v[None] for k, v in arrays.items()}),
        np.array([pair.id]),
        np.array([pair.group]),
        np.array([True]),
      )


def pairs(folder: pathlib.Path, labels: str) -> list[Pair]:
  """Every prediction with its label, in the order of their paths.

  Raises UserError for a folder without predictions, and one that names every missing partner.
  """
  if labels.endswith('.csv'):
    return _listed(folder, pathlib.Path(labels))
  if not folder.is_dir():
    raise UserError(f'no folder of predictions {folder}\n  see docs/reliability.md for its layout')
  found = sorted(p for p in folder.rglob('*') if p.suffix in ENDINGS)
  if not found:
    raise UserError(f'{folder} holds no prediction ({", ".join(ENDINGS)})')
  if not labels or not pathlib.Path(labels).is_dir():
    raise UserError(
      f'no labels {labels!r} for {folder}\n  give --labels FOLDER or --labels FILE.csv'
    )
  known = {_bare(p, LABEL_ENDS): p for p in sorted(pathlib.Path(labels).rglob('*.png'))}
  out, missing = [], []
  for path in found:
    key = _bare(path, IMAGE_ENDS)
    if key not in known:
      missing.append(path)
      continue
    place = path.relative_to(folder)
    out.append(Pair(str(place.with_name(key)), str(place.parent), path, known[key]))
  if missing:
    shown = '\n'.join(f'  {p}' for p in missing[:20])
    close = nearest(_bare(missing[0], IMAGE_ENDS), known) if known else '  it holds no PNG'
    raise UserError(f'{len(missing)} predictions have no label in {labels}:\n{shown}\n{close}')
  return out


def _bare(path: pathlib.Path, ends: Sequence[str]) -> str:
  stem = path.name.partition('.')[0] if path.suffix != '.png' else path.stem
  for end in ends:
    stem = stem.removesuffix(end)
  return stem


def _listed(folder: pathlib.Path, table: pathlib.Path) -> list[Pair]:
  """Rows of a CSV; relative paths start from the folder of predictions, then from the CSV's."""
  if not table.is_file():
    raise UserError(f'no such list of labels {table}')
  with table.open(newline='') as file:
    rows = list(csv.DictReader(file))
  if not rows or {'prediction', 'label'} - rows[0].keys():
    raise UserError(
      f'{table} needs the columns prediction and label; it has {[*(rows or [{}])[0]]}'
    )
  out, missing = [], []
  for row in rows:
    at = {
      k: _place(row[k], folder, table.parent)
      for k in ('prediction', 'label', 'image')
      if row.get(k)
    }
    missing += [f'  {k} {row[k]}' for k, p in at.items() if not p.is_file()]
    name = pathlib.Path(row['prediction'])
    group = row.get('group') or str(name.parent)
    out.append(
      Pair(str(name.with_suffix('')), group, at['prediction'], at['label'], at.get('image'))
    )
  if missing:
    raise UserError(f'{len(missing)} files of {table} are missing:\n' + '\n'.join(missing[:20]))
  return out


def _place(text: str, *starts: pathlib.Path) -> pathlib.Path:
  return next((p for start in starts if (p := start / text).is_file()), pathlib.Path(text))


def read(pair: Pair, classes: int) -> dict[str, np.ndarray]:
  """One image's arrays, as in Predicted without the batch axis. Raises UserError by path."""
  label = read_label(pair.label)
  arrays = open_arrays(pair.prediction)
  found = predicted(arrays, classes, label.shape, pair.prediction)
  ids = np.where(label == UNKNOWN, IGNORED, label)
  odd = np.setdiff1d(np.unique(ids), [*range(classes), IGNORED])
  if odd.size:
    raise UserError(
      f'{pair.label}: label {odd[0]} is no class; expected 0 to {classes - 1}, '
      f'{UNKNOWN} (unknown object) or {IGNORED} (does not count)'
    )
  found |= {'labels': ids.astype(np.int32), 'unknown': label == UNKNOWN}
  if pair.image is not None:
    found['image'] = _read_image(pair.image)
  return found


def read_label(path: pathlib.Path) -> np.ndarray:
  """A PNG of class ids [H, W]; Cityscapes' label ids (by the file's name) become train ids."""
  from PIL import Image

  try:
    picture = Image.open(path)
    picture.load()
  except (OSError, SyntaxError, ValueError) as e:
    raise UserError(f'{path} cannot be read as a PNG ({str(e).partition(" <_io")[0]})') from None
  if picture.mode not in ('L', 'P'):
    raise UserError(f'{path} is a picture of mode {picture.mode}; expected 8-bit class numbers')
  found = np.asarray(picture)
  return cityscapes.scored_train_ids(found) if path.stem.endswith('labelIds') else found


def _read_image(path: pathlib.Path) -> np.ndarray:
  from PIL import Image

  try:
    return np.asarray(Image.open(path).convert('RGB'), np.float32) / 127.5 - 1
  except (OSError, SyntaxError, ValueError) as e:
    raise UserError(f'{path} cannot be read as an image ({e})') from None


def open_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
  """The arrays of a file by name; a nameless one is called ''. Raises UserError for damage."""
  try:
    if path.suffix == '.safetensors':
      return read_safetensors(path)
    found = np.load(path, allow_pickle=False)
    if path.suffix == '.npy':
      return {'': found}
    with found:
      return {k: found[k] for k in found.files}
  except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zipfile.LargeZipFile) as e:
    raise UserError(f'{path} is truncated or no {path.suffix} file ({e})') from None
  except zlib.error as e:
    raise UserError(f'{path} is damaged ({e})') from None


def predicted(
  arrays: Mapping[str, np.ndarray], classes: int, size: tuple[int, int], path: Any
) -> dict[str, np.ndarray]:
  """logits [H, W, C] float32, and disagreement and features where the file has them."""
  names = [k for k in arrays if k in KINDS]
  if not names and len(arrays) != 1:
    raise UserError(f'{path} holds {sorted(arrays)}; name one of them {" or ".join(KINDS)}')
  kind = names[0] if names else ''
  raw = arrays[kind] if names else next(iter(arrays.values()))
  found = {k: np.asarray(arrays[k], np.float32) for k in EXTRAS if k in arrays}
  if raw.dtype.kind in 'iub':
    if kind not in ('', 'samples') or raw.ndim != 3 or raw.shape[1:] != size:
      raise UserError(f'{path}: class ids {raw.shape}; expected samples [N, {size[0]}, {size[1]}]')
    return found | _of_ids(raw, classes, path)
  x = np.asarray(raw, np.float32)
  if not np.isfinite(x).all():
    nan = np.isnan(x).sum()
    if nan or kind == 'probabilities' or (x == np.inf).any():
      raise UserError(f'{path}: {nan or (~np.isfinite(x)).sum()} of {x.size} values are not finite')
  x = _classes_last(x, classes, size, path)
  likely = kind == 'probabilities' or (kind != 'logits' and _sums_to_one(x))
  if kind == 'probabilities' and not _sums_to_one(x):
    raise UserError(f'{path}: the probabilities do not sum to one over {classes} classes')
  if x.ndim == 3:
    return found | {'logits': np.log(np.maximum(x, FLOOR)) if likely else x}
  probs = x if likely else np.asarray(jax.nn.softmax(x))
  return found | _of_samples(probs)


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
  try:
    return json.loads((folder / INDEX).read_text())
  except ValueError as e:
    raise UserError(f'{folder / INDEX} is damaged ({e})') from None


def _saved(folder: pathlib.Path, only: Sequence[int] | None) -> Iterator[Predicted]:
  """What eval.py saved, of the first subject that has logits or else probabilities."""
  index = saved_index(folder)
  known = [f'{place}/{kind}.npy' for kind in KINDS[:2] for place in index['subjects'].values()]
  file = next((name for name in known if name in index['arrays']), None)
  if file is None:
    raise UserError(f'{folder} holds no logits and no probabilities\n  eval.py --save logits')
  open_array = lambda name: np.load(folder / name, mmap_mode='r')
  features = str(pathlib.Path(file).with_name('features.npy'))
  try:
    values, truth = open_array(file), open_array('readers.npy')
    more = {'features': open_array(features)} if features in index['arrays'] else {}
  except (OSError, ValueError, EOFError) as e:
    raise UserError(f'{folder} is damaged: {e}\n  save it again') from None
  if truth.shape[1] > 1:
    raise UserError(f'{folder} has {truth.shape[1]} readers; reliability is scored on one label')
  classes, kind = index['num_classes'], pathlib.Path(file).stem
  groups = index['groups'] or [''] * len(index['ids'])
  for i in range(len(values)) if only is None else only:
    label = np.asarray(truth[i, 0])
    where = f'{folder / file}, image {i}'
    found = predicted({kind: values[i]}, classes, label.shape, where)
    found |= {k: np.asarray(v[i], np.float32) for k, v in more.items()}
    strange = label == (UNKNOWN if index.get('unknown_label') is None else index['unknown_label'])
    ignored = label == index['ignore_label']
    found['labels'] = np.where(strange | ignored, IGNORED, label).astype(np.int32)
    found['unknown'] = strange
    placed = jax.device_put({k: np.asarray(v)[None] for k, v in found.items()})
    yield Predicted(placed, np.array([index['ids'][i]]), np.array([groups[i]]), np.array([True]))
