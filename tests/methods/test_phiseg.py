"""PHiSeg's bound against plain numpy on what its nets say; its samples are ancestral."""

import jax
import numpy as np
import pytest

from car_jax.errors import UserError
from car_jax.methods.phiseg import PHiSeg
from tests.methods.test_ssn import batch

KEY = jax.random.key(0)
NET = dict(name='phiseg', widths=(4, 4, 6), levels=2, latent=1)
METHOD = PHiSeg(2, 4, NET, optim=dict(lr=1e-2))
SHAPES = METHOD.net.latent_shapes(16, 16)
RNG = np.random.default_rng(0)
NOISE = [RNG.normal(size=(2, *shape)).astype(np.float32) for shape in SHAPES]


@pytest.fixture(scope='module')
def state():
  """With latents as random as other layers: they begin alike otherwise."""
  return PHiSeg(**vars(METHOD) | dict(model=NET | dict(wide_latents=True))).init(0, batch(16))


@pytest.mark.parametrize('wide', [False, True])
def test_posterior_and_prior_begin_alike_unless_asked(wide):
  method = PHiSeg(**vars(METHOD) | dict(model=NET | dict(wide_latents=wide)))
  variables = method.init(0, batch(16)).net.variables
  parts, _, _ = jax.jit(method.loss)(variables, batch(16), NOISE)
  nats = float(parts['loss/divergence'])
  assert nats > 100 if wide else abs(nats) < 0.1


def test_latents_lie_on_the_coarsest_levels():
  assert SHAPES == [(8, 8, 1), (4, 4, 1)]


def test_the_loss_is_the_bound_of_every_level(state):
  b = batch(16)
  _, logs = jax.jit(METHOD.update)(state, b, NOISE)
  call = jax.jit(lambda v, *x: METHOD.net.apply(v, *x, train=True, mutable=['batch_stats'])[0])
  logits, priors, posteriors = jax.device_get(
    call(state.net.variables, METHOD.observed(b), b['label'], NOISE)
  )
  for port in (False, True):
    total = 0.0
    for i, (p, q) in enumerate(zip(priors, posteriors, strict=True)):
      variance = p.deviation * q.deviation if port else p.deviation**2
      far = (q.deviation**2 + (q.mean - p.mean) ** 2) / variance
      each = 0.5 * (far - 1 + np.log(variance) - 2 * np.log(q.deviation))
      total += 4**i * each.sum((1, 2, 3)).mean()
    got = logs
    if port:
      method = PHiSeg(**vars(METHOD) | dict(port_kl=True))
      got = jax.jit(lambda *x, of=method: of.loss(*x)[0])(state.net.variables, b, NOISE)
    assert float(got['loss/divergence']) == pytest.approx(total, rel=1e-4)
  cross_entropy, above = 0.0, 0.0
  for part in logits[::-1]:
    above = above + np.float64(part)
    logp = above - np.log(np.exp(above).sum(-1, keepdims=True))
    cross_entropy -= np.take_along_axis(logp, b['label'][..., None], -1).sum() / 2
  assert float(logs['loss/cross_entropy']) == pytest.approx(cross_entropy, rel=1e-5)


def test_each_level_is_drawn_given_the_draws_above_it(state):
  b = batch(16)
  maps = METHOD.net.apply(state.net.variables, METHOD.observed(b), method='encoded')
  call = jax.jit(lambda maps, n: METHOD.net.apply(state.net.variables, maps, n, method='generated'))
  noise = [RNG.normal(size=(2, 3, *shape)).astype(np.float32) for shape in SHAPES]
  logits, priors, draws = jax.device_get(call(maps, noise))
  fine, coarse = ([n.copy() for n in noise] for _ in range(2))
  fine[0][:, 1] += 1
  coarse[1][:, 1] += 1
  rows = np.array([1, 4])  # the second sample of each image
  others = np.delete(np.arange(6), rows)
  for changed, moves in ((fine, (False, False)), (coarse, (True, False))):
    got, other, z = jax.device_get(call(maps, changed))
    for i, does in enumerate(moves):
      same = np.isclose(other[i].mean, priors[i].mean, atol=1e-6).all((1, 2, 3))
      assert same[others].all()
      assert same[rows].all() != does
    np.testing.assert_allclose(z[0][others], draws[0][others], atol=1e-5)
    assert np.abs(got - logits)[:, 1].max() > 1e-4
    np.testing.assert_allclose(got[:, ::2], logits[:, ::2], atol=1e-4)


def test_one_annotator_and_samples_that_do_not_depend_on_the_batch(state):
  moved, logs = jax.jit(METHOD.update)(state, batch(16), NOISE)
  assert all(np.isfinite(float(v)) for v in logs.values())
  predict = jax.jit(METHOD.predictors()['samples'], static_argnums=3)
  both = predict(moved, batch(16), KEY, 3)
  second = predict(moved, {k: v[1:] for k, v in batch(16).items()}, KEY, 3)
  assert np.isfinite(both.probs).all()
  np.testing.assert_allclose(both.probs[1:], second.probs, atol=1e-4)


def test_more_levels_than_widths():
  with pytest.raises(UserError, match='levels is 4, with 3 widths\n  give 3'):
    PHiSeg(2, 4, NET | dict(levels=4)).init(0, batch(16))
