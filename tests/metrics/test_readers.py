"""Scores of samples against readers by plain loops, padding, and empty or missing sides."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from car_jax.metrics import readers, stochastic
from tests.metrics import oracle
from tests.whole import whole

RNG = np.random.default_rng(0)
READERS = RNG.integers(0, 2, (2, 3, 6, 7))
PROBS = (RNG.integers(0, 11, (2, 4, 6, 7)) / 10).astype(np.float32)
SAMPLES = (PROBS > 0.5).astype(int)


def dice(a, b):
  return 1.0 if not (a.any() or b.any()) else 2 * np.sum(a & b) / (a.sum() + b.sum())


def compared(samples, of, **options):
  return whole(stochastic.compare)(samples, of, classes=(1,), **options)


def test_matches_are_the_best_of_all_assignments():
  c = compared(SAMPLES, READERS)
  each, mean = whole(readers.dice_each)(c), whole(readers.dice_match)(c)
  for i in range(2):
    table = np.array([[dice(y == 1, s == 1) for s in SAMPLES[i]] for y in READERS[i]])
    ways = itertools.permutations(range(4), 3)
    best = max(np.mean([table[m, n] for m, n in enumerate(way)]) for way in ways)
    assert mean[i] == pytest.approx(best, abs=1e-6)
    assert each[i].mean() == pytest.approx(best, abs=1e-6)
    both = table.max(0).mean(), table.max(1).mean()
    found = [whole(stochastic.max_dice)(c, best=k)[i] for k in ('readers', 'samples', 'both')]
    np.testing.assert_allclose(found, [*both, np.mean(both)], atol=1e-6)


def test_padding_readers_and_too_few_samples():
  weight = np.float32([[1, 1, 0], [1, 1, 1]])
  few = compared(SAMPLES[:, :2], READERS, reader_weight=weight)
  alone = compared(SAMPLES[:1, :2], READERS[:1, :2])
  found = whole(readers.dice_match)(few)
  assert found[0] == pytest.approx(whole(readers.dice_match)(alone)[0], abs=1e-6)
  assert np.isnan(found[1])
  assert np.isnan(whole(readers.dice_each)(few)[0, 2])
  zero = whole(readers.dice_each)(few, unmatched='zero')[1]
  assert np.sum(zero == 0) == 1
  with pytest.raises(ValueError, match="not 'one'"):
    readers.dice_each(few, unmatched='one')
  with pytest.raises(ValueError, match="not 'all'"):
    stochastic.max_dice(few, best='all')


def test_weights_in_a_match_are_of_readers_alone():
  """A sample of any weight is one sample; readers weigh in what is best and in its mean."""
  weight = np.float32([[5, 1, 1], [1, 1, 2]])
  c = compared(SAMPLES, READERS, reader_weight=weight, sample_weight=np.float32([0.1, 0, 1, 9]))
  used = SAMPLES[:, [0, 2, 3]]
  for i, found in enumerate(whole(readers.dice_match)(c)):
    table = [[dice(y == 1, s == 1) for s in used[i]] for y in READERS[i]]
    ways = itertools.permutations(range(3))
    share = weight[i] / weight[i].sum()
    best = max(sum(share[m] * table[m][n] for m, n in enumerate(way)) for way in ways)
    assert found == pytest.approx(best, abs=1e-6)


def soft(front, labels, **options):
  probs = np.stack([1 - front, front], -1).astype(np.float32)
  return whole(readers.dice_soft)(probs, labels, **options)


def test_soft_dice_compares_whole_numbers():
  found = soft(PROBS.mean(1), READERS)
  tenths = np.rint(PROBS * 10).astype(int).sum(1)  # of four samples: 40 t
  for i in range(2):
    want = [
      dice(tenths[i] > round(40 * t), 10 * READERS[i].sum(0) > round(30 * t))
      for t in readers.SOFT_THRESHOLDS
    ]
    assert found[i] == pytest.approx(np.mean(want), abs=1e-6)


def test_soft_dice_of_void_pixels_and_of_nothing():
  front, void = PROBS.mean(1), READERS.copy()
  void[:, :, :3] = 255
  cut = soft(front[:, 3:], READERS[:, :, 3:])
  np.testing.assert_array_equal(soft(front, void, ignore=255), cut)
  other = np.where(np.arange(6)[:, None] < 3, 1 - front, front)
  np.testing.assert_array_equal(soft(other, void, ignore=255), cut)
  assert np.isnan(soft(front, np.full_like(READERS, 255), ignore=255)).all()
  nothing = np.zeros_like(front), np.zeros_like(READERS)
  found = [soft(*nothing, absent=a)[0] for a in ('one', 'zero', 'skip')]
  np.testing.assert_array_equal(found, [1, 0, np.nan])


VOID = 255


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000))
def test_scores_of_partly_void_readers_equal_loops(seed):
  """Three classes, a fifth of the readers' pixels void; and samples of padding."""
  rng = np.random.default_rng(seed)
  samples, labels = rng.integers(0, 3, (2, 4, 5, 6)), rng.integers(0, 3, (2, 3, 5, 6))
  labels[rng.random(labels.shape) < 0.2] = VOID
  labels[0, 0] = VOID
  weight = np.float32([1, 1, 1, 0])
  how = dict(classes=(1, 2), ignore=VOID)
  c = whole(stochastic.compare)(samples, labels, sample_weight=weight, **how)
  area = {e: whole(readers.crps_area)(c, estimator=e) for e in 'vu'}
  ci = whole(readers.collective_insight)(samples, labels, c, classes=(1, 2))
  own = whole(readers.collective_insight)(samples, labels, c, classes=(1, 2), pairs='self')
  for i in range(2):
    used = samples[i, :3]
    for e in 'vu':
      want = oracle.area_crps(used, labels[i], (1, 2), e, VOID)
      assert area[e][i] == pytest.approx(want, abs=1e-5)
    for found, self_pairs in ((ci, False), (own, True)):
      parts = [oracle.insight(used, labels[i], k, VOID, self_pairs) for k in (1, 2)]
      np.testing.assert_allclose([x[i] for x in found[1:]], np.mean(parts, 0), atol=1e-5)
      value = np.mean([3 * np.prod(p) / np.sum(p) for p in parts])
      assert found.value[i] == pytest.approx(value, abs=1e-5)


def test_areas_of_weighted_samples_are_those_of_repeated_ones():
  weight = np.float32([3, 1, 0, 2])
  times = np.repeat(SAMPLES, weight.astype(int), 1)
  found = whole(readers.crps_area)(compared(SAMPLES, READERS, sample_weight=weight))
  np.testing.assert_allclose(found, whole(readers.crps_area)(compared(times, READERS)), atol=1e-5)
  one = whole(readers.crps_area)(compared(SAMPLES[:, :1], READERS))
  error = np.abs(SAMPLES[:, :1].sum((2, 3)) - READERS.sum((2, 3))).mean(1)
  np.testing.assert_allclose(one, error, rtol=1e-6)


def test_absent_zero_is_apart_even_from_itself():
  nothing = np.zeros((1, 2, 4, 4), int)
  found = whole(stochastic.ged)(nothing, nothing, classes=(1,), absent='zero')
  np.testing.assert_array_equal(np.ravel(found), [0, 1, 1, 1])
  name = stochastic.convention('ged', 2, classes=(1,), num_classes=2, absent='zero', estimator='v')
  assert name == 'ged2[v,absent=0,fg]'


def differences(maps, pairs):
  """Variances over pixels."""
  both = itertools.product(range(len(maps)), repeat=2)
  return [np.var(maps[a] - maps[b]) for a, b in both if pairs == 'self' or a != b]


def insight(samples, labels, **options):
  c = compared(samples, labels)
  return whole(readers.collective_insight)(samples, labels, c, **options)


@pytest.mark.parametrize('pairs', ['distinct', 'self'])
def test_collective_insight_by_loops(pairs):
  found = insight(SAMPLES, READERS, pairs=pairs)
  for i in range(2):
    y, s = READERS[i], SAMPLES[i]
    ends = [(max(v), min(v)) for v in (differences(y, pairs), differences(s, pairs))]
    a = 1 - np.abs(np.subtract(*ends)).mean()
    sense = np.sum(y.any(0) & s.any(0)) / np.sum(y.any(0))
    d = np.mean([max(dice(r == 1, m == 1) for m in s) for r in y])
    assert found.value[i] == pytest.approx(3 * sense * d * a / (sense + d + a), abs=1e-6)
    harmonic = insight(SAMPLES, READERS, pairs=pairs, mean='harmonic')
    assert harmonic.value[i] == pytest.approx(3 / (1 / sense + 1 / d + 1 / a), abs=1e-6)


def test_collective_insight_of_one_reader_and_of_nothing():
  assert np.isnan(insight(SAMPLES, READERS[:, :1]).value).all()
  nothing = np.zeros_like(READERS)
  assert insight(nothing, nothing).value.tolist() == [1, 1]
  assert insight(SAMPLES * 0, READERS).value.tolist() == [0, 0]
  assert insight(SAMPLES * 0, READERS, mean='harmonic').value == pytest.approx(0, abs=1e-6)
  with pytest.raises(ValueError, match="mean='mean'"):
    insight(SAMPLES, READERS, mean='mean')
