"""What lies flat: road with its markings, pavements with kerbs, grass, parking bays."""

from typing import NamedTuple

import numpy as np

from car_jax.datasets.street_scenes.canvas import Camera, Canvas, Colour, Paint, varied

ROAD, SIDEWALK, PARKING, GROUND, TERRAIN = 7, 8, 9, 6, 22
FARTHEST = 400.0
WHITE: Colour = (205.0, 205.0, 200.0)
ASPHALT: tuple[Colour, ...] = ((98, 97, 98), (112, 109, 106), (86, 87, 92), (120, 113, 106))
PAVING: tuple[Colour, ...] = ((146, 138, 132), (128, 124, 124), (156, 140, 126), (120, 112, 108))
GRASS: tuple[Colour, ...] = ((98, 116, 58), (120, 122, 66), (84, 108, 54))


class Side(NamedTuple):
  """One side of the street, outwards from the middle; distances from the camera in metres."""

  sign: int  # -1 left, 1 right
  kerb: float  # where the road ends
  walk: float  # where the pavement ends
  front: float  # where the houses stand; between `walk` and here lies grass or paving
  verge: float  # width of a grass strip between kerb and pavement, or 0
  bay: float  # width of the parking bay inside the kerb, or 0


class Street(NamedTuple):
  left: Side
  right: Side
  crossings: tuple[tuple[float, float], ...]  # where side streets join: z from, to
  grassy: float  # 0 to 1: how green the place is


def plan(rng: np.random.Generator) -> Street:
  """The street's cross-section."""
  grassy = rng.random()
  sides = []
  for sign, low, high in ((-1, 4.6, 6.2), (1, 3.0, 4.5)):
    kerb = rng.uniform(low, high)
    verge = rng.uniform(1.0, 2.2) if rng.random() < 0.5 * grassy else 0.0
    walk = kerb + verge + rng.uniform(3.8, 6.6)
    garden = rng.uniform(1.0, 3.5) if rng.random() < 0.25 + 0.5 * grassy else 0.0
    bay = 2.1 if rng.random() < 0.3 else 0.0
    sides.append(Side(sign, kerb, walk, walk + garden, verge, bay))
  crossings = []
  if rng.random() < 0.5:
    start = rng.uniform(22, 60)
    crossings.append((start, start + rng.uniform(6, 10)))
  return Street(sides[0], sides[1], tuple(crossings), grassy)


def strip(canvas: Canvas, x: tuple[float, float], z: tuple[float, float], paint: Paint) -> None:
  """A band of ground between x metres and z metres, following the street's bend."""
  steps = max(2, min(14, int((z[1] - z[0]) / 4) + 2))
  start = max(z[0], 1.5)
  depths = start + (z[1] - start) * np.linspace(0, 1, steps) ** 2
  near = canvas.camera.pixel(x[0], 0.0, depths)
  far = canvas.camera.pixel(x[1], 0.0, depths)
  outline = [*zip(*near, strict=True), *zip(*(a[::-1] for a in far), strict=True)]
  canvas.polygon(outline, paint)


def lay(canvas: Canvas, rng: np.random.Generator, street: Street) -> None:
  """Paints all the ground there is, below everything that stands on it."""
  asphalt = varied(rng, ASPHALT[rng.integers(len(ASPHALT))], 9)
  paving = varied(rng, PAVING[rng.integers(len(PAVING))], 9)
  grass = varied(rng, GRASS[rng.integers(len(GRASS))], 9)
  whole = (1.5, FARTHEST)
  strip(canvas, (-400.0, 400.0), whole, Paint(GROUND, 0.0, (118.0, 110.0, 100.0), top=True))
  for side in (street.left, street.right):
    s = side.sign
    garden = Paint(TERRAIN, 0.0, grass, top=True)
    yard = Paint(GROUND, 0.0, varied(rng, paving, 12), top=True)
    strip(canvas, (s * side.walk, s * (side.walk + 25)), whole, garden)
    if street.grassy < 0.25:
      strip(canvas, (s * side.walk, s * side.front), whole, yard)
    strip(canvas, (s * side.kerb, s * side.walk), whole, Paint(SIDEWALK, 0.0, paving, top=True))
    if side.verge:
      edges = (s * (side.kerb + 0.1), s * (side.kerb + side.verge))
      strip(canvas, edges, whole, garden)
  road = Paint(ROAD, 0.0, asphalt, top=True)
  strip(canvas, (-street.left.kerb, street.right.kerb), whole, road)
  for side in (street.left, street.right):
    for crossing in street.crossings:
      strip(canvas, (side.sign * side.kerb, side.sign * 90.0), crossing, road)
    _kerb(canvas, side, street.crossings, paving)
    if side.bay:
      bay = Paint(PARKING, 0.0, varied(rng, paving, 14), top=True)
      first = rng.uniform(7, 20)
      edges = (side.sign * (side.kerb - side.bay), side.sign * (side.kerb - 0.12))
      strip(canvas, edges, (first, first + rng.uniform(12, 40)), bay)
  _mark(canvas, rng, street, asphalt)


def _kerb(canvas: Canvas, side: Side, crossings: tuple, paving: Colour) -> None:
  """A light stone edge, as part of the pavement, open where a side street joins."""
  stone = Paint(SIDEWALK, 0.0, tuple(min(c * 1.16, 235) for c in paving), top=True)
  gutter = Paint(ROAD, 0.0, (72.0, 70.0, 70.0), top=True)
  start = 1.5
  for stop, resume in (*crossings, (90.0, FARTHEST)):
    strip(canvas, (side.sign * side.kerb, side.sign * (side.kerb + 0.22)), (start, stop), stone)
    strip(canvas, (side.sign * (side.kerb - 0.13), side.sign * side.kerb), (start, stop), gutter)
    start = resume


def _mark(canvas: Canvas, rng: np.random.Generator, street: Street, asphalt: Colour) -> None:
  """Lane lines, zebra crossing, patches of newer asphalt: all labelled road."""
  worn = rng.uniform(0.45, 1.0)
  colour = tuple(w * worn + a * (1 - worn) for w, a in zip(WHITE, asphalt, strict=True))
  white = Paint(ROAD, 0.0, colour, top=True)
  for _ in range(rng.integers(1, 4)):
    x, z = rng.uniform(-street.left.kerb, street.right.kerb - 1.5), rng.uniform(4, 26)
    patch = Paint(ROAD, 0.0, varied(rng, asphalt, 12), top=True)
    strip(canvas, (x, x + rng.uniform(0.7, 2.5)), (z, z + rng.uniform(2, 9)), patch)
  middle = (street.right.kerb - street.left.kerb) / 2 + rng.uniform(-0.3, 0.3)
  style = rng.integers(4)  # none, dashed, solid, dashed with edge lines
  if style in (1, 3):
    for z in np.arange(rng.uniform(2, 8), 90, 9.0):
      strip(canvas, (middle - 0.07, middle + 0.07), (z, z + 4.5), white)
  if style == 2:
    strip(canvas, (middle - 0.07, middle + 0.07), (1.5, 120.0), white)
  if style == 3:
    for side in (street.left, street.right):
      x = side.sign * (side.kerb - side.bay - 0.4)
      strip(canvas, (x - 0.06, x + 0.06), (1.5, 120.0), white)
  if rng.random() < 0.3:
    z = rng.uniform(9, 26)
    for x in np.arange(-street.left.kerb + 0.6, street.right.kerb - 0.8, 1.0):
      strip(canvas, (x, x + 0.5), (z, z + 3.0), white)


def camera(rng: np.random.Generator, height: int) -> Camera:
  """A camera behind a windscreen, about as Cityscapes' was; lengths scale with the canvas."""
  return Camera(
    horizon=height * rng.uniform(0.39, 0.45),
    vanish=height * rng.uniform(0.93, 1.07),
    focal=height * rng.uniform(1.9, 2.15),
    height=rng.uniform(1.22, 1.36),
    bend=rng.uniform(-6e-4, 6e-4),
  )
