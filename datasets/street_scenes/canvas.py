"""The camera, and a canvas that remembers which surface every pixel shows.

Surfaces are painted far to near. A pixel holds only the number of the surface last painted there;
what that surface is (label, distance, colour, light it gives off) lies in a table. So one painted
polygon is colour, label and depth at once, and they cannot disagree.

World: x metres to the right of the camera, y metres above the ground, z metres ahead.
The canvas is H x W = 512 x 1024 pixels whatever the size asked for: a scene has one geometry.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

HEIGHT, WIDTH = 512, 1024
SHADOW_SCALE = 2  # shadows are soft: they are drawn this much smaller
SKY_DEPTH = 900.0  # metres; the haze in front of the sky
NEAREST = 1.2  # metres; nothing is projected from nearer

Colour = tuple[float, ...]
Point = tuple[float, float]
DARK: Colour = (0.0, 0.0, 0.0)


class Camera(NamedTuple):
  """Horizon row, vanishing column and focal length in canvas pixels; height in metres.

  `bend` is how the street curves: at z metres all is shifted sideways by bend * z**2 metres.
  """

  horizon: float
  vanish: float
  focal: float
  height: float
  bend: float

  def pixel(self, x, y, z):
    """World metres (numbers or arrays) -> column, row."""
    z = np.maximum(z, NEAREST)
    scale = self.focal / z
    return (
      self.vanish + scale * (x + self.bend * z * z),
      self.horizon + scale * (self.height - y),
    )

  def ground_depth(self, rows: np.ndarray) -> np.ndarray:
    """Distance in metres of the ground seen at each row (above the horizon: very far)."""
    below = np.maximum(rows - self.horizon, 1.0)
    return self.focal * self.height / below


class Paint(NamedTuple):
  """A surface: label id, distance in metres (0: it lies on the ground), colour, light given off."""

  label: int
  depth: float
  colour: Colour
  glow: Colour = DARK
  top: bool = False  # it faces upwards, so that snow lies on it


SKY = Paint(23, SKY_DEPTH, DARK)


class Canvas:
  """Paints surfaces over one another; see the module."""

  def __init__(self, camera: Camera):
    self.camera = camera
    self.paints = [SKY]
    self.unknown: list[int] = []  # which paints belong to objects of no known class
    self._image = Image.new('I', (WIDTH, HEIGHT), 0)
    self._draw = ImageDraw.Draw(self._image)
    small = (WIDTH // SHADOW_SCALE, HEIGHT // SHADOW_SCALE)
    self._shadow = Image.new('L', small, 0)
    self._shade = ImageDraw.Draw(self._shadow)

  def polygon(self, points: Iterable[Point], paint: Paint) -> None:
    """Points are (column, row)."""
    points = [(round(float(u)), round(float(v))) for u, v in points]
    columns = [u for u, _ in points]
    if min(columns) < WIDTH and max(columns) >= 0:
      self._draw.polygon(points, fill=self._number(paint))

  def ellipse(self, centre: Point, radii: Point, paint: Paint) -> None:
    """Centre (column, row), radii in pixels."""
    (u, v), (ru, rv) = centre, (max(radii[0], 0.5), max(radii[1], 0.5))
    if -ru < u < WIDTH + ru:
      box = [round(float(e)) for e in (u - ru, v - rv, u + ru, v + rv)]
      self._draw.ellipse(box, fill=self._number(paint))

  def face(self, corners: Iterable[tuple[float, float, float]], paint: Paint) -> None:
    """A polygon in the world: corners (x, y, z) in metres."""
    xyz = np.array(list(corners), np.float64)
    self.polygon(zip(*self.camera.pixel(*xyz.T), strict=True), paint)

  def shadow(self, corners: Iterable[tuple[float, float]], darkness: float) -> None:
    """A shadow on the ground: corners (x, z) in metres, darkness 0 to 1."""
    x, z = np.array(list(corners), np.float64).T
    columns, rows = self.camera.pixel(x, 0.0, z)
    points = [
      (round(float(u) / SHADOW_SCALE), round(float(v) / SHADOW_SCALE))
      for u, v in zip(columns, rows, strict=True)
    ]
    self._shade.polygon(points, fill=round(255 * darkness))

  def _number(self, paint: Paint) -> int:
    self.paints.append(paint)
    return len(self.paints) - 1

  def numbers(self) -> np.ndarray:
    """int32 [H, W]: the surface seen at each pixel, an index into `paints`."""
    return np.asarray(self._image, np.int32)

  def shadows(self) -> np.ndarray:
    """float32 [H / 2, W / 2], 0 where lit."""
    return np.asarray(self._shadow, np.float32) / np.float32(255)


def varied(rng: np.random.Generator, colour: Colour, spread: float) -> Colour:
  """The colour a little lighter or darker and of another hue; spread in grey levels."""
  light = rng.uniform(-1, 1)
  hue = rng.uniform(-0.5, 0.5, 3)
  return tuple(float(c + spread * (light + h)) for c, h in zip(colour, hue, strict=True))


def shaded(colour: Colour, factor: float) -> Colour:
  return tuple(c * factor for c in colour)
