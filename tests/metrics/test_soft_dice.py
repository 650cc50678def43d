"""Soft Dice Confidence against its formula, its rule for empty masks, and the Dice it expects."""

import numpy as np
import pytest

from car_jax.metrics import soft_dice, stochastic
from tests.whole import whole

RNG = np.random.default_rng(0)
P = RNG.random((3, 6, 7)).astype(np.float32)


def test_the_formula_with_void_pixels():
  valid = RNG.random(P.shape) < 0.6
  found = soft_dice.confidence(P, valid=valid)
  for i in range(3):
    p = P[i][valid[i]]
    y = p > 0.5
    assert found[i] == pytest.approx(2 * p[y].sum() / (p.sum() + y.sum()), abs=1e-6)


def test_it_expects_the_mean_dice_of_independent_pixels():
  truth = RNG.random((400, *P[:1].shape[1:])) < P[0]
  mask = P[0] > 0.5
  dice = 2 * (truth & mask).sum((1, 2)) / (truth.sum((1, 2)) + mask.sum())
  assert soft_dice.confidence(P[:1])[0] == pytest.approx(dice.mean(), abs=0.02)


def test_empty_masks():
  p = np.stack([np.zeros((4, 4)), np.full((4, 4), 0.1)]).astype(np.float32)
  samples = np.zeros((2, 4, 4, 4), int)
  samples[1, :3, 0, 0] = 1
  np.testing.assert_array_equal(soft_dice.confidence(p, empty='zero'), [0, 0])
  np.testing.assert_allclose(soft_dice.confidence(p, samples=samples), [1, 0.25])
  np.testing.assert_allclose(soft_dice.confidence(p), [1, 0.9**16], rtol=1e-5)
  nothing = np.zeros(p.shape, bool)
  assert np.isnan(soft_dice.confidence(p, valid=nothing)).all()
  with pytest.raises(ValueError, match="not 'one'"):
    soft_dice.confidence(p, empty='one')
  sure = np.eye(3)[np.zeros((1, 4, 4), int)]
  assert soft_dice.class_confidence(sure)[0] == 1
  assert soft_dice.class_confidence(sure, empty='zero')[0] == 0
  assert soft_dice.convention('zero') == 'sdc[p>0.5,empty=zero]'


def test_classes_that_are_not_predicted_do_not_count():
  probs = RNG.dirichlet(np.ones(4), (2, 5, 5))
  probs[..., 3] = 0
  scores = np.asarray(soft_dice.class_scores(probs))
  assert np.isnan(scores[:, 3]).all()
  np.testing.assert_allclose(soft_dice.class_confidence(probs), scores[:, 1:3].mean(-1), rtol=1e-6)


def test_pairwise_dice_of_samples():
  samples = RNG.integers(0, 3, (2, 4, 5, 5))
  dice = lambda a, b: np.mean(
    [2 * np.sum((a == c) & (b == c)) / (np.sum(a == c) + np.sum(b == c)) for c in (1, 2)]
  )
  found = whole(stochastic.pairwise_dice)(samples, classes=(1, 2))
  for value, s in zip(found, samples, strict=True):
    pairs = [dice(s[i], s[j]) for i in range(4) for j in range(i)]
    assert value == pytest.approx(np.mean(pairs), abs=1e-6)
  assert np.isnan(whole(stochastic.pairwise_dice)(samples[:, :1], classes=(1, 2))).all()
  same = np.repeat(samples[:, :1], 3, 1)
  np.testing.assert_allclose(whole(stochastic.pairwise_dice)(same, classes=(1, 2)), 1)
