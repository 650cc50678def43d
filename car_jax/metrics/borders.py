"""Where label maps [H, W] change: border pixels, distances to them, bands around them. On the host.

A border of a prediction runs through its own pixels, whatever the truth holds there.
"""

import numpy as np
from scipy import ndimage

EIGHT = np.ones((3, 3), bool)


def squared_distance(targets: np.ndarray) -> np.ndarray:
  """Squared Euclidean distance of each pixel to the nearest target (bool [H, W]); inf without any.

  Whole numbers, exact up to distances of 2000 pixels.
  """
  if not targets.any():
    return np.full(targets.shape, np.inf)
  import cv2

  free = np.asarray(~targets, np.uint8)
  far = cv2.distanceTransform(free, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
  return np.rint(far.astype(np.float64) ** 2)


def borders(labels: np.ndarray) -> np.ndarray:
  """Pixels [H, W] with one of their four neighbours of another label; the image's edge is none."""
  out = np.zeros(labels.shape, bool)
  for a, b in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
    change = labels[a] != labels[b]
    out[a] |= change
    out[b] |= change
  return out


def band(labels: np.ndarray, width: int) -> np.ndarray:
  """Border pixels and those within width / 2 - 1 of one; width is even, 2 are the borders alone."""
  return squared_distance(borders(labels)) <= (width / 2 - 1) ** 2


def class_border(mask: np.ndarray) -> np.ndarray:
  """Pixels of the mask with one of eight neighbours, or the image's edge, outside of it."""
  return mask & ~ndimage.binary_erosion(mask, EIGHT)
