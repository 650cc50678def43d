"""Cars, vans, trucks, buses, trams: solids of a few flat faces, seen from any side.

Local metres: a ahead of the vehicle's middle, c to its right, y above the ground.
"""

from typing import NamedTuple

import numpy as np

from car_jax.datasets.street_scenes.canvas import DARK, Canvas, Colour, Paint, shaded, varied

CAR, TRUCK, BUS, TRAIN = 26, 27, 28, 31
GLASS: Colour = (44.0, 52.0, 60.0)
TYRE: Colour = (28.0, 28.0, 30.0)
RUBBER: Colour = (44.0, 44.0, 46.0)
BEAM: Colour = (255.0, 245.0, 215.0)
BRAKE: Colour = (230.0, 24.0, 20.0)
PAINTWORK: tuple[Colour, ...] = (
  *((40, 42, 46), (172, 174, 178), (206, 206, 204), (92, 96, 102), (52, 66, 104)),
  *((128, 34, 34), (60, 62, 66), (118, 120, 122), (70, 84, 78), (150, 128, 96), (64, 92, 128)),
)
LIVERY: tuple[Colour, ...] = ((206, 186, 66), (196, 60, 50), (212, 210, 204), (76, 118, 158))


class Shape(NamedTuple):
  """A car's side view, metres: half length, half width, heights, and where the cabin is."""

  length: float
  width: float
  belt: float
  roof: float
  nose: float  # height of the bonnet's front
  cabin: tuple[float, float, float, float]  # a of: tail of cabin, roof's back, front, screen's foot


SHAPES: tuple[Shape, ...] = (
  Shape(2.05, 0.87, 0.95, 1.46, 0.72, (-2.0, -1.6, 0.25, 1.05)),  # hatchback
  Shape(2.3, 0.9, 0.93, 1.43, 0.72, (-1.75, -1.05, 0.3, 1.1)),  # saloon
  Shape(2.35, 0.9, 0.95, 1.48, 0.74, (-2.3, -2.0, 0.3, 1.1)),  # estate
  Shape(2.3, 0.93, 1.05, 1.7, 0.9, (-2.2, -1.9, 0.4, 1.15)),  # off-roader
  Shape(2.5, 0.97, 1.2, 1.98, 0.95, (-2.48, -2.4, 1.0, 1.75)),  # van
)


class Solid:
  """Faces in local metres, painted far to near once the vehicle is put in its place."""

  def __init__(self, label: int):
    self.label = label
    self.faces: list[tuple] = []

  def face(self, corners, colour: Colour, glow: Colour = DARK, *, over=0, on=None, top=False):
    """Corners (a, c, y); a detail lies `over` layers above a surface with middle on=(a, c)."""
    middle = on or np.mean(corners, 0)[:2]
    self.faces.append((corners, colour, glow, over, middle, top))

  def side(self, c: float, outline, colour: Colour, over=0, glow: Colour = DARK, on=None) -> None:
    """The same outline (a, y) on the right at c and on the left at -c; on: its surface's middle."""
    for sign, shade in ((1, 0.86), (-1, 0.78)):
      corners = [(a, sign * c, y) for a, y in outline]
      middle = None if on is None else (on, sign * c)
      self.face(corners, shaded(colour, shade), glow, over=over, on=middle)

  def end(self, a: float, c: tuple, y: tuple, colour: Colour, over=0, glow: Colour = DARK) -> None:
    """An upright rectangle across the vehicle at a."""
    corners = [(a, c[0], y[0]), (a, c[1], y[0]), (a, c[1], y[1]), (a, c[0], y[1])]
    self.face(corners, colour, glow, over=over, on=(a, 0.0))

  def box(self, a: tuple, c: float, y: tuple, colour: Colour) -> None:
    self.side(c, ((a[0], y[0]), (a[1], y[0]), (a[1], y[1]), (a[0], y[1])), colour)
    for end, shade in zip(a, (0.72, 0.9), strict=True):
      self.end(end, (-c, c), y, shaded(colour, shade))
    self.face(_flat(a, (c, c), (y[1], y[1])), shaded(colour, 1.12), top=True)

  def wheels(self, places, c: float, radius: float) -> None:
    """Discs on both sides, and the tyres' treads as seen from behind or ahead."""
    turn = [(0.0, 1.0), (0.7, 0.7), (1.0, 0.0), (0.7, -0.7)]
    ring = [*turn, *((-u, -v) for u, v in turn)]
    for a in places:
      for size, colour, over in ((1.0, TYRE, 2), (0.55, (112.0, 112.0, 114.0), 3)):
        outline = [(a + size * radius * u, radius + size * radius * v) for u, v in ring]
        self.side(c + 0.01, outline, colour, over, on=0.0)
      for sign in (-1, 1):
        tread = (sign * (c - 0.22), sign * c)
        self.end(a - radius * 0.5, tread, (0.0, radius * 0.75), TYRE)
        self.end(a + radius * 0.5, tread, (0.0, radius * 0.75), TYRE)

  def put(self, canvas: Canvas, x: float, z: float, turn: tuple[float, float]) -> None:
    """Paints it with its middle at (x, z), heading along `turn` = (to the right, away)."""
    right, away = turn
    placed: list[tuple] = []
    for corners, colour, glow, over, (ma, mc), top in self.faces:
      a, c, y = np.array(corners, np.float64).T
      wx, wz = x + a * right + c * away, z + a * away - c * right
      middle = x + ma * right + mc * away, z + ma * away - mc * right
      order = float(np.hypot(*middle)) - 0.04 * over
      placed.append((-order, len(placed), wx, y, wz, Paint(self.label, z, colour, glow, top)))
    for _, _, wx, y, wz, paint in sorted(placed, key=lambda p: p[:2]):
      canvas.polygon(zip(*canvas.camera.pixel(wx, y, wz), strict=True), paint)

  def shadow(self, canvas: Canvas, x: float, z: float, turn: tuple[float, float], size) -> None:
    """The dark ground beneath it and a little beside it; size = half length and width."""
    right, away = turn
    for grow, darkness in ((0.35, 0.45), (0.08, 0.82)):
      a, c = size[0] + grow * 0.6, size[1] + grow
      around = [(-a, -c), (a, -c), (a, c), (-a, c)]
      spots = [(x + u * right + v * away, z + u * away - v * right) for u, v in around]
      canvas.shadow([(u, max(v, 2.0)) for u, v in spots], darkness)


def _flat(a: tuple, c: tuple, y: tuple) -> list:
  """A sloping or level rectangle from a[0] to a[1], as wide as c says at either end."""
  return [(a[0], -c[0], y[0]), (a[0], c[0], y[0]), (a[1], c[1], y[1]), (a[1], -c[1], y[1])]


def car(canvas: Canvas, rng: np.random.Generator, x: float, z: float, turn) -> None:
  """A car of one of several shapes and colours."""
  shape = SHAPES[rng.integers(len(SHAPES))]
  colour = varied(rng, PAINTWORK[rng.integers(len(PAINTWORK))], 14)
  solid = Solid(CAR)
  _car_body(solid, shape, colour)
  _car_glass(solid, shape, colour)
  _car_ends(solid, shape)
  solid.wheels((-shape.length * 0.62, shape.length * 0.62), shape.width, 0.32)
  solid.shadow(canvas, x, z, turn, (shape.length, shape.width))
  solid.put(canvas, x, z, turn)


def _car_body(solid: Solid, shape: Shape, colour: Colour) -> None:
  a, c, low = shape.length, shape.width, 0.22
  tail, back, front, foot = shape.cabin
  profile = ((-a, low), (a, low), (a, shape.nose), (foot, shape.belt), (-a, shape.belt))
  solid.side(c, profile, colour)
  solid.side(c, ((-a, low), (a, low), (a, low + 0.12), (-a, low + 0.12)), RUBBER, 1)
  solid.end(-a, (-c, c), (low, shape.belt), shaded(colour, 0.8))
  solid.end(a, (-c, c), (low, shape.nose), shaded(colour, 0.88))
  solid.face(
    _flat((foot, a), (c, c * 0.95), (shape.belt, shape.nose)), shaded(colour, 1.15), top=True
  )
  solid.face(_flat((-a, tail), (c, c), (shape.belt, shape.belt)), shaded(colour, 1.1), top=True)
  narrow = c * 0.76
  roof = _flat((back, front), (narrow, narrow), (shape.roof, shape.roof))
  solid.face(roof, shaded(colour, 1.2), top=True)


def _car_glass(solid: Solid, shape: Shape, colour: Colour) -> None:
  """The cabin leans inwards: its sides are drawn with the roof narrower than the belt."""
  c, narrow = shape.width * 0.97, shape.width * 0.76
  tail, back, front, foot = shape.cabin
  belt, roof = shape.belt, shape.roof
  middle = (back + front) / 2
  for sign in (1, -1):
    side = [(tail, belt), (foot, belt), (front, roof), (back, roof)]
    skin = [(a, sign * (c if y == belt else narrow), y) for a, y in side]
    on = ((tail + foot + front + back) / 4, sign * (c + narrow) / 2)
    solid.face(skin, shaded(colour, 0.9), on=on)
    for u0, u1, v0, v1 in (
      (tail + 0.25, middle - 0.06, back + 0.15, middle - 0.06),
      (middle + 0.06, foot - 0.3, middle + 0.06, front - 0.1),
    ):
      low, high = belt + 0.05, roof - 0.09
      pane = [(u0, sign * c, low), (u1, sign * c, low), (v1, sign * narrow, high)]
      solid.face([*pane, (v0, sign * narrow, high)], shaded(GLASS, 0.9), over=2, on=on)
  for ends, shade in (((tail, back), 1.0), ((foot, front), 1.35)):
    screen = _flat(ends, (c, narrow), (belt, roof))
    solid.face(screen, shaded(colour, 0.75))
    inner = _flat(ends, (c * 0.88, narrow * 0.88), (belt + 0.06, roof - 0.07))
    solid.face(inner, shaded(GLASS, shade), over=2)


def _car_ends(solid: Solid, shape: Shape) -> None:
  """Bumpers, number plates, lights: red behind, white ahead."""
  a, c = shape.length + 0.01, shape.width
  for end, lamp, glow, top in (
    (-a, (168.0, 26.0, 24.0), BRAKE, shape.belt - 0.06),
    (a, (214.0, 214.0, 204.0), BEAM, shape.nose - 0.02),
  ):
    solid.end(end, (-c, c), (0.22, 0.42), RUBBER, 1)
    solid.end(end, (-0.26, 0.26), (0.46, 0.58), (206.0, 206.0, 198.0), 2)
    for sign in (-1, 1):
      span = (sign * c * 0.66, sign * c * 0.97)
      solid.end(end, span, (top - 0.2, top), lamp, 2, glow)
  solid.end(a, (-c * 0.5, c * 0.5), (shape.nose - 0.18, shape.nose - 0.05), (30.0, 30.0, 32.0), 2)


def truck(canvas: Canvas, rng: np.random.Generator, x: float, z: float, turn) -> None:
  """A cab and a box."""
  solid, c = Solid(TRUCK), 1.2
  long, high = rng.uniform(2.8, 3.8), rng.uniform(2.8, 3.5)
  cab = varied(rng, (*LIVERY, *PAINTWORK)[rng.integers(len(LIVERY) + len(PAINTWORK))], 12)
  load = varied(
    rng, ((208, 206, 200), (170, 172, 176), (120, 92, 70), (86, 106, 140))[rng.integers(4)], 14
  )
  front = long + 1.9
  solid.box((-long, front), c * 0.8, (0.45, 0.85), RUBBER)
  solid.box((-long, long), c, (0.9, high), load)
  solid.box((long + 0.12, front), c * 0.97, (0.5, 2.6), cab)
  solid.side(
    c * 0.98,
    ((long + 0.6, 1.5), (front - 0.15, 1.5), (front - 0.3, 2.3), (long + 0.6, 2.3)),
    GLASS,
    2,
  )
  solid.end(front + 0.01, (-c * 0.85, c * 0.85), (1.45, 2.35), GLASS, 2)
  solid.end(-long - 0.01, (-0.03, 0.03), (0.95, high - 0.05), shaded(load, 0.5), 2)
  solid.end(-long - 0.01, (-c, c), (0.62, 0.85), RUBBER, 1)
  for sign in (-1, 1):
    solid.end(-long - 0.02, (sign * 0.8, sign * 1.12), (0.65, 0.82), (176.0, 30.0, 26.0), 2, BRAKE)
    solid.end(front + 0.02, (sign * 0.75, sign * 1.1), (0.7, 0.95), (222.0, 220.0, 208.0), 2, BEAM)
  solid.wheels((-long + 1.0, -long + 2.1, front - 1.0), c, 0.48)
  solid.shadow(canvas, x, z, turn, (front, c))
  solid.put(canvas, x, z, turn)


def bus(canvas: Canvas, rng: np.random.Generator, x: float, z: float, turn) -> None:
  """A city bus: one long box with a band of windows and a lit number."""
  solid, c, long, high = Solid(BUS), 1.27, rng.uniform(5, 6), 3.05
  skin = varied(rng, LIVERY[rng.integers(len(LIVERY))], 12)
  _coach(solid, skin, (-long, long), c, (0.35, high))
  solid.end(
    long + 0.01, (-0.8, 0.8), (high - 0.42, high - 0.12), (36.0, 34.0, 30.0), 3, (255, 160, 40)
  )
  solid.wheels((-long + 2.2, long - 2.6), c, 0.48)
  solid.shadow(canvas, x, z, turn, (long, c))
  solid.put(canvas, x, z, turn)


def tram(canvas: Canvas, rng: np.random.Generator, x: float, z: float, turn) -> None:
  """Two or three joined cars, low over the rails, with a current collector."""
  solid, c, count = Solid(TRAIN), 1.25, int(rng.integers(2, 4))
  skin = varied(
    rng, ((196, 52, 44), (226, 214, 150), (72, 132, 92), (206, 206, 206))[rng.integers(4)], 12
  )
  start = -4.6 * count
  for _ in range(count):
    _coach(solid, skin, (start, start + 8.8), c, (0.22, 3.4))
    solid.side(
      c + 0.02,
      ((start, 0.95), (start + 8.8, 0.95), (start + 8.8, 1.25), (start, 1.25)),
      (230, 228, 220),
      2,
    )
    start += 9.2
  for tip in (-1.0, 1.0):
    solid.face([(tip, -0.05, 3.4), (tip, 0.05, 3.4), (0, 0.05, 4.5), (0, -0.05, 4.5)], RUBBER)
  solid.shadow(canvas, x, z, turn, (4.6 * count, c))
  solid.put(canvas, x, z, turn)


def _coach(solid: Solid, skin: Colour, a: tuple, c: float, y: tuple) -> None:
  """A box with a band of windows on each side and a large one at either end."""
  solid.box(a, c, y, skin)
  high = y[1]
  lit = (150.0, 140.0, 110.0)
  band = (
    (a[0] + 0.4, 1.35),
    (a[1] - 0.4, 1.35),
    (a[1] - 0.4, high - 0.55),
    (a[0] + 0.4, high - 0.55),
  )
  solid.side(c + 0.01, band, GLASS, 1, lit)
  for post in np.linspace(a[0] + 0.4, a[1] - 0.4, 6)[1:-1]:
    strut = (
      (post - 0.07, 1.3),
      (post + 0.07, 1.3),
      (post + 0.07, high - 0.5),
      (post - 0.07, high - 0.5),
    )
    solid.side(c + 0.02, strut, shaded(skin, 0.7), 2)
  for end, lamp, glow in (
    (a[0] - 0.01, (176.0, 30.0, 26.0), BRAKE),
    (a[1] + 0.01, (222.0, 220.0, 208.0), BEAM),
  ):
    solid.end(end, (-c * 0.9, c * 0.9), (1.3, high - 0.5), shaded(GLASS, 1.1), 1, shaded(lit, 0.6))
    solid.end(end, (-c, c), (y[0], 0.55), RUBBER, 1)
    for sign in (-1, 1):
      solid.end(end, (sign * c * 0.62, sign * c * 0.92), (0.75, 1.0), lamp, 2, glow)
