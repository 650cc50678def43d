"""Objects of no known class, put into a box of any picture, with the mask of the very pixels.

They are those of unknown.py, drawn by themselves. Letters: H x W pixels of the scene, m of the box.
"""

import numpy as np
from PIL import Image

from car_jax.datasets.street_scenes import unknown
from car_jax.datasets.street_scenes.canvas import Camera, Canvas
from car_jax.generate.boxes import Box

OBJECTS = {
  'boulder': unknown.boulder,
  'crate': unknown.crate,
  'ball': unknown.ball,
  'deer': unknown.animal,
}
SHARES = (0.6, 0.9)  # of the box's side that the object's longer side takes
DISTANCE = 6.0  # metres; the tallest object fills most of the canvas there
CAMERA = Camera(280.0, 512.0, 1000.0, 1.3, 0.0)
GREY = 110.0  # mean level of a scene in plain daylight, which the drawings' colours are for


def drawn(name: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
  """The object alone: colours float32 [h, w, 3] and where it is, bool [h, w], cut to its size."""
  sheet = Canvas(CAMERA)
  OBJECTS[name](sheet, rng, 0.0, DISTANCE)
  numbers = sheet.numbers()
  mask = numbers > 0
  rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
  window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
  colours = np.array([p.colour for p in sheet.paints], np.float32)[numbers][window]
  mask = mask[window]
  colours[~mask] = colours[mask].mean(0)  # so that no border darkens when it is resized
  return colours, mask


def sized(
  colours: np.ndarray, mask: np.ndarray, side: int, mirrored: bool
) -> tuple[np.ndarray, np.ndarray]:
  """The drawing with `side` pixels on its longer side."""
  scale = side / max(mask.shape)
  h, w = (max(1, round(n * scale)) for n in mask.shape)
  how = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
  resized = lambda x: np.asarray(Image.fromarray(x).resize((w, h), how))
  levels = np.uint8(np.clip(colours, 0, 255))
  colours, mask = resized(levels).astype(np.float32), resized(np.uint8(255) * mask) >= 128
  step = -1 if mirrored else 1
  return colours[:, ::step], mask[:, ::step]


def pasted(
  image: np.ndarray, box: Box, name: str, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """The object in the box of image uint8 [H, W, 3] -> the new image, and the object bool [H, W].

  It stands in the lower half of the box, anywhere across, as bright as what is around it.
  """
  side = max(2, round(box.size * rng.uniform(*SHARES)))
  colours, outline = sized(*drawn(name, rng), side, bool(rng.random() < 0.5))
  h, w = outline.shape
  top = box.row + box.size - h - round(0.1 * (box.size - h))
  left = box.column + int(rng.integers(box.size - w, endpoint=True))
  inside = image[box.row : box.row + box.size, box.column : box.column + box.size]
  bright = np.clip(inside.mean() / GREY, 0.3, 1.3)
  grain = 1 + 0.06 * rng.standard_normal((h, w, 1), np.float32)
  out, mask = image.copy(), np.zeros(image.shape[:2], bool)
  mask[top : top + h, left : left + w] = outline
  out[mask] = np.clip(colours * bright * grain + 0.5, 0, 255).astype(np.uint8)[outline]
  return out, mask
