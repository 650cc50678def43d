"""Class probabilities against one reader or many: calibration, NLL, Brier score, soft Dice.

Arguments:
  probs         [N, C] of pixels, [H, W, C] of an image or [B, H, W, C]; they sum to one
  labels        class ids of one reader, the shape of probs without C, or of all: [M, N],
                [M, H, W] or [B, M, H, W]; a pixel's truth is the share of readers that say a class
  label_weight  [M] or [B, M]. None: equal; 0: padding
  ignore        a reader who gave this label abstains at that pixel; one without readers is void
NLL, Brier score and Dice are a float for an image, float64 [B] for a batch; calibration errors are
pooled over all pixels. nan where nothing counts. Docstrings begin with the convention's name.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from car_jax.metrics import calibration, confidence_groups, readers
from car_jax.metrics.functional import inputs

_nll = jax.jit(calibration.nll, static_argnames='ignore')
_brier = jax.jit(calibration.brier, static_argnames='ignore')
_dice_soft = jax.jit(
  readers.dice_soft, static_argnames=('classes', 'thresholds', 'absent', 'ignore')
)
_binary = jax.jit(calibration.one_class, static_argnames=('class_id', 'ignore'))
_top_label = jax.jit(calibration.top_label, static_argnames='ignore')


def ece(
  probs: Any,
  labels: Any,
  *,
  num_bins: int = 15,
  class_id: int | None = None,
  label_weight: Any = None,
  ignore: int | None = None,
) -> float:
  """ece[own probabilities, top label, 15 bins]: expected calibration error in [0, 1].

  class_id: of this class's probability, not the likeliest one's; `ece[.., class 1, ..]` is what
  car-jax eval reports of two classes.

  >>> from car_jax.metrics import ece
  >>> probs = [[0.25, 0.75], [0.25, 0.75]]  # two pixels
  >>> ece(probs, [1, 1]), ece(probs, [1, 0])
  (0.25, 0.25)
  >>> ece(probs, [[1, 1], [1, 1], [1, 1], [0, 0]])  # three of four readers say 1
  0.0
  """
  groups = _tied('ece', probs, labels, class_id, label_weight, ignore)
  return calibration.ece(confidence_groups.binned(groups, num_bins))


def adaptive_ece(
  probs: Any,
  labels: Any,
  *,
  num_bins: int = 15,
  class_id: int | None = None,
  label_weight: Any = None,
  ignore: int | None = None,
) -> float:
  """adaptive_ece: ECE over 15 bins that hold equally many pixels, in [0, 1]; exact, by sorting.

  class_id: as in `ece`.

  >>> from car_jax.metrics import adaptive_ece
  >>> adaptive_ece([[0.25, 0.75], [0.5, 0.5]], [1, 0])
  0.375
  """
  groups = _tied('adaptive_ece', probs, labels, class_id, label_weight, ignore)
  return confidence_groups.adaptive_ece(groups, num_bins)


def ks_error(
  probs: Any,
  labels: Any,
  *,
  class_id: int | None = None,
  label_weight: Any = None,
  ignore: int | None = None,
) -> float:
  """ks: Kolmogorov-Smirnov calibration error (arXiv:2006.12800) in [0, 1]; without bins.

  class_id: as in `ece`.

  >>> from car_jax.metrics import ks_error
  >>> ks_error([[0.25, 0.75], [0.5, 0.5]], [1, 0])
  0.375
  """
  groups = _tied('ks_error', probs, labels, class_id, label_weight, ignore)
  return confidence_groups.ks_error(groups)


def nll(probs: Any, labels: Any, *, label_weight: Any = None, ignore: int | None = None) -> Any:
  """nll[own probabilities]: negative log likelihood in nats, mean over pixels; p at least 1e-7.

  >>> from car_jax.metrics import nll
  >>> round(nll([[0.25, 0.75], [0.5, 0.5]], [1, 0]), 4)  # (-log 0.75 - log 0.5) / 2
  0.4904
  """
  p = inputs.probabilities('nll', probs, labels, label_weight, ignore)
  return inputs.per_image(_nll(p.predicted, p.labels, p.label_weight, ignore=ignore), p.alone)


def brier(probs: Any, labels: Any, *, label_weight: Any = None, ignore: int | None = None) -> Any:
  """brier[own probabilities]: squared error summed over classes, mean over pixels; in [0, 2].

  >>> from car_jax.metrics import brier
  >>> brier([[0.25, 0.75], [0.5, 0.5]], [1, 0])  # (2 x 0.25^2 + 2 x 0.5^2) / 2
  0.3125
  """
  p = inputs.probabilities('brier', probs, labels, label_weight, ignore)
  return inputs.per_image(_brier(p.predicted, p.labels, p.label_weight, ignore=ignore), p.alone)


def dice_soft(
  probs: Any,
  labels: Any,
  *,
  classes: Sequence[int] | None = None,
  thresholds: Sequence[float] = readers.SOFT_THRESHOLDS,
  label_weight: Any = None,
  absent: str = 'one',
  ignore: int | None = None,
) -> Any:
  """dice_soft[own probabilities, above 0.1+0.3+0.5+0.7+0.9, absent=1, fg]: 1 is best.

  Dice of where the probability of a class and where its share of readers is above a threshold, mean
  over classes and thresholds (arXiv:2403.13438). classes: None for 1 of two classes, of more all
  but the ignored one. absent: what a region that neither has is worth, as in `ged`.

  >>> from car_jax.metrics import dice_soft
  >>> probs = [[0.25, 0.75], [0.75, 0.25]]  # two pixels
  >>> dice_soft(probs, [[1, 0], [1, 0], [1, 1], [0, 0]])  # readers say 3/4 and 1/4
  1.0
  >>> round(dice_soft(probs, [1, 0]), 4)  # (2/3 + 1 + 1 + 1 + 0) / 5
  0.7333
  """
  p = inputs.probabilities('dice_soft', probs, labels, label_weight, ignore)
  ids = inputs.scored('dice_soft', classes, p.predicted.shape[-1], ignore)
  how = dict(classes=ids, thresholds=tuple(thresholds), absent=absent, ignore=ignore)
  return inputs.per_image(_dice_soft(p.predicted, p.labels, p.label_weight, **how), p.alone)


def confidences(
  function: str,
  probs: Any,
  labels: Any,
  class_id: int | None,
  label_weight: Any,
  ignore: int | None,
) -> calibration.Confidence:
  """Of the likeliest class, or of `class_id`, with the arguments checked; `function` is named."""
  p = inputs.probabilities(function, probs, labels, label_weight, ignore)
  arrays = p.predicted, p.labels, p.label_weight
  if class_id is None:
    return _top_label(*arrays, ignore=ignore)
  if not 0 <= class_id < p.predicted.shape[-1]:
    raise ValueError(f'{function}: class_id {class_id} is not in 0 to {p.predicted.shape[-1] - 1}')
  return _binary(*arrays, class_id=class_id, ignore=ignore)


def _tied(function, probs, labels, class_id, label_weight, ignore) -> confidence_groups.Tied:
  found = confidences(function, probs, labels, class_id, label_weight, ignore)
  conf, hits, seen = map(np.asarray, found)
  return confidence_groups.tied(conf[seen].astype(np.float32), hits[seen])
