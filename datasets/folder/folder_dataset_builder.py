"""Anybody's images with one or more annotations each, from a folder or a CSV.

A folder:  images/NAME.png  and  masks/NAME/*.png  (one file a reader; any number), and optionally
           images/SPLIT/NAME.png with masks/SPLIT/NAME/*.png for SPLIT in train, validation, test.
A CSV:     columns image, masks (paths separated by ';'), and optionally split and group (a patient
           or scene that must stay within one split). Paths are relative to the CSV.
"""

import csv
import dataclasses
import functools
import pathlib
import zlib

import numpy as np

from car_jax.errors import UserError, nearest
from datasets import common

PICTURES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp')
COLOURS = ((0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178))
COLOURS += ((213, 94, 0), (204, 121, 167), (153, 153, 153), (255, 255, 255))


@dataclasses.dataclass(frozen=True)
class Row:
  image: pathlib.Path
  masks: tuple[pathlib.Path, ...]
  split: str
  group: str
  name: str


class Builder(common.Builder):
  """A user's own multi-reader data."""

  def contents(self, options, problems):
    values = options.values
    rows = read_csv(options.source) if options.source.is_file() else read_folder(options.source)
    first: dict[str, Row] = {}
    for row in rows:
      if first.setdefault(row.name, row) is not row:
        raise UserError(f'{row.image}: listed twice, or of one name with {first[row.name].image}')
    rows = [
      r if r.split else dataclasses.replace(r, split=drawn_split(r.group, values)) for r in rows
    ]
    class_of, names = class_map(values['classes'], rows)
    splits = {}
    for split in common.SPLITS:
      chosen = [r for r in rows if r.split == split]
      if chosen:
        make = functools.partial(self._examples, chosen, class_of, problems)
        splits[split] = len(chosen), make
    palette = tuple(COLOURS[i % len(COLOURS)] for i in range(len(names)))
    readers = max(len(r.masks) for r in rows)
    return common.Contents(class_names=names, readers=readers, splits=splits, palette=palette)

  def _examples(self, rows, class_of, problems):
    for row in rows:
      image = common.read_image(row.image, problems, colour=True)
      labels = [self._label(m, class_of, problems) for m in row.masks]
      if not labels:
        problems.add(row.image, 'has no mask')
      if image is None or not labels or any(x is None for x in labels):
        continue
      odd = [m for m, x in zip(row.masks, labels, strict=True) if x.shape != image.shape[:2]]
      for mask in odd:
        problems.add(mask, f'not the size of its image, {image.shape[1]}x{image.shape[0]}')
      if not odd:
        yield row.name, row.group, image, np.stack(labels)

  @staticmethod
  def _label(path, class_of, problems):
    grey = common.read_mask(path, problems)
    if grey is None:
      return None
    table = np.full(256, 255, np.uint8)
    for value, number in class_of.items():
      table[value] = number
    if odd := sorted(set(np.unique(grey).tolist()) - set(class_of)):
      problems.add(path, f'grey value {odd[0]} is no class; known: {sorted(class_of)}')
      return None
    return table[grey]


def read_csv(path: pathlib.Path) -> list[Row]:
  """Raises UserError for a missing column, an unknown split, an empty table, another file."""
  try:
    return _rows(path, csv.DictReader(path.read_text('utf-8-sig').splitlines()))
  except (UnicodeDecodeError, csv.Error) as e:
    raise UserError(f'{path} is no CSV of UTF-8 text ({e})') from None


def _rows(path: pathlib.Path, reader: csv.DictReader) -> list[Row]:
  for column in ('image', 'masks'):
    if column not in (reader.fieldnames or ()):
      raise UserError(
        f'{path} has no column {column!r}\n{nearest(column, reader.fieldnames or ())}'
      )
  rows = []
  for n, line in enumerate(reader, 2):
    split = (line.get('split') or '').strip()
    split = {'val': 'validation'}.get(split, split)
    if split and split not in common.SPLITS:
      raise UserError(f'{path}:{n}: unknown split {split!r}\n{nearest(split, common.SPLITS)}')
    if not line['image'].strip():
      raise UserError(f'{path}:{n}: no image')
    image = path.parent / line['image'].strip()
    masks = tuple(path.parent / m.strip() for m in (line['masks'] or '').split(';') if m.strip())
    name = str(pathlib.PurePosixPath(line['image'].strip()).with_suffix(''))
    rows.append(Row(image, masks, split, (line.get('group') or name).strip(), name))
  if not rows:
    raise UserError(f'{path} lists no image')
  return rows


def read_folder(root: pathlib.Path) -> list[Row]:
  """Raises UserError when the layout is another one."""
  if not (root / 'images').is_dir() or not (root / 'masks').is_dir():
    raise UserError(
      f'{root} has no folders images/ and masks/\n'
      '  expected images/NAME.png and masks/NAME/READER.png, or a CSV; see docs/data.md'
    )
  rows = []
  for path in sorted((root / 'images').rglob('*')):
    if path.suffix.lower() not in PICTURES:
      continue
    relative = path.relative_to(root / 'images')
    split = relative.parts[0] if relative.parts[0] in common.SPLITS else ''
    home = root / 'masks' / relative.with_suffix('')
    masks = tuple(sorted(m for m in home.glob('*') if m.suffix.lower() in PICTURES))
    name = relative.with_suffix('').as_posix()
    rows.append(Row(path, masks, split, name, name))
  if not rows:
    raise UserError(f'{root / "images"} holds no picture ({", ".join(PICTURES)})')
  return rows


def drawn_split(group: str, values: dict) -> str:
  """A split from the group's name and the seed: the same group always falls into the same one."""
  u = zlib.crc32(f'{values["seed"]}/{group}'.encode()) / 2**32
  if u < values['test']:
    return 'test'
  return 'validation' if u < values['test'] + values['validation'] else 'train'


def class_map(text: str, rows: list[Row]) -> tuple[dict[int, int], tuple[str, ...]]:
  """'0:background,255:lesion' -> ({0: 0, 255: 1}, names). Empty: 0 is background, 1 and 255 object.

  Raises UserError for a text of another form.
  """
  if not text:
    return {0: 0, 1: 1, 255: 1}, ('background', 'object')
  values: dict[int, int] = {}
  names: list[str] = []
  for part in text.split(','):
    grey, _, name = part.partition(':')
    if not grey.strip().isdigit() or not name or int(grey) > 255:
      raise UserError(
        f'cannot read {part!r} in --classes {text!r}\n  expected GREY:NAME,... such as '
        '0:background,255:lesion'
      )
    if name.strip() not in names:
      names.append(name.strip())
    values[int(grey)] = names.index(name.strip())
  return values, tuple(names)
