"""Cityscapes' own scores, from label ids 0 to 33.

The benchmark's rules differ from a plain IoU: what is predicted on pixels of no scored class is no
mistake, but saying such a class where one is scored is. From Cordts et al. (arXiv 1604.01685);
equal to the evaluator of cityscapesscripts. Letters: L = 34 label ids, H x W pixels, C classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from car_jax.metrics.confusion_matrix import ratio

LABEL_IDS = 34
CLASSES = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
CATEGORIES = {
  'flat': (7, 8),
  'construction': (11, 12, 13),
  'object': (17, 19, 20),
  'nature': (21, 22),
  'sky': (23,),
  'human': (24, 25),
  'vehicle': (26, 27, 28, 31, 32, 33),
}
THINGS = {
  24: 3462.4756337644,
  25: 3930.4788056518,
  26: 12794.0202738185,
  27: 27855.1264367816,
  28: 35732.1511111111,
  31: 67583.7075812274,
  32: 6298.7200839748,
  33: 4672.3249222261,
}
"""Label id of a class with instances -> the average pixels of one, as the benchmark fixed it."""
THING_CATEGORIES = {'human': (24, 25), 'vehicle': (26, 27, 28, 29, 30, 31, 32, 33)}
"""Here saying caravan or trailer is right on any vehicle."""


def confusion(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
  """Label ids of any one shape -> [L, L] int64, rows the truth; ValueError for other ids."""
  truth, predicted = np.asarray(truth), np.asarray(predicted)
  if truth.shape != predicted.shape:
    raise ValueError(f'truth {truth.shape} and prediction {predicted.shape} differ in shape')
  for name, ids in (('truth', truth), ('prediction', predicted)):
    if ids.size and not 0 <= ids.min() <= ids.max() < LABEL_IDS:
      raise ValueError(f'the {name} has ids {ids.min()} to {ids.max()}; expected 0 to 33')
  index = truth.astype(np.int64).ravel() * LABEL_IDS + predicted.ravel()
  return np.bincount(index, minlength=LABEL_IDS**2).reshape(LABEL_IDS, LABEL_IDS)


def class_iou(matrix: np.ndarray) -> np.ndarray:
  """[L, L] -> IoU of the 19 classes in train-id order; nan for a class on neither side."""
  return np.array([_iou(matrix, (c,)) for c in CLASSES])


def category_iou(matrix: np.ndarray) -> np.ndarray:
  """[L, L] -> IoU of the 7 categories, in the order of CATEGORIES."""
  return np.array([_iou(matrix, ids) for ids in CATEGORIES.values()])


def instance_pixels(instances: np.ndarray, predicted: np.ndarray) -> np.ndarray:
  """Instance ids and predicted label ids [H, W] -> [10, 2]: pixels found and missed, of each
  instance scaled to its class's average size. These add up over images.

  Rows: THINGS, then THING_CATEGORIES. An instance id is 1000 times its label id plus a number; a
  group, which has the label id alone, counts in no row.
  """
  ids, where, sizes = np.unique(np.asarray(instances), return_inverse=True, return_counts=True)
  where, predicted = where.ravel(), np.asarray(predicted).ravel()
  groups = [((c,), (c,)) for c in THINGS] + [(ids, ids) for ids in THING_CATEGORIES.values()]
  weight = np.array([THINGS.get(int(i) // 1000, 0) for i in ids]) / sizes
  rows = []
  for members, right in groups:
    mine = weight * np.isin(ids // 1000, members)
    hits = np.bincount(where, np.isin(predicted, right), len(ids))
    rows.append((np.sum(mine * hits), np.sum(mine * (sizes - hits))))
  return np.array(rows)


def instance_iou(matrix: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """iIoU of THINGS [8] and of THING_CATEGORIES [2]; nan where nothing counts.

  matrix [L, L] and pixels [10, 2] (`instance_pixels`) are sums over the same images. False pixels
  have no instance, so they alone are not scaled.
  """
  groups = [*((c,) for c in THINGS), *THING_CATEGORIES.values()]
  false = [_false_positives(matrix, ids) for ids in groups]
  iou = ratio(pixels[:, 0], pixels.sum(1) + false)
  return iou[: len(THINGS)], iou[len(THINGS) :]


def _iou(matrix: np.ndarray, ids: Sequence[int]) -> np.ndarray:
  rows = matrix[list(ids)]
  both = rows[:, list(ids)].sum()
  return ratio(both, rows.sum() + _false_positives(matrix, ids))


def _false_positives(matrix: np.ndarray, ids: Sequence[int]) -> Any:
  """Pixels predicted as one of `ids`, of scored classes that are none of them."""
  others = [c for c in CLASSES if c not in ids]
  return matrix[np.ix_(others, list(ids))].sum()
