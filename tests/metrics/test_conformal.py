"""Do conformal thresholds keep their promise? Theorems for any data, and draws of data."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from car_jax.metrics import adaptive, conformal, margins
from car_jax.metrics import conformal_counts as counts
from tests.whole import whole

SEEDS = st.integers(0, 10_000)


def drawn(seed, images, levels=20):
  """Scores of the pixels to be found, on a grid with ties; some images have none."""
  rng = np.random.default_rng(seed)
  sizes = rng.integers(0, 12, images)
  return [rng.integers(0, levels + 1, n) / levels for n in sizes]


def loss(scores, t):
  return np.mean(scores < t) if scores.size else 0.0


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(2, 14), st.sampled_from([0.02, 0.1, 0.25, 0.5]))
def test_the_mean_loss_of_images_left_out_is_at_most_alpha(seed, images, alpha):
  """A theorem for every array: each image in turn is the next one, whatever the data are."""
  scores = drawn(seed, images)
  left = []
  for i in range(images):
    others = scores[:i] + scores[i + 1 :]
    left.append(loss(scores[i], conformal.exact(others, alpha, empty='zero').value))
  assert np.mean(left) <= alpha + 1e-9


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.integers(1, 14), st.sampled_from([0.05, 0.1, 0.3]))
def test_the_exact_threshold_is_the_largest_that_qualifies(seed, images, alpha):
  scores = drawn(seed, images)
  some = [s for s in scores if s.size]
  n = len(some)
  fits = lambda t: (sum(loss(s, t) for s in some) + 1) / (n + 1) <= alpha + 1e-9
  allowed = [t for t in np.unique(np.concatenate(scores)) if fits(t)]
  choice = conformal.exact(scores, alpha)
  assert choice.value == max(allowed, default=0)
  assert (choice.images, choice.left_out) == (n, images - n)
  assert choice.limited == (not allowed)
  order = np.random.default_rng(seed).permutation(images)
  assert conformal.exact([scores[i] for i in order], alpha).value == choice.value


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.sampled_from([0.1, 0.3]))
def test_counts_give_the_exact_threshold_to_a_step_and_a_second_pass_all_of_it(seed, alpha):
  rng = np.random.default_rng(seed)
  p = rng.random((9, 40)).astype(np.float32)
  found = rng.random(p.shape) < 0.4
  exact = conformal.exact([q[y] for q, y in zip(p, found, strict=True)], alpha)
  coarse = by_counts(p, found, counts.GRID, alpha)
  assert 0 <= exact.value - coarse.value < 1 / counts.STEPS + 1e-9 or exact.limited
  inside = p[found & (p >= coarse.value) & (p < coarse.value + 1 / counts.STEPS)]
  fine = np.unique(np.concatenate([np.float32([0, coarse.value]), inside]))
  assert by_counts(p, found, fine, alpha).value == exact.value


def by_counts(p, found, edges, alpha):
  losses = counts.fnr(whole(counts.histogram)(p, found[:, None].astype(int), edges)[:, 0])
  return conformal.choose(edges, conformal.add_up(losses), alpha)


def images_of(rng, number, harder=0.0):
  """FNR of images of one population at each edge of the grid [I, K]."""
  middle = rng.normal(1 - harder, 1, (number, 1))
  p = 1 / (1 + np.exp(-rng.normal(middle, 1, (number, 300)))).astype(np.float32)
  ones = np.ones((number, 1, p.shape[1]), np.int32)
  return counts.fnr(whole(counts.histogram)(p.astype(np.float32), ones, counts.GRID)[:, 0])


@pytest.mark.parametrize('alpha', [0.1, 0.3])
def test_the_mean_risk_over_draws_is_alpha_and_a_shift_breaks_it(alpha):
  rng = np.random.default_rng(0)
  n, pool, foggy = 30, images_of(rng, 3000), images_of(rng, 3000, harder=1.0)
  risk = lambda losses: losses.mean(0)
  same, shifted = risk(pool), risk(foggy)
  found = []
  for _ in range(1000):
    total = conformal.add_up(pool[rng.integers(len(pool), size=n)])
    t = conformal.choose(counts.GRID, total, alpha).value
    k = int(t * counts.STEPS)
    found.append((same[k], shifted[k]))
  mean, under_shift = np.mean(found, 0)
  assert alpha - 1 / (n + 1) <= mean <= alpha
  assert under_shift > alpha + 0.05
  plain = [
    np.searchsorted(pool[rng.integers(len(pool), size=n)].mean(0), alpha, side='right') - 1
    for _ in range(1000)
  ]  # the mean of the calibration images alone is too bold
  assert same[plain].mean() > mean + 0.01


def test_below_one_over_n_plus_one_only_everything_qualifies():
  scores = [np.ones(5)] * 9
  assert conformal.least_alpha(9) == 0.1
  assert conformal.exact(scores, 0.1).value == 1
  choice = conformal.exact(scores, 0.099)
  assert (choice.value, choice.limited) == (0, True)
  assert conformal.risk_limit(0.1, 9) == pytest.approx(0)


def test_nothing_to_calibrate_on():
  for scores in ([], [np.zeros(0)] * 3):
    choice = conformal.exact(scores, 0.2)
    assert (choice.value, choice.limited, choice.images) == (0, True, 0)
  zero = conformal.exact([np.zeros(0)] * 9, 0.2, empty='zero')
  assert zero.images == 9
  with pytest.raises(ValueError, match="not 'one'"):
    conformal.add_up(np.zeros((2, 3)), empty='one')


def test_losses_merge_and_images_without_one_are_left_out():
  rng = np.random.default_rng(0)
  losses = np.sort(rng.random((9, 5)), 1)
  losses[3] = np.nan
  total = conformal.add_up(losses)
  parts = conformal.add_up(losses[:4]) + conformal.add_up(losses[4:])
  np.testing.assert_allclose(parts.total, total.total)
  assert (parts.images, parts.left_out) == (total.images, total.left_out) == (8, 1)
  assert conformal.add_up(losses, empty='zero').images == 9
  mean = conformal.by_group(losses, ['a', 'a', 'b', 'c', 'a', 'b', 'b', 'b', 'b'])
  np.testing.assert_allclose(mean[0], losses[[0, 1, 4]].mean(0))
  assert np.isnan(mean[2]).all()


def test_losses_that_fall_are_refused_until_they_are_monotone():
  losses = np.array([[0.1, 0.3, 0.2, 0.5]] * 20)
  with pytest.raises(ValueError, match=r'conformal\.monotone'):
    conformal.choose(np.arange(4), conformal.add_up(losses), 0.3)
  safe = conformal.monotone(losses)
  np.testing.assert_array_equal(safe[0], [0.1, 0.3, 0.3, 0.5])
  assert conformal.choose(np.arange(4), conformal.add_up(safe), 0.35).value == 2


def test_what_was_kept():
  found = conformal.kept(np.array([0.0, 0.1, 0.3, np.nan]), 0.1)
  assert found.loss.mean == pytest.approx(0.4 / 3)
  assert (found.loss.images, found.loss.skipped) == (3, 1)
  assert (found.share_above, found.gap) == (pytest.approx(1 / 3), pytest.approx(0.1))
  assert np.isnan(conformal.kept(np.array([np.nan]), 0.1).gap)


@settings(max_examples=30, deadline=None)
@given(SEEDS, st.floats(0, 1), st.floats(0.05, 0.5))
def test_shifts_keep_the_promise_for_images_left_out(seed, tau, alpha):
  scores = drawn(seed, 8)
  limits = np.clip(tau + np.random.default_rng(seed).normal(0, 0.1, 8), 0, 1)
  left = []
  for i in range(8):
    others = [j for j in range(8) if j != i]
    s = adaptive.shift([scores[j] for j in others], limits[others], alpha, empty='zero').value
    left.append(loss(scores[i], adaptive.shifted(limits[i : i + 1], s)[0]))
  assert np.mean(left) <= alpha + 1e-6


def test_oracle_thresholds_hold_their_share():
  assert adaptive.oracle_threshold([0.1, 0.2, 0.3, 0.9], 0.25) == 0.2
  assert np.isnan(adaptive.oracle_threshold([], 0.1))


@settings(max_examples=40, deadline=None)
@given(SEEDS, st.sampled_from([0.5, 0.9, 1.0]))
def test_the_margin_is_the_least_number_of_dilations(seed, tau):
  rng = np.random.default_rng(seed)
  mask, truth = rng.random((2, 9, 8)) < np.array([0.05, 0.2])[:, None, None]
  found = margins.margin(mask, truth, tau)
  if not truth.any() or not mask.any():
    assert found == (0 if not truth.any() else np.inf)
    return
  covered = lambda d: np.sum(margins.widened(mask, d) & truth) >= tau * truth.sum() - 1e-9
  assert covered(found)
  assert found == 0 or not covered(found - 1)


def test_the_quantile_of_margins_is_of_the_right_rank():
  scores = [3, 1, 2, np.inf, 5, 4, 6, 8, 7]
  assert margins.quantile(scores, 0.5) == 5
  assert margins.quantile(scores, 0.2) == 8
  assert margins.quantile(scores, 0.1) == np.inf
  assert margins.quantile(scores[:3], 0.1) == np.inf
  assert margins.widened(np.zeros((2, 2), bool), np.inf).all()
  left = [s > margins.quantile(np.delete(scores, i), 0.3) for i, s in enumerate(scores)]
  assert np.mean(left) <= 0.3


def test_verdicts():
  say = lambda losses, alpha, **k: conformal.kept(np.array(losses), alpha, seed=0, **k).verdict
  assert say([0.0, 0.1, 0.2], 0.1) == 'holds'
  assert say([0.3, 0.4, 0.35], 0.1) == 'broken'
  assert say([0.0, 0.4, 0.0, 0.1], 0.1) == 'undecided'
  assert say([0.05], 0.1) == 'undecided'  # one image tells nothing of others
  assert say([np.nan], 0.1) == ''
  # calibration images that differ widely might have given another threshold
  losses, wide = [0.14, 0.15, 0.16], np.array([0.0, 0.3, 0.0, 0.1])
  assert say(losses, 0.1) == 'broken'
  assert say(losses, 0.1, calibration=wide) == 'undecided'


def test_a_promise_that_is_kept_is_seldom_called_broken():
  rng = np.random.default_rng(1)
  pool, calls = images_of(rng, 3000), []
  for k in range(200):
    calibration = pool[rng.integers(len(pool), size=40)]
    choice = conformal.choose(counts.GRID, conformal.add_up(calibration), 0.1)
    at = round(choice.value * counts.STEPS)
    test = pool[rng.integers(len(pool), size=60), at]
    calls.append(conformal.kept(test, 0.1, calibration=calibration[:, at], resamples=100, seed=k))
  assert np.mean([c.verdict == 'broken' for c in calls]) < 0.06
