"""Predictions as pictures of class ids, for other tools and for the eye.

  python -m car_jax.evaluate.label_maps FOLDER FILE.npz   counts their classes, to draw images by

  FOLDER/class_ids/NAME.png   the numbers of the data set's classes (8 bits, 16 from 257 classes on)
  FOLDER/colours/NAME.png     its colours
and instead of class ids, where the classes are Cityscapes' 19,
  FOLDER/label_ids/NAME.png   0 to 33: what Cityscapes' own evaluator and its server read
  FOLDER/train_ids/NAME.png   0 to 18, and 255 for no class

The evaluator searches a folder to its depths and refuses two files of one image: give it
FOLDER/label_ids alone. Letters: H x W pixels.
"""

import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from car_jax import errors, files, folders, paths, pictures
from car_jax.data import importance, labels
from car_jax.errors import UserError, command_line, exit_on_user_error


def of_cityscapes(info: Any) -> bool:
  """Whether a data set (its DataInfo) has Cityscapes' 19 classes, and at most an ignored one."""
  names, rest = tuple(info.class_names), [*range(labels.SCORED, len(info.class_names))]
  return names[: labels.SCORED] == labels.CLASS_NAMES[: labels.SCORED] and (
    not rest or rest == [info.ignore_label]
  )


def save(folder: pathlib.Path, name: str, classes: np.ndarray, info: Any = None) -> None:
  """Writes the pictures of `classes` [H, W], of the data set of `info`; train ids without one.

  `name` is the example's id, such as frankfurt/frankfurt_000000_000294; its part before / becomes
  a folder.
  """
  if {'..', '.', ''} & set(name.split('/')):
    raise UserError(
      f'the image id {name!r} cannot name a file\n  prepare the data with other names'
    )
  classes = np.asarray(classes)
  theirs = info is None or of_cityscapes(info)
  maps = _of_train_ids(name, classes, info) if theirs else _of_classes(classes, info)
  for kind, picture in maps.items():
    _write(folder / kind / f'{name}.png', picture)


def _of_train_ids(name: str, ids: np.ndarray, info: Any) -> dict[str, np.ndarray]:
  if info is not None:
    ids = np.where(ids == labels.SCORED, labels.IGNORED_TRAIN_ID, ids)  # an ignored class, if any
  if odd := set(np.unique(ids).tolist()) - {*range(labels.SCORED), labels.IGNORED_TRAIN_ID}:
    raise ValueError(f'{name}: {min(odd)} is no train id')
  maps = {'label_ids': labels.label_ids(ids), 'train_ids': ids.astype(np.uint8)}
  return maps | {'colours': labels.colours(ids)}


def _of_classes(ids: np.ndarray, info: Any) -> dict[str, np.ndarray]:
  kind = np.uint8 if info.num_classes <= 256 else np.uint16
  return {'class_ids': ids.astype(kind), 'colours': np.asarray(info.palette, np.uint8)[ids]}


def read(folder: pathlib.Path) -> Iterator[tuple[str, np.ndarray]]:
  """(name, train ids [H, W]) of everything that `save` wrote there, in the order of the names.

  Raises UserError, by path, for a picture that holds something else, and names other files.
  """
  root = folder / 'train_ids'
  inside = files.walk(root) if root.is_dir() else []
  paths = [p for p in inside if p.suffix.lower() == '.png']
  if not paths:
    raise UserError(f'{root} holds no label maps\n  name a folder that label maps were saved to')
  if left := [p for p in inside if p not in {*paths}]:
    print(f'{root}: {len(left)} files are no label maps, such as {left[0].name}', file=sys.stderr)
  for path in paths:
    ids = pictures.open_picture(path).values
    known = ids.ndim == 2 and ids.dtype == np.uint8
    if not known or ((ids >= labels.SCORED) & (ids != labels.IGNORED_TRAIN_ID)).any():
      values = f'{ids.min()} to {ids.max()}' if known else f'{ids.dtype} {ids.shape}'
      raise UserError(f'{path} holds no train ids, 0 to {labels.SCORED - 1} and 255, but {values}')
    yield path.relative_to(root).with_suffix('').as_posix(), ids


def _write(path: pathlib.Path, picture: np.ndarray) -> None:
  from PIL import Image

  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(picture).save(path)


@exit_on_user_error
def main(arguments: list[str]) -> int:
  about = 'How many pixels of each class a model found on each image (arXiv 2105.00097).'
  parser = errors.parser('car_jax.evaluate.label_maps', about)
  parser.add_argument('folder', type=paths.local, help='where label maps were saved')
  parser.add_argument('file', type=paths.local, help='the .npz file to write')
  given = parser.parse_args(arguments)
  if not given.file.parent.is_dir():
    raise UserError(f'no such folder {given.file.parent}\n  to make it: mkdir {given.file.parent}')
  folders.check_writable(given.file.parent)
  counts = importance.counted(read(given.folder), labels.SCORED)
  with folders.whole(given.file) as part:
    counts.save(part)
  seen = int((counts.pixels.sum(0) > 0).sum())
  print(f'{given.file}: {seen} of {labels.SCORED} classes on {len(counts.ids):,} images')
  return 0


if __name__ == '__main__':
  command_line(main)
