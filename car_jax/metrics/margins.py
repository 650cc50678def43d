"""How far must a mask be widened to hold the object? Conformal margins (arXiv 2503.05618).

On the host. The margin of an image is the least number of dilations by a cross of 3 x 3 pixels
after which the predicted mask holds at least tau of the truth. Of n exchangeable images the
ceil((1 - alpha)(n + 1))-th smallest margin is enough for the next one with a probability of at
least 1 - alpha.
"""

import numpy as np
from scipy import ndimage

ROUNDING = 1e-9  # tau |y| that is a whole number stays one


def margin(mask: np.ndarray, truth: np.ndarray, tau: float) -> float:
  """Masks (bool [H, W]) -> the number of dilations.

  inf where nothing is predicted and there is something to find, 0 where there is nothing.
  """
  mask, truth = np.asarray(mask, bool), np.asarray(truth, bool)
  if not truth.any():
    return 0.0
  if not mask.any():
    return float('inf')
  needed = int(np.ceil(tau * truth.sum() - ROUNDING))
  far = ndimage.distance_transform_cdt(~mask, 'taxicab')[truth]
  return float(np.partition(far, needed - 1)[needed - 1]) if needed > 0 else 0.0


def quantile(scores: np.ndarray, alpha: float) -> float:
  """Scores of calibration images [I] -> what bounds the next one's with probability 1 - alpha.

  inf, which is the whole image, where there are too few of them.
  """
  scores = np.sort(np.asarray(scores, np.float64))
  rank = int(np.ceil((1 - alpha) * (len(scores) + 1) - ROUNDING))
  return float(scores[rank - 1]) if rank <= len(scores) else float('inf')


def widened(mask: np.ndarray, dilations: float) -> np.ndarray:
  """The mask after so many dilations; inf gives the whole image."""
  mask = np.asarray(mask, bool)
  if np.isinf(dilations):
    return np.ones(mask.shape, bool)
  if not mask.any():
    return mask
  return ndimage.distance_transform_cdt(~mask, 'taxicab') <= dilations
