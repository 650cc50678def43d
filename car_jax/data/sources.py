"""What a data set is to all that reads it: its description, and sources of records by split.

A record is a dict: image uint8 [H, W, 1 or 3], labels uint8 [M, H, W] (one map per reader), id and
group (the patient, the scene: what must not be shared between splits), both str; and black_box
uint8 [H, W], another model's prediction, where the data set has one.
"""

import abc
import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

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


class Source(abc.ABC):
  """Records in a fixed order. What is told of all of them decodes none where it need not."""

  @abc.abstractmethod
  def __len__(self) -> int: ...

  @abc.abstractmethod
  def __getitem__(self, index: int) -> dict[str, Any]: ...

  @functools.cached_property
  def ids(self) -> list[str]:
    """Of all records."""
    return [self[i]['id'] for i in range(len(self))]

  @functools.cached_property
  def sizes(self) -> list[tuple[int, int]]:
    """(H, W) of all records' images."""
    shapes = (self[i]['image'].shape for i in range(len(self)))
    return [(int(shape[0]), int(shape[1])) for shape in shapes]

  @property
  def num_bytes(self) -> int:
    """How large the whole split is on the disk; 0 for what is made in memory."""
    return 0


class Stream(abc.ABC):
  """A training split that makes its own batches."""

  @abc.abstractmethod
  def __len__(self) -> int:
    """Examples of an epoch."""

  @abc.abstractmethod
  def train_batches(
    self, *, seed: int, start_step: int = 0, host: int = 0, hosts: int = 1
  ) -> Iterator[dict[str, np.ndarray]]:
    """This host's rows of batches start_step, start_step + 1, .. without end."""


@dataclasses.dataclass(frozen=True)
class Dataset:
  """`split('validation[:50%]')` follows TFDS' way of slicing; records have a fixed order."""

  info: DataInfo
  split: Callable[[str], Any]


@dataclasses.dataclass(frozen=True)
class Listed(Source):
  """Records that are in memory."""

  records: Sequence[dict[str, Any]]

  def __len__(self) -> int:
    return len(self.records)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return self.records[index]


@dataclasses.dataclass(frozen=True)
class Picked(Source):
  """Some records of a source, in the given order."""

  source: Source
  indices: Sequence[int]

  def __len__(self) -> int:
    return len(self.indices)

  def __getitem__(self, k: int) -> dict[str, Any]:
    return self.source[int(self.indices[k])]

  @functools.cached_property
  def ids(self) -> list[str]:
    return [self.source.ids[int(i)] for i in self.indices]

  @functools.cached_property
  def sizes(self) -> list[tuple[int, int]]:
    return [self.source.sizes[int(i)] for i in self.indices]

  @property
  def num_bytes(self) -> int:
    return self.source.num_bytes


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
