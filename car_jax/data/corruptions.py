"""Common corruptions of severity 1 to 5 (Hendrycks and Dietterich, arXiv 1903.12261), by numpy.

Of the packages, imagecorruptions fits the task but draws from numpy's global generator and its
release on PyPI fails with today's scikit-image (its issues 27 and 30); others need torch. So these
are ours: the published levels where noted, of an image of 224 pixels, with lengths that grow with
the image. Frost is left out, which needs photographs, and glass blur.

Letters: H x W pixels. Inside, images are float32 from 0 to 1.
"""

import zlib
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from car_jax import lookup
from car_jax.errors import UserError, nearest

Array = np.ndarray
Generator = np.random.Generator
SIDE = 224  # pixels of the shorter side for which lengths are given


def corrupt(image: Array, name: str, severity: int, rng: Generator) -> Array:
  """uint8 [H, W, 1 or 3] -> uint8 [H, W, 3], the named corruption at a severity of 1 to 5."""
  picture = np.broadcast_to(image, (*image.shape[:2], 3)).astype(np.float32) / 255
  out = _function(name)(picture, severity - 1, rng)
  return np.round(np.clip(out, 0, 1) * 255).astype(np.uint8)


def parse(text: str) -> tuple[str, int]:
  """'fog:3', or 'package.module:function:3' -> its name and severity. Raises UserError."""
  name, _, severity = text.rpartition(':') if ':' in text else (text, '', '')
  _function(name)
  if severity not in ('1', '2', '3', '4', '5'):
    raise UserError(
      f'config.data.corruption {text!r}: the severity is {severity or "absent"}, not 1 to 5\n'
      f'  use --config.data.corruption={name}:3'
    )
  return name, int(severity)


def _function(name: str) -> Callable[[Array, int, Generator], Array]:
  """function(image float32 [H, W, 3] from 0 to 1, level 0 to 4, rng) -> the same, corrupted."""
  if name in CORRUPTIONS:
    return CORRUPTIONS[name]
  if ':' not in name:
    raise UserError(f'config.data.corruption: unknown {name!r}\n{nearest(name, CORRUPTIONS)}')
  return lookup.own('corruption', name)


def from_config(text: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
  """example -> the example with its image corrupted; the draw is of the example's id alone."""
  name, severity = parse(text)

  def apply(example: dict[str, Any]) -> dict[str, Any]:
    rng = np.random.default_rng(zlib.crc32(example['id'].encode()))
    return example | {'image': corrupt(example['image'], name, severity, rng)}

  return apply


def scale(image: Array) -> float:
  """How many of this image's pixels one pixel of the published images is."""
  return min(image.shape[:2]) / SIDE


def gaussian_noise(image: Array, level: int, rng: Generator) -> Array:
  """Noise is the sensor's, so it stays with the pixel at every size; levels as published."""
  sigma = (0.08, 0.12, 0.18, 0.26, 0.38)[level]
  return image + sigma * rng.standard_normal(image.shape, np.float32)


def shot_noise(image: Array, level: int, rng: Generator) -> Array:
  """As many photons for white as published."""
  photons = (60, 25, 12, 5, 3)[level]
  return rng.poisson(image.astype(np.float64) * photons) / photons


def impulse_noise(image: Array, level: int, rng: Generator) -> Array:
  """The published share of values becomes black or white."""
  share = (0.03, 0.06, 0.09, 0.17, 0.27)[level]
  roll, white = rng.random(image.shape), rng.random(image.shape) < 0.5
  return np.where(roll < share, white, image)


def _filtered(image: Array, kernel: Array) -> Array:
  return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101)


def defocus_blur(image: Array, level: int, rng: Generator) -> Array:
  """A disc of the published radius."""
  radius = (3, 4, 6, 8, 10)[level] * scale(image)
  reach = int(np.ceil(radius))
  offset = np.arange(-reach, reach + 1)
  distance = np.hypot(*np.meshgrid(offset, offset))
  return _filtered(image, np.clip(radius + 0.5 - distance, 0, 1).astype(np.float32))


def streak(radius: float, sigma: float, angle: float) -> Array:
  """A trail from the kernel's middle that fades along a line, float32 [2 reach + 1] squared."""
  reach = int(np.ceil(radius))
  kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
  along = np.linspace(0, radius, 4 * reach + 1)  # finer than pixels, so that it has no gaps
  for step, weight in zip(along, np.exp(-0.5 * (along / sigma) ** 2), strict=True):
    dot = np.array([[1, 0, step * np.cos(angle)], [0, 1, step * np.sin(angle)]])
    point = np.zeros_like(kernel)
    point[reach, reach] = weight
    kernel += cv2.warpAffine(point, dot, kernel.shape)
  return kernel


def motion_blur(image: Array, level: int, rng: Generator) -> Array:
  """Length and fading as published, in a direction within 45 degrees of level."""
  radius, sigma = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[level]
  s, angle = scale(image), rng.uniform(-np.pi / 4, np.pi / 4)
  return _filtered(image, streak(radius * s, sigma * s, angle))


def zoom_blur(image: Array, level: int, rng: Generator) -> Array:
  """The mean of views that come up to the published share nearer."""
  nearest_view = (1.1, 1.15, 1.2, 1.25, 1.3)[level]
  h, w = image.shape[:2]
  views = [image]
  for zoom in np.linspace(1, nearest_view, 12)[1:]:
    centre = ((w - 1) / 2, (h - 1) / 2)
    turn = cv2.getRotationMatrix2D(centre, 0, float(zoom))
    views.append(cv2.warpAffine(image, turn, (w, h), borderMode=cv2.BORDER_REFLECT_101))
  return np.mean(views, 0)


def _resized(x: Array, height: int, width: int, how: str) -> Array:
  return cv2.resize(x, (width, height), interpolation=getattr(cv2, f'INTER_{how}'))


def snow(image: Array, level: int, rng: Generator) -> Array:
  """A whitened picture behind falling flakes; levels of our own, since severity is to rise."""
  share = (0.007, 0.014, 0.022, 0.032, 0.045)[level]
  white = (0.15, 0.25, 0.32, 0.38, 0.45)[level]
  length = (8, 9, 10, 11, 12)[level]
  h, w = image.shape[:2]
  s, angle = scale(image), rng.uniform(np.pi / 4, 3 * np.pi / 4)
  flake = max(1.0, 1.5 * s)
  roll = rng.random((round(h / flake) + 1, round(w / flake) + 1))
  size = rng.uniform(0.4, 1, roll.shape)
  flakes = np.where(roll < share, size, 0).astype(np.float32)
  flakes = _resized(flakes, h, w, 'LINEAR')
  trail = streak(max(1.0, length * s), max(1.0, 0.6 * length * s), angle)
  trails = _filtered(flakes, trail) * np.sqrt(trail.sum() / trail.max())
  grey = image.mean(-1, keepdims=True)
  bright = np.maximum(image, 0.5 + 0.5 * grey)
  return image + white * (bright - image) + trails[..., None]


def plasma(h: int, w: int, decay: float, rng: Generator) -> Array:
  """Clouds from 0 to 1, float32 [H, W]: each octave is twice as fine and `decay` times fainter."""
  total, octave = np.zeros((h, w), np.float32), 0
  while 2**octave < max(h, w):
    cells = 2**octave + 1
    layer = rng.standard_normal((cells, cells)).astype(np.float32)
    total += decay**-octave * _resized(layer, h, w, 'CUBIC')
    octave += 1
  low, high = float(total.min()), float(total.max())
  return (total - low) / max(high - low, 1e-6)


def fog(image: Array, level: int, rng: Generator) -> Array:
  """Bright clouds in front of the picture; levels of our own, since severity is to rise."""
  thick = (0.45, 0.55, 0.64, 0.72, 0.8)[level]
  h, w = image.shape[:2]
  clouds = plasma(h, w, 1.7, rng)[..., None]
  return image + thick * (0.6 + 0.4 * clouds) * (0.6 + 0.4 * clouds - image)


def brightness(image: Array, level: int, rng: Generator) -> Array:
  """The value of hue, saturation and value is raised as published."""
  value = image.max(-1, keepdims=True)
  raised = np.minimum(value + (0.1, 0.2, 0.3, 0.4, 0.5)[level], 1)
  return np.where(value > 0, image * raised / np.maximum(value, 1e-6), raised)


def contrast(image: Array, level: int, rng: Generator) -> Array:
  """The published share of each value's distance to its channel's mean is left."""
  mean = image.mean((0, 1), keepdims=True)
  return mean + (0.4, 0.3, 0.2, 0.1, 0.05)[level] * (image - mean)


def elastic(image: Array, level: int, rng: Generator) -> Array:
  """Every pixel fetched from a little beside it; levels of our own, since severity is to rise.

  Labels stay where they are, so outlines no longer quite agree with them.
  """
  away = (0.6, 1.0, 1.5, 2.2, 3.2)[level] * scale(image)
  h, w = image.shape[:2]
  smooth = 4 * scale(image)
  rows, columns = np.mgrid[:h, :w].astype(np.float32)
  for axis in (rows, columns):
    white = rng.standard_normal((h, w)).astype(np.float32)
    field = cv2.GaussianBlur(white, (0, 0), max(smooth, 0.3))
    axis += away * field / max(field.std(), 1e-6)
  return cv2.remap(image, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def pixelate(image: Array, level: int, rng: Generator) -> Array:
  """The mean of every block; blocks as wide as published at 224 pixels and never below one."""
  block = 1 + (1 / (0.6, 0.5, 0.4, 0.3, 0.25)[level] - 1) * scale(image)
  for axis in (0, 1):
    number = (np.arange(image.shape[axis]) / block).astype(np.int64)
    _, first, share, width = np.unique(
      number, return_index=True, return_inverse=True, return_counts=True
    )
    sums = np.add.reduceat(image, first, axis)
    means = sums / np.expand_dims(width, (1, 2) if axis == 0 else (0, 2))
    image = np.take(means, share, axis)
  return image


def jpeg(image: Array, level: int, rng: Generator) -> Array:
  """Coded and decoded at the published quality, in blocks of 8 pixels at every size."""
  quality = (25, 18, 15, 10, 7)[level]
  pixels = np.round(image[..., ::-1] * 255).astype(np.uint8)
  _, coded = cv2.imencode('.jpg', pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
  decoded = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))
  return decoded[..., ::-1].astype(np.float32) / 255


CORRUPTIONS: dict[str, Callable[[Array, int, Generator], Array]] = {
  f.__name__: f
  for f in (
    *(gaussian_noise, shot_noise, impulse_noise, defocus_blur, motion_blur, zoom_blur),
    *(snow, fog, brightness, contrast, elastic, pixelate, jpeg),
  )
}
