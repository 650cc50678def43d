"""Calibration errors of tied confidences, and IoU, against loops over pixels."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from car_jax.metrics import calibration, confusion

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
  found = calibration.adaptive_ece(calibration.tied(conf, hits), bins)
  assert found == pytest.approx(want, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(CASES)
def test_ks_error_is_the_largest_gap_between_different_confidences(case):
  conf, hits = drawn(*case)
  gaps = [abs(np.sum((conf - hits)[conf <= c])) / len(conf) for c in conf]
  found = calibration.ks_error(calibration.tied(conf, hits))
  assert found == pytest.approx(max(gaps), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(CASES, st.integers(1, 30))
def test_groups_of_a_histogram_stay_within_their_bound(case, groups):
  conf, hits = drawn(*case)
  k = np.minimum((conf * groups).astype(int), groups - 1)
  add = lambda w: np.bincount(k, w, groups)
  binned = calibration.Tied(np.bincount(k, minlength=groups), add(conf), add(hits))
  exact = calibration.tied(conf, hits)
  inside = np.clip(conf, 1e-9, 1 - 1e-9)  # the widest bin, in log-odds
  odds = np.log(inside / (1 - inside))
  width = max((np.ptp(odds[k == g]) for g in range(groups) if (k == g).any()), default=0)
  bounds = calibration.tied_bound(binned, 5, width=width)
  for f, bound in zip(
    (lambda g: calibration.adaptive_ece(g, 5), calibration.ks_error), bounds, strict=True
  ):
    assert abs(f(binned) - f(exact)) <= bound + 1e-9


def test_mce_and_bins():
  groups = calibration.tied(np.array([0, 0.5, 0.55, 1.0]), np.array([1, 1, 0, 1]))
  sums = calibration.binned(groups, 2)
  np.testing.assert_array_equal(sums.pixels, [1, 2])  # 0 is in no bin
  assert calibration.mce(sums) == pytest.approx(0.5)
  assert calibration.ece(sums, 4) == pytest.approx((0.5 + 0.55) / 4)
  assert np.isnan(calibration.mce(calibration.binned(calibration.tied([], []), 3)))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 5))
def test_iou_is_that_of_sets_of_pixels(seed, classes):
  rng = np.random.default_rng(seed)
  truth, said = rng.integers(0, classes, (2, 30)) * rng.integers(0, 2, (2, 30))
  matrix = np.zeros((classes, classes), int)
  np.add.at(matrix, (truth, said), 1)
  for c, found in enumerate(confusion.iou(matrix)):
    union = np.sum((truth == c) | (said == c))
    want = np.sum((truth == c) & (said == c)) / union if union else np.nan
    assert found == pytest.approx(want, nan_ok=True)
  assert confusion.pixel_accuracy(matrix) == pytest.approx(np.mean(truth == said))
  each = [np.mean(said[truth == c] == c) for c in np.unique(truth)]
  assert confusion.mean_accuracy(matrix) == pytest.approx(np.mean(each))
  present = confusion.present_iou(matrix)
  assert np.isnan(present[[c for c in range(classes) if c not in truth]]).all()
