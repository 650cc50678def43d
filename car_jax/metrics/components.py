"""Are objects found as objects? sIoU, PPV and mean F1 of components, as of SegmentMeIfYouCan.

arXiv 2104.14812. Components have eight neighbours, and are those of the image at hand: least sizes
in pixels hold for the resolution they were chosen at (anomaly track: 500 predicted, 100 true;
obstacle track: 50 and 10), nothing is rescaled. On the host.

Letters: K true and J predicted components, T thresholds. `void` pixels are neither, and cut both. A
true component below the least size becomes void after predicted ones were tested for theirs: what
lies on it is taken from them.
  sIoU(k)  I / (|P| + |k| - I - A): P the predicted components that touch k, I what k and P share,
           A the pixels of P on other true components; 0 where nothing touches k
  PPV(j)   the share of j that lies on any true component
  at t     TP, FN: true components with sIoU >= t, and others; FP: predicted ones with PPV < t
F1 is of counts summed over images, sIoU and PPV are means over the components of all images.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np
from scipy import ndimage

from car_jax.metrics.borders import EIGHT
from car_jax.metrics.confusion_matrix import known_mean, ratio

THRESHOLDS = np.linspace(0.25, 0.75, 11)


@dataclasses.dataclass(frozen=True)
class Components:
  """Of one image or, `joined`, of many: all that the scores need. Components by first pixel."""

  true_size: np.ndarray  # [K]
  true_siou: np.ndarray
  predicted_size: np.ndarray  # [J]
  predicted_siou: np.ndarray  # with the roles swapped
  ppv: np.ndarray

  def counts(self, thresholds: np.ndarray = THRESHOLDS) -> np.ndarray:
    """TP, FN and FP at each threshold [T, 3]."""
    hit = self.true_siou >= thresholds[:, None]
    return np.stack([hit.sum(1), (~hit).sum(1), (self.ppv < thresholds[:, None]).sum(1)], -1)


@dataclasses.dataclass(frozen=True)
class Scores:
  """nan where there is nothing to judge: no component of the kind in any image."""

  f1: np.ndarray
  """[T]"""
  mean_f1: float
  siou: float
  ppv: float
  true: int
  predicted: int


def components(
  predicted: np.ndarray,
  labels: np.ndarray,
  *,
  least_predicted: int | None = None,
  least_true: int = 0,
  void: int = 255,
) -> Components:
  """predicted (bool) and labels (0, 1 or void) [H, W] -> the components of an image.

  The benchmark predicts where score > threshold, with the threshold of the best F1 on the test set
  itself; say which, and where it was chosen.
  """
  labels = np.asarray(labels)
  seen = labels != void
  ours, theirs = _labelled(np.asarray(predicted, bool) & seen), _labelled(labels == 1)
  ours = _without(ours, np.bincount(ours.reshape(-1)) < (least_predicted or 0))
  small = np.bincount(theirs.reshape(-1)) < least_true
  small[0] = False
  seen = seen & ~small[theirs]
  truth, said = _renumbered(theirs[seen]), _renumbered(ours[seen])
  shape = truth.max(initial=0) + 1, said.max(initial=0) + 1
  table = np.bincount(truth * shape[1] + said, minlength=shape[0] * shape[1]).reshape(shape)
  size = table.sum(0)[1:]
  return Components(
    true_size=table.sum(1)[1:],
    true_siou=_siou(table),
    predicted_size=size,
    predicted_siou=_siou(table.T),
    ppv=table[1:, 1:].sum(0) / np.maximum(size, 1),
  )


def joined(images: Iterable[Components]) -> Components:
  """The components of many images."""
  none = Components(*[np.zeros(0)] * 5)
  every = zip(*(dataclasses.astuple(c) for c in (none, *images)), strict=True)
  return Components(*map(np.concatenate, every))


def scores(images: Iterable[Components], thresholds: np.ndarray = THRESHOLDS) -> Scores:
  """Of a data set. Any order and any split into parts gives the same."""
  every = joined(images)
  tp, fn, fp = every.counts(thresholds).T
  f1 = ratio(2 * tp, 2 * tp + fn + fp)
  return Scores(
    f1=f1,
    mean_f1=known_mean(f1),
    siou=known_mean(every.true_siou),
    ppv=known_mean(every.ppv),
    true=len(every.true_siou),
    predicted=len(every.ppv),
  )


def _labelled(mask: np.ndarray) -> np.ndarray:
  return ndimage.label(mask, EIGHT)[0]


def _without(labels: np.ndarray, dropped: np.ndarray) -> np.ndarray:
  return np.where(dropped[labels], 0, labels)


def _renumbered(labels: np.ndarray) -> np.ndarray:
  """The same with no number left out; 0 stays."""
  there = np.bincount(labels, minlength=1) > 0
  there[0] = False
  return np.where(labels > 0, np.cumsum(there)[labels], 0)


def _siou(table: np.ndarray) -> np.ndarray:
  """Pixels by first and second component, 0 for none -> sIoU of each first one."""
  touches = table[1:, 1:] > 0
  sizes, taken = table.sum(0)[1:], table[1:, 1:].sum(0)
  own = table[1:, 1:].sum(1)
  union = touches @ sizes
  others = touches @ taken - own  # pixels of P on other true components
  return own / np.maximum(union + table[1:].sum(1) - own - others, 1)
