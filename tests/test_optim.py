"""Adam and SGD as torch has them, in numpy, and rates that follow the run's step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from car_jax import config as configs
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


def test_milestones_may_have_factors_of_their_own():
  given = dict(lr=1e-4, milestones=(1, 3, 4), factors=(0.5, 0.2, 0.0))
  adam = optim.optimizer(given, 5)
  rates = [float(adam.rate(s)) for s in (4, 5, 14, 15, 19, 20)]
  np.testing.assert_allclose(rates, [1e-4, 5e-5, 5e-5, 1e-5, 1e-5, 0], rtol=1e-6)


@pytest.mark.parametrize('warmup', [True, False])
def test_an_average_follows_the_parameters_and_changes_nothing_else(warmup):
  p, grads = rng.normal(size=4).astype(np.float32), rng.normal(size=(12, 4)).astype(np.float32)
  plain = optim.optimizer(SPEC, 2)
  averaged = optim.optimizer(SPEC | dict(ema=0.5, ema_warmup=warmup), 2)
  params, state, average = {'w': p}, averaged.init({'w': p}), p.astype(np.float64)
  for step, g in enumerate(grads):
    params, state = averaged.update(jnp.int32(step), {'w': g}, state, params)
    decay = min(0.5, (2 + step) / (11 + step)) if warmup else 0.5
    average = decay * average + (1 - decay) * np.asarray(params['w'])
  np.testing.assert_allclose(state.params['w'], average, atol=1e-6)
  np.testing.assert_array_equal(params['w'], follow(plain, p, grads, range(12)))


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


def run_steps(spec, p, grads):
  """Parameters {'body': {'kernel'}, 'head': {'norm'}} after the gradients in turn."""
  opt = optim.optimizer(spec, 1)
  nest = lambda x: {'body': {'kernel': x}, 'head': {'norm': x}}
  params, update = nest(p), jax.jit(opt.update)
  state = opt.init(params)
  for i, g in enumerate(grads):
    params, state = update(jnp.int32(i), nest(g), state, params)
  return np.asarray(params['body']['kernel']), np.asarray(params['head']['norm'])


P, GRADS = rng.normal(size=6).astype(np.float32), rng.normal(size=(6, 6)).astype(np.float32)


def test_adamw_is_its_paper_and_patterns_tell_parameters_apart():
  """Algorithm 2 of arXiv 1711.05101 in float64, decay times the rate."""
  spec = dict(name='adamw', lr=0.1, b1=0.8, b2=0.9, weight_decay=0.3)
  spec |= dict(rates=(('^head/', 10.0),), decays=(('norm', 0.0),))
  body, norm = run_steps(spec, P, GRADS)
  for found, faster, decay in ((body, 1, 0.3), (norm, 10, 0.0)):
    p, m, v = P.astype(np.float64), 0.0, 0.0
    for t, g in enumerate(GRADS.astype(np.float64), 1):
      m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g**2
      step = m / (1 - 0.8**t) / (np.sqrt(v / (1 - 0.9**t)) + 1e-8)
      p = p - 0.1 * faster * (step + decay * p)
    np.testing.assert_allclose(found, p, rtol=1e-4, atol=1e-5)
  body, norm = run_steps(spec | dict(rates=(('body', 0.0),)), P, GRADS)
  np.testing.assert_array_equal(body, P)  # frozen
  assert (norm != P).all()


def test_poly_and_cosine_and_warm_up():
  of = lambda **kw: optim.optimizer(dict(lr=2.0, **kw), 1).rate
  poly = of(schedule='poly', power=0.9, decay_steps=100, end=0.5)
  for step in (0, 30, 99, 100, 500):
    want = 0.5 + 1.5 * max(0.0, 1 - step / 100) ** 0.9
    assert float(poly(step)) == pytest.approx(want, rel=1e-5)
  cosine = of(schedule='cosine', decay_steps=10, end=0.2)
  assert [float(cosine(s)) for s in (0, 5, 10, 99)] == pytest.approx([2.0, 1.1, 0.2, 0.2], rel=1e-5)
  warm = of(schedule='poly', decay_steps=100, warmup_steps=10, warmup_start=0.1)
  for step in (0, 5, 9, 10, 50):
    share = min(1.0, 0.1 + 0.9 * step / 10)
    assert float(warm(step)) == pytest.approx(share * 2 * (1 - step / 100), rel=1e-5)


def test_long_gradients_are_clipped_and_steps_accumulated():
  plain = dict(name='sgd', lr=1.0, momentum=0.0)
  body, norm = run_steps(plain | dict(clip=0.5), P, GRADS[:1])
  moved = np.concatenate([P - body, P - norm])
  assert np.linalg.norm(moved) == pytest.approx(0.5, rel=1e-4)
  unit = lambda x: x / np.linalg.norm(x)
  np.testing.assert_allclose(unit(moved[:6]), unit(GRADS[0]), rtol=1e-4)
  body, _ = run_steps(plain | dict(accumulate=3), P, GRADS[:5])
  np.testing.assert_allclose(body, P - GRADS[:3].mean(0), rtol=1e-5, atol=1e-6)
  body, _ = run_steps(plain | dict(accumulate=3), P, GRADS)
  np.testing.assert_allclose(body, P - GRADS[:3].mean(0) - GRADS[3:].mean(0), rtol=1e-5, atol=1e-6)


def test_any_optimizer_of_optax():
  spec = dict(name='optax', function='lion', lr=0.1, arguments=dict(b1=0.5))
  body, _ = run_steps(spec, P, GRADS[:2])
  p, state = P, optax.lion(0.1, b1=0.5).init(P)
  for g in GRADS[:2]:
    u, state = optax.lion(0.1, b1=0.5).update(g, state, p)
    p = optax.apply_updates(p, u)
  np.testing.assert_allclose(body, p, rtol=1e-5)
  for change, message in (
    (dict(function='lyon'), 'mean: lion'),
    (dict(function='__name__'), 'no optimizer'),
    (dict(arguments=dict(x=1)), 'lion'),
    (dict(arguments=dict(b1='x')), 'optax.lion makes no step'),
    (dict(function='lbfgs', arguments={}), 'optax.lbfgs makes no step of gradients'),
    (dict(function='noisy_sgd', arguments=dict(key=3)), 'keeps a random key'),
    (dict(decays=(('.', 0.0),)), 'knows no decays'),
  ):
    with pytest.raises(UserError, match=message):
      run_steps(spec | change, P, GRADS)


@pytest.mark.parametrize(
  ('spec', 'message'),
  [
    (dict(schedule='poly'), 'needs decay_steps'),
    (dict(milestones=(1, 2), factors=(0.1,)), r'1 number\(s\) for 2 milestone'),
    (dict(schedule='polly'), 'did you mean: poly'),
    (dict(rates=(('(', 1.0),)), 'no pattern of parameter paths'),
    (dict(accumulate=0), 'at least 1'),
    (dict(b1=1.0), 'b1'),
  ],
)
def test_optimizers_that_cannot_be(spec, message):
  with pytest.raises(UserError, match=message):
    optim.optimizer(spec, 1)


def test_the_published_recipes_tell_heads_and_norms():
  config = configs.load('configs/segformer_cityscapes.py')
  opt = optim.optimizer(config.method.optim.to_dict(), 185)
  wanted = {'backbone/stage1_norm/bias': (1, 0), 'normed1/conv/kernel': (10, 1)}
  wanted |= {'fuse/norm/scale': (10, 0), 'head/kernel': (10, 1)}
  wanted |= {'backbone/stage1_block0/attention/reduce_norm/scale': (1, 0)}
  assert {n: (opt.rate_factor(n), opt.decay_factor(n)) for n in wanted} == wanted
  rates = [float(opt.rate(s)) for s in (0, 750, 1500, 80_000, 160_000)]
  want = [6e-11, 6e-5 / 2 * (1 - 750 / 160_000), 6e-5 * (1 - 1500 / 160_000), 3e-5, 0]
  assert rates == pytest.approx(want, rel=1e-3, abs=1e-12)
