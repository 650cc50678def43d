"""Objects of no known class, on the road or the pavement: what a segmenter should not be sure of.

Each is drawn as other things are, in metres. They take a random stream of their own, so that a
scene is the same with and without them but for their pixels and shadows.
"""

import numpy as np

from car_jax.datasets.street_scenes.canvas import Canvas, Colour, shaded, varied
from car_jax.datasets.street_scenes.ground import Street
from car_jax.datasets.street_scenes.layout import Thing
from car_jax.datasets.street_scenes.people import DYNAMIC
from car_jax.datasets.street_scenes.standing import Figure
from car_jax.datasets.street_scenes.vehicles import Solid

STONE: tuple[Colour, ...] = ((122, 116, 108), (98, 96, 98), (138, 120, 100))
WOOD: tuple[Colour, ...] = ((164, 124, 78), (140, 110, 80), (112, 126, 136), (150, 70, 56))
BRIGHT: tuple[Colour, ...] = ((214, 60, 60), (60, 110, 200), (236, 196, 60), (90, 170, 90))
FUR: tuple[Colour, ...] = ((134, 98, 64), (104, 80, 60), (158, 124, 86), (86, 78, 74))


def things(canvas: Canvas, rng: np.random.Generator, street: Street, share: float) -> list[Thing]:
  """One to three things to be painted with the others, in a `share` of the scenes; or none.

  What they paint is noted in `canvas.unknown`.
  """
  if rng.random() >= share:
    return []
  return [_thing(canvas, rng, street) for _ in range(rng.integers(1, 4))]


def _thing(canvas: Canvas, rng: np.random.Generator, street: Street) -> Thing:
  draw = (boulder, crate, ball, animal)[rng.integers(4)]
  z = 7 + 16 * rng.random() ** 1.3
  side = street.right if rng.random() < 0.5 else street.left
  if rng.random() < 0.65:
    x = rng.uniform(-0.8 * street.left.kerb, 0.8 * street.right.kerb)
  else:
    x = side.sign * rng.uniform(side.kerb + 0.4, side.walk - 0.4)
  stream = np.random.default_rng(rng.integers(2**63))

  def paint() -> None:
    first = len(canvas.paints)
    draw(canvas, stream, x, z)
    canvas.unknown += range(first, len(canvas.paints))

  return z, paint


def boulder(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
  """A rough stone, lighter above, with facets."""
  figure = Figure(canvas, x, z, DYNAMIC)
  wide, high = rng.uniform(0.4, 1.1), rng.uniform(0.5, 1.2)
  stone = varied(rng, STONE[rng.integers(len(STONE))], 14)
  angles = np.linspace(0, np.pi, 9)
  reach = rng.uniform(0.82, 1.08, 9)
  rim = [(wide * r * np.cos(a), high * r * np.sin(a)) for a, r in zip(angles, reach, strict=True)]
  rim[0], rim[-1] = (wide, -0.04), (-wide, -0.04)
  figure.foot_shadow(0.2, wide * 1.15, 0.6)
  figure.shape(rim, stone)
  middle = (rng.uniform(-0.25, 0.25) * wide, rng.uniform(0.4, 0.6) * high)
  for k in range(8):
    tone = 0.66 + 0.5 * np.sin((angles[k] + angles[k + 1]) / 2) + rng.uniform(-0.1, 0.1)
    figure.shape((middle, rim[k], rim[k + 1]), shaded(stone, tone))


def crate(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
  """A box of boards, turned somehow, sometimes with a second one on top."""
  angle, wood = rng.uniform(0, 2 * np.pi), varied(rng, WOOD[rng.integers(len(WOOD))], 12)
  turn = float(np.cos(angle)), float(np.sin(angle))
  half, high = rng.uniform(0.35, 0.75), rng.uniform(0.5, 1.2)
  levels = 1 + int(rng.random() < 0.3)
  for level in range(levels):
    solid, low, size = Solid(DYNAMIC), level * high, half * (1 - 0.25 * level)
    solid.box((-size, size), size, (low, low + high), wood)
    for share in (0.0, 0.3, 0.62, 0.92):
      y = low + share * high, low + (share + 0.08) * high
      board = ((-size, y[0]), (size, y[0]), (size, y[1]), (-size, y[1]))
      solid.side(size + 0.01, board, shaded(wood, 0.62), 1)
      for end in (-size - 0.01, size + 0.01):
        solid.end(end, (-size, size), y, shaded(wood, 0.55), 1)
    if level == 0:
      solid.shadow(canvas, x, z, turn, (half, half))
    solid.put(canvas, x, z, turn)


def ball(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
  """A giant ball with a band and a glint."""
  figure = Figure(canvas, x, z, DYNAMIC)
  radius = rng.uniform(0.35, 0.95)
  skin = varied(rng, BRIGHT[rng.integers(len(BRIGHT))], 16)
  band = varied(rng, BRIGHT[rng.integers(len(BRIGHT))], 16)
  figure.foot_shadow(0.1, radius * 0.9, 0.6)
  figure.disc(0, radius, radius, radius, shaded(skin, 0.7))
  figure.disc(-0.06 * radius, radius * 1.06, radius * 0.92, radius * 0.92, skin)
  tilt = rng.uniform(0.12, 0.3)
  figure.disc(0, radius * (1 - 0.1 * tilt), radius * 0.9, radius * tilt, band)
  figure.disc(0, radius * (1 + 0.9 * tilt), radius * 0.86, radius * tilt * 0.8, skin)
  figure.disc(-0.35 * radius, radius * 1.5, radius * 0.16, radius * 0.13, (236, 236, 232))


def animal(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
  """Like a deer, from the side: a long body on thin legs, a neck, perhaps antlers."""
  figure = Figure(canvas, x, z, DYNAMIC)
  fur, k = varied(rng, FUR[rng.integers(len(FUR))], 12), rng.uniform(0.7, 1.25)
  way = 1 if rng.random() < 0.5 else -1
  at = lambda u, v: (way * u * k, v * k)
  figure.foot_shadow(0, 0.75 * k, 0.5)
  for hip, foot, tone in (
    *((-0.5, -0.6, 0.68), (0.42, 0.36, 0.68), (-0.42, -0.34, 0.9), (0.52, 0.6, 0.9)),
  ):
    figure.limb(at(hip, 0.75), at((hip + foot) / 2 - 0.04, 0.4), 0.15 * k, shaded(fur, tone))
    figure.limb(at((hip + foot) / 2 - 0.04, 0.42), at(foot, 0.0), 0.1 * k, shaded(fur, tone))
  for u, v, ru, rv, tone in ((-0.36, 0.86, 0.3, 0.26, 0.95), (0.32, 0.88, 0.32, 0.27, 1.0)):
    figure.disc(*at(u, v), ru * k, rv * k, shaded(fur, tone))
  figure.shape([at(-0.4, 1.1), at(0.4, 1.13), at(0.4, 0.66), at(-0.4, 0.66)], fur)
  figure.shape([at(-0.35, 0.72), at(0.4, 0.74), at(0.3, 0.62), at(-0.3, 0.62)], shaded(fur, 1.3))
  head = (rng.uniform(0.7, 0.92), rng.uniform(1.3, 1.62))
  figure.limb(at(0.42, 0.98), at(*head), 0.28 * k, fur)
  figure.disc(*at(head[0] + 0.1, head[1] + 0.02), 0.17 * k, 0.1 * k, shaded(fur, 0.92))
  figure.disc(*at(head[0] + 0.26, head[1] - 0.02), 0.07 * k, 0.06 * k, (44, 38, 36))
  figure.limb(at(head[0], head[1] + 0.06), at(head[0] - 0.12, head[1] + 0.2), 0.07 * k, fur)
  figure.limb(at(-0.62, 1.0), at(-0.74, 0.84), 0.09 * k, shaded(fur, 1.35))
  if rng.random() < 0.5:
    _antlers(figure, at, head, k)


def _antlers(figure: Figure, at, head: tuple[float, float], k: float) -> None:
  bone = (150.0, 132.0, 106.0)
  u, v = head
  for lean in (-0.12, 0.1):
    tip = (u + lean - 0.05, v + 0.5)
    figure.limb(at(u, v + 0.08), at(*tip), 0.05 * k, bone)
    figure.limb(at(u + lean * 0.5, v + 0.28), at(u + lean + 0.16, v + 0.4), 0.04 * k, bone)
