"""Component scores against sets of pixels, one component at a time, and their edge cases."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from car_jax.metrics import components, ranking
from tests.metrics.regions import by_sets


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 6), st.integers(0, 6))
def test_components_equal_sets_of_pixels(seed, least_predicted, least_true):
  rng = np.random.default_rng(seed)
  labels = rng.choice([0, 1, 255], (11, 13), p=[0.6, 0.3, 0.1]).astype(np.uint8)
  predicted = rng.random(labels.shape) < 0.35
  sizes = dict(least_predicted=least_predicted, least_true=least_true)
  found = components.components(predicted, labels, **sizes)
  want = by_sets(predicted, labels, **sizes)
  for ours, theirs in zip((found.true_siou, found.predicted_siou, found.ppv), want, strict=True):
    np.testing.assert_allclose(np.sort(ours), np.sort(theirs), atol=1e-12)


def drawn(seed, images=4):
  rng = np.random.default_rng(seed)
  labels = rng.choice([0, 1, 255], (images, 12, 12), p=[0.7, 0.25, 0.05])
  return [components.components(rng.random(y.shape) < 0.3, y) for y in labels]


def test_any_order_and_split_of_images_gives_the_same():
  images = drawn(0)
  whole = components.scores(images)
  parts = [components.joined(images[2:]), components.joined(images[:2])]
  for other in (components.scores(images[::-1]), components.scores(parts)):
    np.testing.assert_allclose(other.f1, whole.f1)
    assert (other.siou, other.ppv) == (pytest.approx(whole.siou), pytest.approx(whole.ppv))
  counts = sum(c.counts() for c in images)
  tp, fn, fp = counts[components.THRESHOLDS == 0.5][0]
  assert whole.f1[5] == 2 * tp / (2 * tp + fn + fp)


def test_nothing_to_judge_is_nan():
  zeros, ones = np.zeros((5, 5), int), np.ones((5, 5), bool)
  nothing = components.scores([components.components(~ones, zeros)])
  assert np.isnan([nothing.mean_f1, nothing.siou, nothing.ppv]).all()
  void = components.scores([components.components(ones, np.full((5, 5), 255))])
  assert np.isnan([void.mean_f1, void.siou, void.ppv]).all()
  missed = components.scores([components.components(~ones, ones.astype(int))])
  assert (missed.mean_f1, missed.siou) == (0, 0)
  assert np.isnan(missed.ppv)
  alarm = components.scores([components.components(ones, zeros)])
  assert (alarm.mean_f1, alarm.ppv, alarm.predicted) == (0, 0, 1)
  assert components.scores([]).true == 0


def test_the_best_threshold_is_that_of_all():
  rng = np.random.default_rng(0)
  score, positive = rng.integers(0, 12, 200) / 12, rng.random(200) < 0.3
  best, group = ranking.best_f1(*ranking.by_value(score, positive))
  each = [sklearn.f1_score(positive, score >= t) for t in np.unique(score)]
  assert (best, group) == (pytest.approx(max(each)), int(np.argmax(each)))
  assert np.isnan(ranking.best_f1(np.zeros(3), np.ones(3))[0])
