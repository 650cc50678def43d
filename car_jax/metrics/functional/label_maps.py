"""The predicted class of each pixel against its labels: confusion matrix, IoU, mean IoU.

Arguments:
  predicted     class ids, [N] of pixels, [H, W] of an image or [B, H, W]
  labels        of one reader, of the same shape, or of all: [M, N], [M, H, W] or [B, M, H, W];
                readers of a pixel share one vote
  num_classes   2. Another id in an array is an error
  label_weight  [M] or [B, M]. None: equal; 0: padding
  ignore        a reader who gave this label abstains at that pixel; one without readers is void
All are pooled over the pixels of all images. Docstrings begin with the convention's name.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from car_jax.metrics import calibration, confusion_matrix
from car_jax.metrics.functional import inputs


def confusion(
  predicted: Any,
  labels: Any,
  *,
  num_classes: int = 2,
  label_weight: Any = None,
  ignore: int | None = None,
) -> np.ndarray:
  """confusion: pixels by true class (row) and predicted class (column), float64 [C, C].

  >>> from car_jax.metrics import confusion
  >>> confusion([0, 1, 1, 1], [0, 1, 1, 0]).tolist()
  [[1.0, 1.0], [0.0, 2.0]]
  >>> confusion([1], [[0], [1]]).tolist()  # two readers of one pixel
  [[0.0, 0.5], [0.0, 0.5]]
  """
  return _matrix('confusion', predicted, labels, num_classes, label_weight, ignore)


def iou(
  predicted: Any,
  labels: Any,
  *,
  num_classes: int = 2,
  label_weight: Any = None,
  ignore: int | None = None,
) -> np.ndarray:
  """iou: intersection over union of each class [C]; nan for one that is on neither side.

  >>> from car_jax.metrics import iou
  >>> iou([0, 1, 1, 1], [0, 1, 1, 1], num_classes=3).tolist()
  [1.0, 1.0, nan]
  """
  matrix = _matrix('iou', predicted, labels, num_classes, label_weight, ignore)
  return confusion_matrix.iou(matrix)


def miou(
  predicted: Any,
  labels: Any,
  *,
  num_classes: int = 2,
  classes: Sequence[int] | None = None,
  label_weight: Any = None,
  ignore: int | None = None,
) -> float:
  """miou[own probabilities, classes=1]: IoU, mean over those of `classes` that occur.

  classes: None for 1 of two classes, of more all but the ignored one.

  >>> from car_jax.metrics import miou
  >>> miou([0, 1, 1, 1], [0, 1, 1, 1]), miou([0, 1, 1, 1], [0, 0, 1, 1], classes=(0, 1))
  (1.0, 0.5833333333333333)
  """
  ids = inputs.scored('miou', classes, num_classes, ignore)
  matrix = _matrix('miou', predicted, labels, num_classes, label_weight, ignore)
  return confusion_matrix.mean_iou(matrix, ids)


def _matrix(function, predicted, labels, num_classes, label_weight, ignore) -> np.ndarray:
  p = inputs.label_maps(function, predicted, labels, label_weight, num_classes, ignore)
  share, _ = map(np.asarray, calibration.votes(p.labels, p.label_weight, ignore))
  said, truth = np.broadcast_to(np.asarray(p.predicted)[:, None], share.shape), np.asarray(p.labels)
  used = share > 0
  index = truth[used].astype(np.int64) * num_classes + said[used]
  votes = np.bincount(index, share[used], num_classes**2)
  return votes.reshape(num_classes, num_classes)
