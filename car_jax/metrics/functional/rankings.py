"""Does a score tell one kind of pixel from the other? Ranking and rejection, exact, by sorting.

Arguments, all of one shape:
  score     any number that is to be high for positives: an uncertainty where these are errors, an
            anomaly score where they are unknown objects; only its order matters
  positive  bool, or 0 and 1
  counted   bool: False where a pixel is void. None: all count
All are pooled over what they get; nan where one kind is missing. Docstrings begin with the name in
studies of reliability, where positives are errors (`unknown_`: unknown objects).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from car_jax.metrics import ranking, rejection
from car_jax.metrics.functional import inputs

Kernel = Callable[[np.ndarray, np.ndarray], float]
"""Positives and negatives [K] of each distinct score, ascending -> value."""


def surest_last(kernel: Kernel) -> Kernel:
  """A kernel of metrics/rejection.py, which has confidence ascending, as one of uncertainty."""
  return lambda positives, negatives: kernel(positives[::-1], negatives[::-1])


def auroc(score: Any, positive: Any, *, counted: Any = None) -> float:
  """auroc: the probability that a positive scores higher than a negative; equal ones count half.

  >>> from car_jax.metrics import auroc
  >>> auroc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
  0.75
  """
  return _value('auroc', ranking.auroc, score, positive, counted)


def aupr(score: Any, positive: Any, *, counted: Any = None) -> float:
  """unknown_aupr: area under precision over recall by trapezoids, as GenVal publishes it.

  `average_precision` is the same area without interpolation, and never larger.

  >>> from car_jax.metrics import aupr
  >>> round(aupr([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]), 4)
  0.7917
  """
  return _value('aupr', ranking.aupr, score, positive, counted)


def average_precision(score: Any, positive: Any, *, counted: Any = None) -> float:
  """aupr_error, unknown_ap: mean precision over the positives, each at its own threshold.

  >>> from car_jax.metrics import average_precision
  >>> round(average_precision([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1]), 4)
  0.8333
  """
  return _value('average_precision', ranking.average_precision, score, positive, counted)


def fpr95(score: Any, positive: Any, *, counted: Any = None) -> float:
  """fpr95: false positive rate at the first threshold that finds 95 % of the positives.

  >>> from car_jax.metrics import fpr95
  >>> fpr95([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
  0.5
  """
  return _value('fpr95', ranking.fpr_at_tpr, score, positive, counted)


def prr(score: Any, positive: Any, *, counted: Any = None) -> float:
  """prr: prediction rejection ratio of an uncertainty: 1 if all errors go first, 0 at random.

  >>> from car_jax.metrics import prr
  >>> prr([0.9, 0.6, 0.2, 0.1], [1, 0, 0, 0])
  1.0
  """
  return _value('prr', surest_last(rejection.prr), score, positive, counted)


def aurc(score: Any, positive: Any, *, counted: Any = None) -> float:
  """aurc: area under risk over coverage of an uncertainty; 0 is best.

  The mean over k of the share of errors among the k surest.

  >>> from car_jax.metrics import aurc
  >>> aurc([0.9, 0.6, 0.2, 0.1], [1, 0, 0, 0])  # (0 + 0 + 0 + 1/4) / 4
  0.0625
  """
  return _value('aurc', surest_last(rejection.aurc), score, positive, counted)


def augrc(score: Any, positive: Any, *, counted: Any = None) -> float:
  """augrc: area under generalized risk over coverage (arXiv:2407.01032); 0 is best.

  The mean over k of the errors among the k surest, as a share of all; by trapezoids, as published,
  it is less by half the error rate over the number of all. Half the error rate at random.

  >>> from car_jax.metrics import augrc
  >>> augrc([0.9, 0.6, 0.2, 0.1], [1, 0, 0, 0])  # (0 + 0 + 0 + 1/4) / 4
  0.0625
  >>> augrc([0.1, 0.6, 0.2, 0.9], [1, 0, 0, 0])  # the error is among the surest: 4 x 1/4 / 4
  0.25
  """
  return _value('augrc', surest_last(rejection.augrc), score, positive, counted)


def _value(function: str, kernel: Kernel, score: Any, positive: Any, counted: Any) -> float:
  x = inputs.ranked(function, score, positive, counted)
  seen = np.asarray(x.counted)
  return kernel(*ranking.by_value(np.asarray(x.score)[seen], np.asarray(x.positive)[seen]))
