"""Aggregations of uncertainty maps against plain loops, void pixels, and degenerate images."""

import itertools

import numpy as np
import pytest

from car_jax.errors import UserError
from car_jax.metrics import aggregate, spatial
from car_jax.metrics.aggregate import aggregate as score

RNG = np.random.default_rng(0)
U = RNG.random((9, 13))
LABELS = np.kron(RNG.integers(0, 3, (3, 5)), np.ones((3, 3), int))[:, :13]
VALID = RNG.random(U.shape) < 0.7
ALL = [
  how for how in aggregate.names() if not how.startswith(('boundary', 'off', 'inner', 'outer'))
]
ALL += ['boundary[2]', 'boundary[4]', 'off_boundary[4]', 'inner[2]', 'outer[4]']


def near(y, x, far):
  """Pixels within a Euclidean distance of a pixel."""
  places = itertools.product(range(U.shape[0]), range(U.shape[1]))
  return [(a, b) for a, b in places if (a - y) ** 2 + (b - x) ** 2 <= far**2]


def is_border(y, x):
  return any(LABELS[at] != LABELS[y, x] for at in near(y, x, 1))


PLACES = list(itertools.product(range(U.shape[0]), range(U.shape[1])))
BORDER = [at for at in PLACES if is_border(*at)]


def test_bands_and_distances_by_loops():
  band = [at for at in PLACES if any(b in BORDER for b in near(*at, 1))]
  inner = [at for at in PLACES if at not in band and LABELS[at]]
  mean = lambda places: np.mean([U[at] for at in places])
  assert score(U, 'boundary[2]', prediction=LABELS) == pytest.approx(mean(BORDER))
  assert score(U, 'boundary[4]', prediction=LABELS) == pytest.approx(mean(band))
  assert score(U, 'inner[4]', prediction=LABELS) == pytest.approx(mean(inner))
  far = {at: min(2.5, min(np.hypot(at[0] - y, at[1] - x) for y, x in BORDER)) for at in PLACES}
  want = sum(far[at] * U[at] for at in PLACES) / sum(far.values())
  assert score(U, 'distance[2.5]', prediction=LABELS) == pytest.approx(want)


def test_windows_by_loops():
  for k in (1, 3, 9, 10, 40):
    size = min(k, 9)
    want = max(
      U[y : y + size, x : x + size].mean() for y in range(10 - size) for x in range(14 - size)
    )
    assert score(U, f'patch[{k}]') == pytest.approx(want, abs=1e-12)


def test_neighbours_by_loops():
  d = U - U.mean()
  pairs = [(a, b) for a in PLACES for b in near(*a, 1) if a != b]
  spread = np.sum(d**2)
  moran = U.size / len(pairs) * sum(d[a] * d[b] for a, b in pairs) / spread
  geary = (U.size - 1) * sum((U[a] - U[b]) ** 2 for a, b in pairs) / (2 * len(pairs) * spread)
  assert (spatial.moran(U), spatial.geary(U)) == (pytest.approx(moran), pytest.approx(geary))


@pytest.mark.parametrize('how', ALL)
def test_void_pixels_change_nothing(how):
  other = np.where(VALID, U, 7.0 if not how.startswith('mass') else 0.3)
  found = [score(u, how, prediction=LABELS, valid=VALID) for u in (U, other)]
  if how.startswith('mass'):  # the windows hold void pixels too
    assert 0 <= found[0] <= 1
  else:
    assert found[0] == pytest.approx(found[1], abs=1e-12)
    assert found[0] != score(other, how, prediction=LABELS) or how in ('components', 'min')
  assert np.isnan(score(U, how, prediction=LABELS, valid=np.zeros_like(VALID)))


@pytest.mark.parametrize('how', ALL)
def test_an_image_of_one_class_and_one_doubt(how):
  u, labels = np.full((4, 5), 0.25), np.zeros((4, 5), int)
  value = score(u, how, prediction=labels)
  if how in ('moran', 'geary'):
    assert np.isnan(value)
  elif how.startswith(('sum', 'std', 'volume', 'comp', 'above[', 'mass')):
    want = {'sum': 5, 'std': 0, 'volume[0.9]': 0, 'components': 0, 'above[0.9]': 0}
    want |= {'mass_ratio[edges]': 0, 'mass_ratio[entropy]': 0, 'mass_ratio[moran]': 1}
    assert value == pytest.approx(want[how])
  else:
    assert value == pytest.approx(0.25)
  assert np.isfinite(score(u[:1, :1], how, prediction=labels[:1, :1])) or how in ('moran', 'geary')


def test_class_means_are_nan_where_nothing_is_predicted():
  m = aggregate.Map(U, VALID, np.where(LABELS == 1, 2, LABELS))
  means = aggregate.class_means(m, 4)
  assert np.isnan(means[[1, 3]]).all()
  want = [U[(m.prediction == c) & VALID].mean() for c in (0, 2)]
  np.testing.assert_allclose(means[[0, 2]], want)
  assert score(U, 'class_mean', prediction=m.prediction, valid=VALID) == pytest.approx(
    np.mean(want)
  )


def test_threshold_of_a_histogram_is_at_most_a_bin_off():
  maps, samples = RNG.random((3, 20, 20)), RNG.integers(0, 3, (3, 4, 20, 20))
  exact = aggregate.background_threshold(maps, samples)
  binned = aggregate.background_threshold(maps, samples, bins=4096)
  assert exact == np.quantile(maps, np.mean(samples == 0))
  assert abs(binned - exact) <= 1 / 1000  # of 1200 values the next one may be that far


def test_mistakes():
  for how in (
    'median',
    'patch',
    'patch[0]',
    'patch[x]',
    'mass_ratio[sobel]',
    'boundary[3]',
    'quantile[2]',
    'inner[0]',
  ):
    with pytest.raises(UserError, match='no aggregation'):
      score(U, how, prediction=LABELS)
  with pytest.raises(UserError, match=r'did you mean: patch\[10\]'):
    score(U, 'patsh[10]')
  with pytest.raises(ValueError, match='prediction='):
    score(U, 'foreground')


def test_ncc_of_constant_maps_is_nan():
  assert np.isnan(aggregate.ncc(U, np.ones_like(U)))
  want = np.corrcoef(U.ravel(), VALID.ravel())[0, 1] * (U.size - 1) / U.size
  assert aggregate.ncc(U, VALID) == pytest.approx(want)
