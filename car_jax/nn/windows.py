"""Prediction in overlapping windows, for nets trained on crops (RELIS, arXiv 2303.11298).

Letters: B images, H x W pixels, C classes.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from car_jax.errors import UserError
from car_jax.nn.layers import at_least_float32
from car_jax.nn.resize import resize_bilinear
from car_jax.typing import Array

Sides = int | tuple[int, int]  # of a window: both alike, or height and width


def starts(size: int, crop: int, stride: int) -> list[int]:
  """Where windows begin on one axis; the last is shifted back inside."""
  count = max(size - crop + stride - 1, 0) // stride + 1
  return [min(i * stride, max(size - crop, 0)) for i in range(count)]


def sliding(
  apply: Callable[[Array], Array],
  image: Array,
  crop: tuple[int, int],
  stride: tuple[int, int],
  *,
  tapered: bool = False,
) -> Array:
  """image [B, H, W, channels] -> logits [B, H, W, C]: the mean of those of the windows on a pixel.

  tapered: windows count less towards their borders. `apply` gives logits of its input's size. It
  sees one window of all B images at a time, and logits are added up as they come, so memory does
  not grow with the number of windows.
  """
  size = image.shape[1:3]
  crop = (min(crop[0], size[0]), min(crop[1], size[1]))
  rows, columns = (starts(*axis) for axis in zip(size, crop, stride, strict=True))
  places = np.array([(top, left) for top in rows for left in columns], np.int32)
  if len(places) == 1:
    return apply(image)
  window = (image.shape[0], *crop, image.shape[-1])
  weights = [taper(side) if tapered else np.ones(side, np.float32) for side in crop]
  logits = jax.eval_shape(apply, jax.ShapeDtypeStruct(window, image.dtype))

  def add(total: Array, place: Array) -> tuple[Array, None]:
    start = (zero := np.int32(0), place[0], place[1], zero)
    part = apply(jax.lax.dynamic_slice(image, start, window))
    if tapered:
      part = part * weights[0][:, None, None] * weights[1][:, None]
    here = jax.lax.dynamic_slice(total, start, part.shape)
    return jax.lax.dynamic_update_slice(total, here + part, start), None

  empty = jnp.zeros((image.shape[0], *size, logits.shape[-1]), logits.dtype)
  sums = zip(size, weights, (rows, columns), strict=True)
  down, across = (summed(*axis) for axis in sums)
  # multiplied on the device: of large images the product is megabytes of a program
  return jax.lax.scan(add, empty, places)[0] / jnp.multiply(down[:, None, None], across[:, None])


def taper(side: int) -> np.ndarray:
  """[side]: up to 1 in the middle of a window, down to its borders; of two windows that are apart
  by whole pixels none is the same at any pixel."""
  return (np.minimum(np.arange(1, side + 1), np.arange(side, 0, -1) + 0.5) / side).astype('f4')


def summed(size: int, weights: np.ndarray, begins: list[int]) -> np.ndarray:
  """[size]: the weights of the windows of an axis on each place."""
  out = np.zeros(size, np.float32)
  for begin in begins:
    out[begin : begin + len(weights)] += weights
  return out


def predicted(
  apply: Callable[[Array], Array],
  image: Array,
  size: tuple[int, ...],
  *,
  crop: Sides = 0,
  stride: Sides = 0,
  align_corners: bool = False,
) -> Array:
  """Logits [B, *size, C] float32: by windows of `crop` (0: the whole image), then resized."""
  image = jnp.asarray(image)
  logits = sliding(apply, image, sides(crop), sides(stride)) if crop else apply(image)
  return resize_bilinear(at_least_float32(logits), size, align_corners=align_corners)


def sides(x: Sides) -> tuple[int, int]:
  """Height and width."""
  return (x, x) if isinstance(x, int) else x


def check(crop: Sides, stride: Sides) -> None:
  """Raises UserError for windows that leave gaps."""
  for c, s in zip(sides(crop), sides(stride), strict=True):
    if c < 0 or not (0 < s <= c or s == c == 0):
      raise UserError(
        f'config.method.crop is {crop} and stride {stride}\n'
        '  give both, stride from 1 to crop, or 0 for whole images; such as --config.method.stride='
        f'{max(1, 3 * c // 4)}'
      )
