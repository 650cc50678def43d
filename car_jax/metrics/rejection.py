"""Is a wrong pixel also an uncertain one? Rejection curves, PRR and AURC.

Pixels are handed to a person in the order of falling uncertainty; how fast do the errors go? As in
metrics/ranking.py everything is computed from counts per distinct confidence, in ascending order:
wrong and right [K]. Errors among equal confidences count as spread evenly.

  N pixels, E errors; risk after rejecting a share x: errors that are left, divided by N
"""

import numpy as np

from car_jax.metrics import selective


def rejection_curve(wrong: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Share rejected [K+1], least confident first, and the errors left as a share of all pixels."""
  wrong, right = (np.asarray(x, np.float64) for x in (wrong, right))
  n = max(np.sum(wrong) + np.sum(right), 1.0)
  rejected = np.concatenate([[0.0], np.cumsum(wrong + right)]) / n
  return rejected, (np.sum(wrong) - np.concatenate([[0.0], np.cumsum(wrong)])) / n


def areas(wrong: np.ndarray, right: np.ndarray, *, oracle_share: float = 1.0) -> np.ndarray:
  """Error rate and the areas of the rejection curve: of this order, of a random one, of the best.

  By trapezoids over the N points x = 1/N .. 1 as published (arXiv 2303.11298). The best order has
  rejected all errors after `oracle_share` E pixels.
  """
  wrong, right = (np.asarray(x, np.float64)[::-1] for x in (wrong, right))  # surest first
  size = wrong + right
  wrong, size = wrong[size > 0], size[size > 0]
  n, errors = np.sum(size), np.sum(wrong)
  if not n:
    return np.full(4, np.nan)
  rate, before = errors / n, np.cumsum(wrong) - wrong
  total = np.sum(size * before + wrong * (size + 1) / 2) / n  # of the risk after k = 1 .. N kept
  ends = (rate + wrong[0] / size[0] / n) / 2
  chance = rate * (n + 1) / 2 - rate * (1 + 1 / n) / 2
  return np.array([rate, (total - ends) / n, chance / n, _best_area(rate, n, oracle_share)])


def _best_area(rate: float, n: float, oracle_share: float) -> float:
  """Area of b (1 - (i-1) / K) over i = 1 .. floor(K), then 0, with K = oracle_share b N."""
  k = oracle_share * rate * n
  whole = np.floor(k + 1e-9)
  if whole < 1:
    return 0.0
  total = rate * (whole - whole * (whole - 1) / (2 * k))
  last = rate * (1 - (n - 1) / k) if whole >= n else 0.0
  return (total - (rate + last) / 2) / n


def prr(wrong: np.ndarray, right: np.ndarray) -> float:
  """Prediction rejection ratio: 1 where all errors go first, 0 where the order is random.

  nan without any error, or without anything else: there is no order to judge.
  """
  return _ratio(areas(wrong, right))


def prr_relis(wrong: np.ndarray, right: np.ndarray) -> float:
  """The published number of RELIS, as a share: its best order needs a hundredth of the pixels.

  That is `prr` times about 1 - b for an error rate b, so that a model with more errors looks worse
  for that alone. Its pixels without a label also count as errors: give them as wrong.
  """
  return _ratio(areas(wrong, right, oracle_share=0.01))


def aurc(wrong: np.ndarray, right: np.ndarray) -> float:
  """Area under risk over coverage: mean over k of the error rate among the k surest pixels."""
  return float(_curve(wrong, right).aurc())


def e_aurc(wrong: np.ndarray, right: np.ndarray) -> float:
  """AURC above that of the best order, which has all right pixels first: 0 is best."""
  best = _curve(np.array([np.sum(wrong), 0]), np.array([0, np.sum(right)]))
  return float(_curve(wrong, right).aurc() - best.aurc())


def augrc(wrong: np.ndarray, right: np.ndarray) -> float:
  """Area under the generalized risk (arXiv 2407.01032), as the mean over k = 1 .. N pixels."""
  return float(_curve(wrong, right).augrc())


def _curve(wrong: np.ndarray, right: np.ndarray) -> selective.Curve:
  wrong, right = (np.asarray(x, np.float64)[::-1] for x in (wrong, right))  # surest first
  return selective.Curve(np.cumsum(wrong + right), np.cumsum(wrong))


def _ratio(measured: np.ndarray) -> float:
  _, ours, chance, best = measured
  return float((chance - ours) / (chance - best)) if chance - best > 1e-12 else float('nan')
