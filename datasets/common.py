"""How builders read files of other people's: pictures, masks and folders, with what is wrong named.

Functions that read a file return None where it cannot be used, and say why in `problems`.
"""

import pathlib
from collections.abc import Iterable

import numpy as np

from car_jax import files, pictures, spans, stopping
from car_jax.errors import UserError, reading
from car_jax.problems import Problems


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
  with problems.collecting():
    return spans.shown_bytes(path, picture, problems, colour, span)
  return None


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
  if picture.alpha is not None and not spans.opaque(picture.alpha):
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
    problems.add(path, f'has colours of {spans.values_kind(picture)}; #RRGGBB are of 8 bits')
    return None
  r, g, b = np.moveaxis(spans.channels(values, True).astype(np.int32), -1, 0)
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
  paths = {}
  for path in sorted(folder.glob('*')):
    if files.is_leftover(path):
      problems.note(path, 'leftover of the system, passed over')
    elif path.suffix != '.png' or len(path.stem) != digits or not path.stem.isdecimal():
      problems.add(path, f'expected a number of {digits} digits and .png; move other files away')
    elif int(path.stem) in frames:
      paths[int(path.stem)] = path
    else:
      problems.note(path, 'frame that is not read')
  if not paths:
    problems.stop_if_any(folder.parent)
    first, last = (f'{n:0{digits}}.png' for n in (frames[0], frames[-1]))
    raise UserError(f'{folder} holds none of {first} to {last}\n  see docs/data.md')
  return paths


def listed_numbers(path: pathlib.Path) -> frozenset[int]:
  """The numbers of a text file, where lines that begin with # are remarks."""
  lines = path.read_text().splitlines()
  return frozenset(int(n) for line in lines if not line.startswith('#') for n in line.split())
