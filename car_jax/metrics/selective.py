"""Is a bad segmentation also an uncertain one? Risk over coverage, with one risk for each image.

The surest images are accepted first. Letters: I images, G groups of equal confidence, R resamples.
A risk is in [0, 1]: 0 or 1 for right or wrong, or one minus a Dice score. After the group g, K
images were accepted and their risks add up to S:
  coverage K / I, selective risk S / K (arXiv 1705.08500), generalized risk S / I (arXiv 2407.01032)
Each area has two forms, and its name states which:
  mean       over k = 1 .. I of the risk of the k surest, equal confidences in random order. No
             order of the risks has less than the best one's. `rejection.aurc` is this, of pixels.
  trapezoid  through the points after each group, from coverage 0 with the first group's risk
             (selective) or 0 (generalized): the AUGRC as published, which prints 1000 times it.
augrc[mean] = augrc[trapezoid] + mean risk / (2 I). The two forms of AURC have no such relation, and
aurc[trapezoid] can be below that of the best order where confidences are equal. The best order is
by rising risk, one image at a time.
"""

import dataclasses
import functools

import numpy as np
from scipy.special import digamma

from car_jax.metrics import ranking
from car_jax.metrics.confusion_matrix import ratio

FORMS = ('mean', 'trapezoid')


@dataclasses.dataclass(frozen=True)
class Curve:
  """The number of images accepted and their summed risk after each group [*R, G], surest first."""

  accepted: np.ndarray
  lost: np.ndarray

  @functools.cached_property
  def images(self) -> np.ndarray:
    """[*R]"""
    return _last(self.accepted)

  @property
  def coverage(self) -> np.ndarray:
    return ratio(self.accepted, self.images[..., None])

  @property
  def selective_risk(self) -> np.ndarray:
    return ratio(self.lost, self.accepted)

  @property
  def generalized_risk(self) -> np.ndarray:
    return ratio(self.lost, self.images[..., None])

  @property
  def mean_risk(self) -> np.ndarray:
    """[*R]"""
    return ratio(_last(self.lost), self.images)

  def aurc(self, form: str = 'mean') -> np.ndarray:
    """Area under the selective risk [*R]; of an order without information: the mean risk."""
    size, before = _steps(self.accepted), _before(self.accepted)
    if _known(form) == 'mean':
      lost, risk = _before(self.lost), np.nan_to_num(ratio(_steps(self.lost), size))
      # the t-th of a group adds its mean: sum over t of (lost + t risk) / (before + t)
      harmonic = digamma(before + size + 1) - digamma(before + 1)
      areas = size * risk + (lost - before * risk) * harmonic
    else:
      after = np.nan_to_num(self.selective_risk)
      areas = size * (after + np.where(before > 0, _before(after), after)) / 2
    return ratio(np.sum(areas, -1), self.images)

  def augrc(self, form: str = 'mean') -> np.ndarray:
    """Area under the generalized risk [*R]: a random image's risk if it is accepted, at random.

    That is half the mean risk without information, and e^2 / 2 for the best order of many images of
    which a share e has risk 1 (arXiv 2407.01032).
    """
    size, lost = _steps(self.accepted), _steps(self.lost)
    areas = size * _before(self.lost) + lost * size / 2
    if _known(form) == 'mean':
      areas = areas + lost / 2
    return ratio(np.sum(areas, -1), self.images**2)

  def auroc(self) -> np.ndarray:
    """Of risks 0 and 1 [*R]: how often a failure is less sure than a success, equal ones half; nan
    where either is missing."""
    right = self.accepted - self.lost
    surer = _before(right) + _steps(right) / 2
    return ratio(np.sum(_steps(self.lost) * surer, -1), _last(self.lost) * _last(right))


def curve(confidence: np.ndarray, risk: np.ndarray, weight: np.ndarray | None = None) -> Curve:
  """confidence and risk [I] -> the curve; weight [*R, I]: how often each image counts.

  Confidences may be infinite, not nan; neither may risks be, see `areas`. Equal ones make a group.
  """
  confidence, risk = (np.asarray(x, np.float64).reshape(-1) for x in (confidence, risk))
  if np.isnan(confidence).any() or np.isnan(risk).any():
    raise ValueError('a confidence or a risk is nan: leave its image out')
  order = np.argsort(-confidence, kind='stable')
  ranked = confidence[order]
  last = np.append(ranked[1:] != ranked[:-1], True)[: len(ranked)]
  weight = np.ones(len(risk)) if weight is None else np.asarray(weight, np.float64)
  weight = weight[..., order]
  total = lambda x: np.cumsum(x, -1)[..., last]
  return Curve(total(weight), total(weight * risk[order]))


def best_curve(risk: np.ndarray, weight: np.ndarray | None = None) -> Curve:
  """By rising risk, one image at a time, so that the trapezoids have every point."""
  rank = np.argsort(np.argsort(risk, kind='stable'))
  return curve(-rank, risk, weight)


@dataclasses.dataclass(frozen=True)
class Areas:
  """All in one form, [*R]. e_: above that of the best order. n_aurc: 1 best, 0 no information."""

  form: str
  aurc: np.ndarray
  e_aurc: np.ndarray
  n_aurc: np.ndarray
  augrc: np.ndarray
  e_augrc: np.ndarray
  mean_risk: np.ndarray
  images: int
  left_out: int
  """images without a confidence or a risk"""


def areas(
  confidence: np.ndarray,
  risk: np.ndarray,
  weight: np.ndarray | None = None,
  *,
  form: str = 'mean',
) -> Areas:
  """The areas of images [I]; where confidence or risk is nan the image is left out, and counted.

  weight [*R, I]: multiplicities, such as a bootstrap's. No image at all: nan. n_aurc is nan where
  no order is better than another.
  """
  confidence, risk = (np.asarray(x, np.float64).reshape(-1) for x in (confidence, risk))
  kept = ~(np.isnan(confidence) | np.isnan(risk))
  confidence, risk = confidence[kept], risk[kept]
  weight = None if weight is None else np.asarray(weight)[..., kept]
  ours, best = curve(confidence, risk, weight), best_curve(risk, weight)
  aurc, augrc, mean = ours.aurc(form), ours.augrc(form), ours.mean_risk
  least = best.aurc(form)
  span = mean - least
  return Areas(
    form=form,
    aurc=aurc,
    e_aurc=aurc - least,
    n_aurc=ratio(np.where(span > 1e-12, mean - aurc, 0), np.where(span > 1e-12, span, 0)),
    augrc=augrc,
    e_augrc=augrc - best.augrc(form),
    mean_risk=mean,
    images=int(kept.sum()),
    left_out=int((~kept).sum()),
  )


@dataclasses.dataclass(frozen=True)
class Detection:
  """How well low confidence finds the images whose risk is above `limit`; nan where none or all."""

  limit: float
  auroc: float
  average_precision: float
  fpr95: float
  spearman: float
  """rank correlation of confidence and risk: negative is good"""
  failed: int
  images: int
  left_out: int


def detection(confidence: np.ndarray, risk: np.ndarray, *, limit: float) -> Detection:
  """Failures as the positives to be found by low confidence [I].

  State the limit before looking at the risks: one that is taken from them, such as their median,
  makes numbers that no other data set can have. nan images are left out as in `areas`.
  """
  confidence, risk = (np.asarray(x, np.float64).reshape(-1) for x in (confidence, risk))
  kept = ~(np.isnan(confidence) | np.isnan(risk))
  confidence, risk = confidence[kept], risk[kept]
  failed = risk > limit
  counts = ranking.by_value(-confidence, failed)
  none = float('nan')
  return Detection(
    limit=limit,
    auroc=float(curve(confidence, failed).auroc()),
    average_precision=ranking.average_precision(*counts) if failed.size else none,
    fpr95=ranking.fpr_at_tpr(*counts) if failed.size else none,
    spearman=float(ranking.spearman(confidence, risk)),
    failed=int(failed.sum()),
    images=int(kept.sum()),
    left_out=int((~kept).sum()),
  )


def _known(form: str) -> str:
  if form not in FORMS:
    raise ValueError(f'form must be one of {FORMS}, not {form!r}')
  return form


def _last(cumulated: np.ndarray) -> np.ndarray:
  return cumulated[..., -1] if cumulated.shape[-1] else np.zeros(cumulated.shape[:-1])


def _before(cumulated: np.ndarray) -> np.ndarray:
  """Values after each group -> before it."""
  return np.concatenate([np.zeros_like(cumulated[..., :1]), cumulated[..., :-1]], -1)


def _steps(cumulated: np.ndarray) -> np.ndarray:
  return cumulated - _before(cumulated)
