"""What functions for notebooks refuse, each in one line."""

import re

import numpy as np
import pytest

from car_jax import metrics
from tests.metrics.test_functional import OnlyDLPack


class OnADevice(OnlyDLPack):
  """What numpy cannot reach."""

  def __dlpack__(self, **kw):
    raise BufferError('on device cuda:0; copy it to the CPU first')


maps, pair = np.zeros((3, 4, 4), int), np.full((4, 4, 2), 0.5)
zeros = np.zeros((4, 4), int)
REFUSED = {
  'ged: samples must be [N, H, W] or [B, N, H, W] labels, got shape (4, 4)': lambda: metrics.ged(
    zeros, maps
  ),
  'ged: labels must be [4, 4] or [M, 4, 4] to go with samples, got shape (3, 8, 8)': lambda: (
    metrics.ged(maps, np.zeros((3, 8, 8), int))
  ),
  'hm_iou: labels must be [2, 4, 4] or [2, M, 4, 4] to go with samples, got shape (3, 4, 4)': (
    lambda: metrics.hm_iou([maps, maps], maps)
  ),
  'dice_max: samples must be class ids, whole numbers, got float64': lambda: metrics.dice_max(
    maps * 1.0, maps
  ),
  'ged: labels hold 4, but classes are 0 to 1; give ignore=4 or num_classes=5?': lambda: (
    metrics.ged(maps, maps + 4)
  ),
  'ged: samples hold -1, but classes are 0 to 1, 255 ignored; give ignore=-1?': lambda: metrics.ged(
    maps - 1, maps, ignore=255
  ),
  'ged: samples of shape (1, 0, 4, 4) hold no pixel': lambda: metrics.ged(maps[:0], maps),
  'ged: sample_weight must be [3] or [1, 3], got shape (2,)': lambda: metrics.ged(
    maps, maps, sample_weight=[1, 1]
  ),
  'ged: label_weight must be 0 or more and finite': lambda: metrics.ged(
    maps, maps, label_weight=[1, 1, -1]
  ),
  'ged: classes (2,) are not all in 0 to 1': lambda: metrics.ged(maps, maps, classes=(2,)),
  'ged: classes must be ids such as (1,), got 1': lambda: metrics.ged(maps, maps, classes=1),
  'ged: num_classes must be 2 or more, got 1': lambda: metrics.ged(maps, maps, num_classes=1),
  "estimator must be 'v' or 'u', not 'w'": lambda: metrics.ged(maps, maps, estimator='w'),
  'ece: probs must be [N, C] or [H, W, C] or [B, H, W, C] probabilities, got shape (2,)': lambda: (
    metrics.ece([0.5, 0.5], [1, 1, 1])
  ),
  'nll: labels must be [4, 4] or [M, 4, 4] to go with probs, got shape (4, 5)': lambda: metrics.nll(
    pair, np.zeros((4, 5), int)
  ),
  'ece: probs must sum to one over their last axis; those of image 0 at (0, 0) sum to 6; logits? '
  'give softmax': lambda: metrics.ece(pair * 6, zeros),
  'brier: probs must sum to one over their last axis; those of image 0 at (0, 0) sum to 1, the '
  'lowest is -0.5; logits? give softmax': lambda: metrics.brier(pair + np.array([1, -1]), zeros),
  'nll: probs need two classes in their last axis, got shape (4, 4, 1); of one class give '
  'stack([1 - p, p], -1)': lambda: metrics.nll(pair[..., :1], zeros),
  'ece: probs need an axis of classes, got shape (4, 5) with labels (3, 4, 5); of one class give '
  'stack([1 - p, p], -1)': lambda: metrics.ece(np.full((4, 5), 0.3), np.zeros((3, 4, 5), int)),
  'nll: probs need an axis of classes, got shape (4, 4) with labels (4, 4)': lambda: metrics.nll(
    np.full((4, 4), 0.3), zeros
  ),
  'brier: probs need an axis of classes, got shape (2, 4, 5) with labels (2, 3, 4, 5)': lambda: (
    metrics.brier(np.full((2, 4, 5), 0.3), np.zeros((2, 3, 4, 5), int))
  ),
  "hm_iou has no keyword 'ignor'; did you mean: ignore": lambda: metrics.hm_iou(
    maps, maps, ignor=255
  ),
  "ged has no keyword 'estimatr'; did you mean: estimator": lambda: metrics.ged(
    maps, maps, estimatr='u'
  ),
  "crps_area has no keyword 'absent'; ": lambda: metrics.crps_area(maps, maps, absent='zero'),
  'nll: labels hold 2, but classes are 0 to 1; give ignore=2?': lambda: metrics.nll(
    pair, zeros + 2
  ),
  'ece: class_id 2 is not in 0 to 1': lambda: metrics.ece(pair, zeros, class_id=2),
  'ece: probs must be real numbers, got <U1': lambda: metrics.ece([['a', 'b']], [1]),
  'nll: probs cannot be read as an array (setting an array element with a sequence': lambda: (
    metrics.nll([[0.5, 0.5], [1.0]], [1, 1])
  ),
  'nll: probs cannot be read as an array (BufferError on device cuda:0; copy it': lambda: (
    metrics.nll(OnADevice(pair), zeros)
  ),
  'nll: labels are a masked array; give x.filled(k) and ignore=k': lambda: metrics.nll(
    pair, np.ma.masked_equal(zeros, 0)
  ),
  'auroc: positive must have the shape of score (2,): (3,)': lambda: metrics.auroc(
    [1.0, 2.0], [0, 1, 1]
  ),
  'auroc: positive must be 0 and 1, got 0 to 255': lambda: metrics.auroc([1.0, 2.0], [0, 255]),
  'aurc: positive must be bool or 0 and 1, got float64': lambda: metrics.aurc([1.0], [1.0]),
  'prr: counted must be bool, got int64': lambda: metrics.prr([1.0], [1], counted=[1]),
  'auroc: 1 of 2 scores are nan': lambda: metrics.auroc([np.nan, 2.0], [0, 1]),
  'confusion: predicted must be [N] or [H, W] or [B, H, W] class ids, got shape (1, 1, 1, 1)': (
    lambda: metrics.confusion([[[[0]]]], [0])
  ),
  'miou: predicted hold 3, but classes are 0 to 1; give num_classes=4?': lambda: metrics.miou(
    [3], [0]
  ),
}


@pytest.mark.parametrize('message', REFUSED)
def test_what_is_wrong_is_said_in_a_line(message):
  with pytest.raises((ValueError, TypeError), match=re.escape(message)) as e:
    REFUSED[message]()
  assert '\n' not in str(e.value)
