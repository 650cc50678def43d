"""What every builder shares: the prepared record, its metadata, and how bad files are collected.

A builder yields `(id, group, image, labels)`, perhaps with a black-box map; this module turns it
into the prepared record that car_jax/data/sources.py reads. Written as ArrayRecord, so that no
TensorFlow is needed.
"""

import collections
import dataclasses
import io
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from car_jax.errors import UserError
from car_jax.meter import duration
from datasets import stopping

Example = tuple[
  Any, ...
]  # id, group: str, image [H, W, 1 or 3], labels [M, H, W], black box [H, W]
SPLITS = ('train', 'validation', 'test')


@dataclasses.dataclass
class Options(tfds.core.BuilderConfig):
  """A builder's options; those that change the data are part of the prepared folder's name."""

  source: pathlib.Path | None = None
  values: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Contents:
  """What a source holds: metadata, and per split how many examples and an iterator over them."""

  class_names: tuple[str, ...]
  readers: int
  splits: dict[str, tuple[int, Callable[[], Iterable[Example]]]]
  palette: tuple[tuple[int, int, int], ...] = ((0, 0, 0), (230, 159, 0))
  ignore_label: int | None = None
  unknown_label: int | None = None  # in the records' labels: objects of no known class
  black_box: bool = False  # examples have a fifth part
  licence: str = ''
  citation: str = ''


class Problems:
  """Everything wrong with a source, by path, told at once: a user mends a folder in one go."""

  def __init__(self) -> None:
    self.found: list[str] = []

  def add(self, path: Any, what: str) -> None:
    line = f'  {path}: {what}'
    if line not in self.found:  # a file may be read for several splits
      self.found.append(line)

  def stop_if_any(self, source: Any) -> None:
    if self.found:
      lines = '\n'.join(self.found)
      count = f'{len(self.found)} problem{"s" if len(self.found) > 1 else ""}'
      raise UserError(f'{count} in {source}, nothing was prepared:\n{lines}')


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A multi-reader segmentation data set. Subclasses say what is in a source."""

  VERSION = tfds.core.Version('1.0.0')

  def contents(self, options: Options, problems: Problems) -> Contents:
    raise NotImplementedError

  def _info(self) -> tfds.core.DatasetInfo:
    self.problems = Problems()
    self.found = self.contents(self.builder_config, self.problems)
    c = self.found
    tensor = lambda axes=3: tfds.features.Tensor(
      shape=(None,) * axes, dtype=np.uint8, encoding=tfds.features.Encoding.BYTES
    )
    return tfds.core.DatasetInfo(
      builder=self,
      description=(type(self).__doc__ or '').strip(),
      citation=c.citation,
      features=tfds.features.FeaturesDict(
        {
          'image': tensor(),
          'labels': tensor(),
          'id': tfds.features.Text(),
          'group': tfds.features.Text(),
        }
        | ({'black_box': tensor(2)} if c.black_box else {})
      ),
      metadata=tfds.core.MetadataDict(
        class_names=list(c.class_names),
        palette=[list(p) for p in c.palette],
        readers=c.readers,
        ignore_label=c.ignore_label,
        unknown_label=c.unknown_label,
        black_box=c.black_box,
        licence=c.licence,
        citation=c.citation,
        options=self.builder_config.values,
      ),
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    return {s: self._generate_examples(s) for s in self.found.splits}

  def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    count, examples = self.found.splits[split]
    any_good = False
    for name, group, *arrays in progress(examples(), count, f'{self.name} {split}'):
      kinds = zip(('image', 'labels', 'black_box'), arrays, strict=False)
      record = {kind: np.ascontiguousarray(array) for kind, array in kinds}
      yield name, record | {'id': name, 'group': group}
      any_good = True
    order = list(self.found.splits)
    if not any_good:  # the writer takes no empty split: see the others' problems, then stop
      for later in order[order.index(split) + 1 :]:
        collections.deque(self.found.splits[later][1](), maxlen=0)
      if not self.problems.found:
        self.problems.add(f'split {split}', 'has no example')
    if split == order[-1] or not any_good:
      self.problems.stop_if_any(self.builder_config.source)


def progress(items: Iterable[Any], count: int, what: str, every: float = 1.0) -> Iterator[Any]:
  """The same items, with a line of rate and ETA on stderr about every second."""
  began = shown = time.perf_counter()
  n = 0
  for n, item in enumerate(items, 1):
    stopping.check()
    yield item
    now = time.perf_counter()
    if now - shown > every:
      shown, rate = now, n / (now - began)
      left = duration(max(count - n, 0) / rate)
      print(f'\r{what}: {n:,}/{count:,}  {rate:,.0f}/s  ETA {left}  ', end='', file=sys.stderr)
  spent = duration(time.perf_counter() - began)
  print(f'\r{what}: {n:,} in {spent}              ', file=sys.stderr, flush=True)


def open_picture(path: pathlib.Path, problems: Problems) -> Any:
  """A decoded PIL image; None, with the problem noted, if any of the file is missing or damaged."""
  from PIL import Image

  if not path.is_file():
    problems.add(path, 'missing')
    return None
  raw = path.read_bytes()
  if path.suffix.lower() == '.png' and not _whole_png(raw):
    problems.add(path, 'truncated or no PNG')
    return None
  try:
    picture = Image.open(io.BytesIO(raw))
    picture.load()
  except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
    reason = str(e).partition(' <_io')[0]
    problems.add(path, f'cannot be decoded as an image ({reason})')
    return None
  return picture


def read_image(path: pathlib.Path, problems: Problems, colour: bool = False) -> np.ndarray | None:
  """A picture as uint8 [H, W, 1 or 3]; None, with the problem noted, if it cannot be used."""
  from PIL import ImageOps

  picture = open_picture(path, problems)
  if picture is None:
    return None
  if picture.mode[0] in 'IF':
    problems.add(path, 'more than 8 bits per channel; rescale it to 8 bits, the range is yours')
    return None
  picture = ImageOps.exif_transpose(picture).convert('RGB' if colour else 'L')
  return np.atleast_3d(np.asarray(picture))


def read_mask(path: pathlib.Path, problems: Problems) -> np.ndarray | None:
  """A grey picture of labels as uint8 [H, W]; None, with the problem noted, if unreadable."""
  image = read_image(path, problems)
  return None if image is None else image[..., 0]


def read_ids(path: pathlib.Path, problems: Problems) -> np.ndarray | None:
  """A PNG of class numbers [H, W], grey or palette indices; None, with the problem noted."""
  picture = open_picture(path, problems)
  if picture is None:
    return None
  if picture.mode not in ('L', 'P'):
    problems.add(path, f'is a picture of mode {picture.mode}; expected 8-bit class numbers')
    return None
  return np.asarray(picture)


def numbered(
  folder: pathlib.Path, digits: int, frames: range, problems: Problems
) -> dict[int, pathlib.Path]:
  """Number -> path of those of `frames` that are there, in order; other names are problems.

  Files are called by their number alone, such as 00001.png. Raises UserError where none is there.
  """
  found = {}
  for path in sorted(folder.glob('*')):
    if path.suffix != '.png' or len(path.stem) != digits or not path.stem.isdecimal():
      problems.add(path, f'expected a number of {digits} digits and .png; move other files away')
    elif int(path.stem) in frames:
      found[int(path.stem)] = path
  if not found:
    problems.stop_if_any(folder.parent)
    first, last = (f'{n:0{digits}}.png' for n in (frames[0], frames[-1]))
    raise UserError(f'{folder} holds none of {first} to {last}\n  see docs/data.md')
  return found


def listed_numbers(path: pathlib.Path) -> frozenset[int]:
  """The numbers of a text file, where lines that begin with # are remarks."""
  lines = path.read_text().splitlines()
  return frozenset(int(n) for line in lines if not line.startswith('#') for n in line.split())


def _whole_png(raw: bytes) -> bool:
  """Signature and end chunk: a decoder may fill with grey what is missing of a truncated file."""
  return raw[:8] == b'\x89PNG\r\n\x1a\n' and raw[-8:-4] == b'IEND'
