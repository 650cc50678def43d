"""Boundary IoU (arXiv 2103.16562) and boundary F (DAVIS, CVPR 2016) of label maps. On the host.

Letters: C classes, H x W pixels, d the width of a band. Pixels that the truth leaves void belong to
no class in either map; a prediction that they cut has a border there, as the truth has
(`void=cut`). As published nothing is cut, and a right prediction of a cut object is not perfect.
"""

import math

import numpy as np

from car_jax.metrics import borders
from car_jax.metrics.confusion_matrix import ratio


def width(shape: tuple[int, ...], share: float = 0.02) -> int:
  """d of an image: this share of its diagonal, rounded half to even, and 1 at least; pixels if 1 or
  more."""
  return max(1, round(share if share >= 1 else share * math.hypot(*shape)))


def inner_band(mask: np.ndarray, d: int) -> np.ndarray:
  """Pixels of the mask within a chessboard distance of d to its outside, which the image's edge is.

  What d erosions by 3 x 3 pixels take away.
  """
  import cv2

  square = np.ones((2 * d + 1, 2 * d + 1), np.uint8)
  flat = mask.astype(np.uint8)
  return mask & (cv2.erode(flat, square, borderType=cv2.BORDER_CONSTANT, borderValue=0) == 0)


def iou_counts(
  prediction: np.ndarray,
  labels: np.ndarray,
  classes: int,
  *,
  share: float = 0.02,
  void: int | None = 255,
) -> np.ndarray:
  """Pixels in both bands and in either of them, for each class [C, 2]; they add up over images.

  void=None cuts nothing, as published.
  """
  cut = prediction if void is None else np.where(labels == void, -1, prediction.astype(int))
  d = width(labels.shape, share)
  out = np.zeros((classes, 2), np.int64)
  for c in range(classes):
    masks = cut == c, labels == c
    if not any(mask.any() for mask in masks):
      continue
    ours, theirs = (inner_band(mask, d) for mask in masks)
    out[c] = np.sum(ours & theirs), np.sum(ours | theirs)
  return out


def iou(counts: np.ndarray) -> np.ndarray:
  """Counts [.., C, 2] of an image, or added up over images -> boundary IoU [.., C]; nan of none."""
  return ratio(counts[..., 0], counts[..., 1])


def border_map(mask: np.ndarray) -> np.ndarray:
  """Pixels that differ from their right, lower or lower right neighbour, as DAVIS maps borders."""
  beyond = np.pad(mask, ((0, 1), (0, 1)), mode='edge')
  neighbours = beyond[:-1, 1:], beyond[1:, :-1], beyond[1:, 1:]
  return np.logical_or.reduce([mask != n for n in neighbours])


def radius(shape: tuple[int, ...], tolerance: float = 0.008) -> float:
  """How far borders may be apart: a share of the diagonal, rounded up, or pixels if 1 or more."""
  return float(tolerance if tolerance >= 1 else math.ceil(tolerance * math.hypot(*shape)))


def boundary_f(
  prediction: np.ndarray,
  truth: np.ndarray,
  *,
  tolerance: float = 0.008,
  valid: np.ndarray | None = None,
) -> float:
  """F of the shares of either mask's border within the radius of the other's (bool [H, W]).

  valid: both masks are empty elsewhere. Two masks without a border have 1, one of them 0.
  """
  seen = np.ones(truth.shape, bool) if valid is None else valid
  ours, theirs = (border_map(np.asarray(m, bool) & seen) for m in (prediction, truth))
  if not ours.any() or not theirs.any():
    return float(ours.any() == theirs.any())
  far = radius(truth.shape, tolerance) ** 2
  precision = np.mean(borders.squared_distance(theirs)[ours] <= far)
  recall = np.mean(borders.squared_distance(ours)[theirs] <= far)
  return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def class_boundary_f(
  prediction: np.ndarray,
  labels: np.ndarray,
  classes: int,
  *,
  tolerance: float = 0.008,
  void: int | None = 255,
) -> np.ndarray:
  """`boundary_f` of each class of label maps [C]."""
  valid = None if void is None else labels != void
  of = lambda c: boundary_f(prediction == c, labels == c, tolerance=tolerance, valid=valid)
  return np.array([of(c) for c in range(classes)])
