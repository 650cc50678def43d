"""What lines the street: houses, walls, fences, hedges, and the skyline that closes it."""

from itertools import pairwise

import numpy as np

from car_jax.datasets.street_scenes.canvas import Camera, Canvas, Colour, Paint, shaded, varied

BUILDING, WALL, FENCE, BRIDGE, VEGETATION = 11, 12, 13, 15, 21
GLASS: Colour = (62.0, 70.0, 80.0)
LAMPLIGHT: Colour = (255.0, 190.0, 95.0)
PLASTER: tuple[Colour, ...] = (
  *((176, 160, 134), (150, 142, 134), (186, 178, 164), (142, 96, 78), (160, 120, 88)),
  *((124, 128, 132), (190, 168, 120), (128, 96, 86), (166, 150, 150), (104, 102, 102)),
)
ROOFS: tuple[Colour, ...] = ((112, 66, 54), (78, 76, 80), (96, 82, 74))
WALLS: tuple[Colour, ...] = ((136, 124, 112), (120, 88, 74), (150, 146, 138), (112, 112, 110))
FENCES: tuple[Colour, ...] = ((92, 74, 58), (74, 80, 76), (128, 112, 90), (110, 114, 118))
WINDOWS_TO = 75.0  # metres: farther windows would be smaller than a pixel


def house(
  canvas: Canvas, rng: np.random.Generator, x: float, z: tuple[float, float], light: float
) -> None:
  """A house whose front stands at x from z[0] to z[1]; `light` is how much sun its front gets."""
  sign = 1 if x > 0 else -1
  storey = rng.uniform(2.9, 3.5)
  storeys = int(rng.integers(2, 7))
  height = storeys * storey + rng.uniform(0.6, 1.4)
  wall = varied(rng, PLASTER[rng.integers(len(PLASTER))], 16)
  gable = Paint(BUILDING, z[0], shaded(wall, 1.55 - light))
  far = x + sign * 11
  canvas.face([(x, -0.3, z[0]), (far, -0.3, z[0]), (far, height, z[0]), (x, height, z[0])], gable)
  if rng.random() < 0.6:
    _roof(canvas, rng, x, z, height)
  bays = max(1, round((z[1] - z[0]) / rng.uniform(2.4, 3.6)))
  edges = np.linspace(z[1], z[0], bays + 1)
  base = varied(rng, shaded(wall, 0.82), 14)
  style = (rng.uniform(0.4, 0.7), rng.uniform(0.45, 0.7), rng.random() < 0.4)
  for stop, start in pairwise(edges):
    depth = float(start + stop) / 2
    _panel(canvas, x, (start, stop), (-0.3, height), Paint(BUILDING, depth, shaded(wall, light)))
    _panel(canvas, x, (start, stop), (-0.3, 0.9), Paint(BUILDING, depth, shaded(base, light)))
    if start < WINDOWS_TO and canvas.camera.pixel(x, 0, stop)[0] * sign < sign * 512 + 600:
      _windows(canvas, rng, x, (start, stop), (storeys, storey), (wall, light, style))
  cornice = Paint(BUILDING, z[0], shaded(wall, light * 1.12))
  _panel(canvas, x - sign * 0.15, z, (height - 0.35, height), cornice)


def _panel(
  canvas: Canvas, x: float, z: tuple[float, float], y: tuple[float, float], paint: Paint
) -> None:
  """An upright rectangle along the street."""
  canvas.face([(x, y[0], z[0]), (x, y[0], z[1]), (x, y[1], z[1]), (x, y[1], z[0])], paint)


def _roof(
  canvas: Canvas, rng: np.random.Generator, x: float, z: tuple[float, float], eaves: float
) -> None:
  sign = 1 if x > 0 else -1
  colour = varied(rng, ROOFS[rng.integers(len(ROOFS))], 10)
  ridge, back = eaves + rng.uniform(1.5, 3.5), x + sign * rng.uniform(1.5, 4)
  paint = Paint(BUILDING, sum(z) / 2, colour, top=True)
  gable = Paint(BUILDING, z[0], shaded(colour, 0.8), top=True)
  canvas.face([(x, eaves, z[0]), (back, ridge, z[0]), (back + sign * 5, eaves, z[0])], gable)
  canvas.face([(x, eaves, z[0]), (x, eaves, z[1]), (back, ridge, z[1]), (back, ridge, z[0])], paint)


def _windows(
  canvas: Canvas,
  rng: np.random.Generator,
  x: float,
  z: tuple[float, float],
  storeys: tuple[int, float],
  look: tuple,
) -> None:
  """One window in every storey of a bay; the ground floor has a shop front or a door."""
  wall, light, (wide, tall, shop) = look
  depth, span = sum(z) / 2, z[1] - z[0]
  rolls = rng.random((storeys[0], 2))
  for floor in range(storeys[0]):
    share, bottom, top = wide, 0.3, 0.3 + tall
    if floor == 0 and shop:
      share, bottom, top = 0.86, 0.12, 0.8
    elif floor == 0 and rolls[0, 1] < 0.3:
      share, bottom, top = 0.36, 0.0, 0.7
    y = (storeys[1] * (floor + bottom), storeys[1] * (floor + top))
    margin = span * (1 - share) / 2
    lit = shaded(LAMPLIGHT, 0.5 + rolls[floor, 1]) if rolls[floor, 0] < 0.35 else (0.0, 0.0, 0.0)
    pane = shaded(GLASS, light * (0.6 + 1.1 * rolls[floor, 1] ** 2))
    frame = Paint(BUILDING, depth, shaded(wall, light * (1.15 if wide > 0.5 else 0.8)))
    if depth < 40:
      edge = 0.12
      around = (y[0] - edge, y[1] + edge)
      _panel(canvas, x, (z[0] + margin - edge, z[1] - margin + edge), around, frame)
    _panel(canvas, x, (z[0] + margin, z[1] - margin), y, Paint(BUILDING, depth, pane, lit))


def wall(
  canvas: Canvas, rng: np.random.Generator, x: float, z: tuple[float, float], light: float
) -> None:
  """A garden wall with a coping stone and piers."""
  height = rng.uniform(1.6, 3.2)
  colour = varied(rng, WALLS[rng.integers(len(WALLS))], 12)
  for start in np.arange(z[1] - 2.5, z[0] - 2.5, -2.5):
    span = (max(float(start), z[0]), float(start) + 2.5)
    depth = sum(span) / 2
    _panel(canvas, x, span, (-0.1, height), Paint(WALL, depth, shaded(colour, light)))
    if depth < 50:
      joint = Paint(WALL, depth, shaded(colour, light * 0.72))
      _panel(canvas, x, (span[0], span[0] + 0.14), (-0.1, height), joint)
    coping = Paint(WALL, depth, shaded(colour, light * 1.2), top=True)
    _panel(canvas, x, span, (height - 0.18, height), coping)


def fence(
  canvas: Canvas, rng: np.random.Generator, x: float, z: tuple[float, float], light: float
) -> None:
  """Posts, rails and pickets; what is between them is labelled fence, as in Cityscapes."""
  height = rng.uniform(1.0, 2.1)
  colour = varied(rng, FENCES[rng.integers(len(FENCES))], 12)
  behind: Colour = (84.0, 92.0, 66.0)
  pitch = rng.uniform(0.3, 0.5)
  for start in np.arange(z[1] - 3, z[0] - 3, -3.0):
    span = (max(float(start), z[0]), float(start) + 3)
    depth = sum(span) / 2
    _panel(canvas, x, span, (0.0, height), Paint(FENCE, depth, shaded(behind, light)))
    bar = Paint(FENCE, depth, shaded(colour, light))
    dark = Paint(FENCE, depth, shaded(colour, 0.7 * light))
    for y in (0.12, height - 0.12):
      _panel(canvas, x, span, (y - 0.08, y + 0.08), bar)
    if depth < 45:
      for post in np.arange(span[0], span[1], pitch * max(1.0, depth / 18)):
        _panel(canvas, x, (post, post + pitch * 0.45), (0.0, height), bar)
    _panel(canvas, x, (span[0], span[0] + 0.16), (0.0, height + 0.1), dark)


def skyline(canvas: Canvas, rng: np.random.Generator) -> None:
  """What closes the street: blocks and tree lines some hundred metres off, full width."""
  camera: Camera = canvas.camera
  for depth in (260.0, 170.0):
    reach = 1.15 * 512 * depth / camera.focal
    middle = -camera.bend * depth * depth + (512 - camera.vanish) * depth / camera.focal
    x = middle - reach
    while x < middle + reach:
      width = rng.uniform(10, 26)
      if rng.random() < 0.65:
        _block(canvas, rng, (x, x + width), depth)
      else:
        _grove(canvas, rng, (x, x + width), depth)
      x += width * rng.uniform(0.8, 1.0)


def _block(canvas: Canvas, rng: np.random.Generator, x: tuple[float, float], depth: float) -> None:
  height = rng.uniform(8, 24)
  colour = varied(rng, PLASTER[rng.integers(len(PLASTER))], 14)
  corners = [(x[0], -1, depth), (x[1], -1, depth), (x[1], height, depth), (x[0], height, depth)]
  canvas.face(corners, Paint(BUILDING, depth, shaded(colour, 0.9)))
  ridge, roof = height + rng.uniform(0.5, 3.5), ROOFS[rng.integers(len(ROOFS))]
  slope = [(x[0], height, depth), (x[1], height, depth), (x[1] - 2, ridge, depth)]
  canvas.face([*slope, (x[0] + 2, ridge, depth)], Paint(BUILDING, depth, roof, top=True))
  for y in np.arange(3.0, height - 2, 3.5):
    row = [(x[0] + 1, y), (x[1] - 1, y), (x[1] - 1, y + 1.4), (x[0] + 1, y + 1.4)]
    lit = shaded(LAMPLIGHT, 0.3) if rng.random() < 0.4 else (0.0, 0.0, 0.0)
    pane = Paint(BUILDING, depth, shaded(colour, 0.62), lit)
    canvas.face([(u, v, depth) for u, v in row], pane)


def _grove(canvas: Canvas, rng: np.random.Generator, x: tuple[float, float], depth: float) -> None:
  scale = canvas.camera.focal / depth
  green = varied(rng, (72.0, 88.0, 50.0), 12)
  for _ in range(7):
    height, centre = rng.uniform(6, 15), rng.uniform(*x)
    centre_pixel = canvas.camera.pixel(centre, height * 0.45, depth)
    paint = Paint(VEGETATION, depth, varied(rng, green, 8))
    canvas.ellipse(centre_pixel, (scale * rng.uniform(3, 6), scale * height * 0.55), paint)


def bridge(canvas: Canvas, rng: np.random.Generator, street_width: float, z: float) -> None:
  """A bridge over the street, on two piers."""
  low, high, x = rng.uniform(4.6, 5.4), rng.uniform(6.2, 7.2), street_width
  grey = varied(rng, (132.0, 128.0, 122.0), 12)
  deck = [(-60, low), (60, low), (60, high), (-60, high)]
  canvas.face([(u, v, z) for u, v in deck], Paint(BRIDGE, z, grey))
  rail = [(-60, high), (60, high), (60, high + 0.35), (-60, high + 0.35)]
  canvas.face([(u, v, z) for u, v in rail], Paint(BRIDGE, z, shaded(grey, 0.7), top=True))
  for pier in (-x, x):
    foot = [(pier - 0.7, 0), (pier + 0.7, 0), (pier + 0.7, low), (pier - 0.7, low)]
    canvas.face([(u, v, z) for u, v in foot], Paint(BRIDGE, z, shaded(grey, 0.8)))
