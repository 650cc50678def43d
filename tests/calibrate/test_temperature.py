"""Temperatures: known ones are found, the searches are what they say, blocks do not matter."""

import itertools

import jax
import numpy as np
import pytest

from car_jax.calibrate import base, temperature
from car_jax.calibrate.base import Sample
from car_jax.calibrate.temperature import Pixels
from car_jax.errors import UserError


def drawn(n, classes=5, spread=2.0, seed=0):
  """Logits [N, C] and labels drawn from their softmax."""
  rng = np.random.default_rng(seed)
  logits = rng.normal(0, spread, (n, classes)).astype(np.float32)
  return logits, np.argmax(logits + rng.gumbel(size=logits.shape), -1).astype(np.int32)


def nll_of(logits, labels, t):
  z = logits.astype(np.float64) / t
  z -= z.max(-1, keepdims=True)
  return np.mean(np.log(np.exp(z).sum(-1)) - z[np.arange(len(z)), labels])


def ece_of(logits, labels, t, bins=15):
  """Bin by bin, (low, high], in float64."""
  z = logits.astype(np.float64) / t
  p = np.exp(z - z.max(-1, keepdims=True))
  p /= p.sum(-1, keepdims=True)
  conf, hits = p.max(-1), p.argmax(-1) == labels
  edges, total = np.linspace(0, 1, bins + 1), 0.0
  for low, high in itertools.pairwise(edges):
    inside = (conf > low) & (conf <= high)
    if inside.any():
      total += inside.mean() * abs(conf[inside].mean() - hits[inside].mean())
  return total


@pytest.mark.parametrize('t', [0.4, 1.0, 2.5, 6.0])
def test_a_known_temperature_is_found(t):
  logits, labels = drawn(20_000)
  assert temperature.nll_temperature(Pixels(logits * np.float32(t), labels)) == pytest.approx(
    t, rel=0.03
  )


def test_newton_finds_the_minimum_of_a_fine_grid():
  logits, labels = drawn(500, seed=1)
  logits *= 1.7
  grid = np.linspace(1, 3, 4001)
  best = grid[np.argmin([nll_of(logits, labels, t) for t in grid])]
  assert abs(temperature.nll_temperature(Pixels(logits, labels)) - best) < 6e-4


@pytest.mark.parametrize(
  ('slopes', 'want'),
  [
    (lambda x: (np.arctan(20 * (x - 0.1)), 20 / (1 + 400 * (x - 0.1) ** 2)), 0.1),  # overshoots
    (lambda x: (np.arctan(20 * (x - 15)), 20 / (1 + 400 * (x - 15) ** 2)), 15.0),
    (lambda x: (-1.0, 0.0), 20.0),
    (lambda x: (1.0, 1e-9), 0.05),
    (lambda x: (0.0, 0.0), 1.0),
  ],
)
def test_newton_is_safeguarded(slopes, want):
  assert temperature._newton(slopes, 0.05, 20.0) == pytest.approx(want, rel=1e-6)


def test_blocks_of_any_size_agree():
  logits, labels = drawn(3000, seed=2)
  labels[::7] = -1
  pixels = Pixels(logits * 2, labels)
  found = [temperature.nll_temperature(pixels, block=b) for b in (256, 1024, 1 << 16)]
  np.testing.assert_allclose(found, found[0], rtol=1e-6)
  curves = [
    temperature.ece_search(pixels, grid=np.arange(0.5, 4, 0.5), block=b) for b in (256, 4096)
  ]
  np.testing.assert_allclose(curves[0].curve, curves[1].curve, atol=1e-6)
  counted = labels >= 0
  without = Pixels(logits[counted] * 2, labels[counted])
  assert temperature.nll_temperature(without) == pytest.approx(found[0], rel=1e-6)


def test_the_grid_search_bin_by_bin():
  logits, labels = drawn(800, seed=3)
  logits, grid = logits * 2.2, np.arange(0.5, 5, 0.25)
  found = temperature.ece_search(Pixels(logits, labels), grid=grid)
  want = [ece_of(logits, labels, t) for t in grid]
  np.testing.assert_allclose(found.curve, want, atol=2e-6)
  assert found.ece_at_one == pytest.approx(ece_of(logits, labels, 1), abs=2e-6)
  assert found.temperature == grid[np.argmin(want)]


def test_the_grid_gives_way_to_one_unless_it_is_better():
  logits, labels = np.zeros((4, 2), np.float32), np.array([0, 0, 1, 1], np.int32)
  assert temperature.ece_search(Pixels(logits, labels)).temperature == 1  # all are equally good
  right = np.array([[9, 0]] * 4, np.float32)
  found = temperature.ece_search(
    Pixels(right, np.zeros(4, np.int32)), grid=np.array([0.1, 0.2, 0.5])
  )
  assert found.temperature == pytest.approx(0.1)


def test_confident_pixels_do_not_drift():
  n = 1 << 14
  logits = np.zeros((n, 3), np.float32)
  logits[:, 1] = 14
  labels = np.where(np.arange(n) % 2, 1, 0).astype(np.int32)
  found = temperature.ece_search(Pixels(logits, labels), grid=np.array([1.0, 3.0]))
  want = [ece_of(logits, labels, t) for t in (1, 3)]
  np.testing.assert_allclose(found.curve, want, atol=5e-6)


def test_nothing_to_calibrate_on_leaves_the_logits():
  empty = Pixels(np.zeros((0, 3), np.float32), np.zeros(0, np.int32))
  void = Pixels(np.ones((5, 3), np.float32), np.full(5, -1, np.int32))
  for pixels in (empty, void):
    assert temperature.nll_temperature(pixels) == 1
    assert temperature.ece_search(pixels).temperature == 1


def test_each_group_is_searched_alone():
  logits, labels = drawn(4000, seed=4)
  groups = np.arange(4000) % 3
  logits *= np.array([1, 2, 3], np.float32)[groups][:, None]
  groups[groups == 2] = 3
  labels[::11] = -1
  found = temperature.group_temperatures(Pixels(logits, labels), groups, 4)
  for g in (0, 1, 3):
    own = (groups == g) & (labels >= 0)
    assert found[g] == pytest.approx(
      temperature.nll_temperature(Pixels(logits[own], labels[own])), 1e-5
    )
  assert found[2] == 1


def test_classes_are_scaled_by_what_is_predicted():
  logits, labels = drawn(6000, classes=3, seed=5)
  logits[:, 2] = -30  # never predicted
  said = logits.argmax(-1)
  logits *= np.array([1, 3, 1], np.float32)[said][:, None]
  sample = Sample(logits.reshape(3, 2000, 3), labels.reshape(3, 2000) % 2)
  found = temperature.fit_per_class(sample)
  assert found.table[2] == 1
  for c in (0, 1):
    own = said == c
    alone = temperature.nll_temperature(Pixels(logits[own], labels[own] % 2))
    assert found.table[c] == pytest.approx(alone, rel=1e-5)
  got = jax.jit(lambda c, x: c.apply(x))(found, sample.logits)
  np.testing.assert_allclose(got, sample.logits / found.table[said].reshape(3, 2000, 1), rtol=1e-6)
  published = found.replace(reference_compat=True).apply(sample.logits)
  np.testing.assert_allclose(published, sample.logits / found.table, rtol=1e-6)


def test_scores_are_those_of_the_pixels_that_count(monkeypatch):
  logits, labels = drawn(600, seed=6)
  labels[::5] = -1
  sample = Sample(logits.reshape(4, 150, -1), labels.reshape(4, 150))
  keep = labels >= 0
  want = nll_of(logits[keep], labels[keep], 2), ece_of(logits[keep], labels[keep], 2)
  for pixels in (1 << 15, 100):  # an image is cut where it is larger
    monkeypatch.setattr(base, 'PIXELS', pixels)
    got = base.scores(sample, temperature.Temperature(np.float32(2)))
    np.testing.assert_allclose(got, want, atol=2e-6)


def test_an_unknown_objective_is_told():
  logits, labels = drawn(10)
  with pytest.raises(UserError, match='no objective .eec.\n  did you mean: ece'):
    temperature.best_temperature(Pixels(logits, labels), 'eec')
  with pytest.raises(ValueError, match='no grid'):
    temperature.best_temperature(Pixels(logits, labels), 'nll', np.arange(1, 3))
