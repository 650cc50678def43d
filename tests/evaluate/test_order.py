"""Orders of subjects and how sure they are, against what is known of made-up scores."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from car_jax.evaluate import order
from car_jax.evaluate.cell import Cell
from car_jax.metrics.base import About
from tests.evaluate.test_cell import SHARE, SIZE, Size


@dataclasses.dataclass(frozen=True, kw_only=True)
class Largeness(Size):
  """The size, of which more is better."""

  about = About('largeness', 'high', 'Pixels of an image.')


LARGENESS = Largeness(name='largeness')


def cell(values):
  values = np.asarray(values, np.float32)
  c = Cell()
  state = {'sum': values, 'images': np.ones(len(values), np.int32)}
  c.add(
    [SIZE, LARGENESS], [state, state], [f'{i:03d}' for i in range(len(values))], [''] * len(values)
  )
  return c


@pytest.fixture
def base():
  return np.random.default_rng(0).normal(size=80)


def test_a_shift_of_every_image_is_a_sure_order_however_the_images_differ(base):
  cells = {'b': cell(base + 0.1), 'a': cell(base), 'c': cell(base + 0.2)}
  r = order.ranking(cells, SIZE, resamples=100)
  assert r.order == ('a', 'b', 'c')  # low is good
  assert (r.held, r.best['a']) == (1, 1)
  assert r.places == {'a': (1, 1), 'b': (2, 2), 'c': (3, 3)}


def test_subjects_that_differ_by_chance_share_the_first_place():
  rng = np.random.default_rng(1)
  cells = {name: cell(rng.normal(size=400)) for name in 'ab'}
  shares = order.ranking(cells, SIZE, resamples=400).best
  gap = cells['a'].value(SIZE) - cells['b'].value(SIZE)
  deviation = np.sqrt(2 / 400)
  assert shares['a'] == pytest.approx(stats.norm.cdf(-gap / deviation), abs=0.08)
  assert sum(shares.values()) == pytest.approx(1)


def test_equal_subjects_tie(base):
  r = order.ranking({'a': cell(base), 'b': cell(base)}, SIZE, resamples=20)
  assert r.best == {'a': 0.5, 'b': 0.5}
  assert r.places['a'] == (1.5, 1.5)


@pytest.mark.parametrize('kind', ['one subject', 'no score', 'one image'])
def test_what_cannot_be_ranked_is_not(base, kind):
  cells = {'a': cell(base), 'b': cell(base)}
  if kind == 'one subject':
    cells.pop('b')
  if kind == 'one image':
    cells = {'a': cell([1.0]), 'b': cell([2.0])}
  metric = SHARE if kind == 'no score' else SIZE
  assert order.ranking(cells, metric, resamples=20) is None


def test_sentences_say_shares(base):
  cells = {'a': cell(base), 'b': cell(base + 1)}
  two = order.sentence('size', order.ranking(cells, SIZE, resamples=20))
  assert two == 'By size a is the best in 100 % of the resampled sets of images, b in 0 %.'
  cells['c'] = cell(base + 2)
  three = order.sentence('size', order.ranking(cells, SIZE, resamples=20))
  assert three.endswith('the whole order (a, b, c) holds in 100 %.')


def test_equal_subjects_share_a_place_in_the_sentence(base):
  said = lambda cells: order.sentence('size', order.ranking(cells, SIZE, resamples=20))
  cells = {'npy': cell(base), 'png': cell(base)}
  assert said(cells) == 'By size npy and png are equal in all of the resampled sets of images.'
  cells['worse'] = cell(base + 1)
  assert said(cells) == (
    'By size npy and png are equal, and the best in 100 % of the resampled sets of images; '
    'the whole order (npy = png, worse) holds in 100 %.'
  )
  last = {'a': cell(base - 1)} | cells
  assert said(last) == (
    'By size a is the best in 100 % of the resampled sets of images; '
    'the whole order (a, npy = png, worse) holds in 100 %.'
  )


def test_several_trainings_have_a_mean_and_a_spread(base):
  cells = {'m/seed0': cell(base), 'm/seed1': cell(base + 1), 'other': cell(base)}
  (found,) = order.over_seeds(cells, {'m': ['m/seed0', 'm/seed1']}, SIZE)
  assert found.mean == pytest.approx(base.mean() + 0.5, abs=1e-6)
  assert found.deviation == pytest.approx(np.sqrt(0.5), abs=1e-6)
  (alone,) = order.over_seeds(cells, {'m': ['m/seed0']}, SIZE)
  assert np.isnan(alone.deviation)


def test_kendalls_tau_is_scipys_with_ties_and_without():
  rng = np.random.default_rng(2)
  for levels in (3, 1000):
    x, y = rng.integers(0, levels, (2, 20, 7)).astype(float)
    want = [stats.kendalltau(a, b).statistic for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(order.kendall(x, y), want)
  assert np.isnan(order.kendall(np.ones(3), np.arange(3.0)))


def test_how_alike_orders_on_other_images_are_is_told_by_other_images():
  """What resamples of one set say is near what two sets of that size from the same source do."""
  rng = np.random.default_rng(3)
  skill = np.array([0.0, 0.1, 0.2, 0.3])
  several = lambda: {f'm{k}': cell(rng.normal(size=60) + s) for k, s in enumerate(skill)}
  agreed = [order.ranking(several(), SIZE, resamples=100).again for _ in range(30)]
  means = skill + rng.normal(size=(2, 4000, 4)) / np.sqrt(60)
  assert np.mean(agreed) == pytest.approx(order.kendall(*means).mean(), abs=0.12)


def test_an_order_by_a_score_of_which_more_is_better_is_reversed():
  cells = {name: cell([k, k]) for k, name in enumerate('abc')}
  assert order.agreement(cells, SIZE, SIZE) == 1
  assert order.agreement(cells, LARGENESS, SIZE) == -1
  cells['d'] = cell([np.nan, np.nan])  # has no such score
  assert order.agreement(cells, LARGENESS, SIZE) == -1


def test_orders_of_several_trainings_are_compared_training_by_training():
  values = {'a': (1, 1, 3), 'b': (2, 3, 2), 'c': (3, 2, 1)}  # abc, acb, cba
  cells = {f'{m}/{k}': cell([v, v]) for m, of in values.items() for k, v in enumerate(of)}
  cells['once'] = cell([0.0, 0.0])
  seeds = {m: [f'{m}/{k}' for k in range(3)] for m in values}
  three = (1 / 3, -1, -1 / 3)  # abc with acb, abc with cba, acb with cba
  assert order.between_seeds(cells, seeds | {'once': ['once']}, SIZE) == pytest.approx(
    np.mean(three)
  )
  assert np.isnan(order.between_seeds(cells, {'a': seeds['a']}, SIZE))
  assert np.isnan(order.between_seeds(cells, {}, SIZE))
