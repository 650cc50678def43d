"""Scenes and label maps as ControlNet has them, and back (GenVal, arXiv 2312.09231).

Letters: H x W pixels. Label ids are Cityscapes' 34.
"""

import numpy as np

from car_jax.data import labels
from car_jax.data.transforms import nearest_resized

IDS = len(labels.CITYSCAPES_IDS)
ADE20K = {
  **dict(road=(140, 140, 140), sidewalk=(235, 255, 7), building=(180, 120, 120)),
  **dict(wall=(120, 120, 120), fence=(255, 184, 6), pole=(51, 0, 255), terrain=(4, 250, 7)),
  **{'traffic light': (41, 0, 255), 'traffic sign': (255, 5, 153), 'vegetation': (4, 200, 3)},
  **dict(sky=(6, 230, 230), person=(150, 5, 61), rider=(150, 5, 61), car=(0, 102, 200)),
  **dict(truck=(255, 0, 20), bus=(255, 0, 245), train=(255, 0, 20), motorcycle=(163, 0, 255)),
  **dict(bicycle=(255, 245, 0)),
}
"""Colours by which ADE20K's segmentations show Cityscapes' classes; a train has the truck's."""
_ADE20K_OF_ID = np.zeros((256, 3), np.uint8)
for _id, _train_id in enumerate(labels.CITYSCAPES_TO_TRAIN_ID):
  if _train_id < labels.SCORED:
    _ADE20K_OF_ID[_id] = ADE20K[labels.CLASS_NAMES[_train_id]]


def offsets(height: int, width: int) -> int:
  """Square crops of the shorter side begin at 0 to this on the longer, both included."""
  return abs(height - width)


def square(x: np.ndarray, offset: int, side: int) -> np.ndarray:
  """[H, W, ..] -> [side, side, ..]: the square of the shorter side at `offset`, nearest neighbour.

  Pictures too: the published samples are shrunk without antialiasing.
  """
  height, width = x.shape[:2]
  top, left = (offset, 0) if height > width else (0, offset)
  short = min(height, width)
  return nearest_resized(x[top : top + short, left : left + short], side, side)


def label_hint(label_ids: np.ndarray) -> np.ndarray:
  """Label ids [H, W] -> [H, W, 1] float32: (id + 1) / 34, GenVal's hint."""
  return ((label_ids.astype(np.float32) + 1) / IDS)[..., None]


def labels_of_hint(hint: np.ndarray) -> np.ndarray:
  """The inverse of `label_hint`, truncated as published: [H, W, 1] -> [H, W] uint8."""
  return np.trunc(np.float32(IDS) * hint[..., 0] - np.float32(1)).astype(np.uint8)


def ade20k_hint(label_ids: np.ndarray) -> np.ndarray:
  """Label ids [H, W] -> [H, W, 3] float32 in [0, 1], for public ControlNets of segmentations."""
  return _ADE20K_OF_ID[label_ids].astype(np.float32) / 255


HINTS = {'label_id': (label_hint, 1), 'ade20k': (ade20k_hint, 3)}
"""Name -> how label ids become a hint, and its channels."""


def model_range(pixels: np.ndarray) -> np.ndarray:
  """uint8 [..., 3] -> float32 in [-1, 1], as the autoencoder takes pictures."""
  return pixels.astype(np.float32) / np.float32(127.5) - 1


def pixels(image: np.ndarray, *, truncated: bool = False) -> np.ndarray:
  """[..., 3] in about [-1, 1] -> uint8, rounded; `truncated`, as published, a fourth of all values
  come back one too low."""
  scaled = np.clip(np.float32(127.5) * (np.asarray(image, np.float32) + 1), 0, 255)
  return (scaled if truncated else np.rint(scaled)).astype(np.uint8)
