"""The diffusion of labels against brute-force sums over all classes and paths, in numpy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax import categorical
from tests.whole import whole

RNG = np.random.default_rng(0)
C = 3


def transition(chance, classes=C):
  """[from, to]: what a step that draws a label anew by a chance does to it."""
  return (1 - chance) * np.eye(classes) + chance / classes


def distribution(*shape):
  return RNG.dirichlet(np.ones(C), shape)


def test_schedules():
  f = lambda u: np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2
  cosine = categorical.Schedule.of('cosine', 40)
  for t in range(1, 41):
    want = min(1 - f(t / 40) / f((t - 1) / 40), 0.999)
    assert cosine.betas[t - 1] == pytest.approx(want, rel=1e-12)
    assert cosine.kept[t - 1] == pytest.approx(f((t - 1) / 40), rel=1e-12)  # one step late
  linear = categorical.Schedule.of('linear', 5)
  np.testing.assert_allclose(linear.betas, [0.01, 0.0575, 0.105, 0.1525, 0.2])
  kept = [1 - categorical.Schedule.of('linear', 5).betas[: k + 1] for k in range(5)]
  np.testing.assert_allclose(linear.kept, [np.prod(k) for k in kept])


def test_the_posterior_is_that_of_bayes():
  """Of every pair of a label and an earlier one, over all that x_0 may have been."""
  chances, before, start = RNG.uniform(0.05, 0.9, 4), RNG.uniform(0.05, 0.9, 4), distribution(4)
  for chance, ago, p in zip(chances, before, start, strict=True):
    for x in range(C):
      want = np.zeros(C)
      for k in range(C):
        joint = transition(ago)[k] * transition(chance)[:, x]
        want += p[k] * joint / joint.sum()
      got = whole(categorical.posterior)(np.eye(C)[x], p, chance, ago)
      np.testing.assert_allclose(got, want, atol=1e-6)


def test_the_first_step_gives_what_is_predicted():
  steps = categorical.Schedule.of('cosine', 10).steps
  p = distribution(2, 4, 4)
  x = np.eye(C)[RNG.integers(0, C, (2, 4, 4))]
  got = whole(lambda x, p: categorical.posterior(x, p, *steps.at(np.zeros(2, int), p)))(x, p)
  np.testing.assert_allclose(got, p, atol=1e-6)


def test_the_divergence_counts_no_term_of_a_class_that_cannot_be():
  true, predicted = np.array([[0.0, 0.25, 0.75], [1, 0, 0]]), np.array([[0.5, 0.5, 0], [0, 1, 0]])
  least = np.log(1e-12)
  want = [0.25 * np.log(0.25 / 0.5) + 0.75 * (np.log(0.75) - least), -least]
  np.testing.assert_allclose(whole(categorical.divergence)(true, predicted), want, rtol=1e-5)


@pytest.mark.parametrize('count', [0, 1, 2, 4])
def test_a_chain_back_ends_as_a_sum_over_all_paths_says(count):
  """One pixel whose x_0 has a known distribution that depends on x_t: frequencies of the draws
  against the sum over every path of labels."""
  schedule = categorical.Schedule.of('linear', 4)
  steps = schedule.respaced(count) if count else schedule.steps
  table = jnp.asarray(distribution(C))  # of x_0, for each label that the net may see
  n, size = 4_000, len(steps.time)
  key = jax.random.key(1)
  last = jax.random.randint(key, (1, n, 1, 1), 0, C)
  gumbel = lambda k: jax.random.gumbel(jax.random.fold_in(key, k), (1, n, 1, 1, C))
  predict = lambda x, time: x @ table
  run = jax.jit(lambda last: categorical.reversed_chain(steps, predict, gumbel, last))
  got = np.asarray(run(last))[0, :, 0, 0].mean(0)
  want = np.zeros(C)
  for path in itertools.product(range(C), repeat=size):
    chance = 1 / C
    for k, x in zip(range(size - 1, -1, -1), path, strict=True):
      bayes = np.zeros(C)
      for start in range(C):
        joint = transition(steps.before[k])[start] * transition(steps.redrawn[k])[:, x]
        bayes += float(table[x, start]) * joint / joint.sum()
      if k:
        chance *= bayes[path[size - k]]
      else:
        want += chance * bayes
  np.testing.assert_allclose(got, want, atol=4 * 0.5 / np.sqrt(n))


def test_labels_are_drawn_by_their_probabilities():
  p = distribution()
  gumbel = jax.random.gumbel(jax.random.key(2), (20_000, C))
  got = np.bincount(np.asarray(whole(categorical.drawn)(np.tile(p, (20_000, 1)), gumbel)))
  np.testing.assert_allclose(got / 20_000, p, atol=0.015)


def test_respaced_steps_lead_as_far_as_those_between_them():
  """Of the linear schedule, whose shares are products: all of them are its own."""
  schedule = categorical.Schedule.of('linear', 7)
  for own, again in zip(schedule.steps, schedule.respaced(7), strict=True):
    np.testing.assert_allclose(own, again, atol=1e-12)
  few = schedule.respaced(3)
  assert list(few.time) == [1, 4, 7]
  between = np.prod(1 - schedule.betas[4:7])
  assert few.redrawn[2] == pytest.approx(1 - between)
  assert few.before[2] == pytest.approx(1 - np.prod(1 - schedule.betas[:4]))
