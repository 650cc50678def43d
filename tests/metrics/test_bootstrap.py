import numpy as np
import pytest

from car_jax.metrics import bootstrap


def test_interval_of_normal_values_is_the_textbook_one():
  values = np.random.default_rng(0).normal(3, 2, 400)
  got = bootstrap.interval(values, resamples=4000)
  half = 1.96 * values.std() / 20
  assert got.mean == pytest.approx(values.mean())
  assert (got.low, got.high) == pytest.approx((got.mean - half, got.mean + half), abs=0.03)
  narrow = bootstrap.interval(values, level=0.5, resamples=4000)
  assert got.low < narrow.low < narrow.high < got.high


def test_interval_covers_the_truth_about_as_often_as_it_says():
  rng = np.random.default_rng(1)
  found = [bootstrap.interval(rng.exponential(1, 60), level=0.9, resamples=300) for _ in range(300)]
  assert 0.83 < np.mean([i.low < 1 < i.high for i in found]) < 0.95


def test_same_seed_same_interval_other_seed_another():
  values = np.random.default_rng(2).random(50)
  assert bootstrap.interval(values) == bootstrap.interval(values)
  assert bootstrap.interval(values) != bootstrap.interval(values, seed=1)


def test_nan_is_skipped_and_counted():
  got = bootstrap.interval(np.array([1.0, np.nan, 3.0]))
  assert got.mean == 2
  assert (got.images, got.skipped) == (2, 1)


def test_no_value():
  none = bootstrap.interval(np.array([np.nan]))
  assert np.isnan([none.mean, none.low, none.high]).all()
  assert (none.images, none.skipped) == (0, 1)


@pytest.mark.parametrize(
  ('values', 'groups'),
  [([0.3], None), ([0.3, np.nan], None), ([0.2, 0.3, 0.4], ['p'] * 3), ([0.3, np.nan], ['p', 'q'])],
)
def test_one_image_or_one_patient_has_a_mean_but_no_interval(values, groups):
  got = bootstrap.interval(np.array(values), groups=groups)
  assert got.mean == pytest.approx(0.3)
  assert np.isnan([got.low, got.high]).all()


def test_whole_groups_are_resampled():
  """Ten patients with twenty equal slices each say no more than ten images."""
  patients = np.random.default_rng(3).normal(size=10)
  slices, names = np.repeat(patients, 20), np.repeat([f'p{i}' for i in range(10)], 20)
  grouped, ten = bootstrap.interval(slices, groups=names), bootstrap.interval(patients)
  assert grouped[:3] == pytest.approx(ten[:3])
  alone = bootstrap.interval(slices)
  assert grouped.high - grouped.low > 3 * (alone.high - alone.low)
  with pytest.raises(ValueError, match='200 values but 3 groups'):
    bootstrap.interval(slices, groups=names[:3])


def test_paired_difference_sees_what_two_intervals_do_not():
  rng = np.random.default_rng(4)
  theirs = rng.normal(0, 5, 200)
  ours = theirs - 0.2 + rng.normal(0, 0.3, 200)
  apart, paired = bootstrap.interval(ours), bootstrap.difference(ours, theirs)
  assert apart.low < theirs.mean() < apart.high
  assert paired.high < 0
  ours[3], theirs[5] = np.nan, np.nan
  assert bootstrap.difference(ours, theirs).skipped == 2
  with pytest.raises(ValueError, match='must match'):
    bootstrap.difference(ours, theirs[:3])


def test_an_interval_over_two_draws_covers_what_both_move():
  """Values whose mean was set by that of others, as a loss by the calibration images is."""
  rng = np.random.default_rng(3)
  found, alone = [], []
  for k in range(300):
    others = rng.exponential(1, 40)
    values = rng.exponential(1, 60) + 1 - others.mean()  # of mean 1 over draws of both
    found.append(bootstrap.unpaired(values, others, resamples=300, seed=k))
    alone.append(bootstrap.interval(values, resamples=300, seed=k))
  covers = lambda intervals: np.mean([i.low < 1 < i.high for i in intervals])
  assert 0.9 < covers(found) < 0.98
  assert covers(alone) < 0.85


def test_two_draws_need_two_of_each_and_resamples():
  values = np.array([0.1, np.nan, 0.4])
  got = bootstrap.unpaired(values, np.array([0.2, 0.3]))
  assert (got.mean, got.images, got.skipped) == (pytest.approx(0.25), 2, 1)
  assert got.low <= got.mean <= got.high
  for one in (
    bootstrap.unpaired(values, np.array([0.2])),
    bootstrap.unpaired(values, np.array([0.2, 0.3]), other_groups=np.array(['a', 'a'])),
    bootstrap.unpaired(values[:1], np.array([0.2, 0.3])),
    bootstrap.interval(values, resamples=0),
  ):
    assert np.isnan(one.low)
    assert np.isnan(one.high)
