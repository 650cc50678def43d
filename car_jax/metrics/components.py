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
  truth = Truth.of(labels, least_true, void)
  return truth.against(predicted, least_predicted)


@dataclasses.dataclass(frozen=True)
class Truth:
  """The true components of an image, to be compared with any number of predictions."""

  seen: np.ndarray  # bool [H, W]
  place: np.ndarray  # of every pixel of a true component, in the flat image
  component: np.ndarray  # its component, from 1 on; 0 of one that is too small, and so void
  size: np.ndarray  # [K]

  @classmethod
  def of(cls, labels: np.ndarray, least: int = 0, void: int = 255) -> 'Truth':
    labels = np.asarray(labels)
    flat = ndimage.label(labels == 1, EIGHT)[0].reshape(-1)
    place = np.flatnonzero(flat)
    size = np.bincount(flat[place], minlength=1)
    large = (size >= max(least, 1)) & (np.arange(len(size)) > 0)
    return cls(labels != void, place, _numbers(large)[flat[place]], size[large])

  def against(self, predicted: np.ndarray, least: int | None = None) -> Components:
    """predicted: bool [H, W]."""
    flat = ndimage.label(np.asarray(predicted, bool) & self.seen, EIGHT)[0].reshape(-1)
    size = np.bincount(flat[flat > 0], minlength=1)
    there = (size >= (least or 0)) & (np.arange(len(size)) > 0)
    on = flat[self.place]
    size = size - np.bincount(on[self.component == 0], minlength=len(size))
    there &= size > 0  # what lies on void alone is gone
    size = size[there]
    said, shape = _numbers(there)[on], (len(self.size) + 1, len(size) + 1)
    pairs = np.bincount(self.component * shape[1] + said, minlength=shape[0] * shape[1])
    shared = pairs.reshape(shape)[1:, 1:]
    return Components(
      true_size=self.size,
      true_siou=_siou(shared, self.size, size),
      predicted_size=size,
      predicted_siou=_siou(shared.T, size, self.size),
      ppv=shared.sum(0) / np.maximum(size, 1),
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


def _numbers(kept: np.ndarray) -> np.ndarray:
  """Of components, which are kept (bool) -> their new numbers from 1 on, 0 for the others."""
  return np.where(kept, np.cumsum(kept), 0)


def _siou(shared: np.ndarray, own: np.ndarray, others: np.ndarray) -> np.ndarray:
  """Pixels that components share [K, J] and the sizes of both sides -> sIoU of each first one."""
  touches, both = shared > 0, shared.sum(1)
  union = touches @ others
  elsewhere = touches @ shared.sum(0) - both  # pixels of P on other true components
  return both / np.maximum(union + own - both - elsewhere, 1)
