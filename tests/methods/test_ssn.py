"""SSN's distribution, step and predictions; the loss is replayed in tests/replay."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax import registry
from car_jax.errors import UserError
from car_jax.methods.ssn import EPSILON, SSN, LowRank
from tests.whole import whole

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
UNET = dict(name='unet', widths=(4, 4))
METHOD = SSN(2, 4, UNET, optim=dict(lr=1e-2), rank=3, samples=4)
UPDATE = jax.jit(METHOD.update)


def batch(size=8, image=None):
  """Two images with one annotator: a square, in the second another."""
  label = np.zeros((2, size, size), np.int32)
  label[0, 2:6, 2:6] = label[1, 3:5, 1:7] = 1
  noisy = 2 * label[..., None] - 1 + np.random.default_rng(2).normal(0, 0.2, (2, size, size, 3))
  return {
    'image': np.float32(noisy if image is None else np.broadcast_to(image, noisy.shape)),
    'label': label,
    'labels': label[:, None],
    'label_weight': np.ones((2, 1), np.float32),
    'example': np.uint32([3, 4]),
  }


def noise(method=METHOD, size=8):
  return jax.random.normal(KEY, (2, method.samples // 2, method.rank)), jax.random.normal(
    jax.random.key(1), (2, method.samples // 2, method.logits_of_pixel, size, size)
  )


def test_draws_have_the_covariance_of_the_distribution():
  """Deviations are linear in the noise: unit vectors give the root of the covariance, exactly."""
  size, k, rank = (2, 3), 2, 4
  events = size[0] * size[1] * k
  factor = RNG.normal(size=(1, rank, k, *size))
  variance = RNG.uniform(0.1, 2, (1, k, *size))
  normal = LowRank(np.zeros_like(variance), variance, factor)
  unit = np.eye(rank + events)[None]
  got = whole(normal.drawn)(unit[..., :rank], unit[..., rank:].reshape(1, -1, k, *size))
  root = got.reshape(rank + events, events)
  p = factor[0].reshape(rank, events).T
  want = p @ p.T + np.diag(variance.ravel())
  np.testing.assert_allclose(root.T @ root, want, atol=1e-5)
  np.testing.assert_allclose(np.ravel(normal.whole_variance), np.diag(want), rtol=1e-5)


def test_many_samples_of_a_net_have_its_covariance():
  state = METHOD.init(0, batch(4))
  one = {k: v[:1] for k, v in batch(4).items()}
  normal = jax.device_get(jax.jit(METHOD.normal)(state, one))
  made = jax.vmap(lambda key: METHOD.noise(key, 20_000, 4, 4))(jax.random.split(KEY, 1))
  deviations = whole(normal.drawn)(*made)
  logits = np.float64(normal.mean[:, None] + deviations).reshape(20_000, -1)
  p = np.asarray(normal.factor[0]).reshape(-1, 32).T
  want = p @ p.T + np.diag(normal.variance.ravel())
  scale = np.sqrt(np.outer(np.diag(want), np.diag(want)))
  assert np.abs((np.cov(logits.T) - want) / scale).max() < 6 / np.sqrt(20_000)
  np.testing.assert_allclose(logits.mean(0), normal.mean.ravel(), atol=0.1)
  few = jax.tree.map(lambda a: a[:, :10], made)
  share = 1 / (1 + np.exp(-np.diff(logits[:10].reshape(10, 2, 4, 4), axis=1)))[:, 0]
  np.testing.assert_allclose(jax.jit(METHOD.drawn)(state, one, few)[0, ..., 1], share, atol=1e-5)


def test_the_loss_falls_and_the_largest_variance_is_logged():
  state, logs = METHOD.init(0, batch()), []
  for k in range(30):
    state, got = UPDATE(state, batch(), noise())
    logs.append({key: float(value) for key, value in got.items()})
    assert int(state.step) == k + 1
  assert logs[-1]['loss/likelihood'] < 0.6 * logs[0]['loss/likelihood']
  assert logs[0]['max_variance'] > 2 * EPSILON


def test_a_uniform_region_of_one_annotator_is_finite():
  """Every pixel with the same large factor and the smallest variance: the capacitance matrix that
  is not made here could not be factorised."""
  flat = batch(image=0.5)
  state = METHOD.init(0, flat)
  params = jax.tree.map(np.array, state.net.params)
  params['out']['kernel'][:] = 0
  params['out']['bias'][:] = [0, 0, -40, -40, *np.ones(6)]
  state = state.replace(net=state.net.replace(params=params))
  state, logs = UPDATE(state, flat, noise())
  assert all(np.isfinite(float(v)) for v in logs.values())
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.net.params))
  samples = jax.jit(METHOD.predictors()['samples'], static_argnums=3)(state, flat, KEY, 5)
  assert np.isfinite(samples.probs).all()


def test_the_mean_alone_learns_first():
  method = SSN(2, 4, UNET, rank=3, samples=4, mean_steps=5)
  assert [method.phase(k, None) for k in (0, 4, 5)] == ['mean', 'mean', None]
  state = method.init(0, batch())
  moved, logs = jax.jit(lambda s, b, n: method.update(s, b, n, phase='mean'))(
    state, batch(), noise()
  )
  before, after = (np.asarray(s.net.params['out']['bias']) for s in (state, moved))
  np.testing.assert_array_equal(after[2:], before[2:])
  assert (after[:2] != before[:2]).all()
  mean = jax.jit(lambda v, x: method.net.apply(v, x, train=True, mutable=['batch_stats'])[0])(
    state.net.variables, method.observed(batch())
  )[..., :2]
  picked = np.take_along_axis(np.asarray(jax.nn.log_softmax(mean)), batch()['label'][..., None], -1)
  assert float(logs['loss/likelihood']) == pytest.approx(-picked.sum() / 2, rel=1e-5)


def test_ignored_pixels_are_not_learnt_from():
  method = SSN(3, 4, UNET, ignore_label=2, rank=3, samples=4)
  state = method.init(0, batch())
  likelihood = jax.jit(lambda b, x: method.log_likelihood(x, b))
  logits = np.float32(RNG.normal(size=(2, 4, 3, 8, 8)))
  some, other = batch(), batch()
  some['label'][:, :4] = 2
  changed = logits.copy()
  changed[..., :4, :] += RNG.normal(size=(2, 4, 3, 4, 8))
  np.testing.assert_array_equal(likelihood(some, logits), likelihood(some, changed))
  assert (likelihood(other, logits) != likelihood(other, changed)).all()
  del state


def test_one_logit_is_two_classes():
  method = SSN(2, 4, UNET, rank=3, samples=4, one_logit=True)
  logit = RNG.normal(size=(2, 1, 3, 4))
  share = np.asarray(method.probabilities(jnp.asarray(logit)))[..., 1]
  np.testing.assert_allclose(share, 1 / (1 + np.exp(-logit[:, 0])), rtol=1e-5)
  assert method.net.num_classes == 5


def test_samples_do_not_depend_on_the_batch():
  state, predict = METHOD.init(0, batch()), METHOD.predictors()['samples']
  both = jax.jit(predict, static_argnums=3)(state, batch(), KEY, 3)
  second = jax.jit(predict, static_argnums=3)(state, {k: v[1:] for k, v in batch().items()}, KEY, 3)
  np.testing.assert_allclose(both.probs[1:], second.probs, atol=1e-5)


def test_limits_keep_variances():
  method = SSN(2, 4, UNET, rank=3, samples=4, log_variance_limit=2.0)
  numbers = np.zeros((1, 1, 1, 10), np.float32)
  numbers[..., 2:4] = [-30, 30]
  variance = method.distribution(jnp.asarray(numbers)).variance[0, :, 0, 0]
  np.testing.assert_allclose(variance, np.exp([-2, 2]) + 2 * EPSILON, rtol=1e-5)


def test_draws_may_begin_close_to_the_mean():
  numbers = jnp.asarray(RNG.normal(size=(2, 3, 3, 10)), jnp.float32)
  usual, close = (
    dataclasses.replace(METHOD, rank=3, factor_scale=scale).distribution(numbers)
    for scale in (1.0, 0.1)
  )
  np.testing.assert_array_equal(close.mean, usual.mean)
  np.testing.assert_array_equal(close.variance, usual.variance)
  shared, own = RNG.normal(size=(2, 5, 3)), np.zeros((2, 5, 2, 3, 3))
  np.testing.assert_allclose(close.drawn(shared, own), 0.1 * usual.drawn(shared, own), atol=1e-6)


def test_a_composed_segmenter_underneath():
  model = dict(
    name='composed',
    backbone=dict(name='resnet', depth=18, stem_channels=4, blocks=(1, 1, 1, 1)),
    head=dict(name='fcn', features=4),
    auxiliary=dict(early=dict(head=dict(name='fcn', index=2, features=4), weight=0.4)),
  )
  half = (0.5, 0.5, 0.5)
  method = SSN(3, 4, model, rank=2, samples=2, channels=3, pixel_mean=half, pixel_std=half)
  state = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, method.init(0, batch(32))))
  _, logs = jax.eval_shape(method.step, state, batch(32), KEY)
  assert {'loss/likelihood', 'loss/early', 'max_variance'} == {*logs}


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (dict(samples=5), 'samples is 5, and draws come in pairs\n  give 6'),
    (dict(num_classes=3, one_logit=True), 'one_logit is of two classes, the data have 3'),
    (
      dict(model=dict(name='composed', backbone=dict(name='resnet'), head=dict(name='maskformer'))),
      'MaskFormerHead gives logarithms of probabilities',
    ),
  ],
)
def test_wrong_options(options, message):
  spec = dict(name='ssn', num_classes=2, model=UNET) | options
  with pytest.raises(UserError, match=message):
    registry.method(spec, steps_per_epoch=1)
