"""Predictions made elsewhere: arrays per image and their labels, from any framework.

predictions/sources.py knows whose they are. Two layouts are read:
  a folder of NAME.npy, NAME.npz or NAME.safetensors, in any depth, with labels beside: a folder of
  pictures, or a CSV with the columns prediction, label and perhaps image, group (pairing.py);
  a folder that `car-jax eval --save logits` or `--save probabilities` wrote (it has an index.json).

An array is logits [H, W, C] or [C, H, W], probabilities of the same shape, samples of either with
one axis in front, segmentations [N, H, W] of class ids, or one map of them [H, W], as an array or
as a picture, of which only accuracy is known. A file of several arrays names them logits,
probabilities, samples; what one is that is not named, interpret.py finds out or refuses to guess.
Letters: N samples, H x W pixels, C classes.
"""

import functools
import pathlib
from typing import Any

import numpy as np

from car_jax import arrays as array_files
from car_jax import files, pictures
from car_jax.data import labels as cityscapes
from car_jax.errors import UserError, reading
from car_jax.importers.safetensors_file import read_safetensors
from car_jax.predict import volumes

VOLUMES = 16  # files that stay in memory
INDEX = 'index.json'
IGNORED = cityscapes.IGNORED_TRAIN_ID


def checked_labels(
  label: np.ndarray, classes: int, ignored: int | None, unknown: int | None, path: Any
) -> dict[str, np.ndarray]:
  """labels and unknown as in Predicted. Raises UserError for an id that is neither a class,
  `ignored` nor `unknown`."""
  strange, void = label == unknown, label == ignored
  if (wrong := label[~(strange | void | ((label >= 0) & (label < classes)))]).size:
    ids = classes == cityscapes.SCORED and wrong.max() in cityscapes.CITYSCAPES_IDS
    hint = "\n  Cityscapes' label ids are converted in pictures named *_labelIds.png" * ids
    raise UserError(
      f'{path}: label {wrong.min()} is no class; expected 0 to {classes - 1}, '
      f'{unknown} (unknown object) or {ignored} (does not count){hint}'
    )
  return {'labels': np.where(strange | void, IGNORED, label).astype(np.int32), 'unknown': strange}


def _class_ids(path: pathlib.Path, picture: pictures.Picture) -> np.ndarray:
  """uint8 [H, W] of a picture; Cityscapes' label ids (by its name) become train ids.

  Raises UserError, by path, for another kind of picture, and ids of no class.
  """
  ids = picture.values
  if ids.dtype == bool or (ids.dtype.kind in 'iu' and 0 <= ids.min() <= ids.max() <= 255):
    ids = ids.astype(np.uint8)
  if ids.ndim != 2 or ids.dtype != np.uint8 or picture.alpha is not None:
    kind = 'colours' if ids.ndim == 3 else f'{ids.dtype} numbers'
    kind += '' if picture.alpha is None else ' and transparency'
    raise UserError(f'{path} is a picture of {kind}; expected class numbers from 0 to 255')
  if not has_label_ids(path):
    return ids
  if wrong := cityscapes.strange(ids, cityscapes.ACDC_IDS):
    raise UserError(f'{path}: {wrong}')
  return cityscapes.scored_train_ids(ids)


def has_label_ids(path: pathlib.Path) -> bool:
  """Whether a picture is of Cityscapes' label ids, by its name."""
  return path.suffix.lower() in pictures.EXACT and path.stem.endswith('labelIds')


def read_image(path: pathlib.Path) -> np.ndarray:
  """uint8 [h, w, 3]. Raises UserError by path."""
  picture = pictures.open_picture(path)
  if picture.values.dtype not in (np.uint8, bool):
    raise UserError(f'{path} is a picture of {picture.values.dtype} numbers; expected 8 bits')
  shown = picture.shown
  shown = shown * np.uint8(255) if shown.dtype == bool else shown
  return shown if shown.ndim == 3 else np.repeat(shown[..., None], 3, -1)


def open_arrays(path: pathlib.Path, at: int | None = None) -> dict[str, np.ndarray]:
  """The arrays of a file by name; a nameless one, or a picture's, is called ''.

  Of several pages it is [N, H, W]. at: the slice of a volume, [H, W] or, of integers with one more
  axis, [N, H, W], of floats [H, W, C]. Raises UserError, by path, for damage.
  """
  if at is not None:
    maps = _volume(path, path.stat().st_mtime_ns)[at]
    return {'': np.moveaxis(maps, -1, 0) if maps.ndim == 3 and maps.dtype.kind != 'f' else maps}
  path = files.check_regular(path)
  if path.suffix.lower() == '.safetensors':
    with reading(path, 'a .safetensors file'):
      return read_safetensors(path)
  if path.suffix.lower() in pictures.EXACT:
    return {'': _maps(path)}
  return array_files.read(path)


@functools.lru_cache(maxsize=VOLUMES)
def _volume(path: pathlib.Path, changed: int) -> np.ndarray:
  """A file's slices, which are asked for one after another."""
  return volumes.read_maps(path)


def _maps(path: pathlib.Path) -> np.ndarray:
  """Class ids of a picture [H, W], or of its pages [N, H, W]."""
  maps = [_class_ids(path, page) for page in pictures.open_pages(path)]
  if len({m.shape for m in maps}) > 1:
    raise UserError(f'{path} has pages of several sizes: {sorted({m.shape for m in maps})}')
  return maps[0] if len(maps) == 1 else np.stack(maps)


def is_saved(folder: pathlib.Path) -> bool:
  return (folder / INDEX).is_file()


def saved_index(folder: pathlib.Path) -> dict[str, Any]:
  """What car-jax eval says of the arrays that it saved; {} for a folder of another kind.

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
