"""What a data set is to all that reads it: its description, and sources of records by split.

A record is a dict: image uint8 [H, W, 1 or 3], labels uint8 [M, H, W] (one map per reader), id and
group (the patient, the scene: what must not be shared between splits), both str; and black_box
uint8 [H, W], another model's prediction, where the data set has one.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from car_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class DataInfo:
  """What a method and a report need to know of a data set. `readers` is the largest M.

  range: which values of pictures of more than 8 bits were made black and white, 'LOW,HIGH' of the
  files' own, 'LOW,HIGH HU' of Hounsfield units, or 'P1%,P99%' of each image; '' where none had.
  """

  name: str
  num_classes: int
  class_names: tuple[str, ...]
  palette: tuple[tuple[int, int, int], ...]
  readers: int
  ignore_label: int | None = None
  unknown_label: int | None = None  # objects of no known class; the pipeline makes it `unknown`
  by_object: bool = False  # ids are OBJECT/NAME, by the unknown object that each image shows
  flips: tuple[Any, ...] = ()  # metrics.flips.Flip, where the readers are modes of random flips
  groups: str = 'groups'  # what images of a group are of, such as patients
  black_box: bool = False  # records hold another model's prediction
  range: str = ''
  licence: str = ''
  citation: str = ''


def from_json(saved: Mapping[str, Any]) -> DataInfo:
  """What dataclasses.asdict made of a DataInfo, through JSON; what is not there is empty."""
  from car_jax.metrics.flips import Flip

  empty: dict[str, Any] = dict(name='', num_classes=0, class_names=(), palette=(), readers=0)
  plain = {k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()}
  flips = tuple(Flip(*f) for f in plain.pop('flips', ()))
  return DataInfo(**empty | plain, flips=flips)


class Source(Protocol):
  def __len__(self) -> int: ...

  def __getitem__(self, index: int) -> dict[str, Any]: ...


@dataclasses.dataclass(frozen=True)
class Dataset:
  """`split('validation[:50%]')` follows TFDS' way of slicing; records have a fixed order."""

  info: DataInfo
  split: Any


def ids(records: Source) -> list[str]:
  """Of all records, in their order; prepared ones are not decoded for it."""
  read = getattr(records, 'ids', lambda: [records[i]['id'] for i in range(len(records))])
  return read()


def sizes(records: Source) -> list[tuple[int, int]]:
  """(H, W) of all records' images, in their order; prepared ones are not decoded for it."""
  if hasattr(records, 'image_sizes'):
    return records.image_sizes()
  shapes = (records[i]['image'].shape for i in range(len(records)))
  return [(int(shape[0]), int(shape[1])) for shape in shapes]


@dataclasses.dataclass(frozen=True)
class Picked:
  """Some records of a source, in the given order."""

  source: Any
  indices: Sequence[int]

  def __len__(self) -> int:
    return len(self.indices)

  def image_sizes(self) -> list[tuple[int, int]]:
    every = sizes(self.source)
    return [every[int(i)] for i in self.indices]

  def __getitem__(self, k: int) -> dict[str, Any]:
    return self.source[int(self.indices[k])]


def num_bytes(records: Source) -> int:
  """How large the whole split is on the disk; 0 for what is made in memory."""
  return records.num_bytes() if hasattr(records, 'num_bytes') else 0


def check_range(split: str, count: int) -> None:
  """Raises UserError where 'train[:100]' asks for more than the `count` images of the split."""
  if over := [n for n in re.findall(r'(?<=[\[:])-?(\d+)(?=[:\]])', split) if int(n) > count]:
    raise UserError(
      f'the split {split!r} asks for {over[0]} images; {split_name(split)} has {count:,}\n'
      f'  use {split_name(split)}, or a share such as {split_name(split)}[:50%]'
    )


def split_name(split: str) -> str:
  """'train[:50%]' -> 'train'. Raises UserError for a text of another form."""
  if not re.fullmatch(r'\w+(\[(-?\d+%?)?:(-?\d+%?)?\])?', split):
    raise UserError(f'cannot read the split {split!r}; expected NAME, NAME[10:20] or NAME[:50%]')
  return split.partition('[')[0]


def sliced(records: Sequence[Any], split: str) -> Sequence[Any]:
  """TFDS' '[a:b]' on a sequence, in numbers or per cent, for data that is made in memory."""
  check_range(split, len(records))
  begin, _, end = split.removeprefix(split_name(split)).strip('[]').partition(':')

  def bound(text: str) -> int | None:
    if not text:
      return None
    return round(len(records) * int(text[:-1]) / 100) if text.endswith('%') else int(text)

  return records[bound(begin) : bound(end)]


def colours(count: int) -> tuple[tuple[int, int, int], ...]:
  """A palette for classes that have none."""
  return tuple((k * 97 % 256, k * 57 % 256, k * 173 % 256) for k in range(count))
