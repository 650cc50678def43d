"""Scores of samples against readers by plain loops, padding, and empty or missing sides."""

import itertools

import numpy as np
import pytest

from car_jax.metrics import readers, stochastic
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
  each = readers.dice_each(c)
  for i in range(2):
    table = np.array([[dice(y == 1, s == 1) for s in SAMPLES[i]] for y in READERS[i]])
    ways = itertools.permutations(range(4), 3)
    best = max(np.mean([table[m, n] for m, n in enumerate(way)]) for way in ways)
    assert readers.dice_match(c)[i] == pytest.approx(best, abs=1e-6)
    assert each[i].mean() == pytest.approx(best, abs=1e-6)
    both = table.max(0).mean(), table.max(1).mean()
    found = [whole(stochastic.max_dice)(c, best=k)[i] for k in ('readers', 'samples', 'both')]
    np.testing.assert_allclose(found, [*both, np.mean(both)], atol=1e-6)


def test_padding_readers_and_too_few_samples():
  weight = np.float32([[1, 1, 0], [1, 1, 1]])
  few = compared(SAMPLES[:, :2], READERS, reader_weight=weight)
  alone = compared(SAMPLES[:1, :2], READERS[:1, :2])
  found = readers.dice_match(few)
  assert found[0] == readers.dice_match(alone)[0]
  assert np.isnan(found[1])
  assert np.isnan(readers.dice_each(few)[0, 2])
  zero = readers.dice_each(few, unmatched='zero')[1]
  assert np.sum(zero == 0) == 1
  with pytest.raises(ValueError, match="not 'one'"):
    readers.dice_each(few, unmatched='one')
  with pytest.raises(ValueError, match="not 'all'"):
    stochastic.max_dice(few, best='all')


def test_soft_dice_compares_whole_numbers():
  counts = whole(readers.soft_counts)(PROBS, READERS)
  tenths = np.rint(PROBS * 10).astype(int).sum(1)  # of four samples: 40 t
  for i in range(2):
    want = [
      dice(tenths[i] > round(40 * t), 10 * READERS[i].sum(0) > round(30 * t))
      for t in readers.SOFT_THRESHOLDS
    ]
    assert readers.dice_soft(counts)[i] == pytest.approx(np.mean(want), abs=1e-12)


def test_soft_dice_of_void_pixels_and_of_repeated_samples():
  void = READERS.copy()
  void[:, :, :3] = 255
  cut = whole(readers.soft_counts)(PROBS[:, :, 3:], READERS[:, :, 3:])
  found = whole(readers.soft_counts)(PROBS, void, ignore=255)
  np.testing.assert_array_equal(found, cut)
  twice = np.concatenate([PROBS, PROBS], 1)
  np.testing.assert_array_equal(whole(readers.soft_counts)(twice, void, ignore=255), cut)
  empty = whole(readers.soft_counts)(np.zeros_like(PROBS), np.zeros_like(READERS))
  found = [readers.dice_soft(empty, absent=a)[0] for a in ('one', 'zero', 'skip')]
  np.testing.assert_array_equal(found, [1, 0, np.nan])


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


@pytest.mark.parametrize('pairs', ['distinct', 'self'])
def test_collective_insight_by_loops(pairs):
  found = readers.collective_insight(SAMPLES, READERS, pairs=pairs)
  for i in range(2):
    y, s = READERS[i], SAMPLES[i]
    ends = [(max(v), min(v)) for v in (differences(y, pairs), differences(s, pairs))]
    a = 1 - np.abs(np.subtract(*ends)).mean()
    sense = np.sum(y.any(0) & s.any(0)) / np.sum(y.any(0))
    d = np.mean([max(dice(r == 1, m == 1) for m in s) for r in y])
    assert found.value[i] == pytest.approx(3 * sense * d * a / (sense + d + a), abs=1e-12)
    harmonic = readers.collective_insight(SAMPLES, READERS, pairs=pairs, mean='harmonic')
    assert harmonic.value[i] == pytest.approx(3 / (1 / sense + 1 / d + 1 / a), abs=1e-12)


def test_collective_insight_of_one_reader_and_of_nothing():
  one = readers.collective_insight(SAMPLES, READERS[:, :1])
  assert np.isnan(one.value).all()
  nothing = np.zeros_like(READERS)
  assert readers.collective_insight(nothing, nothing).value.tolist() == [1, 1]
  assert readers.collective_insight(SAMPLES * 0, READERS).value.tolist() == [0, 0]
  with pytest.raises(ValueError, match="mean='mean'"):
    readers.collective_insight(SAMPLES, READERS, mean='mean')
