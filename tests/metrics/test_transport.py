import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from car_jax.metrics import transport

plan = jax.jit(jax.vmap(transport.plan))


def costs(seed, images, readers, samples):
  """Random costs, some of them on a coarse grid so that many assignments tie."""
  cost = np.random.default_rng(seed).random((images, readers, samples)).astype(np.float32)
  cost[::2] = np.round(cost[::2] * 3) / 3
  return cost


@pytest.mark.parametrize(
  ('readers', 'samples'), [(4, 16), (3, 16), (6, 4), (1, 5), (5, 1), (9, 30), (4, 100)]
)
def test_equal_weights_give_the_assignment_of_repeated_copies(readers, samples):
  from scipy.optimize import linear_sum_assignment

  cost = costs(0, 6, readers, samples)
  share = samples / readers
  flow = np.asarray(plan(cost, jnp.ones((6, samples)), jnp.full((6, readers), share)))
  np.testing.assert_allclose(flow.sum(1), 1, atol=1e-5)
  np.testing.assert_allclose(flow.sum(2), share, atol=1e-4)
  assert flow.min() >= 0
  total = np.lcm(readers, samples)
  for image in range(6):
    copies = np.repeat(np.repeat(cost[image], total // readers, 0), total // samples, 1)
    want = copies[linear_sum_assignment(copies)].mean()
    assert np.sum(flow[image] * cost[image]) / samples == pytest.approx(want, abs=2e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_unequal_weights_give_the_linear_programme(seed):
  from scipy.optimize import linprog

  rng, (M, N) = np.random.default_rng(seed), (3, 5)
  cost = costs(seed, 1, M, N)
  supply, capacity = rng.random(N) * (rng.random(N) < 0.8), rng.random(M) * (rng.random(M) < 0.8)
  supply[0], capacity[0] = max(supply[0], 0.1), max(capacity[0], 0.1)
  supply, capacity = (w * N / w.sum() for w in (supply, capacity))
  flow = np.asarray(plan(cost, jnp.asarray(supply[None]), jnp.asarray(capacity[None])))[0]
  rows, columns = np.kron(np.eye(M), np.ones(N)), np.kron(np.ones(M), np.eye(N))
  best = linprog(
    cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.concatenate([capacity, supply])
  )
  assert np.sum(flow * cost) == pytest.approx(best.fun, abs=1e-5)
  np.testing.assert_allclose(flow.sum(1), capacity, atol=1e-5)
  assert np.all(flow[capacity == 0] == 0)


def test_an_image_gives_the_same_plan_alone_and_in_a_batch():
  cost, supply, capacity = costs(1, 6, 4, 16), jnp.ones((6, 16)), jnp.full((6, 4), 4.0)
  together = plan(cost, supply, capacity)
  for image in range(6):
    alone = transport.plan(cost[image], supply[image], capacity[image])
    np.testing.assert_array_equal(alone, together[image])
