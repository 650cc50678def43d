"""The toy data: its law against integration and counting, its stream, its errors."""

import itertools

import jax
import numpy as np
import pytest
from scipy import stats

from car_jax.data import opening, pipeline
from car_jax.data import toy_regression as toy
from car_jax.errors import UserError

PI, SIGMA = 0.7, 0.05


def branches(x: float) -> tuple[float, float]:
  """Upper and lower, as the paper writes them."""
  if x < 0.4:
    return 0.5, -0.5
  return (1 - 1.25 * x, -(1 - 1.25 * x)) if x < 0.8 else (0.0, 0.0)


def test_the_likelihood_and_the_mean_are_those_of_the_mixture():
  for x in (0.0, 0.1, 0.39, 0.4, 0.5, 0.79, 0.8, 0.95):
    upper, lower = branches(x)
    y = np.linspace(-1, 1, 4001)
    density = PI * stats.norm.pdf(y, upper, SIGMA) + (1 - PI) * stats.norm.pdf(y, lower, SIGMA)
    found = np.exp(np.asarray(toy.log_likelihood(np.full(4001, x), y, PI, SIGMA), np.float64))
    np.testing.assert_allclose(found, density + 1e-11, rtol=2e-4, atol=1e-11)
    assert np.trapezoid(y * found, y) == pytest.approx(
      float((2 * PI - 1) * toy.height(x)), abs=1e-4
    )


def test_far_from_both_branches_the_likelihood_is_the_floor():
  assert float(toy.log_likelihood(0.2, 0.0, 0.5, 0.01)) == pytest.approx(np.log(1e-11), abs=1e-4)


@pytest.mark.parametrize('device', [False, True])
def test_both_generators_draw_from_the_law(device):
  if device:
    x, y = map(np.asarray, toy.draw(jax.random.key(0), 40_000, PI, SIGMA))
  else:
    x, y = toy.sample(np.random.RandomState(0), 40_000, PI, SIGMA)
  assert stats.kstest(x, 'uniform').pvalue > 0.01
  upper = np.array([branches(v)[0] for v in x])
  apart = x < 0.6  # where the branches do not overlap
  is_upper = y > 0
  assert is_upper[apart].mean() == pytest.approx(PI, abs=0.01)
  noise = np.where(is_upper, y - upper, y + upper)
  assert stats.kstest(noise[apart] / SIGMA, 'norm').pvalue > 0.01
  assert stats.kstest(y[x >= 0.8] / SIGMA, 'norm').pvalue > 0.01
  assert np.corrcoef(is_upper[apart], x[apart])[0, 1] == pytest.approx(0, abs=0.02)


def test_the_numpy_generator_groups_the_points_by_interval():
  x, y = toy.sample(np.random.RandomState(3), 500, PI, SIGMA)
  part = np.select([x < 0.4, x < 0.8], [0, 1], 2)
  assert (np.diff(part) >= 0).all()
  middle = y[(part == 1) & (x < 0.6)] > 0
  assert (np.diff(middle.astype(int)) <= 0).all()


def test_the_stream_is_a_function_of_seed_and_step_and_the_hosts_share_it():
  source = opening.open_dataset(dict(name='toy_regression', batch=12, pi=PI, sigma=SIGMA)).split(
    'train'
  )

  def take(count, **kw):
    return list(itertools.islice(pipeline.train_batches(source, None, {}, **kw), count))

  whole = take(4, seed=5)
  for a, b in zip(whole[2:], take(2, seed=5, start_step=2), strict=True):
    np.testing.assert_array_equal(a['y'], b['y'])
  halves = [take(4, seed=5, host=h, hosts=2) for h in range(2)]
  for k, batch in enumerate(whole):
    both = np.concatenate([half[k]['x'] for half in halves])
    np.testing.assert_array_equal(batch['x'], both)
    assert batch['pi'].shape == batch['sigma'].shape == (12,)
  assert not np.array_equal(whole[0]['x'], whole[1]['x'])
  assert not np.array_equal(whole[0]['x'], take(1, seed=6)[0]['x'])


def test_the_first_rows_of_a_batch_are_a_fair_draw():
  source = toy.Fresh(1000, PI, SIGMA)
  rows = [b['x'][:100] for b in itertools.islice(source.train_batches(seed=0), 40)]
  assert stats.kstest(np.concatenate(rows), 'uniform').pvalue > 0.01


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (dict(pie=0.5), r"unknown config key 'data\.pie'.*\n  did you mean: pi"),
    (dict(pi=1.5), 'data.pi is 1.5'),
    (dict(sigma=0.0), 'data.sigma is 0.0'),
    (dict(size=8), r"unknown config key 'data\.size'"),
    (dict(batch=0), 'data.batch is 0'),
  ],
)
def test_impossible_data_are_refused(change, message):
  with pytest.raises(UserError, match=message):
    opening.open_dataset(dict(name='toy_regression', batch=10) | change)


def test_there_is_one_split_and_a_batch_must_divide_over_the_processes():
  dataset = opening.open_dataset(dict(name='toy_regression', batch=10))
  with pytest.raises(UserError, match=r"no split 'test'\n  known: train"):
    dataset.split('test')
  with pytest.raises(UserError, match='a batch of 10 cannot be shared by 3'):
    next(dataset.split('train').train_batches(seed=0, hosts=3))
