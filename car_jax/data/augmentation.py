"""Random changes of colour and orientation that make a calibration set (arXiv 2303.11298).

A shifted data set has no labels to calibrate on; copies of labelled images, each changed by three
random operations, stand in for it. Every operation takes and gives uint8 images, so that a chain
rounds between its links as the published one does. Letters: H x W pixels.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from car_jax.errors import UserError, nearest

Array = np.ndarray
COLOUR = ('identity', 'RGB_rand', 'brightness', 'color', 'contrast', 'black_and_white')
"""What copies are made with by default: operations that leave every pixel where it is."""
SEED = 111  # of the published copies, for numpy's legacy generator
BLUR = np.pad(np.zeros((3, 3)), 1, constant_values=1 / 16)  # a ring: the pixel itself is left out


def luma(image: Array) -> Array:
  """image uint8 [H, W, 3] -> int32 [H, W], the grey level in 16-bit fixed point."""
  return (image.astype(np.int32) @ np.array([19595, 38470, 7471]) + 32768) >> 16


def away_from(image: Array, base: Array | int, factor: float) -> Array:
  """base + factor * (image - base), cut off towards zero, in float32."""
  ground = np.float32(base)
  moved = ground + np.float32(factor) * (image.astype(np.float32) - ground)
  return np.clip(np.trunc(moved), 0, 255).astype(np.uint8)


def brightness(image: Array, level: float, draw: Any = None) -> Array:
  return away_from(image, 0, level)


def color(image: Array, level: float, draw: Any = None) -> Array:
  """0 leaves grey, 1 the image; beyond 1 its colours are exaggerated."""
  return away_from(image, luma(image)[..., None], level)


def contrast(image: Array, level: float, draw: Any = None) -> Array:
  return away_from(image, int(luma(image).mean() + 0.5), level)


def solarize(image: Array, level: float, draw: Any = None) -> Array:
  return np.where(image < level, image, 255 - image)


def rgb_rand(image: Array, level: float, draw: Any = None) -> Array:
  """One whole number per channel, draw [3], added."""
  return np.clip(image.astype(np.int32) + draw, 0, 255).astype(np.uint8)


def black_and_white(image: Array, level: Any = None, draw: Any = None) -> Array:
  """Weights that sum to 0.91, as published: the image also darkens."""
  grey = np.trunc(image @ np.array([0.3, 0.5, 0.11])).astype(np.uint8)
  return np.repeat(grey[..., None], 3, -1)


def invert(image: Array, level: Any = None, draw: Any = None) -> Array:
  return 255 - image


def identity(image: Array, level: Any = None, draw: Any = None) -> Array:
  return image


def rotate(image: Array, level: float, draw: Any = None) -> Array:
  """Counter-clockwise about the centre by `level` degrees, bilinear, black outside, same size.

  So a quarter turn of an image that is no square loses its corners.
  """
  h, w = image.shape[:2]
  a, b = np.cos(np.deg2rad(level)), np.sin(np.deg2rad(level))
  y, x = np.mgrid[:h, :w] + 0.5
  u = a * (x - w / 2) - b * (y - h / 2) + w / 2
  v = b * (x - w / 2) + a * (y - h / 2) + h / 2
  u, v = np.round(u, 9), np.round(v, 9)  # a pixel of the very edge is inside
  inside = (u >= 0) & (u < w) & (v >= 0) & (v < h)
  at = np.stack([v - 0.5, u - 0.5])
  planes = np.moveaxis(image.astype(np.float64), -1, 0)
  turned = [ndimage.map_coordinates(p, at, order=1, mode='nearest') for p in planes]
  return np.where(inside[..., None], np.trunc(np.stack(turned, -1) + 1e-6), 0).astype(np.uint8)


def blur(image: Array, level: Any = None, draw: Any = None) -> Array:
  """The mean of the 16 pixels of a 5 x 5 ring; two pixels along the edges stay as they are."""
  wide = ndimage.correlate(image.astype(np.float64), BLUR[..., None], mode='nearest')
  out = image.copy()
  out[2:-2, 2:-2] = np.floor(wide + 0.5)[2:-2, 2:-2]
  return out


def gaussian_noise(image: Array, level: float, draw: Any = None) -> Array:
  """draw [H, W, 3] of standard deviation `level` (published as a variance), added."""
  return np.trunc(np.clip(image + np.asarray(draw, np.float64), 0, 255)).astype(np.uint8)


def _turned(degrees: int) -> Callable[..., Array]:
  return lambda image, level=None, draw=None: rotate(image, degrees)


_FACTORS, _ANGLES = np.linspace(0.2, 1.8, 90), np.linspace(-60, 60, 90).astype(int)
OPERATIONS: dict[str, tuple[Callable[..., Array], Array | None]] = {
  # name -> operation(image, level, draw), the levels it may take, all equally likely
  'identity': (identity, None),
  'brightness': (brightness, _FACTORS),
  'color': (color, _FACTORS),
  'contrast': (contrast, _FACTORS),
  'solarize': (solarize, np.linspace(255, 75, 90)),
  'RGB_rand': (rgb_rand, np.linspace(1, 120, 90).astype(int)),
  'black_and_white': (black_and_white, None),
  'invert': (invert, None),
  'rotate': (rotate, _ANGLES),
  'rotate_upside_down': (rotate, _ANGLES + 180),
  'rotate_90': (_turned(90), None),
  'rotate_180': (_turned(180), None),
  'rotate_270': (_turned(270), None),
  'blur': (blur, None),
  'gaussian_noise': (gaussian_noise, np.linspace(0, 30, 20)),
}


def composed(
  image: Array, names: Sequence[str], levels: Sequence[Any], draws: Sequence[Any]
) -> Array:
  """The named operations in turn, each with its level and its draw (None where it has none)."""
  for name, level, draw in zip(names, levels, draws, strict=True):
    if name not in OPERATIONS:
      raise UserError(f'no augmentation {name!r}\n{nearest(name, OPERATIONS)}')
    image = OPERATIONS[name][0](image, level, draw)
  return image


def drawn(
  rng: np.random.RandomState, shape: tuple[int, ...], *, count: int = 3, among=COLOUR
) -> tuple[list[str], list[Any], list[Any]]:
  """Names, levels and draws for `composed`, for an image of `shape`, in the published order.

  First all names, then a level each, then the draws. The legacy generator is part of what was
  published: with its seed the same copies come out.
  """
  names = [among[k] for k in rng.choice(len(among), count)]
  choices = [OPERATIONS[name][1] for name in names]
  levels: list[Any] = [None if c is None else rng.choice(c) for c in choices]
  draws: list[Any] = []
  for name, level in zip(names, levels, strict=True):
    draw = rng.randint(-level, level, 3) if name == 'RGB_rand' else None
    draws.append(rng.normal(0, level, shape) if name == 'gaussian_noise' else draw)
  return names, levels, draws


def augmented(image: Array, rng: np.random.RandomState, *, count: int = 3, among=COLOUR) -> Array:
  """A copy of image uint8 [H, W, 3] changed by `count` operations, drawn with replacement."""
  return composed(image, *drawn(rng, image.shape, count=count, among=among))
