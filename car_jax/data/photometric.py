"""Blur, colour jitter and greyscale of a student's views, in the 8 bits Pillow computes them in.

The teacher sees a view as it is, the student sees it with this noise and has to agree (DA-SAC,
arXiv 2105.00097). Every step rounds or cuts to whole levels before the next, as published. Letters:
H x W pixels."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

Array = np.ndarray
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)
TARGET_HUE, SOURCE_HUE = 0.1, 0.5  # the furthest that a hue moves, of a whole turn
SOURCE_BLUR = 1.0


class Noise(NamedTuple):
  """What is drawn for one image; on a device each field has a leading axis of examples."""

  radius: Any
  """Of the blur, Pillow's word for the Gaussian's standard deviation in pixels; 0 is none."""
  jittered: Any
  order: Any
  """[4]: which of BRIGHTNESS, CONTRAST, SATURATION, HUE comes first, second, ..."""
  factors: Any
  """[4], by those indices: three factors about 1 and a part of the hue's turn about 0."""
  grey: Any


def noise(
  rng: np.random.Generator,
  *,
  blur: Sequence[float] = (0.1, 2.0),
  jitter: float = 0.4,
  hue: float = TARGET_HUE,
  greyscale: float = 0.2,
) -> Noise:
  """A blur between the two radii always (`blur` () is none), a jitter half of the time.

  `jitter` bounds the factors' distance from 1, and the hue's too where it is less than `hue`.
  """
  turn = min(hue, jitter)
  spread = np.array([jitter, jitter, jitter, turn])
  return Noise(
    radius=rng.uniform(blur[0], blur[1]) if blur else 0.0,
    jittered=bool(jitter > 0 and rng.random() < 0.5),
    order=rng.permutation(4),
    factors=np.array([1, 1, 1, 0]) + rng.uniform(-spread, spread),
    grey=bool(rng.random() < greyscale),
  )


def source_noise(rng: np.random.Generator, *, jitter: float, blur: bool) -> Noise:
  """As labelled images get it: no greyscale, a wider hue, one blur for half of the images."""
  drawn = noise(rng, blur=(), jitter=jitter, hue=SOURCE_HUE, greyscale=0)
  return drawn._replace(radius=SOURCE_BLUR if blur and rng.random() < 0.5 else 0.0)


def shifted_hue(image: Image.Image, turn: float) -> Image.Image:
  h, s, v = image.convert('HSV').split()
  moved = (np.asarray(h).astype(np.int32) + int(255 * turn)) % 256
  return Image.merge('HSV', (Image.fromarray(np.uint8(moved)), s, v)).convert('RGB')


def jittered(image: Image.Image, order: Sequence[int], factors: Sequence[float]) -> Image.Image:
  for kind in order:
    factor = float(factors[kind])
    if kind == HUE:
      image = shifted_hue(image, factor)
    else:
      enhancers = ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color
      image = enhancers[kind](image).enhance(factor)
  return image


def noisy(image: Array, drawn: Noise) -> Array:
  """uint8 [H, W, 3] -> uint8 [H, W, 3]"""
  picture = Image.fromarray(image)
  if drawn.radius:
    picture = picture.filter(ImageFilter.GaussianBlur(float(drawn.radius)))
  if drawn.jittered:
    picture = jittered(picture, drawn.order, drawn.factors)
  if drawn.grey:
    picture = picture.convert('L').convert('RGB')
  return np.asarray(picture)
