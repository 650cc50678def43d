"""Cityscapes' benchmark scores of label-id PNGs, without its scripts.

  python -m car_jax.evaluate.cityscapes_scores PREDICTIONS GROUND_TRUTH [--json FILE]

PREDICTIONS: a folder of PNGs of label ids 0 to 33, such as `label_ids` of `car-jax eval --save
labels`.
GROUND_TRUTH: such as gtFine/val, with *_gtFine_labelIds.png and, for the scores of instances,
*_gtFine_instanceIds.png. Files belong together by CITY_SEQUENCE_FRAME in their names.
"""

import json
import pathlib
import re
import sys
from typing import Any

import numpy as np

from car_jax import errors, files, folders, paths, pictures, progress
from car_jax.data import labels
from car_jax.errors import UserError, command_line, exit_on_user_error
from car_jax.metrics import cityscapes_official as official
from car_jax.metrics.confusion_matrix import known_mean

FRAME = re.compile(r'[a-z-]+_\d{6}_\d{6}')
ROWS, COLUMNS = labels.CLASS_NAMES[: labels.SCORED], ('IoU', 'iIoU')


@exit_on_user_error
def main(arguments: list[str]) -> int:
  parser = errors.parser('car_jax.evaluate.cityscapes_scores', __doc__)
  parser.add_argument('predictions', type=paths.local)
  parser.add_argument('ground_truth', type=paths.local)
  parser.add_argument('--json', type=paths.local, help='also write the scores there')
  args = parser.parse_args(arguments)
  if args.json:
    folders.check_writable(args.json.parent)
  tables = scores(frames(args.predictions), frames(args.ground_truth, '_gtFine_labelIds'))
  print(table(tables))
  if args.json:
    folders.write(args.json.parent, {args.json.name: json.dumps(tables, indent=1) + '\n'})
  return 0


def frames(folder: pathlib.Path, ending: str = '') -> dict[str, pathlib.Path]:
  """The folder's pictures by frame. Raises UserError where there is none, or two of a frame.

  What else lies in a folder of predictions is counted on stderr.
  """
  if folder.name == 'train_ids':  # they pass for label ids, of other classes
    raise UserError(f'{folder} holds train ids\n  name {folder.with_name("label_ids")}')
  by_frame: dict[str, pathlib.Path] = {}
  inside = files.walk(folder) if folder.exists() else []
  wanted = lambda p: p.suffix.lower() in pictures.EXACT and p.stem.endswith(ending)
  for path in filter(wanted, inside):
    if name := FRAME.match(path.name):
      if name[0] in by_frame:
        raise UserError(
          f'two files of {name[0]}: {by_frame[name[0]]} and {path}\n  name the folder of one kind'
        )
      by_frame[name[0]] = path
  left = sorted({*inside} - {*by_frame.values()})
  if not by_frame:
    lies = f'; there lies {left[0].relative_to(folder)}, among {len(left)} files' if left else ''
    raise UserError(
      f'{folder} holds no CITY_SEQUENCE_FRAME{ending or "..."}.png{lies}\n'
      '  name the folder that car-jax eval --save labels wrote, or gtFine/val'
    )
  if left and not ending:
    print(
      f'{folder}: {len(left)} files are no predictions, such as {left[0].relative_to(folder)}',
      file=sys.stderr,
    )
  return by_frame


def scores(
  predictions: dict[str, pathlib.Path], truth: dict[str, pathlib.Path]
) -> dict[str, dict[str, Any]]:
  """Per class and category IoU and, with instances, iIoU; their means; None for what is nowhere.

  Every frame of the truth needs a prediction, as the benchmark has it. Raises UserError.
  """
  if missing := sorted(truth.keys() - predictions.keys()):
    raise UserError(f'{len(missing)} frames have no prediction, such as {missing[0]}')
  if more := sorted(predictions.keys() - truth.keys()):
    print(f'{len(more)} predictions have no truth, such as {more[0]}: not scored', file=sys.stderr)
  matrix: Any = 0
  pixels: Any = 0
  meter = progress.line(len(truth))
  for frame, path in truth.items():
    one, other = read(path), read(predictions[frame])
    if one.shape != other.shape:
      raise UserError(f'{predictions[frame]} is {other.shape}, {path} is {one.shape}')
    matrix = matrix + official.confusion(one, other)
    instances = path.with_name(path.name.replace('labelIds', 'instanceIds'))
    if pixels is not None:
      known = instances.exists()
      pixels = pixels + official.instance_pixels(read(instances, 2**16), other) if known else None
    meter(1)
  if looks_like_train_ids(matrix):
    print(
      'warning: the predictions look like train ids (0 to 18), and are scored as label ids\n'
      '  write label ids, 0 to 33: car_jax.data.labels.label_ids turns train ids into them',
      file=sys.stderr,
    )
  things, groups = (None, None) if pixels is None else official.instance_iou(matrix, pixels)
  iou, categories = official.class_iou(matrix), official.category_iou(matrix)
  tables = {
    'classes': rows(ROWS, iou, [official.CLASSES.index(c) for c in official.THINGS], things),
    'categories': rows(
      tuple(official.CATEGORIES),
      categories,
      [[*official.CATEGORIES].index(c) for c in official.THING_CATEGORIES],
      groups,
    ),
  }
  means: dict[str, Any] = {'19 classes': (iou, things)}
  means |= {f'{len(k)} classes': (iou[[*k]], None) for k in labels.SYNTHIA_MEANS}
  means |= {'7 categories': (categories, groups)}
  tables['means'] = {k: dict(zip(COLUMNS, map(mean, v), strict=True)) for k, v in means.items()}
  return tables


def rows(names: Any, iou: Any, places: list[int], instance: Any) -> dict[str, dict[str, Any]]:
  cells: dict[str, dict[str, Any]] = {n: {'IoU': plain(v)} for n, v in zip(names, iou, strict=True)}
  for place, value in zip(places, () if instance is None else instance, strict=False):
    cells[names[place]]['iIoU'] = plain(value)
  return cells


def mean(values: Any) -> float | None:
  return None if values is None else plain(known_mean(values))


def plain(value: float) -> float | None:
  return None if np.isnan(value) else float(value)


def read(path: pathlib.Path, count: int = official.LABEL_IDS) -> np.ndarray:
  """Ids [H, W] below `count`. Raises UserError, by path."""
  ids = pictures.open_picture(path).values
  if ids.ndim != 2 or ids.dtype.kind not in 'iu' or ids.min() < 0 or ids.max() >= count:
    kind = f'ids {ids.min()} to {ids.max()}' if ids.ndim == 2 else f'{ids.ndim} dimensions'
    kind += ', as train ids have' if ids.ndim == 2 and ids.max() == 255 else ''
    raise UserError(
      f'{path} has {kind}; label ids are 0 to {count - 1}, in one channel\n'
      '  train ids and colours lie in folders of their own'
    )
  return ids


def looks_like_train_ids(matrix: np.ndarray) -> bool:
  """Whether the predictions of [L, L] are rather ids 0 to 18 of the 19 classes: none is above,
  where the truth has some, and some are of those that the benchmark does not score."""
  predicted, there = (np.flatnonzero(matrix.sum(axis)) for axis in (0, 1))
  above = there.max(initial=0) >= labels.SCORED > predicted.max(initial=0)
  return bool(above and {*predicted.tolist()} - {0, *official.CLASSES})


def table(tables: dict[str, dict[str, Any]]) -> str:
  cell = lambda v: '' if v is None else f'{100 * v:.1f}'
  lines = [f'{"per cent":16} {"IoU":>6} {"iIoU":>6}']
  for part in tables.values():
    lines += [
      '',
      *(f'{n:16} ' + ' '.join(f'{cell(v.get(c)):>6}' for c in COLUMNS) for n, v in part.items()),
    ]
  return '\n'.join(lines)


if __name__ == '__main__':
  command_line(main)
