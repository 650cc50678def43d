"""Anybody's images with one or more annotations each, from a folder or a CSV.

A folder:  images/NAME.png  and  masks/NAME/*.png  (one file a reader; any number), or, with one
           label per image, labels/NAME.png; and optionally images/SPLIT/NAME.png with
           masks/SPLIT/NAME/*.png or labels/SPLIT/NAME.png, SPLIT in train, validation, test.
A CSV:     columns image, masks (paths separated by ';') or mask_1, mask_2, ... (empty where a
           reader is absent), and optionally split and group (a patient or scene that must stay
           within one split). Paths are relative to the CSV.
"""

import csv
import dataclasses
import functools
import glob
import pathlib
import re
import sys
import zlib

import numpy as np

from car_jax.errors import UserError, nearest
from datasets import common, spans
from datasets.folder import classes
from datasets.options import INT64, Option

SPLIT_NAMES = {'val': 'validation'}  # other names of common.SPLITS
PICTURES = ('.png', '.jpg', '.jpeg', '.bmp', '.tif', '.tiff', '.webp')


@dataclasses.dataclass(frozen=True)
class Row:
  image: pathlib.Path
  masks: tuple[pathlib.Path, ...]
  split: str
  group: str
  name: str


class Builder(common.Builder):
  """Your own images, with one or more annotations each.

  SOURCE is a folder: images/NAME.png with masks/NAME/READER.png or labels/NAME.png, or these in
  images/train, masks/train and so on; or a CSV with columns image, masks, split, group.
  """

  SOURCE = 'the folder or the CSV'
  OPTIONS = {
    'variant': Option('', 'name of the prepared data: letters, digits, - and _'),
    'classes': Option(
      '', 'what the masks mean: VALUE:NAME,... or #RRGGBB:NAME,..., or a file of it'
    ),
    'range': Option('', 'of images of more than 8 bits: LOW,HIGH or P1%,P99% of each image'),
    'validation': Option(0.15, 'share drawn for validation', 0, 1),
    'test': Option(0.15, 'share drawn for testing', 0, 1),
    'seed': Option(0, 'other draws', -INT64, INT64),
    'unlabelled': Option(False, 'take images of train that have no mask: all pixels are ignored'),
  }

  @classmethod
  def check(cls, values):
    if values['validation'] + values['test'] > 1:
      raise UserError(
        f'--validation cannot be {values["validation"]}\n  expected, with --test, at most 1'
      )
    if not re.fullmatch(r'([A-Za-z][\w-]{,99})?', values['variant'], re.ASCII):
      raise UserError(
        f'--variant cannot be {values["variant"]!r}\n'
        '  expected a name of up to 100 letters, digits, - and _, beginning with a letter'
      )
    spans.parse(values['range'])
    classes.parse(values['classes'])

  def contents(self, options, problems):
    values = options.values
    source, unlabelled = options.source, values['unlabelled']
    rows = read_csv(source) if source.is_file() else read_folder(source, unlabelled)
    first: dict[str, Row] = {}
    for row in rows:
      if first.setdefault(row.name, row) is not row:
        raise UserError(f'{row.image}: listed twice, or of one name with {first[row.name].image}')
    rows = [
      r if r.split else dataclasses.replace(r, split=drawn_split(r.group, values)) for r in rows
    ]
    known = classes.parse(values['classes'])
    if unlabelled:
      check_unlabelled(rows, known, values['classes'])
    splits = {}
    for split in common.SPLITS:
      chosen = [r for r in rows if r.split == split]
      if chosen:
        free = unlabelled and split == 'train'
        make = functools.partial(self._examples, chosen, known, problems, free)
        splits[split] = len(chosen), make
    return common.Contents(
      class_names=known.names,
      readers=max(1, *(len(r.masks) for r in rows)),
      splits=splits,
      palette=known.palette,
      ignore_label=known.ignore_label,
      unknown_label=known.unknown_label,
    )

  def _examples(self, rows, known, problems, free):
    for row in rows:
      image = common.read_image(row.image, problems, colour=True)
      labels = [classes.read(m, known, problems) for m in row.masks]
      if not labels and not free:
        mend = '--unlabelled takes it' if row.split == 'train' else f'{row.split} needs one'
        problems.add(row.image, f'has no mask; {mend}')
      if image is None or not (labels or free) or any(x is None for x in labels):
        continue
      odd = [m for m, x in zip(row.masks, labels, strict=True) if x.shape != image.shape[:2]]
      for mask in odd:
        problems.add(mask, f'not the size of its image, {image.shape[1]}x{image.shape[0]}')
      if not odd:
        labels = labels or [np.full(image.shape[:2], known.ignore_label, np.uint8)]
        yield row.name, row.group, image, np.stack(labels)


def check_unlabelled(rows: list[Row], known: classes.Classes, given: str) -> None:
  """Says how many images of train have no mask. Raises UserError without an ignored class."""
  if known.ignore_label is None:
    raise UserError(
      f'--unlabelled needs an ignored class, --classes {given!r} names none\n'
      '  add VALUE:void; no mask need hold VALUE, such as --classes 0:background,255:object,7:void'
    )
  train = [row for row in rows if row.split == 'train']
  count = sum(not row.masks for row in train)
  print(
    f'{count:,} of {len(train):,} images of train have no mask: all their pixels are ignored',
    file=sys.stderr,
  )


def read_csv(path: pathlib.Path) -> list[Row]:
  """Raises UserError for a missing column, an unknown split, an empty table, another file."""
  try:
    return _rows(path, csv.DictReader(path.read_text('utf-8-sig').splitlines()))
  except (UnicodeDecodeError, csv.Error) as e:
    raise UserError(f'{path} is no CSV of UTF-8 text ({e})') from None


def _rows(path: pathlib.Path, reader: csv.DictReader) -> list[Row]:
  columns = list(reader.fieldnames or ())
  mask_columns = [c for c in columns if re.fullmatch(r'masks|mask_\d+', c or '')]
  for column, there in (('image', 'image' in columns), ('masks', mask_columns)):
    if not there:
      raise UserError(f'{path} has no column {column!r}\n{nearest(column, columns)}')
  rows = []
  for n, line in enumerate(reader, 2):
    split = (line.get('split') or '').strip()
    split = SPLIT_NAMES.get(split, split)
    if split and split not in common.SPLITS:
      raise UserError(f'{path}:{n}: unknown split {split!r}\n{nearest(split, common.SPLITS)}')
    if not line['image'].strip():
      raise UserError(f'{path}:{n}: no image')
    image = path.parent / line['image'].strip()
    listed = ';'.join(line[c] or '' for c in mask_columns).split(';')
    masks = tuple(path.parent / m.strip() for m in listed if m.strip())
    name = str(pathlib.PurePosixPath(line['image'].strip()).with_suffix(''))
    rows.append(Row(image, masks, split, (line.get('group') or name).strip(), name))
  if not rows:
    raise UserError(f'{path} lists no image')
  return rows


def read_folder(root: pathlib.Path, unlabelled: bool = False) -> list[Row]:
  """Raises UserError when the layout is another one. Where `unlabelled`, images/ will do."""
  kinds = [kind for kind in ('masks', 'labels') if (root / kind).is_dir()]
  kinds = kinds or ['labels'] * unlabelled
  if not (root / 'images').is_dir() or len(kinds) != 1:
    raise UserError(
      f'{root} has no folders images/ and masks/, or images/ and labels/\n'
      '  expected images/NAME.png with either masks/NAME/READER.png or labels/NAME.png, or a CSV; '
      'see docs/data.md'
    )
  rows = []
  for path in sorted((root / 'images').rglob('*')):
    if path.suffix.lower() not in PICTURES:
      continue
    relative = path.relative_to(root / 'images')
    top = relative.parts[0]
    split = SPLIT_NAMES.get(top, top if top in common.SPLITS else '')
    home = root / kinds[0] / relative.with_suffix('')
    there = (
      home.glob('*') if kinds == ['masks'] else home.parent.glob(f'{glob.escape(home.name)}.*')
    )
    masks = tuple(sorted(m for m in there if m.suffix.lower() in PICTURES))
    name = relative.with_suffix('').as_posix()
    rows.append(Row(path, masks, split, name, name))
  if odd := [row for row in rows if not row.split] if any(row.split for row in rows) else []:
    raise UserError(
      f'some folders of {root / "images"} are splits, but {odd[0].image} lies in none of them\n'
      f'  put every picture into one of {", ".join(common.SPLITS)}, or use a CSV'
    )
  if not rows:
    raise UserError(f'{root / "images"} holds no picture ({", ".join(PICTURES)})')
  return rows


def drawn_split(group: str, values: dict) -> str:
  """A split from the group's name and the seed: the same group always falls into the same one."""
  u = zlib.crc32(f'{values["seed"]}/{group}'.encode()) / 2**32
  if u < values['test']:
    return 'test'
  return 'validation' if u < values['test'] + values['validation'] else 'train'
