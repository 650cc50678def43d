"""Adam and SGD as torch has them, in numpy, and rates that follow the run's step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax import optim
from car_jax.errors import UserError

rng = np.random.default_rng(0)
SPEC = dict(lr=3e-2, b1=0.5, b2=0.99, weight_decay=0.1, milestones=(2, 3))


def torch_adam(p, grads, *, rates, b1, b2, decay, eps=1e-8):
  """torch.optim.Adam with L2 decay, as its documentation states it, in float64."""
  p, m, v = p.astype(np.float64), 0.0, 0.0
  for t, (g, rate) in enumerate(zip(grads, rates, strict=True), 1):
    g = g + decay * p
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
    p = p - rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
  return p


def follow(adam, p, grads, steps):
  update = jax.jit(adam.update)
  params, state = {'w': p}, adam.init({'w': p})
  for step, g in zip(steps, grads, strict=True):
    params, state = update(jnp.int32(step), {'w': g}, state, params)
  return params['w']


def test_updates_are_torchs():
  p, grads = rng.normal(size=8).astype(np.float32), rng.normal(size=(6, 8)).astype(np.float32)
  adam = optim.optimizer(SPEC, 2)
  rates = [3e-2 * f for f in (1, 1, 1, 1, 0.5, 0.5)]
  want = torch_adam(p, grads, rates=rates, b1=0.5, b2=0.99, decay=0.1)
  np.testing.assert_allclose(follow(adam, p, grads, range(6)), want, atol=1e-6)


def test_skipped_steps_keep_the_schedule_but_not_the_bias_correction():
  p, grads = rng.normal(size=8).astype(np.float32), rng.normal(size=(3, 8)).astype(np.float32)
  adam = optim.optimizer(SPEC, 2)
  rates = [3e-2, 3e-2 / 2, 3e-2 / 4]  # of steps 0, 5 and 9: epochs 0, 2 and 4
  want = torch_adam(p, grads, rates=rates, b1=0.5, b2=0.99, decay=0.1)
  np.testing.assert_allclose(follow(adam, p, grads, (0, 5, 9)), want, atol=1e-6)


def test_the_rate_changes_at_the_first_step_of_a_milestones_epoch():
  adam = optim.optimizer(dict(lr=1.0, milestones=[1, 3], factor=0.1), 5)
  rates = [float(adam.rate(s)) for s in (0, 4, 5, 14, 15, 1000)]
  np.testing.assert_allclose(rates, [1, 1, 0.1, 0.1, 0.01, 0.01], rtol=1e-6)


def test_without_milestones_the_rate_is_constant():
  assert optim.optimizer({'lr': 0.5}, 1).rate(10**6) == 0.5


def test_the_first_state_is_what_the_transformation_starts_with():
  adam, params = optim.optimizer(SPEC, 1), {'a': np.ones((2, 3), np.float32)}
  ours, optaxs = adam.init(params), adam.direction.init(params)
  assert jax.tree.structure(ours) == jax.tree.structure(optaxs)
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(optaxs), strict=True):
    np.testing.assert_array_equal(a, b)
    assert a.dtype == b.dtype


def test_an_unknown_option_names_the_nearest():
  with pytest.raises(UserError, match="no option 'weight_decy'\n  did you mean: weight_decay"):
    optim.optimizer({'weight_decy': 1}, 1)


def torch_sgd(p, grads, *, lr, momentum, decay):
  """torch.optim.SGD as its documentation states it, in float64."""
  p, m = p.astype(np.float64), None
  for g in grads:
    g = g + decay * p
    m = g if m is None else momentum * m + g
    p = p - lr * m
  return p


TABLE = (('head.*bias', 'new_biases'), ('head', 'new_weights'), ('bias$', 'old_biases'))


def test_every_group_of_sgd_has_its_rate_and_decay():
  names = {'body/scale': (1, 1), 'body/bias': (2, 0), 'head/kernel': (10, 1), 'head/bias': (20, 0)}
  first = {n: rng.normal(size=5).astype(np.float32) for n in names}
  grads = {n: rng.normal(size=(4, 5)).astype(np.float32) for n in names}
  nest = lambda flat: {
    part: {n.split('/')[1]: a for n, a in flat.items() if n.startswith(part)}
    for part in ('body', 'head')
  }
  sgd = optim.SGD(lr=1e-2, weight_decay=0.1, momentum=0.8, groups=TABLE)
  params, state = nest(first), sgd.init(nest(first))
  update = jax.jit(sgd.update)
  for step in range(4):
    now = nest({n: g[step] for n, g in grads.items()})
    params, state = update(jnp.int32(step), now, state, params)
  for name, (rate, decay) in names.items():
    want = torch_sgd(first[name], grads[name], lr=1e-2 * rate, momentum=0.8, decay=0.1 * decay)
    part, leaf = name.split('/')
    np.testing.assert_allclose(params[part][leaf], want, atol=1e-6)


def test_sgd_without_groups_takes_all_parameters_alike_and_follows_milestones():
  p, grads = rng.normal(size=8).astype(np.float32), np.zeros((1, 8), np.float32)
  sgd = optim.optimizer(dict(name='sgd', lr=0.5, weight_decay=0.1, milestones=[3], factor=0.1), 2)
  np.testing.assert_allclose(follow(sgd, p, grads, [5]), 0.95 * p, rtol=1e-6)
  np.testing.assert_allclose(follow(sgd, p, grads, [6]), 0.995 * p, rtol=1e-6)


def test_the_optimizer_is_chosen_by_name():
  net = type('Net', (), {'GROUPS': TABLE})()
  assert optim.optimizer(SPEC, 3) == optim.optimizer(SPEC | {'name': 'adam'}, 3, net)
  sgd = optim.optimizer({'name': 'sgd', 'lr': 0.1}, 3, net)
  assert (sgd.lr, sgd.momentum, sgd.groups, sgd.steps_per_epoch) == (0.1, 0.9, TABLE, 3)
  with pytest.raises(UserError, match="no optimizer 'sdg'\n  did you mean: sgd"):
    optim.optimizer({'name': 'sdg'}, 1)
  with pytest.raises(UserError, match="no option 'b1'"):
    optim.optimizer({'name': 'sgd', 'b1': 0.5}, 1)
