"""Ranking and rejection measures against scikit-learn and plain loops, exact and binned."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from car_jax.metrics import ranking, rejection

CASES = st.tuples(st.integers(0, 10_000), st.integers(2, 60), st.sampled_from([2, 5, 1000]))


def drawn(seed, n, levels):
  rng = np.random.default_rng(seed)
  positive = rng.random(n) < rng.uniform(0.1, 0.9)
  positive[:2] = True, False
  score = np.round((rng.random(n) + positive * rng.random()) * levels) / levels
  return score, positive


@settings(max_examples=60, deadline=None)
@given(CASES)
def test_ranking_equals_scikit_learn(case):
  score, positive = drawn(*case)
  counts = ranking.by_value(score, positive)
  assert ranking.auroc(*counts) == pytest.approx(sklearn.roc_auc_score(positive, score), abs=1e-12)
  want = sklearn.average_precision_score(positive, score)
  assert ranking.average_precision(*counts) == pytest.approx(want, abs=1e-12)
  fpr, tpr, _ = sklearn.roc_curve(positive, score, drop_intermediate=False)
  assert ranking.fpr_at_tpr(*counts) == pytest.approx(fpr[np.argmax(tpr >= 0.95)], abs=1e-12)
  precision, recall, _ = sklearn.precision_recall_curve(positive, score)
  assert ranking.aupr(*counts) == pytest.approx(sklearn.auc(recall, precision), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(CASES)
def test_rejection_equals_a_loop_over_pixels(case):
  conf, wrong = drawn(*case)
  counts = ranking.by_value(conf, wrong)
  n, rate = len(conf), wrong.mean()
  # equal confidences: every one of them carries the mean error of its group
  mean = {c: wrong[conf == c].mean() for c in conf}
  errors = np.array([mean[c] for c in np.sort(conf)[::-1]])
  kept = np.cumsum(errors)
  assert rejection.aurc(*counts) == pytest.approx(np.mean(kept / np.arange(1, n + 1)), abs=1e-9)
  x = np.arange(1, n + 1) / n
  chance = rate * (1 - (np.arange(1, n + 1) - 1) / n)
  best = np.maximum(rate * (1 - (np.arange(1, n + 1) - 1) / wrong.sum()), 0)
  area = lambda y: np.trapezoid(y, x)
  ours = area((kept / n)[::-1])
  np.testing.assert_allclose(
    rejection.areas(*counts), [rate, ours, area(chance), area(best)], atol=1e-12
  )
  if area(chance) - area(best) > 1e-9:
    want = (area(chance) - ours) / (area(chance) - area(best))
    assert rejection.prr(*counts) == pytest.approx(want, abs=1e-9)


def test_rejection_curve_goes_from_all_errors_to_none():
  rejected, left = rejection.rejection_curve(np.array([3, 1, 0]), np.array([1, 1, 4]))
  np.testing.assert_allclose(rejected, [0, 0.4, 0.6, 1])
  np.testing.assert_allclose(left, [0.4, 0.1, 0, 0], atol=1e-12)


METRICS = [ranking.auroc, ranking.average_precision, ranking.aupr, ranking.fpr_at_tpr]
METRICS += [lambda w, r: rejection.prr(w[::-1], r[::-1])]
AREAS = (rejection.aurc, rejection.e_aurc, rejection.augrc)
METRICS += [lambda w, r, area=area: area(w[::-1], r[::-1]) for area in AREAS]


@settings(max_examples=60, deadline=None)
@given(CASES, st.integers(1, 12))
def test_a_histogram_is_off_by_no_more_than_its_bound(case, bins):
  score, positive = drawn(*case)
  k = np.minimum((score / 2 * bins).astype(int), bins - 1)
  binned = np.bincount(k, positive, bins), np.bincount(k, ~positive, bins)
  for metric in METRICS:
    exact, found = metric(*ranking.by_value(score, positive)), metric(*binned)
    bound = ranking.bound(metric, *binned)
    assert np.isnan(exact) == np.isnan(found)
    assert np.isnan(exact) or abs(exact - found) <= bound + 1e-9


def test_perfect_inverted_and_constant_orders():
  right, wrong = np.array([0, 8.0]), np.array([2.0, 0])  # ascending confidence: errors first
  assert rejection.prr(wrong, right) == pytest.approx(1)
  assert rejection.prr(wrong[::-1], right[::-1]) < -0.5
  assert rejection.prr(np.array([2.0]), np.array([8.0])) == pytest.approx(0)
  assert rejection.aurc(np.array([2.0]), np.array([8.0])) == pytest.approx(0.2)
  assert ranking.auroc([0, 5], [3, 0]) == 1
  assert ranking.auroc([5], [3]) == 0.5


@pytest.mark.parametrize('counts', [([0, 0], [3, 1]), ([2, 1], [0, 0]), ([0], [0])])
def test_where_one_kind_is_missing_there_is_no_value(counts):
  for metric in (*METRICS[:4], rejection.prr):
    assert np.isnan(metric(*map(np.array, counts)))


def test_a_nan_score_is_refused():
  with pytest.raises(ValueError, match='1 of 3 scores are nan'):
    ranking.by_value(np.array([0, np.nan, 1]), np.array([True, False, True]))
