"""Which classes predictions made elsewhere are of: as the user says, as their arrays tell."""

import re
from collections.abc import Sequence
from typing import Any

from car_jax.data import labels as cityscapes
from car_jax.data.sources import colours
from car_jax.errors import UserError
from car_jax.predictions.reading import BESIDE, IGNORED, MOST_CLASSES, UNKNOWN, Arrays
from car_jax.predictions.sources import Labels, Predictions
from car_jax.reliability.interpret import KINDS

_VALUED = re.compile(r'(\d+):\s*(.+)')
CITYSCAPES = cityscapes.CLASS_NAMES[: cityscapes.SCORED]


def given(text: str) -> tuple[tuple[str, ...], dict[int, int]]:
  """NUMBER, NAME,NAME,.. or VALUE:NAME,.. -> the classes' names in the order of their ids, and
  which numbers of maps are which id; both are empty for ''. Raises UserError.

  Several values may have one name: then they are one class.
  """
  if not text or text.isdigit():
    return (_numbered(int(text)) if text else ()), {}
  parts = [part.strip() for part in text.split(',')]
  valued = [m for part in parts if (m := _VALUED.fullmatch(part))]
  values = [int(m[1]) for m in valued]
  names = tuple(dict.fromkeys(m[2] for m in valued) if values else parts)
  count = len({*(values or names)})
  if count < len(parts) or not all(names) or not 2 <= len(names) <= MOST_CLASSES:
    raise UserError(
      f'--classes {text}: expected 2 to {MOST_CLASSES} names that differ, or their number\n'
      '  such as --classes background,nodule, or of masks of 0 and 255 '
      '--classes 0:background,255:nodule'
    )
  return names, {value: names.index(m[2]) for value, m in zip(values, valued, strict=True)}


def names(
  labels: Labels, predictions: Sequence[Predictions], ids: Sequence[str]
) -> tuple[str, ...]:
  """The classes' names, in the order of their ids, where the user does not give them.

  Saved folders say them, else arrays of floats how many there are, else ids that are all 0 or 1.
  Raises UserError where that does not tell.
  """
  of_index = {p.names: p.about for p in predictions if p.names}
  if len(of_index) > 1:
    one, two = of_index.values()
    raise UserError(f'{one} and {two} have other classes\n  score them one by one')
  if of_index:
    return next(iter(of_index))
  size = labels.raw(ids[0]).shape[1:]
  counts = {
    _count(arrays, size, at): p.about for p in predictions for at, arrays in p.arrays(ids[0])
  }
  counts.pop(0, None)
  if len(counts) > 1:
    (few, one), (many, two), *_ = sorted(counts.items())
    raise UserError(f'{one} has {few} classes, {two} {many}\n  score them one by one')
  return _numbered(next(iter(counts), 0) or _binary(labels, predictions, ids))


def _numbered(count: int) -> tuple[str, ...]:
  if not 2 <= count <= MOST_CLASSES:
    raise UserError(f'{count} classes; expected 2 to {MOST_CLASSES}')
  return tuple(f'class {k}' for k in range(count))


def _binary(labels: Labels, predictions: Sequence[Predictions], ids: Sequence[str]) -> int:
  """2, where no label map has an id beyond 1: how many classes there are else, no map tells."""
  for id in ids:
    raw = labels.raw(id)
    known = raw[(raw != IGNORED) & (raw != UNKNOWN)]
    most = max([int(known.max(initial=0)), *(_most(p.arrays(id)) for p in predictions)])
    if most == IGNORED:
      raise masks(id)
    if most > 1:
      raise UserError(
        f'label maps do not tell how many classes there are; {id} has class {most}\n'
        f'  give --classes {most + 1} (or more), or --classes NAME,NAME,..'
      )
  return 2


def masks(where: Any) -> UserError:
  """Of maps in which only 255 can be the foreground."""
  return UserError(
    f'{where} has masks of 0 and 255, and 255 is void: nothing would be scored there\n'
    '  if it is the foreground: --classes 0:background,255:foreground (and 1:foreground, where '
    'some have 1)\n  if it is void all the same: --classes 0:background,1:foreground'
  )


def _most(opened: Sequence[tuple[Any, Arrays]]) -> int:
  """The largest class id in an image's label maps."""
  maps = [x for _, arrays in opened for name, x in arrays.items() if name not in BESIDE]
  return max((int(x.max()) for x in maps if x.size and x.dtype.kind in 'iub'), default=0)


def _count(arrays: Arrays, size: tuple[int, ...], path: Any) -> int:
  """How many classes a file's floats have, by the axis beside those of the label; 0 for label maps.

  Raises UserError where that cannot be told.
  """
  kinds = ('probabilities', 'logits', 'samples')
  beside = [x for name, x in arrays.items() if name not in (*KINDS, *BESIDE)]
  scores = [x for x in [*(arrays[k] for k in kinds if k in arrays), *beside] if x.dtype.kind == 'f']
  if not scores:
    return 0
  x = scores[0]
  if x.ndim == 2:
    return 2
  last, first = x.shape[-3:-1] == size, x.ndim > 2 and x.shape[-2:] == size
  if last == first or (first and x.ndim == 3 and 'samples' in arrays):
    why = 'either axis may be the classes' if last else 'no axis is surely the classes'
    other = '' if last or first else '; and --resize bilinear where it has another size'
    raise UserError(
      f'{path}: shape {x.shape}, its label is {size[0]} x {size[1]}: {why}\n'
      f'  give --classes NUMBER, or NAME,NAME,..{other}'
    )
  return max(2, x.shape[-1 if last else -3])


def palette(class_names: Sequence[str]) -> tuple[tuple[int, int, int], ...]:
  if tuple(class_names) == CITYSCAPES:
    return cityscapes.PALETTE[: cityscapes.SCORED]
  return ((0, 0, 0), (230, 120, 0)) if len(class_names) == 2 else colours(len(class_names))
