"""Draws a CT-like slice around four readers' masks of a nodule.

The image explains the disagreement without giving the masks away: the nodule is as bright as the
readers agree (smoothed, with a gain and a texture of its own slice), so that faint nodules are
those that some readers left out, and the rim is soft where outlines differ. Around it: lung tissue,
a tree of vessels, sometimes the chest wall, and vessels cut across that look like nodules. Values
are Hounsfield units until the last line.
"""

import cv2
import numpy as np

LUNG, TISSUE, NODULE = -850.0, 40.0, 820.0  # the last: a solid nodule above its surroundings
WINDOW = (-1000.0, 300.0)


def slice_image(
  masks: np.ndarray,
  ratings: np.ndarray,
  *,
  seed: int,
  noise: float = 1.0,
  contrast: float = 1.0,
  size: int = 128,
) -> np.ndarray:
  """masks uint8 [4, 128, 128], ratings [4, 5] (1 to 5, 0 absent) -> uint8 [size, size].

  The same seed gives the same image. `noise` and `contrast` scale the texture's and the nodule's
  strength.
  """
  rng = np.random.default_rng([20110, seed])
  agreement = masks.mean(0, dtype=np.float32)
  field = LUNG + _texture(rng, 5, 22) + _texture(rng, 1.4, 34)
  field += _vessels(rng)
  field = np.maximum(field, _chest_wall(rng, agreement))
  field = _add_nodule(rng, field, agreement, ratings, contrast)
  field = _blur(field, 0.6)
  field += noise * (_texture(rng, 0.8, 45) + rng.normal(0, 22, field.shape))
  low, high = WINDOW
  start = (128 - size) // 2
  field = field[start : start + size, start : start + size]
  return np.clip((field - low) / (high - low) * 255, 0, 255).astype(np.uint8)


def _blur(x: np.ndarray, sigma: float) -> np.ndarray:
  return cv2.GaussianBlur(np.asarray(x, np.float32), (0, 0), sigma)


def _texture(rng: np.random.Generator, sigma: float, strength: float) -> np.ndarray:
  """Smooth noise of the given standard deviation."""
  x = _blur(rng.standard_normal((128, 128), dtype=np.float32), sigma)
  return x * (strength / (x.std() + 1e-6))


def _vessels(rng: np.random.Generator) -> np.ndarray:
  """A few trees of tapering, branching tubes, and tubes cut across."""
  canvas = np.zeros((128, 128), np.float32)
  for _ in range(rng.integers(2, 5)):
    start = rng.uniform(0, 128, 2)
    _branch(rng, canvas, start, rng.uniform(0, 2 * np.pi), rng.uniform(1.0, 2.6), 2)
  for _ in range(rng.integers(2, 8)):
    centre, radius = rng.uniform(4, 124, 2), rng.uniform(0.8, 2.4)
    axes = (16 * radius * np.array([1, rng.uniform(0.7, 1)])).astype(int)
    spot = np.zeros_like(canvas)
    angle = rng.uniform(0, 180)
    place = tuple(int(v) for v in 16 * centre)
    cv2.ellipse(spot, place, tuple(int(a) for a in axes), angle, 0, 360, 1.0, -1, cv2.LINE_AA, 4)
    canvas = np.maximum(canvas, spot * rng.uniform(0.35, 0.95))
  return 700 * _blur(canvas, 0.7)


def _branch(rng, canvas, at, heading, width, depth) -> None:
  """A tube that wanders, thins and splits."""
  for _ in range(rng.integers(4, 9)):
    to = at + rng.uniform(5, 10) * np.array([np.cos(heading), np.sin(heading)])
    line = np.zeros_like(canvas)
    ends = [tuple(int(v) for v in 16 * p) for p in (at, to)]
    cv2.line(line, *ends, 1.0, max(1, round(width)), cv2.LINE_AA, 4)
    np.maximum(canvas, line * min(1.0, 0.3 + 0.25 * width), out=canvas)
    at, heading, width = to, heading + rng.normal(0, 0.25), width * 0.93
    if depth and rng.random() < 0.3:
      turn = rng.choice([-1, 1]) * rng.uniform(0.4, 0.9)
      _branch(rng, canvas, at, heading + turn, width * 0.7, depth - 1)


def _chest_wall(rng: np.random.Generator, agreement: np.ndarray) -> np.ndarray:
  """Soft tissue beyond a curved border that leaves the nodule in the lung, on a third of slices."""
  if rng.random() > 0.35:
    return np.full((128, 128), -2000.0, np.float32)
  y, x = np.mgrid[:128, :128].astype(np.float32) - 63.5
  angle = rng.uniform(0, 2 * np.pi)
  along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
  reach = along[agreement > 0].max(initial=0)
  border = reach + (rng.uniform(0, 2) if rng.random() < 0.4 else rng.uniform(6, 45))
  curve = across**2 / rng.uniform(150, 500)
  inside = np.clip(along + curve - border, 0, 1)
  depth = np.clip((along + curve - border - rng.uniform(5, 12)) / 2, 0, 1)
  tissue = TISSUE + _texture(rng, 2.5, 45) - 110 * depth * rng.random()
  return np.where(inside > 0, LUNG + (tissue - LUNG) * inside, -2000.0)


def _add_nodule(rng, field, agreement, ratings, contrast) -> np.ndarray:
  """Raises the field where readers agree, as solid as they found the nodule (rating 5 of 5)."""
  given = ratings[ratings[:, 0] > 0].astype(np.float32)
  subtlety, _, _, spiculation, texture = given.mean(0) if len(given) else np.full(5, 3.0)
  solid = np.clip(0.35 + 0.13 * texture, 0.4, 1.0) * np.clip(0.55 + 0.09 * subtlety, 0.6, 1.0)
  body = _blur(agreement, rng.uniform(0.7, 1.1))
  body = body ** rng.uniform(0.75, 1.1)
  gain = contrast * NODULE * solid * np.exp(rng.normal(0, 0.15))
  mottled = 1 + _texture(rng, 1.2, 0.12 + 0.02 * spiculation)
  return np.minimum(field + gain * body * mottled, TISSUE + 60 + 0.2 * np.maximum(field, 0))
