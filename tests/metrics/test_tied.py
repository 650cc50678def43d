"""Calibration errors of tied confidences, and IoU, against loops over pixels."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from car_jax.metrics import calibration, confidence_groups, confusion_matrix
from tests.metrics import published

CASES = st.tuples(st.integers(0, 10_000), st.integers(1, 80), st.sampled_from([4, 16, 10_000]))


def drawn(seed, n, levels):
  rng = np.random.default_rng(seed)
  conf = np.round(rng.random(n) * levels) / levels
  return conf, rng.random(n) < conf**2


@settings(max_examples=60, deadline=None)
@given(CASES, st.integers(1, 20))
def test_adaptive_ece_is_the_published_loop(case, bins):
  conf, hits = drawn(*case)
  n = len(conf)
  edges = np.interp(np.linspace(0, n, bins + 1), np.arange(n), np.sort(conf))
  want = 0.0
  for low, high in itertools.pairwise(edges):
    inside = (conf > low) & (conf <= high)
    if inside.any():
      want += abs(conf[inside].mean() - hits[inside].mean()) * inside.mean()
  groups = confidence_groups.tied(conf, hits)
  assert confidence_groups.adaptive_ece_relis(groups, bins) == pytest.approx(want, abs=1e-12)
  # what the published bins leave out joins the first
  place = np.searchsorted(edges[1:-1], conf, side='left')
  want = sum(abs(np.sum((conf - hits)[place == k])) for k in range(bins)) / n
  assert confidence_groups.adaptive_ece(groups, bins) == pytest.approx(want, abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(30, 300))
def test_adaptive_ece_of_different_confidences_is_that_of_equal_counts(seed, count):
  """scikit-learn's quantile bins, which hold the same pixels where each bin has as many."""
  rng = np.random.default_rng(seed)
  conf = rng.random(count)
  hits = rng.random(count) < conf
  want = (
    sum(
      abs(np.sum(b[:, 0] - b[:, 1]))
      for b in np.array_split(np.stack([conf, hits], -1)[np.argsort(conf)], 10)
    )
    / count
  )
  found = confidence_groups.adaptive_ece(confidence_groups.tied(conf, hits), 10)
  assert found == pytest.approx(want, abs=20 / count)  # a pixel or two at each edge


def test_no_pixel_falls_out_of_the_adaptive_bins():
  conf, hits = np.full(1000, 0.9), np.arange(1000) % 2 == 0
  assert confidence_groups.adaptive_ece(confidence_groups.tied(conf, hits)) == pytest.approx(0.4)
  assert confidence_groups.adaptive_ece_relis(confidence_groups.tied(conf, hits)) == 0
  conf = np.append(np.full(700, 0.5), np.linspace(0.51, 1, 300))
  hits = np.arange(1000) >= 700
  found = confidence_groups.adaptive_ece(confidence_groups.tied(conf, hits))
  assert found == pytest.approx(0.35 + np.mean(np.where(hits, 1 - conf, 0)), abs=1e-9)


def test_a_confidence_of_zero_counts():
  groups = confidence_groups.tied(np.zeros(10), np.ones(10))
  assert calibration.ece(confidence_groups.binned(groups)) == 1
  assert calibration.ece(confidence_groups.binned(groups, zero=False), 10) == 0


@settings(max_examples=60, deadline=None)
@given(CASES)
def test_ks_error_is_the_largest_gap_between_different_confidences(case):
  conf, hits = drawn(*case)
  gaps = [abs(np.sum((conf - hits)[conf <= c])) / len(conf) for c in conf]
  found = confidence_groups.ks_error(confidence_groups.tied(conf, hits))
  assert found == pytest.approx(max(gaps), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(CASES, st.integers(1, 30))
def test_groups_of_a_histogram_stay_within_their_bound(case, groups):
  conf, hits = drawn(*case)
  k = np.minimum((conf * groups).astype(int), groups - 1)
  add = lambda w: np.bincount(k, w, groups)
  binned = confidence_groups.Tied(np.bincount(k, minlength=groups), add(conf), add(hits))
  exact = confidence_groups.tied(conf, hits)
  spread = [np.ptp(conf[k == g]) if (k == g).any() else 0 for g in range(groups)]
  bounds = confidence_groups.tied_bound(binned, 5, spread=np.array(spread))
  for f, bound in zip(
    (lambda g: confidence_groups.adaptive_ece(g, 5), confidence_groups.ks_error),
    bounds,
    strict=True,
  ):
    assert abs(f(binned) - f(exact)) <= bound + 1e-9
    assert bound <= max(f(binned), 1 - f(binned)) + 1e-9


def test_mce_and_bins():
  groups = confidence_groups.tied(np.array([0, 0.5, 0.55, 1.0]), np.array([1, 1, 0, 1]))
  sums = confidence_groups.binned(groups, 2)
  np.testing.assert_array_equal(sums.pixels, [2, 2])
  assert calibration.mce(sums) == pytest.approx(0.75)
  assert calibration.ece(sums, 4) == pytest.approx((1.5 + 0.55) / 4)
  none = confidence_groups.tied(np.zeros(0), np.zeros(0))
  assert np.isnan(calibration.mce(confidence_groups.binned(none, 3)))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 5))
def test_iou_is_that_of_sets_of_pixels(seed, classes):
  rng = np.random.default_rng(seed)
  truth, said = rng.integers(0, classes, (2, 30)) * rng.integers(0, 2, (2, 30))
  matrix = np.zeros((classes, classes), int)
  np.add.at(matrix, (truth, said), 1)
  for c, found in enumerate(confusion_matrix.iou(matrix)):
    union = np.sum((truth == c) | (said == c))
    want = np.sum((truth == c) & (said == c)) / union if union else np.nan
    assert found == pytest.approx(want, nan_ok=True)
  assert confusion_matrix.pixel_accuracy(matrix) == pytest.approx(np.mean(truth == said))
  each = [np.mean(said[truth == c] == c) for c in np.unique(truth)]
  assert confusion_matrix.mean_accuracy(matrix) == pytest.approx(np.mean(each))
  present = published.present_iou(matrix)
  assert np.isnan(present[[c for c in range(classes) if c not in truth]]).all()
