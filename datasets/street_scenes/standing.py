"""What stands by the street: trees, hedges, lamps, traffic lights, signs, bins.

Each is flat and faces the camera, drawn in its own metres around the point where it stands.
"""

import numpy as np

from car_jax.datasets.street_scenes.canvas import DARK, Canvas, Colour, Paint, shaded, varied

STATIC, POLE, LIGHT, SIGN, VEGETATION = 4, 17, 19, 20, 21
LEAVES: tuple[Colour, ...] = (
  (70, 88, 44),
  (88, 98, 50),
  (58, 78, 46),
  (104, 100, 52),
  (78, 92, 62),
)
BARK: Colour = (74.0, 62.0, 50.0)
STEEL: tuple[Colour, ...] = ((92, 94, 96), (128, 130, 130), (66, 72, 70), (112, 108, 100))
LAMPS = (('red', (225, 40, 30)), ('amber', (235, 160, 30)), ('green', (40, 210, 110)))
SIGNS: tuple[tuple[str, Colour, Colour], ...] = (
  ('disc', (196, 38, 40), (226, 224, 220)),  # no entry for some vehicles, speed limit
  ('disc', (38, 76, 168), (38, 76, 168)),  # mandatory direction
  ('up', (196, 38, 40), (226, 224, 220)),  # warning
  ('down', (196, 38, 40), (226, 224, 220)),  # give way
  ('diamond', (226, 224, 220), (236, 190, 40)),  # priority road
  ('square', (38, 76, 168), (38, 76, 168)),  # parking, crossing
  ('board', (226, 190, 60), (226, 190, 60)),  # direction board
)
OUTLINES: dict[str, tuple[tuple[float, float], ...]] = {
  'disc': ((-1, 0.4), (-0.4, 1), (0.4, 1), (1, 0.4), (1, -0.4), (0.4, -1), (-0.4, -1), (-1, -0.4)),
  'up': ((-1, -0.8), (1, -0.8), (0, 0.95)),
  'down': ((-1, 0.8), (1, 0.8), (0, -0.95)),
  'diamond': ((-1, 0), (0, 1), (1, 0), (0, -1)),
  'square': ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
  'board': ((-2.2, -0.6), (1.9, -0.6), (2.4, 0), (1.9, 0.6), (-2.2, 0.6)),
}


class Figure:
  """A drawing in metres (right, up) around a point of the ground, at one distance."""

  def __init__(self, canvas: Canvas, x: float, z: float, label: int):
    self.canvas, self.depth, self.label = canvas, z, label
    self.scale = canvas.camera.focal / z
    self.origin = canvas.camera.pixel(x, 0.0, z)

  def at(self, x: float, y: float) -> tuple[float, float]:
    return self.origin[0] + self.scale * x, self.origin[1] - self.scale * y

  def paint(self, colour: Colour, glow: Colour = DARK) -> Paint:
    return Paint(self.label, self.depth, colour, glow)

  def shape(self, points, colour: Colour, glow: Colour = DARK) -> None:
    self.canvas.polygon([self.at(x, y) for x, y in points], self.paint(colour, glow))

  def disc(self, x: float, y: float, rx: float, ry: float, colour: Colour, glow=DARK) -> None:
    radii = (self.scale * rx, self.scale * ry)
    self.canvas.ellipse(self.at(x, y), radii, self.paint(colour, glow))

  def limb(self, a, b, width: float, colour: Colour) -> None:
    """A thick line with tapered end b; never thinner than a pixel of the canvas."""
    (xa, ya), (xb, yb) = a, b
    length = max(float(np.hypot(xb - xa, yb - ya)), 1e-6)
    half = max(width / 2, 0.7 / self.scale)
    nx, ny = -(yb - ya) / length * half, (xb - xa) / length * half
    t = 0.75
    corners = ((xa + nx, ya + ny), (xb + nx * t, yb + ny * t))
    self.shape((*corners, (xb - nx * t, yb - ny * t), (xa - nx, ya - ny)), colour)

  def foot_shadow(self, x: float, radius: float, darkness: float = 0.55) -> None:
    camera, z = self.canvas.camera, self.depth
    centre = (self.origin[0] - camera.vanish) / self.scale - camera.bend * z * z + x
    turns = ((1, 0), (0.6, 0.8), (-0.6, 0.8), (-1, 0), (-0.6, -0.8), (0.6, -0.8))
    ring = [(centre + radius * a, z + 0.8 * radius * b) for a, b in turns]
    self.canvas.shadow(ring, darkness)


def tree(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
  """A trunk and a crown of overlapping clumps, lighter above and on the sunny side."""
  figure = Figure(canvas, x, z, VEGETATION)
  height, crown = rng.uniform(6, 12), rng.uniform(1.8, 3.2)
  deep = crown * rng.uniform(0.75, 1.1)
  middle = max(height - deep, 2.4 + deep)  # cars and people pass below
  bark = varied(rng, BARK, 10)
  lean = rng.uniform(-0.4, 0.4)
  figure.limb((0, -0.05), (lean, middle), rng.uniform(0.26, 0.5), bark)
  for side in (-1, 1):
    figure.limb((lean * 0.7, middle * 0.75), (lean + side * crown * 0.6, middle), 0.16, bark)
  green = varied(rng, LEAVES[rng.integers(len(LEAVES))], 12)
  figure.disc(lean, middle, crown * 0.6, deep * 0.6, shaded(green, 0.72))
  _clumps(figure, rng, (lean, middle), (crown, deep), green, 34)
  figure.foot_shadow(1.0, crown * 0.9, 0.4)


def bush(
  canvas: Canvas, rng: np.random.Generator, x: float, z: float, height: float, width: float
) -> None:
  """A bush, or a piece of hedge."""
  figure = Figure(canvas, x, z, VEGETATION)
  green = varied(rng, LEAVES[rng.integers(len(LEAVES))], 10)
  for _ in range(4):
    half = height * 0.35
    figure.disc(rng.uniform(-width, width) / 2, half, width * 0.4, half, shaded(green, 0.7))
  _clumps(figure, rng, (0, height * 0.55), (width * 0.6, height * 0.5), green, 14)


def _clumps(figure: Figure, rng: np.random.Generator, centre, radii, green, count: int) -> None:
  """Leaf clumps within an ellipse, dark ones below first."""
  spots = rng.uniform(-1, 1, (count, 2))
  spots /= np.maximum(1.0, np.hypot(spots[:, 0], spots[:, 1]))[:, None]
  spots = spots[np.argsort(spots[:, 1], kind='stable')] * 0.85
  sizes = rng.uniform(0.22, 0.46, (count, 2))
  lights = rng.uniform(-0.16, 0.16, count)
  for (u, v), (ru, rv), light in zip(spots.tolist(), sizes.tolist(), lights.tolist(), strict=True):
    shade = 0.88 + 0.3 * v + 0.1 * u + light
    x, y = centre[0] + u * radii[0], centre[1] + v * radii[1]
    figure.disc(x, y, ru * radii[0], rv * radii[1], shaded(green, shade))


def lamp(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
  """A street lamp with an arm over the road, or a plain pole."""
  figure = Figure(canvas, x, z, POLE)
  steel = varied(rng, STEEL[rng.integers(len(STEEL))], 10)
  height = rng.uniform(5.5, 9)
  figure.limb((0, -0.05), (0, height), rng.uniform(0.13, 0.2), steel)
  figure.limb((0, 0), (0, 1.1), rng.uniform(0.2, 0.28), shaded(steel, 0.85))
  figure.foot_shadow(0, 0.3)
  if rng.random() < 0.7:
    arm = -np.sign(x) * rng.uniform(0.8, 1.8)
    figure.limb((0, height - 0.05), (arm, height + 0.15), 0.12, steel)
    figure.disc(arm, height + 0.08, 0.34, 0.12, (190, 188, 176), (255, 214, 150))


def bollard(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
  figure = Figure(canvas, x, z, POLE)
  steel = varied(rng, STEEL[rng.integers(len(STEEL))], 14)
  figure.limb((0, -0.02), (0, 1.0), 0.2, steel)
  figure.limb((0, 0.75), (0, 0.9), 0.2, (200, 196, 190))
  figure.foot_shadow(0, 0.25)


def traffic_light(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
  """A pole with one or two lit heads, one of them sometimes over the road."""
  pole = Figure(canvas, x, z, POLE)
  steel = varied(rng, STEEL[rng.integers(len(STEEL))], 10)
  height = rng.uniform(2.9, 3.5)
  spots = [(0.0, height)]
  pole.limb((0, -0.05), (0, height + 0.2), 0.17, steel)
  if rng.random() < 0.45:
    reach = -np.sign(x) * rng.uniform(2.2, 3.6)
    pole.limb((0, 0), (0, 5.6), 0.2, steel)
    pole.limb((0, 5.5), (reach, 5.6), 0.15, steel)
    spots.append((reach, 5.5))
  head, lit = Figure(canvas, x, z, LIGHT), int(rng.integers(3))
  for u, top in spots:
    box = ((-0.2, -1.05), (0.2, -1.05), (0.2, 0.1), (-0.2, 0.1))
    head.shape([(u + a, top + b) for a, b in box], (34, 36, 36))
    for lens, (_, colour) in enumerate(LAMPS):
      y = top - 0.13 - 0.34 * lens
      on = lens == lit
      glow = colour if on else DARK
      head.disc(u, y, 0.13, 0.13, colour if on else shaded(colour, 0.25), glow)


def sign(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
  """One or two plates on a pole."""
  pole, plate = Figure(canvas, x, z, POLE), Figure(canvas, x, z, SIGN)
  height, radius = rng.uniform(2.1, 2.7), rng.uniform(0.3, 0.42)
  pole.limb((0, -0.05), (0, height + radius), 0.1, varied(rng, (130.0, 132.0, 132.0), 14))
  for level in range(1 + int(rng.random() < 0.35)):
    shape, rim, face = SIGNS[rng.integers(len(SIGNS))]
    y, outline = height + level * radius * 2.2, OUTLINES[shape]
    plate.shape([(radius * u, y + radius * v) for u, v in outline], rim)
    plate.shape([(0.7 * radius * u, y + 0.7 * radius * v) for u, v in outline], face)
    if rng.random() < 0.6:
      ink = (40, 40, 44) if sum(face) > 400 else (226, 226, 226)
      bar = ((-0.12, -0.35), (0.12, -0.35), (0.12, 0.35), (-0.12, 0.35))
      plate.shape([(radius * u, y + radius * v) for u, v in bar], ink)


def bin_(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
  """A bin or a cabinet: labelled static, which is not scored."""
  figure = Figure(canvas, x, z, STATIC)
  half, height = rng.uniform(0.25, 0.5), rng.uniform(0.8, 1.3)
  colour = varied(rng, ((84, 92, 84), (120, 116, 104), (66, 70, 84))[rng.integers(3)], 14)
  figure.shape(((-half, 0), (half, 0), (half, height), (-half, height)), colour)
  lid = (
    (-half - 0.04, height - 0.15),
    (half + 0.04, height - 0.15),
    (half, height),
    (-half, height),
  )
  figure.shape(lid, shaded(colour, 0.75))
  figure.foot_shadow(0, half * 1.3)
