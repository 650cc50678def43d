"""Boundary IoU and F against erosions and loops over pixels; calibration in bands near borders."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from car_jax.metrics import border_calibration, borders, boundary

SEEDS = st.integers(0, 10_000)
RNG = np.random.default_rng(0)


def blobs(seed, classes=3, void=0.0):
  rng = np.random.default_rng(seed)
  labels = np.kron(rng.integers(0, classes, (4, 5)), np.ones((4, 4), int))[:14, :17]
  return np.where(rng.random(labels.shape) < void, 255, labels)


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.integers(1, 5))
def test_a_band_is_what_erosions_take_away(seed, d):
  mask = blobs(seed) == 1
  eroded = ndimage.binary_erosion(mask, borders.EIGHT, iterations=d)
  np.testing.assert_array_equal(boundary.inner_band(mask, d), mask & ~eroded)


def test_widths_and_radii():
  assert [boundary.width((48, 64), s) for s in (0.001, 0.02, 0.04)] == [1, 2, 3]
  assert boundary.width((15, 20), 0.1) == 2  # 2.5 to the even one
  assert [boundary.radius((30, 40), t) for t in (0.008, 0.02, 3)] == [1, 1, 3]


def test_counts_add_up_and_a_class_of_neither_map_is_nan():
  pairs = [(blobs(s), blobs(s + 1, void=0.1)) for s in range(3)]
  counts = np.stack([boundary.iou_counts(*p, 4) for p in pairs])
  assert np.isnan(boundary.iou(counts)[:, 3]).all()
  pooled = boundary.iou(counts.sum(0))
  np.testing.assert_allclose(pooled[:3], counts.sum(0)[:3, 0] / counts.sum(0)[:3, 1])


def test_void_cuts_both_maps():
  truth = blobs(3, void=0.2)
  said = np.where(truth == 255, 0, truth)
  assert np.nanmin(boundary.iou(boundary.iou_counts(said, truth, 3))) == 1
  assert np.nanmin(boundary.iou(boundary.iou_counts(said, truth, 3, void=None))) < 1
  other = np.where(truth == 255, RNG.integers(0, 3, truth.shape), said)
  for score in (boundary.iou_counts, boundary.class_boundary_f):
    np.testing.assert_array_equal(score(said, truth, 3), score(other, truth, 3))
  nothing = np.full_like(truth, 255)
  assert np.isnan(boundary.iou(boundary.iou_counts(said, nothing, 3))).all()


def border_by_loop(mask):
  height, w = mask.shape
  out = np.zeros_like(mask)
  for y, x in np.ndindex(mask.shape):
    near = [(min(y + a, height - 1), min(x + b, w - 1)) for a, b in ((0, 1), (1, 0), (1, 1))]
    out[y, x] = any(mask[at] != mask[y, x] for at in near)
  return out


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.sampled_from([1, 2, 3.5]))
def test_boundary_f_by_loops(seed, tolerance):
  ours, theirs = blobs(seed) == 1, blobs(seed + 1) == 1
  a, b = border_by_loop(ours), border_by_loop(theirs)
  near = lambda p, of: any(np.hypot(*(p - q)) <= tolerance for q in np.argwhere(of))
  share = lambda one, other: np.mean([near(p, other) for p in np.argwhere(one)])
  if not a.any() or not b.any():
    want = float(a.any() == b.any())
  else:
    precision, recall = share(a, b), share(b, a)
    want = 2 * precision * recall / max(precision + recall, 1e-30)
  assert boundary.boundary_f(ours, theirs, tolerance=tolerance) == pytest.approx(want)


def test_boundary_f_of_empty_masks():
  none, half = np.zeros((8, 8), bool), np.tri(8, dtype=bool)
  assert boundary.boundary_f(none, none) == 1
  assert boundary.boundary_f(half, none) == boundary.boundary_f(none, half) == 0
  assert boundary.boundary_f(half, half) == 1


def test_distances_by_loops():
  labels = blobs(1, void=0.2)
  far = border_calibration.distance(labels)
  seen = np.argwhere(labels != 255)
  for y, x in np.ndindex(labels.shape):
    if labels[y, x] == 255:
      assert np.isnan(far[y, x])
    else:
      others = [np.hypot(y - a, x - b) for a, b in seen if labels[a, b] != labels[y, x]]
      assert far[y, x] == pytest.approx(min(others))
  assert np.isinf(border_calibration.distance(np.zeros((3, 3), int))).all()
  assert np.isnan(border_calibration.distance(np.full((3, 3), 255))).all()


def test_bands_by_masks_and_over_batches():
  labels = np.stack([blobs(s, void=0.1) for s in range(3)])
  probs = RNG.dirichlet(np.ones(3), labels.shape)
  far = np.stack([border_calibration.distance(y) for y in labels])
  whole = border_calibration.band_sums(probs, labels, far)
  parts = [border_calibration.band_sums(*x) for x in zip(probs, labels, far, strict=True)]
  found = border_calibration.band_scores(parts[0] + parts[1] + parts[2])
  for a, b in zip(
    vars(found).values(), vars(border_calibration.band_scores(whole)).values(), strict=True
  ):
    np.testing.assert_allclose(a, b)
  ends = (0, *border_calibration.EDGES, np.inf)
  assert found.pixels.sum() == np.sum(labels != 255)
  for i, (low, high) in enumerate(itertools.pairwise(ends)):
    here = (far > low) & (far <= high)
    if not here.any():
      assert np.isnan(found.accuracy[i])
      continue
    p, y = probs[here], labels[here]
    assert found.pixels[i] == here.sum()
    assert found.accuracy[i] == pytest.approx(np.mean(p.argmax(-1) == y))
    assert found.confidence[i] == pytest.approx(p.max(-1).mean())
    assert found.brier[i] == pytest.approx(np.mean(np.sum((p - np.eye(3)[y]) ** 2, -1)))
  none = border_calibration.band_scores(border_calibration.band_sums(probs, labels, far * np.nan))
  assert np.isnan(none.ece).all()
