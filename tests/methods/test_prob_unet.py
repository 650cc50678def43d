"""The Probabilistic U-Net's bound and samples against plain numpy on what its net says."""

import jax
import numpy as np
import pytest

from car_jax.errors import UserError
from car_jax.methods.prob_unet import ProbabilisticUNet
from tests.methods.test_ssn import batch

KEY = jax.random.key(0)
NET = dict(name='prob_unet', widths=(4, 6), latent=2, combination=3)
METHOD = ProbabilisticUNet(3, 4, NET, optim=dict(lr=1e-2), ignore_label=2, beta=3.0)
NOISE = np.random.default_rng(1).normal(size=(2, 1, 2)).astype(np.float32)


def ignored():
  """A batch whose first image has four rows that nobody knows."""
  b = batch()
  b['label'][0, :4] = 2
  return b


def by_hand(method, state, b):
  """Cross entropy and divergence of each image [B]."""
  label = np.where(b['label'] == 2, -1, b['label'])
  call = jax.jit(lambda v, *x: method.net.apply(v, *x, train=True))
  logits, p, q = jax.device_get(call(state.net.variables, method.observed(b), label, NOISE))
  logits = np.float64(logits[:, 0])
  logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
  picked = np.take_along_axis(logits, np.maximum(label, 0)[..., None], -1)[..., 0]
  far = (q.deviation**2 + (q.mean - p.mean) ** 2) / (2 * p.deviation**2)
  divergence = (np.log(p.deviation / q.deviation) + far - 0.5).sum(1)
  return -np.where(label < 0, 0, picked).sum((1, 2)), divergence


@pytest.mark.parametrize('port', [False, True])
def test_the_loss_is_the_bound(port):
  options = dict(sum_over_batch=True, norm_weight=0.5) if port else {}
  method = ProbabilisticUNet(**vars(METHOD) | options)
  state = method.init(0, batch())
  _, logs = jax.jit(method.update)(state, ignored(), NOISE)
  cross_entropy, divergence = by_hand(method, state, ignored())
  want = cross_entropy.sum() if port else cross_entropy.mean()
  assert float(logs['loss/cross_entropy']) == pytest.approx(want, rel=1e-5)
  assert float(logs['loss/divergence']) == pytest.approx(3 * divergence.mean(), rel=1e-4)
  if port:
    params = state.net.params
    parts = [k for k in params if k.startswith(('prior', 'posterior'))] + ['combine0', 'combine1']
    norms = [np.linalg.norm(leaf) for k in parts for leaf in jax.tree.leaves(params[k])]
    assert float(logs['loss/norms']) == pytest.approx(0.5 * np.sum(norms), rel=1e-5)


def test_it_learns_and_its_samples_do_not_depend_on_the_batch():
  state = METHOD.init(0, batch())
  update, losses = jax.jit(METHOD.update), []
  for _ in range(30):
    state, logs = update(state, batch(), NOISE)
    losses.append(float(logs['loss/cross_entropy']))
  assert losses[-1] < 0.5 * losses[0]
  predict = jax.jit(METHOD.predictors()['samples'], static_argnums=3)
  both = predict(state, batch(), KEY, 4)
  second = predict(state, {k: v[1:] for k, v in batch().items()}, KEY, 4)
  np.testing.assert_allclose(both.probs[1:], second.probs, atol=1e-5)
  assert np.ptp(both.probs, axis=1).max() > 0  # samples differ


def test_features_are_computed_once_for_all_samples():
  """By the compiler's count of operations: 64 samples cost 64 combinations more, not 64 U-Nets."""
  method = ProbabilisticUNet(2, 4, NET | dict(widths=(16, 16, 16)))
  state, b = method.init(0, batch(16)), batch(16)
  predict = method.predictors()['samples']

  def operations(n):
    lowered = jax.jit(lambda s, b, k: predict(s, b, k, n)).lower(state, b, KEY)
    return lowered.compile().cost_analysis()['flops']

  pixels = 2 * 16 * 16
  combination = 2 * pixels * (16 * 16 + 16 * 2)  # a hidden layer and the last
  assert operations(65) - operations(1) < 1.5 * 64 * (combination + 60 * pixels)


def test_latents_of_the_port_start_wide():
  biases = lambda **more: (
    ProbabilisticUNet(2, 4, NET | dict(latent=50) | more)
    .init(0, batch())
    .net.params['prior']['bias']
  )
  assert np.abs(biases()).max() <= 0.002
  assert 0.7 < biases(wide_latent_bias=True).std() < 1.3


def test_one_logit_needs_two_classes():
  method = ProbabilisticUNet(3, 4, NET | dict(one_logit=True))
  with pytest.raises(UserError, match='one_logit is of two classes, the data have 3'):
    method.init(0, batch())
