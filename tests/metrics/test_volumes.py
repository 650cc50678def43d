"""CRPS of volumes by numerical integration and loops, and what readers agree on."""

import numpy as np
import pytest
from scipy import integrate, stats

from car_jax.metrics import volumes

RNG = np.random.default_rng(0)
SAMPLES, READERS = RNG.random((3, 7)) * 50, RNG.random((3, 4)) * 50


def test_crps_is_the_integral_over_the_squared_difference_of_distributions():
  for s, y, found in zip(SAMPLES, READERS, volumes.crps(SAMPLES, READERS), strict=True):
    grid = np.sort(np.concatenate([s, y]))
    width = np.diff(grid)
    share = np.searchsorted(np.sort(s), grid[:-1], side='right') / len(s)
    each = [np.sum(width * (share - (grid[:-1] >= v)) ** 2) for v in y]
    assert found == pytest.approx(np.mean(each), abs=1e-10)


def test_estimators_and_energy():
  v, u = (volumes.crps(SAMPLES, READERS, estimator=e) for e in 'vu')
  spread = 2 * (v - u)  # mean over distinct pairs less that over all
  apart = np.abs(SAMPLES[:, :, None] - SAMPLES[:, None]).mean((1, 2))
  np.testing.assert_allclose(spread, apart * (7 / 6 - 1))
  np.testing.assert_allclose(volumes.energy(READERS, READERS), 0, atol=1e-12)
  assert np.all(volumes.energy(SAMPLES, READERS) > 0)
  assert np.isnan(volumes.crps(SAMPLES[:, :1], READERS, estimator='u')).all()
  repeated = np.concatenate([SAMPLES, SAMPLES], 1)
  np.testing.assert_allclose(volumes.crps(repeated, READERS), v)
  with pytest.raises(ValueError, match="not 'w'"):
    volumes.crps(SAMPLES, READERS, estimator='w')


def test_the_closed_form_of_a_normal_distribution():
  x, mean, deviation = 30.0, READERS[0].mean(), READERS[0].std()
  cdf = lambda t: stats.norm.cdf(t, mean, deviation)
  want = sum(
    integrate.quad(lambda t, s=s: (cdf(t) - s) ** 2, *ends)[0]
    for s, ends in ((0, (-300, x)), (1, (x, 300)))
  )
  assert volumes.curvas_crps(x, READERS[0]) == pytest.approx(want, abs=1e-6)
  near = volumes.curvas_crps(x, READERS[0], form='curvas')
  assert near == pytest.approx(want, rel=0.02)
  far = volumes.curvas_crps(1000.0, READERS[0], form='curvas')
  assert far < 4 * deviation < volumes.curvas_crps(1000.0, READERS[0])
  agree = [volumes.curvas_crps(10.0, [4, 4, 4], form=f) for f in ('closed', 'curvas')]
  assert agree == [6, 0]
  with pytest.raises(ValueError, match="not 'open'"):
    volumes.curvas_crps(x, READERS[0], form='open')


def test_consensus():
  readers = np.array([[1, 1, 0, 0, 2, 0], [1, 1, 1, 0, 2, 0]])
  said = np.array([1, 0, 1, 1, 2, 0])
  assert volumes.consensus_dice(readers, said, 1) == pytest.approx(2 * 1 / (2 + 2))
  assert volumes.consensus_dice(readers, said, 2) == 1
  assert np.isnan(volumes.consensus_dice(readers, said, 3))
  p = np.array([0.9, 0.7, 0.2, 0.4, 0.1, 0.1])
  assert volumes.consensus_confidence(readers, p, 1) == pytest.approx((0.8 + 1 - 0.2) / 2)
  assert np.isnan(volumes.consensus_confidence(readers, p, 3))
