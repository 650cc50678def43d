"""Anybody's images with one or more annotations each, from a folder or a CSV.

A folder:  images/NAME.png  and  masks/NAME/*.png  (one file a reader; any number), or, with one
           label per image, labels/NAME.png; and optionally images/SPLIT/NAME.png with
           masks/SPLIT/NAME/*.png or labels/SPLIT/NAME.png, SPLIT in train, validation, test.
A CSV:     columns image, masks (paths separated by ';') or mask_1, mask_2, ... (empty where a
           reader is absent), and optionally split and group (a patient or scene that must stay
           within one split). Paths are relative to the CSV.
"""

import dataclasses
import functools
import re
import sys
import zlib

import numpy as np

from car_jax.errors import UserError
from datasets import common, spans
from datasets.folder import classes
from datasets.folder.rows import Row, check_once, read_csv, read_folder
from datasets.options import INT64, Option


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
    if values['validation'] + values['test'] >= 1:
      raise UserError(
        f'--validation cannot be {values["validation"]}\n  expected, with --test, less than 1'
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
    if source.is_dir():
      rows = read_folder(source, problems, unlabelled)
    else:
      rows = read_csv(source)
    check_once(rows)
    rows = with_splits(rows, values, problems)
    known = classes.parse(values['classes'])
    if unlabelled:
      check_unlabelled(rows, known, values['classes'])
    span = spans.parse(values['range'])
    self.images = {row.name: row.image for row in rows}
    splits = {}
    for split in common.SPLITS:
      chosen = [r for r in rows if r.split == split]
      if chosen:
        free = unlabelled and split == 'train'
        make = functools.partial(self._examples, chosen, known, span, problems, free)
        splits[split] = len(chosen), make
    return common.Contents(
      class_names=known.names,
      readers=max(1, *(len(r.masks) for r in rows)),
      splits=splits,
      palette=known.palette,
      ignore_label=known.ignore_label,
      unknown_label=known.unknown_label,
    )

  def twice(self, example, first):
    """The same picture is in two splits: what is learnt by heart would be scored."""
    path, other = (self.images[name.partition('/')[2]] for name in (example, first))
    split = first.partition('/')[0]
    self.problems.add(
      path, f'the same pixels as {other}, which is in {split}; keep it in one split'
    )

  def _examples(self, rows, known, span, problems, free):
    for row in rows:
      image = common.read_image(row.image, problems, colour=True, span=span)
      labels = [classes.read(m, known, problems) for m in row.masks]
      if not labels and not free:
        mend = '--unlabelled takes it' if row.split == 'train' else f'{row.split} needs one'
        problems.add(row.image, f'has no mask; {mend}')
      if image is None or not (labels or free) or any(x is None for x in labels):
        continue
      if common.fits(row.image, image, zip(row.masks, labels, strict=True), problems):
        labels = labels or [np.full(image.shape[:2], known.ignore_label, np.uint8)]
        yield row.name, row.group, image, np.stack(labels)


def with_splits(rows: list[Row], values: dict, problems: common.Problems) -> list[Row]:
  """Each row with its split: as given, else that of its group, else drawn."""
  of: dict[str, list[str]] = {}  # group -> splits that are given for it
  for row in rows:
    if row.split and row.split not in of.setdefault(row.group, []):
      of[row.group].append(row.split)
  for group, splits in of.items():
    if len(splits) > 1:
      problems.note(group, 'WARNING: a group that the source itself puts into several splits')
  found = []
  for row in rows:
    given = of.get(row.group, [''])[0]
    split = row.split or given or drawn_split(row.group, values)
    found.append(dataclasses.replace(row, split=split))
  return found


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


def drawn_split(group: str, values: dict) -> str:
  """A split from the group's name and the seed: the same group always falls into the same one."""
  u = zlib.crc32(f'{values["seed"]}/{group}'.encode(errors='surrogatepass')) / 2**32
  if u < values['test']:
    return 'test'
  return 'validation' if u < values['test'] + values['validation'] else 'train'
