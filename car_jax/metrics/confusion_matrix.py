"""Which class is taken for which: confusion matrices and what follows from them.

A confusion matrix counts pixels by true class (row) and predicted class (column).
"""

import numpy as np
from jaxtyping import Float, Real

from car_jax.typing import Array


def iou(matrix: Real[Array, 'C C']) -> Float[np.ndarray, ' C']:
  """Intersection over union of each class; nan for a class that is on neither side."""
  matrix = np.asarray(matrix, np.float64)
  both = np.diag(matrix)
  return ratio(both, matrix.sum(0) + matrix.sum(1) - both)


def mean_iou(matrix: Real[Array, 'C C'], classes: tuple[int, ...] | None = None) -> float:
  """Mean over those of `classes` (all) that occur on either side; nan where none does.

  A class that is predicted but never true counts 0. RELIS leaves such classes out on IDD, whose
  labels lack two of Cityscapes' classes: give `classes` without them.
  """
  values = iou(matrix)
  values = values if classes is None else values[list(classes)]
  return known_mean(values)


def pixel_accuracy(matrix: Real[Array, 'C C']) -> float:
  """The share of pixels whose class is right, in [0, 1]."""
  return float(ratio(np.trace(matrix), np.sum(matrix)))


def mean_accuracy(matrix: Real[Array, 'C C']) -> float:
  """The share that is right among each true class's pixels, averaged over the classes there."""
  share = ratio(np.diag(matrix), np.sum(matrix, 1))
  return known_mean(share)


def known_mean(values: np.ndarray) -> float:
  """Over those that are not nan; nan where all are."""
  known = values[~np.isnan(values)]
  return float(known.mean()) if known.size else float('nan')


def ratio(part, whole) -> np.ndarray:
  """part / whole, nan where the whole is 0."""
  part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
  return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)
