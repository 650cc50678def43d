"""Calibration of several labels at once, by loops over pixels."""

import jax
import numpy as np
import pytest

from car_jax.metrics import calibration, confidence_groups, multilabel
from tests.whole import whole

RNG = np.random.default_rng(0)
P = RNG.random((3, 8, 9, 2)).astype(np.float32)
TRUTH = RNG.random(P.shape) < P**2
VALID = RNG.random((3, 8, 9, 2)) < 0.8


def ece(conf, hits, bins=15):
  k = np.maximum(np.ceil(conf * np.float32(bins)).astype(int) - 1, 0)
  return sum(abs(conf[k == b].sum() - hits[k == b].sum()) for b in range(bins)) / len(conf)


def test_scores_by_label():
  found = multilabel.label_scores(whole(multilabel.label_sums)(P, TRUTH, VALID))
  for c in range(2):
    p, y = P[..., c][VALID[..., c]], TRUTH[..., c][VALID[..., c]]
    assert found.pixels[c] == len(p)
    assert found.ece[c] == pytest.approx(ece(p, y), abs=1e-5)
    decision = ece(np.maximum(p, 1 - p), (p > 0.5) == y)
    assert found.ece_of_decision[c] == pytest.approx(decision, abs=1e-5)
    assert found.brier[c] == pytest.approx(np.mean((p - y) ** 2), abs=1e-5)
    own = np.maximum(np.where(y, p, 1 - p), 1e-7)
    assert found.nll[c] == pytest.approx(np.mean(-np.log(own)), abs=1e-5)
  assert found.mean_ece == found.ece.mean()
  assert found.worst_ece == found.ece.max()


def test_batches_add_up_and_ignored_pixels_do_not_count():
  of = whole(multilabel.label_sums)
  parts = [of(P[i : i + 1], TRUTH[i : i + 1], VALID[i : i + 1]) for i in range(3)]
  joined = jax.tree.map(lambda *x: np.concatenate(x), *parts)
  other = of(np.where(VALID, P, 0.9), TRUTH ^ ~VALID, VALID)
  want = multilabel.label_scores(of(P, TRUTH, VALID))
  for sums in (joined, other):
    for a, b in zip(vars(multilabel.label_scores(sums)).values(), vars(want).values(), strict=True):
      np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_label_without_pixels_is_nan_and_the_same_mask_serves_all():
  shared = VALID[..., :1]
  some = multilabel.label_scores(whole(multilabel.label_sums)(P, TRUTH, shared))
  assert some.pixels.tolist() == [shared.sum()] * 2
  nothing = multilabel.label_scores(whole(multilabel.label_sums)(P, TRUTH, shared & False))
  assert np.isnan([*nothing.ece, *nothing.nll, nothing.mean_ece, nothing.worst_ece]).all()


def test_bins_closed_below_and_the_unweighted_gap():
  conf, hits = np.array([0.0, 0.5, 0.5, 1.0]), np.array([0, 1, 0, 1])
  groups = confidence_groups.tied(conf, hits)
  left = confidence_groups.binned(groups, 2, closed='left')
  assert left.pixels.tolist() == [1, 2, 1]
  assert confidence_groups.binned(groups, 2).pixels.tolist() == [3, 1]
  gaps = [abs(1.0 - 1) / 3, abs(1 - 1) / 1]
  assert calibration.average_gap(confidence_groups.binned(groups, 2)) == pytest.approx(
    np.mean(gaps)
  )
  assert np.isnan(
    calibration.average_gap(confidence_groups.binned(confidence_groups.tied(conf[:0], hits[:0])))
  )
