"""The Dice of very many samples, beside the plain formula."""

import tracemalloc

import numpy as np
import pytest

from car_jax.predict import rows


@pytest.mark.parametrize('group', [1, 3, 7, 512])
def test_dice_of_many_samples_goes_by_groups_of_them(group, monkeypatch):
  monkeypatch.setattr(rows, 'GROUP', group)
  monkeypatch.setattr(rows, 'BLOCK', 64)
  rng, classes = np.random.default_rng(1), (0, 1, 3, 4)
  samples, weights = rng.integers(0, 4, (7, 13, 11)), rng.dirichlet(np.ones(7))
  samples[2:5][samples[2:5] == 3] = 0  # a class that some pairs lack
  one = np.stack([samples.reshape(7, -1) == c for c in classes]).astype(np.float64)  # [C, N, P]
  total = one.sum(-1)[:, :, None] + one.sum(-1)[:, None]
  dice = np.where(total > 0, 2 * one @ one.transpose(0, 2, 1) / np.maximum(total, 1), 1).mean(0)
  pairs = np.outer(weights, weights) * (1 - np.eye(7))
  expected = (dice * pairs).sum() / pairs.sum()
  assert rows.pairwise_dice(samples, weights, classes) == pytest.approx(expected, rel=1e-12)


def test_dice_of_many_samples_needs_no_table_of_all_pairs():
  samples = np.random.default_rng(2).integers(0, 2, (5000, 4), np.uint8)
  tracemalloc.start()
  found = rows.pairwise_dice(samples, np.full(5000, 1 / 5000), (1,))
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 5000 * 5000 * 8 / 4
  assert 0.4 < found < 0.6
