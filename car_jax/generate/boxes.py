"""Where an object is inpainted into a scene, and its mask (GenVal, arXiv 2312.09231).

A box of random size is the middle of a crop half as large again, which the net sees; the crop lies
in the lower three quarters of the scene. Letters: H x W pixels of the scene.
"""

from typing import NamedTuple

import numpy as np

from car_jax.data.transforms import nearest_resized
from car_jax.errors import UserError

SIZES = (256, 512)
SIDE = 512
"""Of the picture that the net sees."""
BLUR = 128
INSIDE = 128
"""From this grey level on a pixel of a mask is repainted."""


class Box(NamedTuple):
  """A square of the scene, `row` and `column` its first; `crop`, the side of that around it."""

  row: int
  column: int
  size: int
  crop: int

  @property
  def margin(self) -> int:
    """From the crop's border to the box, above and at the left."""
    return (self.crop - self.size) // 2

  def crop_of(self, scene: np.ndarray) -> np.ndarray:
    """scene [H, W, ..] -> [crop, crop, ..]"""
    row, column = self.row - self.margin, self.column - self.margin
    return scene[row : row + self.crop, column : column + self.crop]

  def inside(self, scene: np.ndarray) -> np.ndarray:
    """scene [H, W, ..] -> its pixels [size, size, ..] in the box, a view."""
    return scene[self.row : self.row + self.size, self.column : self.column + self.size]

  def mask(self, height: int, width: int) -> np.ndarray:
    """[H, W] uint8, 255 inside."""
    mask = np.zeros((height, width), np.uint8)
    mask[self.row : self.row + self.size, self.column : self.column + self.size] = 255
    return mask


def crop_side(size: int) -> int:
  return int(1.5 * size)


def crop_ranges(height: int, width: int, size: int) -> tuple[tuple[int, int], tuple[int, int]]:
  """Where the crop around a box may begin: rows and columns, first and last included.

  Raises UserError for a scene that has no place for it.
  """
  side = crop_side(size)
  rows, columns = (height // 4, height - side), (0, width - side)
  if rows[1] < rows[0] or columns[1] < 0:
    raise UserError(
      f'a scene of {height}x{width} has no place for a box of {size}: '
      f'its crop of {side} lies below row {height // 4}\n'
      f'  the largest that fits: {_largest(height, width)}'
    )
  return rows, columns


def _largest(height: int, width: int) -> int:
  side = min(height - height // 4, width)
  return max((s for s in range(side + 1) if crop_side(s) <= side), default=0)


def draw(rng: np.random.Generator, height: int, width: int, sizes: tuple[int, int] = SIZES) -> Box:
  """A box of a scene: size, crop's row and crop's column uniform, ends included."""
  size = int(rng.integers(*sizes, endpoint=True))
  rows, columns = crop_ranges(height, width, size)
  row, column = (int(rng.integers(*ends, endpoint=True)) for ends in (rows, columns))
  return _cropped(row, column, size)


def draw_on(
  rng: np.random.Generator, allowed: np.ndarray, sizes: tuple[int, int] = SIZES
) -> Box | None:
  """As `draw`, of boxes whose middle is where `allowed` [H, W] is True; None where none is."""
  size = int(rng.integers(*sizes, endpoint=True))
  height, width = allowed.shape
  rows, columns = crop_ranges(height, width, size)
  middle = (crop_side(size) - size) // 2 + size // 2
  window = [slice(first + middle, last + middle + 1) for first, last in (rows, columns)]
  places = np.argwhere(allowed[window[0], window[1]])
  if not len(places):
    return None
  row, column = places[rng.integers(len(places))].tolist()
  return _cropped(row + rows[0], column + columns[0], size)


def _cropped(row: int, column: int, size: int) -> Box:
  """The box whose crop begins there."""
  margin = (crop_side(size) - size) // 2
  return Box(row + margin, column + margin, size, crop_side(size))


def resized(image: np.ndarray, height: int, width: int) -> np.ndarray:
  """uint8 [h, w, ..] -> [height, width, ..], bicubic as OpenCV has it, without antialiasing."""
  import cv2

  return cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=cv2.INTER_CUBIC)


def crop_mask(box: Box, side: int = SIDE) -> np.ndarray:
  """The mask of a crop as the net's picture has it, [side, side] uint8, 255 in the box."""
  inner = Box(box.margin, box.margin, box.size, box.crop).mask(box.crop, box.crop)
  return nearest_resized(inner, side, side)


def blurred_mask(box: Box, side: int = SIDE) -> np.ndarray:
  """`crop_mask` as published: blurred over a fourth of its side, mirrored at the border.

  What is repainted is this from INSIDE on: the
  box, one pixel larger at the right and below, with round corners; no soft seam, since pipelines
  of inpainting take masks for yes or no.
  """
  import cv2

  return cv2.blur(crop_mask(box, side), (side * BLUR // SIDE,) * 2)


def latent_mask(mask: np.ndarray, factor: int = 8) -> np.ndarray:
  """A mask [H, W] uint8 -> [H/factor, W/factor] bool: the first pixel of each, from INSIDE on."""
  return mask[::factor, ::factor] >= INSIDE
