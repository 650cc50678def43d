"""Persons, riders, and what they ride.

Side views in metres, squeezed sideways by how far the rider or walker is turned away.
"""

import numpy as np

from car_jax.datasets.street_scenes.canvas import Canvas, Colour, shaded, varied
from car_jax.datasets.street_scenes.standing import Figure

DYNAMIC, PERSON, RIDER, MOTORCYCLE, BICYCLE = 5, 24, 25, 32, 33
SKIN: tuple[Colour, ...] = ((206, 164, 138), (176, 130, 104), (122, 86, 66), (222, 184, 160))
HAIR: tuple[Colour, ...] = ((44, 36, 32), (92, 66, 44), (150, 122, 82), (128, 126, 124))
CLOTHES: tuple[Colour, ...] = (
  *((40, 44, 56), (88, 92, 100), (140, 50, 48), (176, 170, 160), (58, 78, 116), (70, 82, 66)),
  *((32, 32, 34), (156, 124, 84), (116, 62, 92), (200, 196, 190), (62, 112, 122)),
)
TROUSERS: tuple[Colour, ...] = (
  (44, 50, 68),
  (34, 34, 36),
  (92, 84, 74),
  (66, 74, 92),
  (120, 112, 98),
)
FRAMES: tuple[Colour, ...] = (
  (48, 48, 52),
  (130, 40, 38),
  (60, 92, 130),
  (120, 124, 126),
  (66, 96, 70),
)
HELMETS: tuple[Colour, ...] = ((210, 208, 200), (44, 46, 50), (186, 54, 48), (66, 100, 150))


def _pick(rng: np.random.Generator, table: tuple[Colour, ...]) -> Colour:
  return varied(rng, table[rng.integers(len(table))], 10)


def person(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
  """Someone walking or standing, sometimes with a bag or a long coat."""
  figure = Figure(canvas, x, z, PERSON)
  tall = rng.uniform(1.52, 1.9) if rng.random() < 0.9 else rng.uniform(1.05, 1.4)
  k, stride = tall / 1.75, rng.uniform(-0.34, 0.34)
  coat, trousers = _pick(rng, CLOTHES), _pick(rng, TROUSERS)
  skin, hair = _pick(rng, SKIN), _pick(rng, HAIR)
  wide = rng.uniform(0.19, 0.26) * k
  hip, shoulder = 0.88 * k, 1.43 * k
  far = shaded(trousers, 0.78)
  for side, cloth in ((-1, far), (1, trousers)):
    foot = (side * 0.06 + side * stride, 0.02)
    knee = (side * (0.07 + 0.45 * stride) + 0.02, 0.47 * k)
    figure.limb((side * 0.08, hip + 0.05), knee, 0.19 * k, cloth)
    figure.limb(knee, foot, 0.15 * k, cloth)
    figure.disc(foot[0] + 0.03, 0.05, 0.11, 0.05, (34, 32, 32))
  swing = -stride * 0.7
  figure.limb(
    (-wide, shoulder - 0.05), (-wide - 0.06 - swing * 0.5, 0.85 * k), 0.12, shaded(coat, 0.75)
  )
  hem = hip - (rng.uniform(0.2, 0.4) * k if rng.random() < 0.3 else 0.08)
  torso = ((-wide, hem), (wide, hem), (wide * 1.08, shoulder - 0.08), (wide * 0.6, shoulder + 0.02))
  figure.shape((*torso, (-wide * 0.6, shoulder + 0.02), (-wide * 1.08, shoulder - 0.08)), coat)
  figure.shape(
    ((0, hem), (wide, hem), (wide * 1.05, shoulder - 0.1), (0, shoulder)), shaded(coat, 0.88)
  )
  figure.limb(
    (wide, shoulder - 0.06), (wide + 0.05 + swing * 0.5, 0.85 * k), 0.12, shaded(coat, 0.9)
  )
  figure.disc(wide + 0.05 + swing * 0.5, 0.82 * k, 0.05, 0.06, skin)
  if rng.random() < 0.3:
    bag = wide + 0.12
    outline = ((bag - 0.12, 0.5), (bag + 0.12, 0.5), (bag + 0.1, 0.82), (bag - 0.1, 0.82))
    figure.shape([(u, v * k) for u, v in outline], _pick(rng, CLOTHES))
  _head(figure, (0.0, shoulder + 0.17 * k), k, skin, hair)
  figure.foot_shadow(0.1, 0.42)


def _head(figure: Figure, centre, k: float, skin: Colour, hair: Colour) -> None:
  x, y = centre
  figure.limb((x, y - 0.2 * k), (x, y), 0.11 * k, shaded(skin, 0.8))
  figure.disc(x, y + 0.03 * k, 0.115 * k, 0.135 * k, hair)
  figure.disc(x + 0.025, y - 0.015 * k, 0.085 * k, 0.11 * k, skin)


def bicycle(canvas: Canvas, rng: np.random.Generator, x: float, z: float, squeeze: float) -> None:
  """Wheels, frame, saddle and bar; squeeze 1 is the side view, 0.2 nearly from behind."""
  figure = Figure(canvas, x, z, BICYCLE)
  frame, s = _pick(rng, FRAMES), squeeze
  for hub in (-0.52, 0.52):
    figure.disc(hub * s, 0.34, max(0.34 * s, 0.05), 0.34, (36, 36, 38))
    if s > 0.4:
      figure.disc(hub * s, 0.34, 0.27 * s, 0.27, (94, 92, 90))
      figure.disc(hub * s, 0.34, 0.05 * s, 0.05, (60, 60, 62))
  tubes = (
    *(((-0.52, 0.34), (-0.18, 0.78)), ((-0.52, 0.34), (-0.05, 0.3)), ((-0.05, 0.3), (-0.2, 0.88))),
    *(((-0.05, 0.3), (0.36, 0.74)), ((-0.18, 0.74), (0.36, 0.78)), ((0.52, 0.34), (0.34, 0.98))),
  )
  for (xa, ya), (xb, yb) in tubes:
    figure.limb((xa * s, ya), (xb * s, yb), 0.07, frame)
  figure.disc(-0.2 * s, 0.92, 0.05 + 0.1 * s, 0.05, (30, 30, 32))
  bar = 0.12 + 0.18 * (1 - s)
  figure.limb((0.34 * s - bar, 1.0), (0.34 * s + bar, 1.0), 0.06, (40, 40, 42))
  figure.foot_shadow(0, 0.3 + 0.4 * s, 0.45)


def motorcycle(
  canvas: Canvas, rng: np.random.Generator, x: float, z: float, squeeze: float
) -> None:
  """Fat tyres, tank, seat and engine; from behind a narrow body with a light."""
  figure = Figure(canvas, x, z, MOTORCYCLE)
  body, s = _pick(rng, (*FRAMES, *HELMETS)), max(squeeze, 0.3)
  for hub in (-0.7, 0.7):
    figure.disc(hub * s, 0.32, max(0.33 * s, 0.09), 0.33, (30, 30, 32))
    figure.disc(hub * s, 0.32, 0.17 * s, 0.17, (120, 120, 122))
  figure.shape(
    [(u * s, v) for u, v in ((-0.45, 0.22), (0.4, 0.22), (0.45, 0.6), (-0.4, 0.62))], (58, 58, 60)
  )
  tank = ((-0.15, 0.6), (0.5, 0.62), (0.58, 0.85), (0.3, 1.02), (-0.1, 0.84))
  figure.shape([(u * s, v) for u, v in tank], body)
  seat = ((-0.95, 0.78), (-0.8, 0.68), (-0.1, 0.68), (-0.1, 0.84), (-0.6, 0.86))
  figure.shape([(u * s, v) for u, v in seat], (36, 34, 34))
  figure.shape(
    [(u * s, v) for u, v in ((-0.95, 0.6), (-0.5, 0.6), (-0.5, 0.72), (-0.98, 0.74))],
    shaded(body, 0.8),
  )
  figure.limb((0.7 * s, 0.32), (0.45 * s, 1.05), 0.1, (92, 92, 96))
  bar = 0.12 + 0.28 * (1 - s)
  figure.limb((0.42 * s - bar, 1.08), (0.42 * s + bar, 1.08), 0.07, (30, 30, 32))
  if s < 0.6:
    figure.shape(((-0.17, 0.4), (0.17, 0.4), (0.2, 0.85), (-0.2, 0.85)), shaded(body, 0.85))
    figure.disc(0, 0.72, 0.1, 0.06, (186, 30, 26), (230, 24, 20))
  figure.foot_shadow(0, 0.4 + 0.5 * s, 0.6)


def rider(canvas: Canvas, rng: np.random.Generator, x: float, z: float, motor: bool) -> None:
  """A vehicle and, above it, who rides it."""
  squeeze = float(rng.choice((0.28, 0.55, 0.95)))
  (motorcycle if motor else bicycle)(canvas, rng, x, z, squeeze)
  figure = Figure(canvas, x, z, RIDER)
  coat, trousers, skin = _pick(rng, CLOTHES), _pick(rng, TROUSERS), _pick(rng, SKIN)
  s = squeeze
  hip, shoulder = (-0.2 * s, 0.95), (0.12 * s, 1.48)
  pedal = ((-0.05, 0.22), (0.0, 0.5)) if not motor else ((0.1, 0.35), (0.05, 0.42))
  spread = 0.1 + 0.08 * (1 - s)
  for side, (px, py) in zip((-1, 1), pedal, strict=True):
    cloth = shaded(trousers, 0.8 if side < 0 else 1.0)
    knee = (0.24 * s + side * spread * (1.2 - s), 0.62 + 0.15 * (side > 0))
    figure.limb((hip[0] + side * spread * (1 - s), hip[1]), knee, 0.19, cloth)
    figure.limb(knee, (px * s + side * spread * (1 - s), py), 0.14, cloth)
    figure.disc(px * s + side * spread * (1 - s) + 0.04 * s, py, 0.1, 0.05, (32, 32, 32))
  wide = 0.2 + 0.05 * (1 - s)
  for side in (-1, 1):
    hand = (0.38 * s + side * 0.28 * (1 - s), 1.06)
    figure.limb(
      (shoulder[0] + side * wide * 0.8 * (1 - s), shoulder[1] - 0.06), hand, 0.12, shaded(coat, 0.8)
    )
  torso = ((hip[0] - wide * 0.8, hip[1] - 0.08), (hip[0] + wide * 0.8, hip[1] - 0.08))
  figure.shape(
    (*torso, (shoulder[0] + wide, shoulder[1] - 0.04), (shoulder[0] - wide, shoulder[1])), coat
  )
  helmet = motor or rng.random() < 0.5
  cap = _pick(rng, HELMETS) if helmet else _pick(rng, HAIR)
  head = (shoulder[0] + 0.08 * s, shoulder[1] + 0.18)
  _head(figure, head, 1.05, shaded(skin, 0.6) if motor else skin, cap)
  if helmet:
    figure.disc(head[0], head[1] + 0.08, 0.14, 0.09, cap)


def pram(canvas: Canvas, rng: np.random.Generator, x: float, z: float) -> None:
  """A pram or a trolley: labelled dynamic, which is not scored."""
  figure = Figure(canvas, x, z, DYNAMIC)
  cloth = _pick(rng, CLOTHES)
  for hub in (-0.3, 0.3):
    figure.disc(hub, 0.12, 0.12, 0.12, (36, 36, 38))
  figure.shape(((-0.4, 0.35), (0.35, 0.35), (0.45, 0.75), (-0.45, 0.75)), cloth)
  figure.shape(((-0.45, 0.7), (0.05, 0.7), (-0.05, 1.05), (-0.4, 1.0)), shaded(cloth, 0.8))
  figure.limb((0.4, 0.7), (0.65, 1.0), 0.05, (60, 60, 62))
  figure.foot_shadow(0, 0.5)
