"""Which unlabelled images to train on, by the classes that a model found on them.

Every class has its turn, however rare it is; within a class an image is drawn by its share of the
class's pixels, mixed with the uniform distribution. From DA-SAC (arXiv 2105.00097). Letters:
I images, C classes, H x W pixels.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from car_jax import arrays as array_files
from car_jax.errors import UserError, nearest, reading

COMMAND = 'python -m car_jax.evaluate.label_maps FOLDER'  # of label maps that were saved
MOST = 1 << 40  # pixels of one class on one image


@dataclasses.dataclass(frozen=True)
class Counts:
  """pixels [I, C]: how many of each class a model found on each image."""

  ids: tuple[str, ...]
  pixels: np.ndarray

  @property
  def shares(self) -> np.ndarray:
    """[I, C] float64: of all pixels of a class, those on this image; 0 for a class never found."""
    total = self.pixels.sum(0)
    return self.pixels / np.where(total > 0, total, 1)

  def of(self, ids: Sequence[str]) -> 'Counts':
    """The rows of these images, in their order. Raises UserError for one that was not counted."""
    place = {name: i for i, name in enumerate(self.ids)}
    for name in ids:
      if name not in place:
        raise UserError(
          f'the image {name!r} was not counted\n{nearest(name, self.ids[:1000])}\n'
          '  save label maps of the split that is trained on, then: ' + COMMAND + ' FILE'
        )
    return Counts(tuple(ids), self.pixels[[place[name] for name in ids]])

  def save(self, path: pathlib.Path) -> None:
    with path.open('wb') as file:
      np.savez_compressed(file, ids=np.array(self.ids), pixels=self.pixels)


def counted(maps: Iterable[tuple[str, np.ndarray]], num_classes: int) -> Counts:
  """(id, predicted classes [H, W]) of every image -> their counts; other values are left out."""
  ids, rows = [], []
  for name, classes in maps:
    ids.append(name)
    rows.append(np.bincount(np.ravel(classes), minlength=num_classes)[:num_classes])
  return Counts(tuple(ids), np.array(rows, np.int64).reshape(len(ids), num_classes))


def load(path: pathlib.Path, num_classes: int) -> Counts:
  """What `save` wrote. Raises UserError for another file, counts that count nothing, an image that
  is there twice, and another number of classes."""
  if not path.exists():
    raise UserError(f'no such file {path}\n  to make it of saved label maps: {COMMAND} {path}')
  mend = f'to make them: {COMMAND} {path}'
  arrays = array_files.read(path, mend)
  with reading(path, 'counts of classes per image', mend):
    ids, pixels = arrays.pop('ids'), arrays.pop('pixels')
    if arrays or ids.dtype.kind != 'U' or pixels.dtype.kind not in 'iu' or not pixels.size:
      raise ValueError(f'ids are {ids.dtype} {ids.shape}, pixels {pixels.dtype} {pixels.shape}')
    if ids.ndim != 1 or pixels.ndim != 2 or len(ids) != len(pixels):
      raise ValueError(f'ids have the shape {ids.shape}, pixels {pixels.shape}')
    if not 0 <= pixels.min() <= pixels.max() <= MOST:
      raise ValueError(f'it counts {pixels.min()} to {pixels.max()} pixels of a class')
    counts = Counts(tuple(map(str, ids)), pixels.astype(np.int64))
    if len({*counts.ids}) < len(ids):
      raise ValueError(f'{max(counts.ids, key=counts.ids.count)!r} is there twice')
  if pixels.shape[-1] != num_classes:
    raise UserError(
      f'{path} counts {pixels.shape[-1]} classes, the data set has {num_classes}\n'
      '  count the predictions of a model that has the same classes'
    )
  return counts


def distribution(
  shares: np.ndarray, *, prior: float = 0.25, ignored: Collection[int] = ()
) -> np.ndarray:
  """[I, C] -> cumulative [C, I] float64: per class, the chance that image i or one before is drawn.

  `prior` is the weight of the uniform distribution. Classes that are `ignored`, or were found
  nowhere (where the published code stops), are drawn uniformly.
  """
  uniform = np.full(len(shares), 1 / len(shares))
  rows = []
  for c, share in enumerate(np.transpose(shares)):
    known = c not in ignored and share.any()
    rows.append(prior * uniform + (1 - prior) * share if known else uniform)
  return np.cumsum(rows, 1)


def pick(cumulative: np.ndarray, turn: int, u: float) -> int:
  """The image of the class whose turn it is (turn mod C), for u in [0, 1)."""
  row = cumulative[turn % len(cumulative)]
  return int(np.searchsorted(row, u * row[-1]))


@dataclasses.dataclass(frozen=True)
class Draws:
  """draws[n] -> the image of draw n: a pure function of (seed, n).

  An epoch is `length` draws, in which the turns of the classes come in a new order.
  """

  cumulative: np.ndarray
  seed: int
  length: int

  def __getitem__(self, n: int) -> int:
    epoch, place = divmod(n, self.length)
    turn = int(_turns(self.seed, epoch, self.length)[place])
    return pick(self.cumulative, turn, np.random.default_rng([self.seed, n, 2, 4]).random())


@functools.lru_cache(maxsize=4)
def _turns(seed: int, epoch: int, length: int) -> np.ndarray:
  return np.random.default_rng([seed, epoch, 0, 3]).permutation(length)
