"""CAR on the 1-D regression: it learns, its losses are the written ones, its phases keep apart."""

import dataclasses
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax import config as configs
from car_jax import loop, registry
from car_jax.data import toy_regression as toy
from car_jax.errors import UserError
from car_jax.methods.car_toy import CARToy

SMALL = CARToy(
  hidden=(16, 16),
  calibration_steps=60,
  refine_batch=50,
  samples=4,
  optim=dict(lr=3e-3),
  ll_points=50,
)


def batches(count: int, batch: int = 200, pi: float = 0.9, sigma: float = 0.05) -> list:
  return list(itertools.islice(toy.Fresh(batch, pi, sigma).train_batches(seed=0), count))


@pytest.fixture(scope='module')
def trained():
  """SMALL after 60 steps of F and 360 of G and D, with the state between, and all logs."""
  step = jax.jit(SMALL.step)
  state, logs, between = SMALL.init(0, batches(1)[0]), [], None
  for k, batch in enumerate(batches(420)):
    if k == SMALL.calibration_steps:
      between = state
    state, log = step(state, batch, jax.random.fold_in(jax.random.key(1), k))
    logs.append(log)
  return between, state, {k: np.array([log[k] for log in logs]) for k in logs[0]}


def same(a, b) -> bool:
  return all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


def test_the_losses_and_the_likelihood_improve(trained):
  _, _, logs = trained
  f = logs['loss/calnet'][:60]
  assert f[-10:].mean() < f[:10].mean() - 0.01
  assert logs['log_likelihood'][-50:].mean() > logs['log_likelihood'][60:70].mean() + 3


def test_each_net_learns_from_its_loss_on_one_batch():
  state, batch = SMALL.init(0, batches(1)[0]), batches(1)[0]
  x, y = batch['x'][:50], batch['y'][:50]
  f, g, d = (p.params for p in (state.calnet, state.generator, state.discriminator))
  noise = jax.random.normal(jax.random.key(0), (50, 4))
  losses = (
    (f, lambda p: SMALL.calnet_loss(p, x, y)),
    (d, lambda p: SMALL.discriminator_loss(p, x, y, noise[:, 0])),
    (g, lambda p: SMALL.generator_loss(p, d, x, y, noise)[0]),  # y stands for F
  )
  for params, loss in losses:
    before, gradient = loss(params), jax.jit(jax.grad(loss))
    for _ in range(200):
      params = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient(params))
    assert loss(params) < before - 0.02


def test_the_phases_touch_only_their_nets(trained):
  between, end, logs = trained
  start = SMALL.init(0, batches(1)[0])
  assert same((start.generator, start.discriminator), (between.generator, between.discriminator))
  assert not same(start.calnet.params, between.calnet.params)
  assert same(between.calnet, end.calnet)
  assert not same(between.generator.params, end.generator.params)
  assert not same(between.discriminator.params, end.discriminator.params)
  assert int(between.step) == 60
  assert int(end.step) == 420
  assert (logs['loss/calnet'][60:] == 0).all()
  assert (logs['loss/adversarial'][:60] == 0).all()


def test_g_is_looked_at_every_tenth_step_before_its_update(trained):
  between, _, logs = trained
  looks = logs['log_likelihood']
  np.testing.assert_allclose(looks[:60], np.log(1e-11), rtol=1e-6)
  assert all(np.ptp(looks[k : k + 10]) == 0 for k in range(60, 420, 10))
  assert len(set(looks[60::10].tolist())) == 36
  key = jax.random.split(jax.random.fold_in(jax.random.key(1), 60), 3)[2]
  first = SMALL.look(between, key, jnp.float32(0.9), jnp.float32(0.05))
  assert looks[60] == pytest.approx(float(first), rel=1e-5)


def test_the_losses_are_the_written_ones():
  state = SMALL.init(3, batches(1)[0])
  rng = np.random.default_rng(0)
  x, y, noise = rng.uniform(size=6), rng.standard_normal(6), rng.standard_normal((6, 4))
  x, y, noise = (a.astype(np.float32) for a in (x, y, noise))

  def net(which, *inputs):
    slope = 0.0 if which == 'calnet' else 0.01
    h = np.array(inputs, np.float64)
    for k in range(3):
      layer = getattr(state, which).params[f'layer{k}']
      h = h if k == 0 else np.where(h > 0, h, slope * h)
      h = h @ layer['kernel'] + layer['bias']
    return h[0]

  sigmoid = lambda v: 1 / (1 + np.exp(-v))
  f = [net('calnet', x[b]) for b in range(6)]
  nll = np.mean([0.5 * (y[b] - f[b]) ** 2 + 0.5 * np.log(2 * np.pi) for b in range(6)])
  assert float(SMALL.calnet_loss(state.calnet.params, x, y)) == pytest.approx(nll, abs=1e-6)

  g = np.array([[net('generator', x[b], f[b], noise[b, n]) for n in range(4)] for b in range(6)])
  mean = SMALL.predict_mean(state.calnet.params, x)
  found = SMALL.generate(state.generator.params, x, mean, noise)
  np.testing.assert_allclose(found, g, atol=1e-6)
  d = np.array([[sigmoid(net('discriminator', x[b], g[b, n])) for n in range(4)] for b in range(6)])
  real = np.array([sigmoid(net('discriminator', x[b], y[b])) for b in range(6)])
  critic = -np.mean(np.log(real)) - np.mean(np.log(1 - d[:, 0]))
  loss = SMALL.discriminator_loss(state.discriminator.params, x, y, found[:, 0])
  assert float(loss) == pytest.approx(critic, abs=1e-5)
  method = dataclasses.replace(SMALL, calibration_weight=3.0)
  total, terms = method.generator_loss(
    state.generator.params, state.discriminator.params, x, mean, noise
  )
  adversarial = -np.mean(np.log(d))
  calibration = 3 * 0.5 * np.mean((g.mean(1) - np.array(f)) ** 2)
  assert float(terms['loss/adversarial']) == pytest.approx(adversarial, abs=1e-5)
  assert float(terms['loss/calibration']) == pytest.approx(calibration, abs=1e-5)
  assert float(total) == pytest.approx(adversarial + calibration, abs=1e-5)


def test_without_a_calibration_loss_one_draw_is_enough():
  assert SMALL.draws == 4
  assert dataclasses.replace(SMALL, calibration_weight=0.0).draws == 1


def test_no_two_nets_start_alike():
  state = CARToy().init(0, batches(1)[0])
  kernels = [
    getattr(state, which).params['layer1']['kernel']
    for which in ('calnet', 'generator', 'discriminator')
  ]
  for a, b in itertools.combinations(kernels, 2):
    assert np.abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.1


def test_a_batch_too_small_for_the_second_phase_is_refused():
  with pytest.raises(UserError, match=r'a batch has 20 points\n  use --config.data.batch=50'):
    SMALL.init(0, batches(1, batch=20)[0])


def test_the_training_loop_needs_nothing_special(tmp_path):
  config = configs.load('configs/car_toy.py')
  overrides = dict(
    steps=6, log_every=2, save_every=4, method=dict(calibration_steps=2, ll_every=2, hidden=(8,))
  )
  config.unlock()
  config.update(overrides)
  config.data.batch = 104
  state = loop.train(config, tmp_path / 'run')
  assert int(state.step) == 6
  lines = (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  assert [row['step'] for row in rows] == [2, 4, 6]
  assert rows[0]['loss/calnet'] > 0 == rows[0]['loss/discriminator']
  assert rows[2]['loss/discriminator'] > 0 == rows[2]['loss/calnet']
  assert registry.method(config.method.to_dict()).predictors() == {}
