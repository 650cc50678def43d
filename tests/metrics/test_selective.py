"""Risk-coverage areas against a loop over all orders of equal confidences, and edge cases."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from car_jax.metrics import bootstrap, rejection, selective

SEEDS = st.integers(0, 10_000)


def drawn(seed, n, levels=4):
  rng = np.random.default_rng(seed)
  risk = rng.random(n)
  return rng.integers(levels, size=n) + 0.0, np.where(rng.random(n) < 0.3, risk.round(), risk)


def of_one_order(risk):
  """Mean over k of the selective and the generalized risk of the first k images."""
  lost, k = np.cumsum(risk), np.arange(1, len(risk) + 1)
  return np.mean(lost / k), np.mean(lost / len(risk))


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 6))
def test_the_mean_form_is_the_mean_over_all_orders_of_equal_confidences(seed, n):
  confidence, risk = drawn(seed, n, 2)
  orders = [
    of_one_order(risk[list(order)])
    for order in itertools.permutations(range(n))
    if all(np.diff(confidence[list(order)]) <= 0)
  ]
  found = selective.areas(confidence, risk)
  np.testing.assert_allclose([found.aurc, found.augrc], np.mean(orders, 0), atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 40), st.sampled_from(selective.FORMS))
def test_areas_do_not_depend_on_the_order_of_images(seed, n, form):
  confidence, risk = drawn(seed, n)
  order = np.random.default_rng(seed).permutation(n)
  for a, b in zip(
    *(
      vars(selective.areas(confidence[o], risk[o], form=form)).values()
      for o in (np.arange(n), order)
    ),
    strict=True,
  ):
    assert a == b if isinstance(a, str) else np.allclose(a, b, atol=1e-12, equal_nan=True)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.integers(1, 40))
def test_relations_between_forms_and_bounds(seed, n):
  confidence, risk = drawn(seed, n)
  mean, trapezoid = (selective.areas(confidence, risk, form=f) for f in selective.FORMS)
  assert mean.augrc == pytest.approx(trapezoid.augrc + risk.mean() / (2 * n), abs=1e-12)
  assert min(mean.e_aurc, mean.e_augrc) >= -1e-12
  best = selective.areas(-risk, risk)
  np.testing.assert_allclose([best.e_aurc, best.e_augrc], 0, atol=1e-12)
  assert np.isnan(best.n_aurc) if np.ptp(risk) < 1e-12 else best.n_aurc == pytest.approx(1)
  assert selective.areas(np.zeros(n), risk).aurc == pytest.approx(risk.mean())


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.integers(1, 20), st.sampled_from(selective.FORMS))
def test_a_weight_is_a_number_of_copies(seed, n, form):
  confidence, risk = drawn(seed, n)
  times = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), 5)
  found = selective.areas(confidence, risk, times, form=form)
  for i, t in enumerate(times):
    alone = selective.areas(np.repeat(confidence, t), np.repeat(risk, t), form=form)
    for name in ('aurc', 'augrc', 'mean_risk', *(() if form == 'trapezoid' else ('e_aurc',))):
      assert getattr(found, name)[i] == pytest.approx(getattr(alone, name), abs=1e-12)


def test_images_and_pixels_with_risks_of_0_and_1_agree():
  wrong, right = np.array([3, 1, 2]), np.array([1, 5, 9])  # ascending confidence
  group = np.repeat(np.arange(3), wrong + right)
  risk = np.concatenate([np.arange(w + r) < w for w, r in zip(wrong, right, strict=True)])
  found = selective.areas(group, risk)
  assert rejection.aurc(wrong, right) == pytest.approx(found.aurc, abs=1e-12)
  assert rejection.augrc(wrong, right) == pytest.approx(found.augrc, abs=1e-12)
  assert rejection.e_aurc(wrong, right) == pytest.approx(found.e_aurc, abs=1e-12)


def test_edge_cases():
  nan = float('nan')
  none = selective.areas([], [])
  assert np.isnan([none.aurc, none.augrc, none.e_aurc, none.n_aurc, none.mean_risk]).all()
  assert none.images == 0
  one = [selective.areas([3.0], [0.4], form=f) for f in selective.FORMS]
  assert [(a.aurc, a.augrc) for a in one] == [(0.4, 0.4), (0.4, 0.2)]
  assert selective.areas([1, 2, 3], [0, 0, 0]).aurc == 0
  skipped = selective.areas([1.0, nan, 2.0, 5.0], [0.5, 0.1, nan, 0.2])
  assert (skipped.images, skipped.left_out) == (2, 2)
  assert skipped.aurc == selective.areas([1, 5], [0.5, 0.2]).aurc
  endless = selective.areas([np.inf, np.inf, -np.inf], [0.2, 0.4, 1.0])
  assert endless.aurc == selective.areas([2, 2, 1], [0.2, 0.4, 1.0]).aurc
  with pytest.raises(ValueError, match='nan'):
    selective.curve([nan], [0.5])
  with pytest.raises(ValueError, match="not 'mena'"):
    selective.areas([1.0], [0.5], form='mena')


def test_detection_of_failures():
  found = selective.detection([3, 2, 2, 1, np.nan], [0.1, 0.2, 0.9, 0.8, 0.5], limit=0.5)
  assert (found.failed, found.images, found.left_out) == (2, 4, 1)
  assert found.auroc == pytest.approx(3.5 / 4)  # one of the four pairs is a tie
  assert found.average_precision == pytest.approx(0.5 + 0.5 * 2 / 3)
  assert found.spearman == pytest.approx(-0.6324555320336759)
  none = selective.detection([], [], limit=0.5)
  assert np.isnan([none.auroc, none.fpr95, none.spearman]).all()
  right = selective.detection([1, 2], [0.1, 0.2], limit=0.5)
  assert np.isnan([right.auroc, right.average_precision]).all()
  assert right.spearman == pytest.approx(1)


def test_intervals_by_weights_cover_the_value():
  rng = np.random.default_rng(0)
  risk = rng.random(200)
  confidence = -risk + rng.normal(0, 0.3, 200)
  times = rng.multinomial(200, np.full(200, 1 / 200), 500)
  low, high = np.percentile(selective.areas(confidence, risk, times).aurc, [2.5, 97.5])
  assert low < selective.areas(confidence, risk).aurc < high
  means = selective.areas(confidence, risk, times).mean_risk
  assert np.std(means) == pytest.approx(np.std(risk) / np.sqrt(200), rel=0.1)
  assert bootstrap.interval(risk).mean == pytest.approx(means.mean(), abs=0.01)
