"""What stands where: fills a street with things and paints them far to near."""

from collections.abc import Callable, Iterable

import numpy as np

from car_jax.datasets.street_scenes import houses, people, standing, vehicles
from car_jax.datasets.street_scenes.canvas import HEIGHT, WIDTH, Canvas, Paint
from car_jax.datasets.street_scenes.ground import Side, Street

EGO_VEHICLE = 1
Thing = tuple[float, Callable[[], None]]  # distance in metres by which it is sorted; paints it
AHEAD, TOWARDS = (0.0, 1.0), (0.0, -1.0)
FRONTS = ('house', 'wall', 'fence', 'hedge', 'park')


class Scenery:
  """Collects things; a thing's drawing takes its own stream, so that none disturbs another."""

  def __init__(self, canvas: Canvas, rng: np.random.Generator, street: Street):
    self.canvas, self.rng, self.street = canvas, rng, street
    self.things: list[Thing] = []
    self.sun = rng.uniform(0.72, 1.08, 2)  # light on the left and right fronts

  def add(self, order: float, draw: Callable, *where) -> None:
    stream = np.random.default_rng(self.rng.integers(2**63))
    self.things.append((order, lambda: draw(self.canvas, stream, *where)))

  def paint(self) -> None:
    for _, draw in sorted(self.things, key=lambda thing: -thing[0]):
      draw()


def furnish(
  canvas: Canvas, rng: np.random.Generator, street: Street, more: Iterable[Thing] = ()
) -> None:
  """Paints everything that stands on the ground, `more` too, then the camera car's bonnet."""
  scenery = Scenery(canvas, rng, street)
  houses.skyline(canvas, rng)
  for side in (street.left, street.right):
    _fronts(scenery, side)
    _trees(scenery, side)
    _kerbside(scenery, side)
    _parked(scenery, side)
    _walkers(scenery, side)
  _traffic(scenery)
  _rare(scenery)
  scenery.things += more
  scenery.paint()
  _bonnet(canvas, rng)


def _fronts(scenery: Scenery, side: Side) -> None:
  """Houses, walls, fences, hedges one after another, with gaps where side streets join."""
  rng, x = scenery.rng, side.sign * side.front
  light = float(scenery.sun[(side.sign + 1) // 2])
  green = scenery.street.grassy
  share = np.array([0.74 - 0.25 * green, 0.09, 0.17, 0.04, 0.03 + 0.16 * green])
  share /= share.sum()
  z = rng.uniform(4, 12)
  while z < 165:
    stop = z + rng.uniform(9, 22)
    crossing = next((c for c in scenery.street.crossings if z < c[1] and stop > c[0]), None)
    if crossing:
      stop = crossing[0]
    if stop - z > 3:
      _front(scenery, FRONTS[rng.choice(len(FRONTS), p=share)], x, (z, stop), light)
    z = crossing[1] if crossing else stop + (rng.uniform(2, 7) if rng.random() < 0.15 else 0.0)


def _front(scenery: Scenery, kind: str, x: float, z: tuple[float, float], light: float) -> None:
  rng, sign = scenery.rng, np.sign(x)
  if kind == 'house':
    scenery.add(z[1], houses.house, x, z, light)
    return
  behind = x + sign * rng.uniform(3, 6)
  for spot in np.arange(z[0] + 1, z[1], 4.0):
    order = z[1] + 0.001 * spot  # the whole garden before its wall, the wall before passers-by
    tree = behind + rng.uniform(-1.5, 3), spot + rng.uniform(0, 3)
    scenery.add(order, standing.tree, *tree)
    scenery.add(order, standing.bush, behind, spot, rng.uniform(1.5, 3.5), 5.0)
  if kind in ('wall', 'fence'):
    scenery.add(z[1], getattr(houses, kind), x, z, light)
  if kind == 'hedge':
    for spot in np.arange(z[0], z[1], 0.9):
      scenery.add(spot, standing.bush, x, spot, rng.uniform(1.3, 1.7), 1.6)


def _trees(scenery: Scenery, side: Side) -> None:
  """A row of street trees, or a few."""
  rng = scenery.rng
  if rng.random() < 0.5:
    return
  x = side.sign * (side.kerb + rng.uniform(0.5, 0.9))
  step, chance = rng.uniform(7, 12), rng.uniform(0.4, 0.9)
  for z in np.arange(rng.uniform(10, 24), 120, step):
    if rng.random() < chance:
      scenery.add(z, standing.tree, x, z)


def _kerbside(scenery: Scenery, side: Side) -> None:
  """Lamps, bollards, traffic lights, signs, bins, parked bicycles along the kerb."""
  rng, edge = scenery.rng, side.kerb + 0.4
  for z in np.arange(rng.uniform(8, 25), 130, rng.uniform(22, 40)):
    scenery.add(z, standing.lamp, side.sign * (edge + rng.uniform(0, 0.4)), z)
  for draw, rate, low, high in (
    (standing.sign, 1.7, 8, 50),
    (standing.traffic_light, 0.75, 12, 45),
    (standing.bin_, 0.5, 9, 35),
    (people.pram, 0.12, 9, 25),
  ):
    for _ in range(rng.poisson(rate)):
      z = rng.uniform(low, high)
      scenery.add(z, draw, side.sign * (edge + rng.uniform(0, 0.9)), z)
  if rng.random() < 0.16:
    start = rng.uniform(7, 22)
    for z in np.arange(start, start + rng.uniform(4, 14), 2.0):
      scenery.add(z, standing.bollard, side.sign * edge, z)
  if rng.random() < 0.4:
    start, inwards = rng.uniform(9, 22), rng.uniform(0.4, 1.6)
    for z in start + np.arange(rng.integers(1, 5)) * 0.9:
      x = side.sign * (edge + inwards)
      scenery.add(z, people.bicycle, x, z, float(rng.uniform(0.4, 1)))
  if rng.random() < 0.06:
    z = rng.uniform(9, 20)
    scenery.add(z, people.motorcycle, side.sign * edge, z, float(rng.uniform(0.5, 1)))


def _parked(scenery: Scenery, side: Side) -> None:
  """A row of parked cars inside the kerb, with gaps."""
  rng, fill = scenery.rng, scenery.rng.uniform(0.0, 0.5)
  heading = AHEAD if side.sign > 0 or rng.random() < 0.3 else TOWARDS
  for z in np.arange(rng.uniform(9, 15), 100, rng.uniform(5.6, 6.6)):
    if rng.random() < fill and not any(a - 5 < z < b + 5 for a, b in scenery.street.crossings):
      x = side.sign * (side.kerb - 1.1 + rng.uniform(-0.1, 0.1))
      scenery.add(z, vehicles.car, x, z, heading)


def _walkers(scenery: Scenery, side: Side) -> None:
  """People on the pavement, single or in small groups, near and far."""
  rng = scenery.rng
  for _ in range(rng.poisson(3.2)):
    z = 9 + 42 * rng.random() ** 1.5
    x = side.sign * rng.uniform(side.kerb + 0.5, side.walk - 0.3)
    for _ in range(1 + int(rng.random() < 0.35) + int(rng.random() < 0.12)):
      spot = z + rng.uniform(-0.5, 0.5)
      scenery.add(spot, people.person, x + rng.uniform(-0.7, 0.7), spot)


def _traffic(scenery: Scenery) -> None:
  """What drives: trucks, buses and trams first, then cars where there is room; riders."""
  rng, street = scenery.rng, scenery.street
  oncoming = -min(street.left.kerb - 3.2, 3.2)
  lanes = ((0.0, AHEAD, 0.75, 13), (oncoming, TOWARDS, 0.7, 10))
  taken = _large(scenery, lanes)
  for (x, heading, chance, low), busy in zip(lanes, taken, strict=True):
    z = rng.uniform(low, 40)
    while z < 110 and rng.random() < chance:
      if not any(start - 4 < z < stop + 4 for start, stop in busy):
        scenery.add(z, vehicles.car, x + rng.uniform(-0.3, 0.3), z, heading)
      z += rng.uniform(9, 32)
  for start, stop in street.crossings:
    if rng.random() < 0.5:
      z, x = (start + stop) / 2, rng.uniform(-16, 16)
      scenery.add(z, vehicles.car, x, z, (1.0, 0.0) if x < 0 else (-1.0, 0.0))
  for motor, chance in ((False, 0.22), (True, 0.1)):
    if rng.random() < chance:
      side = street.right if rng.random() < 0.7 else street.left
      z, x = rng.uniform(8, 24), side.sign * max(side.kerb - rng.uniform(2.3, 2.8), 1.1)
      scenery.add(z, people.rider, x, z, motor)


def _large(scenery: Scenery, lanes: tuple) -> list[list[tuple[float, float]]]:
  """Trucks, buses, trams; for each lane the stretches (z from, to) that they take."""
  rng = scenery.rng
  taken: list[list[tuple[float, float]]] = [[], []]
  for draw, chance, low, high, half in (
    (vehicles.truck, 0.14, 14, 55, 6.0),
    (vehicles.bus, 0.11, 16, 55, 6.0),
    (vehicles.tram, 0.14, 27, 65, 14.0),
  ):
    if rng.random() < chance:
      lane, z = int(rng.random() < 0.6), rng.uniform(low, high)
      if not any(start - half < z < stop + half for start, stop in taken[lane]):
        x, heading = lanes[lane][:2]
        scenery.add(z - half, draw, x, z, heading)  # by its near end: the rest hides what is beside
        taken[lane].append((z - half, z + half))
  return taken


def _rare(scenery: Scenery) -> None:
  """People crossing the road, a bridge."""
  rng, street = scenery.rng, scenery.street
  if rng.random() < 0.3:
    z = rng.uniform(10, 30)
    for _ in range(rng.integers(1, 4)):
      spot = z + rng.uniform(-0.8, 0.8)
      scenery.add(spot, people.person, rng.uniform(-street.left.kerb, street.right.kerb), spot)
  if rng.random() < 0.03:
    z = rng.uniform(60, 110)
    width = max(street.left.kerb, street.right.kerb) + 0.5
    scenery.add(z, houses.bridge, width, z)


def _bonnet(canvas: Canvas, rng: np.random.Generator) -> None:
  """The camera car's own bonnet along the lower edge, not scored."""
  top, wide = HEIGHT * rng.uniform(0.915, 0.95), WIDTH * rng.uniform(0.46, 0.6)
  middle, deep = WIDTH * rng.uniform(0.47, 0.53), HEIGHT * 0.2
  dark = float(rng.uniform(40, 60))
  for inset, shade in ((0, 1.0), (6, 0.85), (14, 0.72)):
    paint = Paint(EGO_VEHICLE, 2.0, (dark * shade, dark * shade, dark * shade * 1.06))
    canvas.ellipse((middle, top + deep + inset), (wide - inset, deep), paint)
