"""What every builder shares: the prepared record, its metadata, and how bad files are collected.

A builder yields `(id, group, image, labels)`, perhaps with a black-box map; this module turns it
into the prepared record that car_jax/data/sources.py reads. Written as ArrayRecord, so that no
TensorFlow is needed.
"""

import collections
import dataclasses
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from car_jax import files, pictures
from car_jax.data import prepared
from car_jax.errors import UserError, reading
from car_jax.meter import duration
from datasets import fingerprint, spans, stopping
from datasets.options import Option
from datasets.problems import Problems

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

  def metadata(self, options: dict[str, Any]) -> dict[str, Any]:
    """All but the examples, as JSON, with its checksum."""
    meta = {k: v for k, v in vars(self).items() if k != 'splits'} | {'options': options}
    meta |= {'class_names': [*self.class_names], 'palette': [[*p] for p in self.palette]}
    return meta | {'checksum': prepared.checksum(meta)}


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A multi-reader segmentation data set. Subclasses say what is in a source."""

  VERSION = tfds.core.Version('1.0.0')
  CONFIG = 'car_lidc'  # of those in configs/, one to begin with
  SOURCE = 'its folder'  # what --source names; empty: the data need none
  OPTIONS: dict[str, Option] = {}

  @classmethod
  def check(cls, values: dict[str, Any]) -> None:
    """Raises UserError for options that do not go together; each is in its range already."""

  def contents(self, options: Options, problems: Problems) -> Contents:
    raise NotImplementedError

  def _info(self) -> tfds.core.DatasetInfo:
    self.problems = Problems()
    self.seen = fingerprint.Fingerprint()
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
      metadata=tfds.core.MetadataDict(c.metadata(self.builder_config.values)),
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    return {s: self._generate_examples(s) for s in self.found.splits}

  def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    count, examples = self.found.splits[split]
    any_good = False
    for name, group, *arrays in progress(examples(), count, f'{self.name} {split}'):
      kinds = zip(('image', 'labels', 'black_box'), arrays, strict=False)
      record = {kind: np.ascontiguousarray(array) for kind, array in kinds}
      if any('\ud800' <= c <= '\udfff' for c in name + group):
        self.problems.add(ascii(name), 'is not called in UTF-8; rename it')
        continue
      if twin := self.seen.add(split, name, record['image'], record['labels']):
        self.twice(f'{split}/{name}', twin)
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

  def told(self) -> list[str]:
    """What was prepared and what was left out, line by line."""
    c = self.found
    return [
      *self.seen.lines(c.class_names, c.ignore_label, c.unknown_label),
      *(['left out or changed:', *self.problems.noted()] if self.problems.notes else []),
    ]

  def twice(self, example: str, first: str) -> None:
    """Two splits have the same pixels under two names; published data may."""
    self.problems.note(example, f'WARNING: the same pixels as an example of {first.split("/")[0]}')


def scale(default: float) -> Option:
  """The option of data sets that are stored smaller than they come."""
  return Option(default, 'share of their size that images are stored at', 0.001, 1)


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


def open_picture(path: pathlib.Path, problems: Problems) -> pictures.Picture | None:
  """A decoded picture; None, with the problem noted, if any of the file is missing or damaged."""
  with problems.collecting():
    with reading(path, 'a picture'):
      try:
        path.lstat()
      except FileNotFoundError:
        problems.add(path, 'missing')
        return None
    return pictures.open_picture(path)
  return None


def read_image(
  path: pathlib.Path, problems: Problems, colour: bool = False, span: spans.Span | None = None
) -> np.ndarray | None:
  """A picture as uint8 [H, W, 1 or 3]; None, with the problem noted, if it cannot be used.

  span: what of a picture of more than 8 bits is kept, of builders that have --range; others refuse
  such a picture. Transparency is left out, and that is noted.
  """
  picture = open_picture(path, problems)
  if picture is None:
    return None
  values = picture.shown
  if picture.deep:
    with problems.collecting():
      values = spans.to_bytes(path, values, span)
      problems.note(path, f'image of {values_kind(picture)}, brought to 8 by --range {span}')
    if values.dtype != np.uint8:
      return None
  if picture.alpha is not None and not opaque(picture.alpha):
    problems.note(path, 'image with transparent pixels, taken with the colours that they have')
  return _channels(values, colour)


def values_kind(picture: pictures.Picture) -> str:
  return f'{picture.values.dtype.itemsize * 8} bits ({picture.values.dtype})'


def opaque(alpha: np.ndarray) -> bool:
  """Whether transparency says nothing: every pixel is wholly there."""
  most = np.iinfo(alpha.dtype).max if alpha.dtype.kind in 'iu' else 1
  return bool((alpha == most).all())


def _channels(values: np.ndarray, colour: bool) -> np.ndarray:
  """[H, W] or [H, W, 3], bytes or bits -> uint8 [H, W, 3] if `colour`, else [H, W, 1] as Pillow."""
  from PIL import Image

  if values.dtype == bool:
    values = np.uint8(255) * values
  if values.ndim == 2:
    return np.repeat(values[..., None], 3, 2) if colour else values[..., None]
  return values if colour else np.asarray(Image.fromarray(values).convert('L'))[..., None]


def read_values(
  path: pathlib.Path,
  problems: Problems,
  coloured: bool = False,
  mend: str = 'save it as grey values',
) -> np.ndarray | None:
  """The whole numbers of a mask [H, W] as the file has them, of any depth; None if unusable.

  Palette files count by index; three equal channels count as one. If `coloured`, 0xRRGGBB. Floats
  are refused, and so is transparency, which could mean anything. mend: for a coloured file.
  """
  picture = open_picture(path, problems)
  if picture is None:
    return None
  if picture.alpha is not None and not opaque(picture.alpha):
    problems.add(path, 'has transparent pixels, which mean no class; save it without transparency')
    return None
  if picture.values.dtype.kind == 'f':
    problems.add(path, 'holds floats; a mask holds whole numbers, save it as such')
    return None
  values = picture.shown if coloured else picture.values
  if values.ndim == 3 and not coloured:
    if (values != values[..., :1]).any():
      problems.add(path, f'is coloured; {mend}')
      return None
    values = values[..., 0]
  if not coloured:
    return values
  if picture.deep:
    problems.add(path, f'has colours of {values_kind(picture)}; #RRGGBB are of 8 bits')
    return None
  r, g, b = np.moveaxis(_channels(values, True).astype(np.int32), -1, 0)
  return r << 16 | g << 8 | b


def read_mask(path: pathlib.Path, problems: Problems) -> np.ndarray | None:
  """A grey picture of labels [H, W], uint8 where they fit, bits as 0 and 255; None as above."""
  values = read_values(path, problems)
  if values is None:
    return None
  return np.uint8(255) * values if values.dtype == bool else _narrow(values)


def read_ids(path: pathlib.Path, problems: Problems) -> np.ndarray | None:
  """Class numbers [H, W], grey or palette indices; None, with the problem noted."""
  picture = open_picture(path, problems)
  if picture is None:
    return None
  if picture.values.ndim != 2 or picture.values.dtype.kind not in 'iub':
    kind = 'floats' if picture.values.dtype.kind == 'f' else 'colours'
    problems.add(path, f'is a picture of {kind}; expected 8-bit class numbers')
    return None
  ids = _narrow(picture.values)
  if ids.dtype == np.uint8:
    return ids
  problems.add(path, f'has values from {ids.min()} to {ids.max()}; expected 8-bit class numbers')
  return None


def _narrow(values: np.ndarray) -> np.ndarray:
  """As uint8 if nothing is lost, else as they are; a caller then finds ids that are no class."""
  small = values.astype(np.uint8)
  return small if (small == values).all() else values


def fits(
  path: pathlib.Path,
  image: np.ndarray,
  masks: Iterable[tuple[pathlib.Path, np.ndarray]],
  problems: Problems,
) -> bool:
  """Whether all masks [H, W] have the size of the image at `path`; those that have not are named.

  Every file is turned by its own EXIF tag and by no other's; where that is why, it is said.
  """
  good = True
  h, w = image.shape[:2]
  for where, mask in masks:
    if mask.shape != (h, w):
      turned = [p for p in (path, where) if pictures.orientation(p) > 1]
      why = f'; by its EXIF tag {turned[0]} is turned, the other is not' if len(turned) == 1 else ''
      size = f'{mask.shape[1]}x{mask.shape[0]}'
      problems.add(where, f'{size} pixels, its image {path} {w}x{h}{why}')
      good = False
  return good


def files_under(folder: pathlib.Path, problems: Problems) -> list[pathlib.Path]:
  """Every file below, in the order of the paths; see files.walk.

  What is passed over is noted; what cannot be looked into is a problem.
  """
  stopping.check()

  def failed(error: UserError) -> None:
    with problems.collecting():
      raise error

  return [p for p in files.walk(folder, passed=problems.note, failed=failed) if not p.is_dir()]


def numbered(
  folder: pathlib.Path, digits: int, frames: range, problems: Problems
) -> dict[int, pathlib.Path]:
  """Number -> path of those of `frames` that are there, in order; other names are problems.

  Files are called by their number alone, such as 00001.png. Raises UserError where none is there.
  """
  found = {}
  for path in sorted(folder.glob('*')):
    if files.is_leftover(path):
      problems.note(path, 'leftover of the system, passed over')
    elif path.suffix != '.png' or len(path.stem) != digits or not path.stem.isdecimal():
      problems.add(path, f'expected a number of {digits} digits and .png; move other files away')
    elif int(path.stem) in frames:
      found[int(path.stem)] = path
    else:
      problems.note(path, 'frame that is not read')
  if not found:
    problems.stop_if_any(folder.parent)
    first, last = (f'{n:0{digits}}.png' for n in (frames[0], frames[-1]))
    raise UserError(f'{folder} holds none of {first} to {last}\n  see docs/data.md')
  return found


def listed_numbers(path: pathlib.Path) -> frozenset[int]:
  """The numbers of a text file, where lines that begin with # are remarks."""
  lines = path.read_text().splitlines()
  return frozenset(int(n) for line in lines if not line.startswith('#') for n in line.split())
