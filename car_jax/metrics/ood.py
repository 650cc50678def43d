"""Does a segmenter notice what it does not know? Objects in an image, and whole images.

Uncertain means unknown: scores are confidences, and the positive is the unknown. Letters: H x W
pixels, C classes, I images.
"""

import numpy as np
from scipy.special import entr, softmax

from car_jax.metrics import ranking

SCORES = ('entropy', 'confidence', 'logits')  # GenVal's names: -entropy, max prob, max logit


def object_metrics(logits: np.ndarray, mask: np.ndarray) -> dict[str, float]:
  """GenVal's numbers of one image (arXiv 2312.09231): logits [H, W, C], mask [H, W] of the object.

  raw_entropy: mean entropy inside, nats; rel_entropy: that over the mean outside; and for each of
  SCORES auroc, fpr (at 95 % of the object found), aupr_in (the object is the positive) and
  aupr_out (the rest is), by sorting. nan where the mask is empty or everything.
  """
  logits, mask = np.asarray(logits, np.float64), np.asarray(mask, bool)
  probs = softmax(logits, -1)
  entropy = entr(probs).sum(-1)
  mean = lambda where: float(np.mean(entropy[where])) if where.any() else float('nan')
  values = {'raw_entropy': mean(mask), 'rel_entropy': mean(mask) / mean(~mask)}
  for name, conf in zip(SCORES, (-entropy, probs.max(-1), logits.max(-1)), strict=True):
    strange, known = ranking.by_value(-conf, mask), ranking.by_value(conf, ~mask)
    values[f'{name}_auroc'] = ranking.auroc(*strange)
    values[f'{name}_fpr'] = ranking.fpr_at_tpr(*strange)
    values[f'{name}_aupr_in'] = ranking.aupr(*strange)
    values[f'{name}_aupr_out'] = ranking.aupr(*known)
  return values


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
