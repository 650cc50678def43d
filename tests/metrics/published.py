"""Scores as published code prints them, which the library itself does not: oracles for tests.

Letters: H x W pixels, C classes.
"""

import jax.numpy as jnp
import numpy as np
from scipy.special import entr, softmax, xlog1py

from car_jax.metrics import confusion_matrix, flips, ranking, selective
from car_jax.metrics.flips import FLIPS


def training_scores(matrix, ignored=()) -> dict[str, np.ndarray]:
  """iou, precision, recall [C] and `mean_iou` without the `ignored` classes, from [C, C].

  As DA-SAC (arXiv 2105.00097) chooses snapshots: a class that does not occur counts 0.
  """
  matrix = np.asarray(matrix, np.float64)
  true, of, predicted = np.diag(matrix), matrix.sum(1), matrix.sum(0)
  share = lambda whole: true / np.maximum(whole, 1e-3)
  iou = share(of + predicted - true)
  kept = [c for c in range(len(matrix)) if c not in ignored]
  return dict(iou=iou, precision=share(predicted), recall=share(of), mean_iou=iou[kept].mean())


def pooled(maps) -> np.ndarray:
  """RELIS' features of images [B, D], of maps [B, H, W, D]: sums over H x W, the largest made 1."""
  total = np.sum(maps, (1, 2))
  return total / total.max(-1, keepdims=True)


def present_iou(matrix) -> np.ndarray:
  """`confusion_matrix.iou`, nan also for classes that the truth lacks (RELIS, arXiv 2303.11298)."""
  return np.where(np.sum(matrix, 1) > 0, confusion_matrix.iou(matrix), np.nan)


def object_metrics(logits, mask) -> dict[str, float]:
  """GenVal's numbers of one image (arXiv 2312.09231): logits [H, W, C], mask [H, W] of the object.

  raw_entropy: mean entropy inside, nats; rel_entropy: that over the mean outside; and by entropy,
  confidence and logits auroc, fpr (at 95 % of the object found), aupr_in (the object is the
  positive) and aupr_out (the rest is), by sorting. nan where the mask is empty or everything.
  """
  logits, mask = np.asarray(logits, np.float64), np.asarray(mask, bool)
  probs = softmax(logits, -1)
  entropy = entr(probs).sum(-1)
  mean = lambda where: float(np.mean(entropy[where])) if where.any() else float('nan')
  values = {'raw_entropy': mean(mask), 'rel_entropy': mean(mask) / mean(~mask)}
  scores = {'entropy': -entropy, 'confidence': probs.max(-1), 'logits': logits.max(-1)}
  for name, conf in scores.items():
    strange, known = ranking.by_value(-conf, mask), ranking.by_value(conf, ~mask)
    values[f'{name}_auroc'] = ranking.auroc(*strange)
    values[f'{name}_fpr'] = ranking.fpr_at_tpr(*strange)
    values[f'{name}_aupr_in'] = ranking.aupr(*strange)
    values[f'{name}_aupr_out'] = ranking.aupr(*known)
  return values


def mode_counts(labels, samples, table=FLIPS):
  """How often samples [B, N, H, W] call a flipping class of unflipped labels by either name.

  -> [B, F, 3]: pixels x N, samples that say the base class, samples that say its twin.
  """
  counts = flips.flip_counts(labels, samples, table)
  return jnp.stack([counts.pixels * samples.shape[1], counts.base.sum(1), counts.twin.sum(1)], -1)


def true_probabilities(present, table=FLIPS) -> np.ndarray:
  """What `flips.class_probabilities` should be: base 1 - p, twin p, any other class 1, absent 0.

  present: the class, or a twin's base, occurs in the unflipped labels.
  """
  truth = np.ones(len(present))
  for flip in table:
    truth[flip.base], truth[flip.twin] = 1 - flip.probability, flip.probability
  return np.where(present, truth, 0.0)


def aurc_limit(rate: float) -> float:
  """What fd-shifts takes from AURC of 0/1 risks: the best order's, for ever more images."""
  return rate + xlog1py(1 - rate, -rate)


def aurc_achievable(confidence, risk) -> float:
  """fd-shifts' area under S / K between points, the errors S linear in K; of 0/1 risks through the
  corners of the lower hull alone."""
  c = selective.curve(confidence, risk)
  x, y = np.append(0, c.coverage), np.append(0, c.generalized_risk)
  if np.all((risk == 0) | (risk == 1)):
    corners: list[int] = []
    for i in range(len(x)):
      turn = lambda a, b, i=i: (y[b] - y[a]) * (x[i] - x[a]) - (y[i] - y[a]) * (x[b] - x[a])
      while len(corners) > 1 and turn(*corners[-2:]) >= -1e-15:
        corners.pop()
      corners.append(i)
    x, y = x[corners], y[corners]
  slope = np.diff(y) / np.diff(x)
  start = (y[:-1] - slope * x[:-1])[1:]
  return float(np.sum(slope * np.diff(x)) + np.sum(start * np.log(x[2:] / x[1:-1])))
