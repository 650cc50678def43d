"""How well a changed object is found, and that none is found where there is none.

python -m benchmarks.masks [--toy]

Made-up scenes with an object of known outline pasted into a box, at three contrasts to what it
covers (distance of colours in RGB), while the whole box is repainted by smooth noise of three
deviations, as inpainting nets do. IoU of `difference` with the outline over the accepted images,
and how many were rejected; then boxes with no object, of which none may be accepted. Exit status 1
where one is.
"""

import sys
from typing import Any

import numpy as np
from scipy import ndimage

from benchmarks import timing
from car_jax.generate import masks
from car_jax.generate.boxes import Box, crop_side

CONTRASTS, REPAINTED, SIDE = (100, 50, 25), (0, 4, 10), 512
IMAGES, EMPTY = 12, 54


def smooth(rng: np.random.Generator, side: int, scale: float, channels: int = 3) -> np.ndarray:
  """[side, side, channels] of mean 0, deviation 1 and details of `scale` times the side."""
  x = ndimage.gaussian_filter(rng.standard_normal((side, side, channels)), (*[scale * side] * 2, 0))
  return (x - x.mean((0, 1))) / x.std((0, 1))


def scene(rng: np.random.Generator, side: int) -> np.ndarray:
  """A picture of patches with edges and some grain, [side, side, 3] float."""
  image = rng.uniform(60, 190, 3) + 18 * smooth(rng, side, 0.15)
  for _ in range(6):
    (top, left), (high, wide) = rng.integers(0, side, 2), rng.integers(side // 8, side // 2, 2)
    image[top : top + high, left : left + wide] += rng.uniform(-45, 45, 3)
  return image + 4 * rng.standard_normal((side, side, 3))


def outline(rng: np.random.Generator, side: int) -> np.ndarray:
  """A blob near the middle, bool [side, side]."""
  y, x = np.mgrid[:side, :side] / side - 0.5
  dy, dx = rng.uniform(-0.08, 0.08, 2)
  angle, radius = np.arctan2(y - dy, x - dx), np.hypot(y - dy, x - dx)
  waves = sum(rng.uniform(-0.04, 0.04) * np.sin(k * angle + rng.uniform(0, 6)) for k in (2, 3, 5))
  return radius < rng.uniform(0.18, 0.3) + waves


def made(seed: int, side: int, contrast: float, deviation: float) -> tuple[Any, Any, Any, Box]:
  """-> scene and edited uint8 [H, W, 3], the object bool [H, W], the box; contrast 0: no object."""
  rng = np.random.default_rng([seed, round(contrast), round(deviation)])
  box = Box(side // 4, side // 4, side, crop_side(side))
  before = scene(rng, side + side // 2)
  after, there = before.copy(), np.zeros(before.shape[:2], bool)
  inside = box.inside(after)
  inside += deviation * smooth(rng, side, 0.06)
  if contrast:
    shape, way = outline(rng, side), rng.standard_normal(3)
    colour = np.clip(inside + contrast * way / np.linalg.norm(way), 0, 255)
    inside[shape] = colour[shape]
    box.inside(there)[...] = shape
  whole = lambda x: np.clip(np.rint(x), 0, 255).astype(np.uint8)
  return whole(before), whole(after), there, box


def iou(one: np.ndarray, other: np.ndarray) -> float:
  return float((one & other).sum() / (one | other).sum())


def cell(
  contrast: float, deviation: float, images: int, side: int, **options: Any
) -> tuple[float, int]:
  """-> mean IoU of the accepted (nan for none), how many are rejected."""
  scores = []
  for seed in range(images):
    before, after, there, box = made(seed, side, contrast, deviation)
    mask = masks.difference(before, after, box, **options)
    scores += [] if mask.pixels is None else [iou(mask.pixels, there)]
  return float(np.mean(scores)) if scores else float('nan'), images - len(scores)


def empty_accepted(images: int, side: int, **options: Any) -> int:
  """Of `images` boxes without an object, repainted by every deviation in turn."""
  count = 0
  for seed in range(images):
    before, after, _, box = made(seed, side, 0, (*REPAINTED, 20)[seed % 4])
    count += masks.difference(before, after, box, **options).pixels is not None
  return count


def main(toy: bool) -> list[str]:
  images, empty, side = (1, 2, 48) if toy else (IMAGES, EMPTY, SIDE // 2)
  wrong = []
  for grabcut in (False, True):
    print(f'grabcut={grabcut}: IoU (rejected of {images}), by contrast and by repainting')
    print('contrast ' + ''.join(f'{d:>14}' for d in REPAINTED))
    for contrast in CONTRASTS:
      cells = [cell(contrast, d, images, side, grabcut=grabcut) for d in REPAINTED]
      print(f'{contrast:8} ' + ''.join(f'{score:9.2f} ({n:2})' for score, n in cells), flush=True)
    accepted = empty_accepted(empty, side, grabcut=grabcut)
    print(f'boxes without an object that were accepted: {accepted} of {empty}', flush=True)
    wrong += [f'{accepted} empty boxes were accepted'] if accepted else []
  return wrong


if __name__ == '__main__':
  sys.exit(timing.command(main))
