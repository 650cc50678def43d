"""Random class flips: one label per image becomes a distribution of labels that is known exactly.

Each class that is named is renamed to a twin, for the whole image at once, with its probability
(arXiv:2006.13144, section 5.3). One mode per subset of flipped classes; metrics/flips.py numbers
them. Class numbers: the data set's own, then the twins in the order in which they were named, then
'unlabelled' where the data set has ignored pixels. Letters: H x W pixels, F flipping classes.
"""

import dataclasses
import math
import re
from fractions import Fraction
from typing import Any

import numpy as np

from car_jax.data.labels import UNLABELLED_COLOUR, flip_classes, twin_colour
from car_jax.data.sources import DataInfo, Dataset, Source
from car_jax.data.transforms import Example, Transform
from car_jax.errors import UserError, nearest
from car_jax.metrics.flips import Flip, mode_flips, mode_weights

MOST = 8  # flipping classes: 256 modes


def parse(text: str, names: tuple[str, ...], twin: int) -> tuple[Flip, ...]:
  """'sidewalk:8/17,road:4/17' -> flips, twins numbered from `twin` on. Raises UserError."""
  flips: list[Flip] = []
  for part in text.split(','):
    match = re.fullmatch(r'\s*(.+?)\s*:\s*(\d*\.?\d+(?:/\d+)?)\s*', part)
    if not match:
      raise UserError(
        f'cannot read {part!r} in config.data.class_flips {text!r}\n'
        '  expected CLASS:PROBABILITY,... such as sidewalk:8/17,road:4/17'
      )
    name, number = match.groups()
    if name not in names:
      raise UserError(f'config.data.class_flips: unknown class {name!r}\n{nearest(name, names)}')
    top, _, bottom = number.partition('/')
    share = float(Fraction(top) / int(bottom or 1)) if int(bottom or 1) else math.inf
    if not 0 < share < 1:
      raise UserError(
        f'config.data.class_flips: the probability of {name!r} is {number}, not in (0, 1)'
      )
    flips.append(Flip(names.index(name), twin + len(flips), share))
  if len({f.base for f in flips}) < len(flips) or len(flips) > MOST:
    raise UserError(f'config.data.class_flips {text!r}: each class once, at most {MOST} of them')
  return tuple(flips)


def flipped(dataset: Dataset, text: str) -> Dataset:
  """A data set of one label per image with config.data.class_flips. Raises UserError."""
  info = dataset.info
  if info.readers != 1:
    raise UserError(
      f'config.data.class_flips is for data of one label per image; {info.name} has {info.readers}'
    )
  within = info.ignore_label is not None and info.ignore_label < info.num_classes
  count = info.num_classes - within  # an ignored class among the others is the last of them
  names = info.class_names[:count]
  flips = parse(text, names, count)
  names += tuple(f'{names[f.base]} 2' for f in flips)
  palette = info.palette[:count] + tuple(twin_colour(k) for k in range(len(flips)))
  ignored = None
  if info.ignore_label is not None:
    ignored, names, palette = len(names), (*names, 'unlabelled'), (*palette, UNLABELLED_COLOUR)
  renamed = dataclasses.replace(
    info,
    num_classes=len(names),
    class_names=names,
    palette=palette,
    readers=2 ** len(flips),
    ignore_label=ignored,
    flips=flips,
  )
  if ignored is None:
    return Dataset(renamed, dataset.split)
  return Dataset(
    renamed, lambda split: _Renumbered(dataset.split(split), info.ignore_label, ignored)
  )


class _Renumbered(Source):
  """Records with another number for the ignored class; the black box gets it from the label."""

  def __init__(self, source: Source, old: int | None, new: int):
    self._source, self._old, self._new = source, old, new

  def __len__(self) -> int:
    return len(self._source)

  @property
  def ids(self) -> list[str]:
    return self._source.ids

  @property
  def sizes(self) -> list[tuple[int, int]]:
    return self._source.sizes

  @property
  def num_bytes(self) -> int:
    return self._source.num_bytes

  def __getitem__(self, index: int) -> dict[str, Any]:
    record = self._source[index]
    labels = np.where(record['labels'] == self._old, self._new, record['labels']).astype(np.uint8)
    if 'black_box' not in record:
      return record | {'labels': labels}
    seen = (labels[0] != self._new) & (record['black_box'] != self._old)
    return record | {
      'labels': labels,
      'black_box': np.where(seen, record['black_box'], self._new).astype(np.uint8),
    }


def all_modes(info: DataInfo, flip_black_box: bool) -> Transform:
  """The label [1, H, W] -> every mode [2 ** F, H, W], the unflipped one first, with their weights.

  flip_black_box: the black-box map is flipped too, by rolls of its own, as published: it then says
  where a class is and not which of its two names.
  """
  tables = np.repeat(np.arange(256, dtype=np.uint8)[None], info.readers, 0)
  for k, flip in enumerate(info.flips):
    tables[mode_flips(info.flips)[:, k], flip.base] = flip.twin
  weight = mode_weights(info.flips).astype(np.float32)

  def apply(example: Example, rng: np.random.Generator) -> Example:
    example = example | {'labels': tables[:, example['labels'][0]], 'label_weight': weight}
    if flip_black_box and 'black_box' in example:
      rolls = rng.random(len(info.flips))
      example['black_box'] = flip_classes(example['black_box'], rolls, info.flips)
    return example

  return apply
