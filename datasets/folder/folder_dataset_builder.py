"""Anybody's images with one or more annotations each, from a folder or a CSV.

A folder:  images/NAME.png  and  masks/NAME/*.png  (one file a reader; any number), or, with one
           label per image, labels/NAME.png or masks/NAME.png; and optionally all of these below
           SPLIT, such as images/SPLIT/NAME.png: SPLIT in train, validation, test.
A CSV:     columns image, masks (paths separated by ';') or mask_1, mask_2, ... (empty where a
           reader is absent), and optionally split and group (a patient or scene that must stay
           within one split). Paths are relative to the CSV.
"""

import dataclasses
import functools
import sys
import zlib
from typing import Any

import numpy as np

from car_jax import spans
from car_jax.datasets import base, common
from car_jax.datasets.folder import classes
from car_jax.datasets.folder.rows import Row, check_once, read_csv, read_folder
from car_jax.errors import UserError
from car_jax.options import Share

SEEDS = 1000  # that are tried for one that leaves no split empty


@dataclasses.dataclass
class Config(base.FileConfig):
  variant: str = ''
  """Name of the prepared data: letters, digits, - and _."""
  classes: str = ''
  """What the masks mean: VALUE:NAME,... or #RRGGBB:NAME,..., or a file of it."""
  range: str = ''
  """Of images of more than 8 bits: LOW,HIGH or P1%,P99% of each image."""
  validation: Share = 0.15
  """Share drawn for validation."""
  test: Share = 0.15
  """Share drawn for testing."""
  seed: int = 0
  """Other draws."""
  unlabelled: bool = False
  """Take images of train that have no mask: all pixels are ignored."""

  def default_name(self):
    return self.variant or 'default'

  def check(self):
    if self.validation + self.test >= 1:
      raise UserError(
        f'--validation cannot be {self.validation}\n  expected, with --test, less than 1'
      )
    base.check_variant(self.variant)
    spans.parse(self.range)
    classes.parse(self.classes)


class Builder(base.Builder):
  """Your own images, with one or more annotations each; `classes` says what the masks mean."""

  FOR_ACCELERATOR = True
  MANUAL_DOWNLOAD_INSTRUCTIONS = """\
    images/NAME.png with masks/NAME/READER.png, or masks/NAME.png or labels/NAME.png of one reader,
    or these in images/train, masks/train and so on; or a CSV with columns image, masks, split,
    group"""
  BUILDER_CONFIGS = [Config(description='0 is background, 1 and 255 are the object')]

  @functools.cached_property
  def label_map(self) -> classes.Classes:
    return classes.parse(self.builder_config.classes)

  def about(self):
    known = self.label_map
    return base.About(
      class_names=known.names,
      readers=0,
      palette=known.palette,
      ignore_label=known.ignore_label,
      unknown_label=known.unknown_label,
      range=str(spans.parse(self.builder_config.range)),
    )

  def splits(self, source):
    config = self.builder_config
    self.span = spans.parse(config.range)
    if config.file:
      rows = read_csv(source / config.file)
    else:
      rows = read_folder(source, self.problems, config.unlabelled)
    check_once(rows)
    rows = with_splits(rows, config, self.problems)
    if config.unlabelled:
      check_unlabelled(rows, self.label_map, config.classes)
    self.images = {row.name: row.image for row in rows}
    self.info.metadata['readers'] = max(1, *(len(row.masks) for row in rows))
    return {split: [row for row in rows if row.split == split] for split in base.SPLITS}

  def same_pixels(self, example, first):
    """The same picture is in two splits: what is learnt by heart would be scored."""
    path, other = (self.images[name.partition('/')[2]] for name in (example, first))
    split = first.partition('/')[0]
    self.problems.add(
      path, f'the same pixels as {other}, which is in {split}; keep it in one split'
    )

  def example(self, row):
    free = self.builder_config.unlabelled and row.split == 'train'
    image = common.read_image(row.image, self.problems, colour=True, span=self.span)
    labels: list[Any] = [classes.read(path, self.label_map, self.problems) for path in row.masks]
    if not labels and not free:
      mend = '--unlabelled takes it' if row.split == 'train' else f'{row.split} needs one'
      self.problems.add(row.image, f'has no mask; {mend}')
    if image is None:
      return
    good = [(path, x) for path, x in zip(row.masks, labels, strict=True) if x is not None]
    fits = common.fits(row.image, image, good, self.problems)
    if fits and len(good) == len(labels) and (labels or free):
      labels = labels or [np.full(image.shape[:2], self.label_map.ignore_label, np.uint8)]
      yield row.name, row.group, image, np.stack(labels)


def with_splits(rows: list[Row], config: Config, problems: common.Problems) -> list[Row]:
  """Each row with its split: as given, else that of its group, else drawn."""
  of: dict[str, list[str]] = {}  # group -> splits that are given for it
  for row in rows:
    if row.split and row.split not in of.setdefault(row.group, []):
      of[row.group].append(row.split)
  for group, splits in of.items():
    if len(splits) > 1:
      problems.note(group, 'WARNING: a group that the source itself puts into several splits')
  free = {row.group for row in rows} - {*of}
  note_empty({split for splits in of.values() for split in splits}, free, config, problems)
  of_group = lambda row: of.get(row.group, [''])[0] or drawn_split(row.group, config, config.seed)
  return [dataclasses.replace(row, split=row.split or of_group(row)) for row in rows]


def note_empty(named: set[str], free: set[str], config: Config, problems: common.Problems) -> None:
  """Notes a split that no image falls into, and a seed that fills all of them.

  named: splits that the source itself fills. free: the groups, or names, that are drawn.
  """
  shares = {'train': 1.0, 'validation': config.validation, 'test': config.test}
  wanted = {split for split, share in shares.items() if share} - named if free else set()
  drawn = lambda seed: {drawn_split(group, config, seed) for group in free}
  empty = wanted - drawn(config.seed)
  if not empty:
    return
  seeds = range(SEEDS) if len(free) >= len(wanted) else ()
  seed = next((seed for seed in seeds if wanted <= drawn(seed)), None)
  mend = 'name the splits, in a CSV or by folders'
  if seed is not None:
    mend = f'prepare it again with --seed {seed} --overwrite'
  for split in sorted(empty):
    what = 'WARNING: a split that none of the images, or of their groups, falls into'
    problems.note(split, f'{what} ({len(free)} are drawn); {mend}')


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


def drawn_split(group: str, config: Config, seed: int) -> str:
  """A split from the group's name and the seed: the same group always falls into the same one."""
  u = zlib.crc32(f'{seed}/{group}'.encode(errors='surrogatepass')) / 2**32
  if u < config.test:
    return 'test'
  return 'validation' if u < config.test + config.validation else 'train'
