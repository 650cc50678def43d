import functools

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from car_jax.metrics import calibration
from car_jax.metrics.streaming import Streaming
from tests.metrics import oracle
from tests.whole import whole

B, M, H, W, C = 3, 3, 6, 5, 3


def scene(seed):
  """probs, labels, and weights of which the second image has one padding reader."""
  rng = np.random.default_rng(seed)
  probs = rng.dirichlet(np.ones(C) / 2, (B, H, W)).astype(np.float32)
  labels = rng.integers(0, C, (B, M, H, W)).astype(np.int32)
  weight = np.full((B, M), 1 / 3, np.float32)
  weight[1] = 0.5, 0.5, 0
  return probs, labels, weight


def shares(labels, weight, k):
  return np.einsum('bmhw,bm->bhw', labels == k, weight)


def ece_of(sums):
  acc = Streaming(lambda s: s, calibration.ece)
  acc.add(sums)
  return acc.result()


@pytest.mark.parametrize('bins', [1, 7, 15])
def test_ece_is_the_definition_however_the_data_is_cut(bins):
  rng = np.random.default_rng(0)
  conf = rng.random((50, 20)).astype(np.float32)
  conf[0, :3] = 0, 1, 1
  hits, valid = rng.random(conf.shape) < conf**2, rng.random(conf.shape) < 0.9
  want = oracle.ece(conf, hits, valid, bins)
  for cuts in ([], [1], [15, 30]):
    sums = functools.partial(calibration.bin_sums, num_bins=bins)
    acc = Streaming(sums, calibration.ece)
    for part in zip(*(np.split(x, cuts) for x in (conf, hits, valid)), strict=True):
      acc.update(*part)
    assert acc.result() == pytest.approx(want, abs=1e-6)


def test_bin_edges():
  """0 joins the first bin, 1 the last, an inner edge the bin below it; in bfloat16 too."""
  conf = jnp.array([[0, 0.25, 0.5, 0.5078125, 1]])
  ones = jnp.ones(conf.shape)
  for dtype in (jnp.float32, jnp.bfloat16):
    sums = calibration.bin_sums(conf.astype(dtype), ones, ones > 0, 4)
    np.testing.assert_array_equal(sums.pixels, [[2, 1, 1, 1]])
    np.testing.assert_array_equal(sums.conf, [[0.25, 0.5, 0.5078125, 1]])
    assert sums.conf.dtype == sums.hits.dtype == jnp.float32


def test_sums_of_many_pixels_do_not_drift():
  """Two million pixels of one confidence: a single float32 cell would end far off."""
  conf = jnp.full((1024, 2048), 0.97)
  total = Streaming(calibration.bin_sums, lambda s: s.conf[-1] / s.pixels[-1])
  total.update(conf, conf, conf > 0)
  assert total.result() == pytest.approx(float(np.float32(0.97)), abs=3e-6)


def test_nothing_counted_is_nan():
  probs, labels, weight = scene(0)
  weight = np.zeros_like(weight)
  assert np.isnan(ece_of(whole(calibration.top_label_sums)(probs, labels, weight)))
  assert np.isnan(ece_of(whole(calibration.class_sums)(probs, labels, weight)))
  assert np.isnan(whole(calibration.nll)(probs, labels, weight)).all()
  assert np.isnan(whole(calibration.brier)(probs, labels, weight)).all()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_several_readers_are_a_distribution(seed):
  """ECE against the share of readers equals ECE against every reader with her weight."""
  probs, labels, weight = scene(seed)
  top, conf = probs.argmax(-1), probs.max(-1)
  hits = np.einsum('bmhw,bm->bhw', top[:, None] == labels, weight)
  got = ece_of(whole(calibration.top_label_sums)(probs, labels, weight))
  every = np.ones(conf.shape, bool)
  assert got == pytest.approx(oracle.ece(conf, hits, every, 15), abs=1e-6)
  for k in range(C):
    sums = whole(calibration.class_sums)(probs, labels, weight, class_id=k, num_bins=5)
    want = oracle.ece(probs[..., k], shares(labels, weight, k), every, 5)
    assert ece_of(sums) == pytest.approx(want, abs=1e-6)


def test_readers_who_abstain_and_padding_that_no_reader_looked_at():
  probs, labels, weight = scene(0)
  labels[0, 0] = 255
  weight = np.where(np.arange(len(weight))[:, None] < 2, weight, 0)
  sums = whole(calibration.class_sums)(probs, labels, weight, num_bins=5, ignore=255)
  share = shares(labels, weight, 1)
  share[0] = (labels[0, 1:] == 1).mean(0)
  want = oracle.ece(probs[:2, ..., 1], share[:2], np.ones((2, H, W), bool), 5)
  assert ece_of(sums) == pytest.approx(want, abs=1e-6)
  assert np.sum(sums.pixels) == 2 * H * W
  seen = whole(calibration.nll)(probs, labels, weight, ignore=255)
  below = whole(calibration.nll)(probs[2:, 1:], labels[2:, :, 1:], weight[2:])
  np.testing.assert_allclose(seen[2], below[0], atol=1e-6)


def test_reliability_table():
  sums = calibration.BinSums(*map(np.array, ([4, 0, 2], [1.0, 0, 1.8], [0.5, 0, 2.0])))
  table = calibration.reliability(sums)
  np.testing.assert_allclose(table.upper, [1 / 3, 2 / 3, 1])
  np.testing.assert_allclose(table.confidence, [0.25, np.nan, 0.9])
  np.testing.assert_allclose(table.frequency, [0.125, np.nan, 1])


def test_nll_brier_and_kl_are_their_definitions():
  probs, labels, weight = scene(1)
  probs[0, 0, 0] = 1, 0, 0
  onehot, p = np.eye(C)[labels], probs[:, None].astype(np.float64)
  mean = lambda losses: np.einsum('bmhw,bm->b', losses, weight) / (H * W)
  want = mean(-np.sum(onehot * np.log(np.maximum(p, 1e-7)), -1))
  np.testing.assert_allclose(whole(calibration.nll)(probs, labels, weight), want, rtol=1e-5)
  want = mean(np.sum((p - onehot) ** 2, -1))
  np.testing.assert_allclose(whole(calibration.brier)(probs, labels, weight), want, rtol=1e-5)
  truth = np.stack([shares(labels, weight, k) for k in range(C)], -1)
  floored = np.maximum(probs, 1e-7)
  want = np.sum(floored * np.log(floored / np.maximum(truth, 1e-7)), -1).mean((1, 2))
  np.testing.assert_allclose(calibration.kl_to_readers(probs, labels, weight), want, rtol=1e-5)


def test_the_readers_own_shares_score_best():
  _, labels, weight = scene(2)
  truth = np.stack([shares(labels, weight, k) for k in range(C)], -1).astype(np.float32)
  floor = whole(calibration.reader_entropy)(truth, labels, weight)
  np.testing.assert_allclose(whole(calibration.nll)(truth, labels, weight), floor, atol=1e-6)
  other = scene(2)[0]
  assert np.all(whole(calibration.nll)(other, labels, weight) > floor)
  better = whole(calibration.brier)(truth, labels, weight) < whole(calibration.brier)(
    other, labels, weight
  )
  assert np.all(better)
  np.testing.assert_allclose(calibration.kl_to_readers(truth, labels, weight), 0, atol=1e-6)
  assert ece_of(whole(calibration.class_sums)(truth, labels, weight)) == pytest.approx(0, abs=1e-6)
