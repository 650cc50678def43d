"""Draws a CT-like slice around four readers' masks of a nodule.

The image explains the disagreement without giving the masks away. How dense the nodule is follows
from how many readers marked it here and from their ratings (subtle and ground-glass nodules are
faint), each slice with a factor of its own, so that a faint nodule is probably, not certainly, one
that readers left out. Its rim is as soft as the readers' outlines are apart, and slightly bent, so
that no outline is an edge in the image. Around it: lung tissue, branching vessels, airways, vessels
cut across (which look like small nodules), sometimes the chest wall with ribs.

Lengths are pixels of 1 mm. Values are Hounsfield units until the last line; a structure of opacity
a moves them the share a of the way to soft tissue. Letters: S x S pixels.
"""

import functools

import cv2
import numpy as np

AIR, LUNG, TISSUE, FAT, BONE = -990.0, -860.0, 40.0, -90.0, 320.0
WINDOW = (-1000.0, 400.0)
FINE = 2  # thin things are drawn this much larger, then averaged
WALL_SHARE, WALL_TOUCHES = 0.35, 0.4  # slices with a chest wall, and of those with the nodule at it
VESSEL_AT_NODULE = 0.25
PIECES = 1.2  # pieces of vessel in a slice, at most, per pixel of its side


def slice_image(
  masks: np.ndarray,
  ratings: np.ndarray,
  *,
  seed: int,
  noise: float = 1.0,
  contrast: float = 1.0,
) -> np.ndarray:
  """masks uint8 [4, S, S], ratings [4, 5] (1 to 5, 0 where absent) -> uint8 [S, S].

  Ratings are subtlety, malignancy, margin, spiculation, texture. The same seed and S give the same
  image. `noise` and `contrast` scale the scanner's noise and the nodule's opacity.
  """
  rng = np.random.default_rng([20110, seed])
  size = masks.shape[-1]
  field = _lung(rng, size)
  vessels = _vessels(rng, size, _middle(masks)) * (1 - 0.75 * _near(masks))
  field = _towards(field, vessels, TISSUE)
  field = _airways(rng, field)
  field = _chest_wall(rng, field, masks)
  field = _towards(field, np.clip(contrast * _nodule(rng, masks, ratings), 0, 1), TISSUE)
  field = _scanned(rng, field, noise)
  low, high = WINDOW
  return np.clip((field - low) / (high - low) * 255, 0, 255).astype(np.uint8)


def _towards(field: np.ndarray, opacity: np.ndarray, value: float) -> np.ndarray:
  return field + opacity * np.maximum(value - field, 0)


def _blur(x: np.ndarray, sigma: float) -> np.ndarray:
  return cv2.GaussianBlur(x, (0, 0), sigma)


def _texture(rng: np.random.Generator, size: int, sigma: float, strength: float) -> np.ndarray:
  """Smooth noise of about the given standard deviation [S, S]."""
  x = _blur(rng.standard_normal((size, size), dtype=np.float32), sigma)
  return x * np.float32(strength * 2 * np.sqrt(np.pi) * sigma)


@functools.lru_cache(maxsize=4)
def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
  y, x = np.mgrid[:size, :size].astype(np.float32) - (size - 1) / 2
  return y, x


def _middle(masks: np.ndarray) -> np.ndarray:
  """(x, y) of the mean marked pixel."""
  _, y, x = np.nonzero(masks)
  return np.array([x.mean(), y.mean()]) if len(x) else np.full(2, (masks.shape[-1] - 1) / 2)


def _near(masks: np.ndarray) -> np.ndarray:
  """1 in the nodule, falling to 0 some pixels around it [S, S]: it pushes vessels aside."""
  return np.minimum(2 * _blur(np.asarray(masks.any(0), np.float32), 2.5), 1) ** 0.5


def _scanned(rng: np.random.Generator, field: np.ndarray, noise: float) -> np.ndarray:
  """The scanner's blur and its noise, which has a grain; both differ from scan to scan."""
  size = len(field)
  field = _blur(field, rng.uniform(0.45, 0.8))
  strength = noise * 32 * np.exp(rng.normal(0, 0.35))
  return field + _texture(rng, size, rng.uniform(0.55, 0.9), strength)


def _lung(rng: np.random.Generator, size: int) -> np.ndarray:
  """Parenchyma: a grain, wide lighter and darker patches, denser towards the back."""
  y, x = _grid(size)
  tilt = rng.normal(0, 0.35, 2)
  field = LUNG + rng.normal(0, 20) + _texture(rng, size, 6, 14) + _texture(rng, size, 1.3, 26)
  return (field + tilt[0] * x + tilt[1] * y).astype(np.float32)


def _vessels(rng: np.random.Generator, size: int, nodule: np.ndarray) -> np.ndarray:
  """Opacity of trees that come in over the border, thin and fork, and of vessels cut across."""
  middle = np.full(2, size / 2)
  heads = []
  for _ in range(1 + rng.poisson(size / 60)):
    angle = rng.uniform(0, 2 * np.pi)
    outwards = np.array([np.cos(angle), np.sin(angle)])
    start = middle + (0.5 * size + 2) * outwards / np.abs(outwards).max()
    heads.append((start, angle + np.pi + rng.normal(0, 0.5), rng.uniform(0.8, 3.0), 1.0))
  if rng.random() < VESSEL_AT_NODULE:
    heads.append((nodule, rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 2.0), rng.uniform(0.5, 0.9)))
  pieces = _grow(rng, heads, size)
  canvas = np.zeros((size * FINE, size * FINE), np.uint8)
  for opacity, width, start, end in sorted(pieces):  # thick ones over thin ones
    thick = max(1, round(width * FINE))
    cv2.line(canvas, start, end, opacity, thick, cv2.LINE_AA, 4)
  _cut_across(rng, canvas, size)
  small = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
  return _blur(small.astype(np.float32) / 255, 0.5)


def _grow(rng: np.random.Generator, heads: list, size: int) -> list[tuple]:
  """From (place, heading, width, fade) of each tree: its pieces (opacity, width, start, end)."""
  pieces: list[tuple] = []
  most = round(PIECES * size)
  draws, bends = rng.random((most, 4)), rng.normal(0, 0.16, most)
  while heads and len(pieces) < most:
    place, heading, width, fade = heads.pop(0)
    length, fork, turn, leave = draws[len(pieces)]
    to = place + (3 + 3 * length) * np.array([np.cos(heading), np.sin(heading)])
    opacity = int(255 * fade * min(1.0, 0.22 + 0.26 * width))
    pieces.append((opacity, width, _sixteenths(place), _sixteenths(to)))
    if width < 0.5 or fade < 0.2 or np.abs(to - size / 2).max() > size * 0.8:
      continue
    heading += bends[len(pieces) - 1]
    if leave < 0.1:  # it dips out of the slice
      fade *= 0.6
    if fork < 0.14:
      side = 0.3 + 0.6 * turn
      heads.append((to, heading + side, width * 0.7, fade))
      heads.append((to, heading - 0.6 * side, width * 0.85, fade))
    else:
      heads.append((to, heading, width * 0.975, fade))
  return pieces


def _sixteenths(place: np.ndarray) -> tuple[int, int]:
  """A place in pixels as cv2's fixed point on the enlarged canvas."""
  return round(place[0] * FINE * 16), round(place[1] * FINE * 16)


def _cut_across(rng: np.random.Generator, canvas: np.ndarray, size: int) -> None:
  for _ in range(rng.poisson(1 + size / 18)):
    centre = _sixteenths(rng.uniform(0, size, 2))
    radius = np.exp(rng.normal(0.2, 0.45)) * FINE * 16
    axes = (round(radius), round(radius * rng.uniform(0.6, 1)))
    opacity = int(255 * rng.uniform(0.25, 0.95))
    cv2.ellipse(canvas, centre, axes, rng.uniform(0, 180), 0, 360, opacity, -1, cv2.LINE_AA, 4)


def _airways(rng: np.random.Generator, field: np.ndarray) -> np.ndarray:
  """A ring or two with air inside, away from the middle, on some slices."""
  y, x = _grid(len(field))
  for _ in range(rng.poisson(len(field) / 160)):
    angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(0.9, 2.4)
    away = rng.uniform(0.2, 0.45) * len(field)
    stretch = rng.uniform(0.7, 1)
    distance = np.hypot(x - away * np.cos(angle), (y - away * np.sin(angle)) / stretch)
    ring = np.clip(1 - np.abs(distance - radius - 0.7), 0, 1)
    field = _towards(field, rng.uniform(0.2, 0.5) * ring, TISSUE)
    field = field + np.clip(radius + 0.3 - distance, 0, 1) * np.minimum(AIR - field, 0)
  return field


def _chest_wall(rng: np.random.Generator, field: np.ndarray, masks: np.ndarray) -> np.ndarray:
  """Pleura, muscle and fat, ribs beyond a curved border that leaves the nodule in the lung."""
  if rng.random() > WALL_SHARE:
    return field
  size = len(field)
  y, x = _grid(size)
  angle = rng.uniform(0, 2 * np.pi)
  along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
  reach = along[masks.any(0)].max(initial=0.0)
  gap = rng.uniform(0, 1.5) if rng.random() < WALL_TOUCHES else rng.uniform(0.06, 0.35) * size
  uneven = _texture(rng, size, 5, 0.8)
  depth = along + across**2 / rng.uniform(160, 420) - (reach + gap) + uneven
  inside = np.clip(depth + 0.5, 0, 1)
  layer = rng.uniform(4, 9)
  fat = np.clip(np.abs(depth - layer) * -0.4 + rng.uniform(0.6, 1.6), 0, 1)
  wall = TISSUE + _texture(rng, size, 1.5, 18) + (FAT - TISSUE) * fat
  period, phase = rng.uniform(36, 70), rng.uniform(0, 2 * np.pi)
  rib = np.cos(across * (2 * np.pi / period) + phase + 0.15 * uneven) * 8 - 2
  rib = rib - 1.7 * np.abs(depth - layer - 6)
  wall = wall + (BONE - wall) * np.clip(rib, 0, 1)
  return (field + inside * (wall - field)).astype(np.float32)


def _nodule(rng: np.random.Generator, masks: np.ndarray, ratings: np.ndarray) -> np.ndarray:
  """Opacity [S, S] in 0 to about 1.2: how the readers' masks show in the image."""
  drawn = masks[masks.any((1, 2))].astype(np.float32)
  if not len(drawn):
    return np.zeros(masks.shape[1:], np.float32)
  shape = drawn.mean(0)
  union = float((shape > 0).sum())
  apart = (union - float((shape == 1).sum())) / (2 * np.sqrt(np.pi * union))  # of the outlines
  soft = rng.uniform(0.7, 1.0) + 0.3 * min(apart, 4.0)
  shape = _blur(_bent(rng, shape, 0.35 + 0.25 * min(apart, 4.0)), soft)
  shape /= (
    max(float(shape.max()), 1e-3) ** 0.6
  )  # of what the blur took, small nodules get most back
  given = ratings[ratings[:, 0] > 0].astype(np.float32)
  subtlety, _, _, spiculation, texture = given.mean(0) if len(given) else np.full(5, 3.0)
  shape *= 1 - 0.1 * (5 - texture) * (1 - _blur(shape, 2.0))  # ground glass is densest inside
  shape = np.maximum(shape, _spikes(rng, masks, spiculation))
  dense = (
    (0.26 + 0.15 * texture) * (0.62 + 0.08 * subtlety) * (0.22 + 0.78 * len(drawn) / len(masks))
  )
  mottled = 1 + _texture(rng, len(shape), 1.3, 0.1)
  return shape * mottled * np.float32(dense * np.exp(rng.normal(0, 0.15)))


def _bent(rng: np.random.Generator, image: np.ndarray, strength: float) -> np.ndarray:
  """The image with every place moved smoothly by about `strength` pixels."""
  y, x = _grid(len(image))
  middle = (len(image) - 1) / 2
  x, y = (g + middle + _texture(rng, len(image), 3, strength) for g in (x, y))
  return cv2.remap(image, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR)


def _spikes(rng: np.random.Generator, masks: np.ndarray, rating: float | np.floating) -> np.ndarray:
  """Faint strands out of a nodule that readers called spiculated (rating 1 to 5)."""
  size = masks.shape[-1]
  canvas = np.zeros((size * FINE, size * FINE), np.uint8)
  middle, area = _middle(masks), masks.any(0).sum()
  if area > 25:
    for _ in range(rng.poisson(1.5 * max(rating - 1, 0))):
      angle = rng.uniform(0, 2 * np.pi)
      length = np.sqrt(area / np.pi) * rng.uniform(1.1, 1.8)
      end = middle + length * np.array([np.cos(angle), np.sin(angle)])
      shade = int(rng.uniform(60, 150))
      cv2.line(canvas, _sixteenths(middle), _sixteenths(end), shade, 1, cv2.LINE_AA, 4)
  small = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA)
  return small.astype(np.float32) / 255
