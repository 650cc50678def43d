"""Selective scaling: a judge of right and wrong, and a temperature for each."""

import jax
import numpy as np
import pytest

from car_jax.calibrate import base, selective, temperature
from car_jax.calibrate.base import Sample

# pixels that are mostly wrong are best spread out as far as they can be
pytestmark = pytest.mark.filterwarnings('ignore::car_jax.calibrate.base.CalibrationWarning')

I, S, C = 8, 1000, 6


def make_sample(seed=0):
  """Two thirds of the pixels are mostly what they seem; the others are guesses of two classes."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, C, (I, S)).astype(np.int32)
  logits = rng.normal(0, 0.3, (I, S, C))
  guess = rng.random((I, S)) < 1 / 3
  other = (labels + rng.integers(1, C, (I, S))) % C
  logits += 6 * np.eye(C)[np.where(guess & (rng.random((I, S)) < 0.7), other, labels)]
  logits += 5 * guess[..., None] * np.eye(C)[(labels + 1) % C]  # a second one close behind
  slips = rng.random((I, S)) < 0.04
  labels = np.where(slips, rng.integers(0, C, (I, S)), labels).astype(np.int32)
  labels[:, ::10] = -1
  return Sample(logits.astype(np.float32), labels), guess


SAMPLE, GUESS = make_sample()


@pytest.fixture(scope='module')
def found():
  return selective.fit(SAMPLE, seed=3)


def test_it_beats_one_temperature_and_keeps_the_prediction(found):
  plain = temperature.fit(SAMPLE)
  other, _ = make_sample(seed=1)
  assert base.scores(other, found)[0] < base.scores(other, plain)[0] - 0.02
  assert found.table[1] > 1.5 * found.table[0]
  scaled = jax.jit(lambda c, x: c.apply(x))(found, other.logits)
  np.testing.assert_array_equal(np.argmax(scaled, -1), np.argmax(other.logits, -1))
  t = np.where(found.judged_wrong(other.logits), found.table[1], found.table[0])[..., None]
  np.testing.assert_allclose(scaled, other.logits / t, rtol=1e-6)


def test_the_judge_finds_wrong_pixels(found):
  other, _ = make_sample(seed=1)
  counts = other.labels >= 0
  wrong = (other.logits.argmax(-1) != other.labels)[counts]
  judged = np.asarray(found.judged_wrong(other.logits))[counts]
  assert np.mean(judged == wrong) > max(np.mean(wrong), np.mean(~wrong)) + 0.05


def test_the_temperatures_are_of_images_that_the_judge_has_not_seen(found):
  chosen = np.random.default_rng(3).permutation(I)[: I // 2]
  rest = SAMPLE.take(np.setdiff1d(np.arange(I), chosen))
  judged = np.asarray(found.judged_wrong(rest.logits))
  for k in range(2):
    own = Sample(rest.logits, np.where(judged == k, rest.labels, -1))
    assert np.isclose(found.table[k], temperature.fit(own).temperature, rtol=1e-4)


def test_evidence():
  logits = np.random.default_rng(4).normal(0, 2, (5, C)).astype(np.float32)
  p = np.exp(logits.astype(np.float64))
  p /= p.sum(-1, keepdims=True)
  ranked, largest = -np.sort(-p, -1), -np.sort(-logits, -1)
  odds = np.log(ranked[:, 0] / (1 - ranked[:, 0]))
  entropy, margin = -np.sum(p * np.log(p), -1), ranked[:, 0] - ranked[:, 1]
  want = np.column_stack([odds, entropy, margin, largest[:, 1:5] - largest[:, :1]])
  np.testing.assert_allclose(selective.evidence(logits), want, rtol=1e-4, atol=1e-5)
  sure = np.array([[80.0, 0, 0, 0, 0, 0]], np.float32)
  assert np.isfinite(selective.evidence(sure)).all()


def test_one_image_is_cut_by_pixels_and_the_seed_decides():
  one = SAMPLE.take(np.array([0]))
  first, again = (selective.fit(one, seed=1) for _ in range(2))
  jax.tree.map(np.testing.assert_array_equal, first, again)


def test_where_nothing_is_wrong_the_other_temperature_is_one():
  right = Sample(SAMPLE.logits, np.argmax(SAMPLE.logits, -1).astype(np.int32))
  found = base.fit('selective', right)
  assert found.about['temperatures'][1] == 1
