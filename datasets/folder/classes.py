"""What the values of a mask mean: grey values, palette indices or colours -> class numbers."""

import dataclasses
import os
import pathlib
import re

import numpy as np

from car_jax import files
from car_jax.data.labels import IGNORED_TRAIN_ID, UNKNOWN_LABEL
from car_jax.datasets import common
from car_jax.errors import UserError

IGNORE = 'ignore'
OUTSIDE = {'void': IGNORED_TRAIN_ID, 'unknown': UNKNOWN_LABEL}  # names that are no class
PALETTE = [(0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178)]
PALETTE += [(213, 94, 0), (204, 121, 167), (153, 153, 153), (255, 255, 255)]
SHOWN = 8  # values of a mask that are no class are named
MOST = 254  # classes: labels are stored in bytes, and two numbers have a meaning of their own


@dataclasses.dataclass(frozen=True)
class Classes:
  """`of` maps a mask's values, grey or index or (if `coloured`) 0xRRGGBB, to class numbers."""

  names: tuple[str, ...]
  of: dict[int, int]
  coloured: bool = False

  @property
  def ignore_label(self) -> int | None:
    """Pixels that are not to be learnt: the last class, if it is called 'ignore', or 255."""
    if IGNORE in self.names:
      return len(self.names) - 1
    return IGNORED_TRAIN_ID if set(self.of.values()) & set(OUTSIDE.values()) else None

  @property
  def unknown_label(self) -> int | None:
    return UNKNOWN_LABEL if UNKNOWN_LABEL in self.of.values() else None

  @property
  def palette(self) -> tuple[tuple[int, int, int], ...]:
    if not self.coloured:
      return tuple(PALETTE[i % len(PALETTE)] for i in range(len(self.names)))
    first = {number: value for value, number in reversed(self.of.items())}
    return tuple(_rgb(first[i]) for i in range(len(self.names)))


def _rgb(value: int) -> tuple[int, int, int]:
  """0xRRGGBB -> (r, g, b)."""
  return value >> 16, value >> 8 & 255, value & 255


def parse(text: str) -> Classes:
  """'0:background,255:lesion' or '#000000:road,#ff0000:car', or a file of such pairs, one a line.

  Numbers follow the order of the names, 'ignore' being last; 'void' (ignored) and 'unknown' are no
  classes. Empty: 0 is background, 1 and 255 are object. Raises UserError for another form.
  """
  if not text:
    return Classes(('background', 'object'), {0: 0, 1: 1, 255: 1})
  if ':' not in text and os.path.isfile(text):
    text = _listed(text)
  pairs = [_pair(part, text) for part in text.split(',')]
  names = list(dict.fromkeys(name for _, name in pairs if name not in OUTSIDE))
  if IGNORE in names and any(name == 'void' for _, name in pairs):
    raise UserError(f"--classes {text!r} has 'ignore', a class, and 'void', none\n  keep one")
  if not set(names) - {IGNORE}:
    raise UserError(f'--classes {text!r} names no class')
  names.sort(key=lambda name: name == IGNORE)
  coloured = {value.startswith('#') for value, _ in pairs}
  if len(coloured) > 1:
    raise UserError(f'--classes {text!r} mixes colours and numbers\n  write grey 9 as #090909')
  if len(names) > MOST:
    raise UserError(f'--classes names {len(names)} classes; at most {MOST} are possible')
  number = lambda value: int(value[1:], 16) if value.startswith('#') else int(value)
  of: dict[int, int] = {}
  for value, name in pairs:
    own = OUTSIDE[name] if name in OUTSIDE else names.index(name)
    if of.setdefault(number(value), own) != own:
      raise UserError(f'--classes {text!r} gives {value} two names')
  return Classes(tuple(names), of, coloured.pop())


def _listed(path: str) -> str:
  """The pairs of a file, one a line, joined by commas; empty lines do not count."""
  lines = files.read_text(path, 'a list', '--classes expects lines GREY:NAME').splitlines()
  return ','.join(line for line in lines if line.strip())


def _pair(part: str, text: str) -> tuple[str, str]:
  match = re.fullmatch(r'\s*(#[0-9a-fA-F]{6}|-?[0-9]{1,5})\s*:\s*(\S.{,199}?)\s*', part)
  if not match or (match[1][0] != '#' and int(match[1]) > 65535):
    shown = text if len(text) < 200 else text[:200] + '...'
    raise UserError(
      f'cannot read {part[:99]!r} in --classes {shown!r}\n'
      '  expected GREY:NAME,... such as 0:background,255:lesion, or #RRGGBB:NAME,..., '
      'or a file of them'
    )
  return match[1], match[2]


def read(path: pathlib.Path, classes: Classes, problems: common.Problems) -> np.ndarray | None:
  """A mask file as class numbers uint8 [H, W]; None, with the problem noted, if it cannot be used.

  Palette files count by index (by colour if the map has colours), RGB files whose channels are
  equal as grey ones.
  """
  values = common.read_values(
    path, problems, classes.coloured, 'name its colours: --classes "#RRGGBB:NAME,..."'
  )
  if values is None:
    return None
  seen, place = np.unique(values, return_inverse=True)
  if unknown := [v for v in seen.tolist() if v not in classes.of]:
    text = (lambda v: f'#{v:06x}') if classes.coloured else str
    listed = lambda values: ', '.join(map(text, values))
    kind = 'colour' if classes.coloured else 'grey value'
    kinds, are = (kind, 'is') if len(unknown) == 1 else (f'{kind}s', 'are')
    more = f' and {len(unknown) - SHOWN:,} more' if len(unknown) > SHOWN else ''
    known = listed(sorted(classes.of))
    problems.add(path, f'{kinds} {listed(unknown[:SHOWN])}{more} {are} no class; known: [{known}]')
    return None
  numbers = np.array([classes.of[v] for v in seen.tolist()], np.uint8)
  return numbers[place].reshape(values.shape)
