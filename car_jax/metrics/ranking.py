"""How well a score separates two kinds of pixels: ROC, AUROC, FPR95, precision and recall.

Everything is computed from counts: positives and negatives [K] per distinct score, in ascending
order of the score, float or integer. So exact values (`by_value`: one group per value) and values
from a histogram (one group per bin) come from the same code; equal scores count as ties, which
means half. What a histogram's bins can hide is bounded by `bound`.

A positive is what the score should be high for. All functions return nan where one kind is missing.
"""

from collections.abc import Callable

import numpy as np


def by_value(score: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """score and positive (bool) [N] -> positives and negatives [K] of each distinct score.

  Raises ValueError for a score that is nan.
  """
  score, positive = np.asarray(score).reshape(-1), np.asarray(positive, bool).reshape(-1)
  if np.isnan(score).any():
    raise ValueError(f'{np.isnan(score).sum()} of {score.size} scores are nan')
  values, group = np.unique(score, return_inverse=True)
  positives = np.bincount(group, positive, len(values))
  return positives, np.bincount(group, ~positive, len(values))


def roc(positives: np.ndarray, negatives: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """False and true positive rates [K+1] at every threshold, from the highest score down."""
  hits, alarms = _cumulative(positives), _cumulative(negatives)
  with np.errstate(invalid='ignore'):
    return alarms / alarms[-1], hits / hits[-1]


def auroc(positives: np.ndarray, negatives: np.ndarray) -> float:
  """The probability that a positive scores higher than a negative; equal ones count half."""
  if not np.sum(positives) or not np.sum(negatives):
    return float('nan')
  fpr, tpr = roc(positives, negatives)
  return float(np.trapezoid(tpr, fpr))


def fpr_at_tpr(positives: np.ndarray, negatives: np.ndarray, tpr: float = 0.95) -> float:
  """The false positive rate at the first threshold that finds this share of the positives."""
  false, true = roc(positives, negatives)
  if np.isnan(true[-1]) or np.isnan(false[-1]):
    return float('nan')
  return float(false[np.argmax(true >= tpr - 1e-12)])


def precision_recall(positives, negatives) -> tuple[np.ndarray, np.ndarray]:
  """Precision and recall [K+1] at every threshold, from the highest down; the first is (1, 0)."""
  hits, alarms = _cumulative(positives), _cumulative(negatives)
  predicted = hits + alarms
  with np.errstate(invalid='ignore'):
    precision = np.where(predicted > 0, hits / np.where(predicted > 0, predicted, 1), 1.0)
    return precision, hits / hits[-1]


def aupr(positives: np.ndarray, negatives: np.ndarray) -> float:
  """Area under precision over recall by trapezoids through all thresholds, as GenVal publishes it.

  It is kinder than `average_precision`, since it draws straight lines between thresholds.
  """
  if not np.sum(negatives):
    return float('nan')
  precision, recall = precision_recall(positives, negatives)
  return float(np.trapezoid(precision, recall))


def average_precision(positives: np.ndarray, negatives: np.ndarray) -> float:
  """Mean precision over the positives, each at its own threshold (no interpolation)."""
  if not np.sum(negatives):
    return float('nan')
  precision, recall = precision_recall(positives, negatives)
  return float(np.sum(precision[1:] * np.diff(recall)))


def best_f1(positives: np.ndarray, negatives: np.ndarray) -> tuple[float, int]:
  """The largest F1 of any threshold, and the lowest group that it accepts (score >= its own).

  A threshold that is chosen on the data it is judged by flatters; say where it was chosen. nan, -1
  without positives.
  """
  hits, alarms = _cumulative(positives)[1:], _cumulative(negatives)[1:]
  if not hits.size or not hits[-1]:
    return float('nan'), -1
  f1 = 2 * hits / (hits + alarms + hits[-1])
  best = int(np.argmax(f1))
  return float(f1[best]), len(f1) - 1 - best


def spearman(x: np.ndarray, y: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
  """Rank correlation of x and y [N], equal values at their mean rank; nan where one is constant.

  weight [*R, N]: multiplicities, such as a bootstrap's -> [*R].
  """
  x, y = np.asarray(x), np.asarray(y)
  weight = np.ones(len(x)) if weight is None else np.asarray(weight, np.float64)
  total = np.sum(weight, -1, keepdims=True)
  centred = lambda rank: rank - np.sum(weight * rank, -1, keepdims=True) / np.maximum(total, 1)
  a, b = (centred(mean_ranks(v, weight)) for v in (x, y))
  dot = lambda u, v: np.sum(weight * u * v, -1)
  spread = np.sqrt(dot(a, a) * dot(b, b))
  constant = np.minimum(dot(a, a), dot(b, b)) < 1e-6  # else 1/2 at the least
  return np.where(constant, np.nan, dot(a, b) / np.where(constant, 1, spread))


def mean_ranks(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
  """The rank of each value [N] among as many of each as the weight [*R, N] says, in a rising order;
  equal ones have their mean rank."""
  _, group = np.unique(x, return_inverse=True)
  order = np.argsort(group, kind='stable')
  last = np.append(np.diff(group[order]) > 0, True)[: len(group)]
  reached = np.cumsum(weight[..., order], -1)[..., last]
  size = np.diff(reached, axis=-1, prepend=0)
  return (reached - (size - 1) / 2)[..., group]


def image_level(known: np.ndarray, other: np.ndarray) -> dict[str, float]:
  """Mean confidence of each image, of the known data set and of another -> auroc, aupr, fpr95.

  As published with RELIS, an image's score is the mean over all its pixels; unlike there the
  positive is the other data set, which leaves AUROC the same.
  """
  conf = np.concatenate([known, other]).astype(np.float64)
  strange = np.arange(len(conf)) >= len(known)
  counts = by_value(-conf, strange)
  return {
    'auroc': auroc(*counts),
    'aupr': average_precision(*counts),
    'fpr95': fpr_at_tpr(*counts),
  }


def bound(metric: Callable[..., float], positives: np.ndarray, negatives: np.ndarray) -> float:
  """The largest error that a metric of binned scores can have against that of the scores.

  Within a bin the order is not known; the extremes are all positives above all negatives, and all
  below. Metrics that only improve as positives rise lie between those two. Areas under precision
  also depend on where thresholds lie: there each bin counts with the least and the largest
  precision that is possible in it.
  """
  p, n = np.asarray(positives, float), np.asarray(negatives, float)
  keep = p + n > 0
  p, n = p[keep], n[keep]
  if metric in (aupr, average_precision):
    return _precision_bound(metric(p, n), p, n)
  none = np.zeros_like(p)
  split = lambda first, second: np.stack([first, second], -1).reshape(-1)
  best = metric(split(none, p), split(n, none))
  worst = metric(split(p, none), split(none, n))
  value = metric(p, n)
  return float(max(abs(best - value), abs(worst - value)))


def _precision_bound(value: float, p: np.ndarray, n: np.ndarray) -> float:
  hits, alarms = _cumulative(p), _cumulative(n)
  if not hits[-1] or not alarms[-1]:
    return float('nan')
  share = np.diff(hits) / hits[-1]
  least = hits[:-1] / np.maximum(hits[:-1] + alarms[1:], 1)
  most = hits[1:] / np.maximum(hits[1:] + alarms[:-1], 1)
  return float(max(np.sum(share * most) - value, value - np.sum(share * least)))


def _cumulative(counts: np.ndarray) -> np.ndarray:
  """0, then how many score at least as much as each group, from the highest group down."""
  return np.concatenate([[0.0], np.cumsum(np.asarray(counts, np.float64)[::-1])])
