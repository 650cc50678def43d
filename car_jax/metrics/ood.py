"""Does a segmenter notice that images are of another data set? Letters: I images."""

import numpy as np

from car_jax.metrics import ranking


def image_level(known: np.ndarray, other: np.ndarray) -> dict[str, float]:
  """Mean confidence of each image, of the known data set and of another -> auroc, aupr, fpr95.

  As published with RELIS, an image's score is the mean over all its pixels; unlike there the
  positive is the other data set, which leaves AUROC the same.
  """
  conf = np.concatenate([known, other]).astype(np.float64)
  strange = np.arange(len(conf)) >= len(known)
  counts = ranking.by_value(-conf, strange)
  return {
    'auroc': ranking.auroc(*counts),
    'aupr': ranking.average_precision(*counts),
    'fpr95': ranking.fpr_at_tpr(*counts),
  }
