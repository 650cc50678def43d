"""Layers against numpy written from torch's documentation."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax.errors import UserError
from car_jax.nn import layers, resize
from tests.whole import whole

rng = np.random.default_rng(0)
EPSILON = 1e-5


def norm_variables(c: int) -> dict:
  return {
    'params': {'scale': rng.uniform(0.5, 2, c), 'bias': rng.normal(size=c)},
    'batch_stats': {
      'mean': rng.normal(size=c),
      'var': rng.uniform(0.5, 2, c),
      'count': np.int32(3),
    },
  }


def numpy_norm(x, variables):
  """One training call on x [..., C]: the output and the running statistics after it."""
  params, stats = variables['params'], variables['batch_stats']
  flat = x.reshape(-1, x.shape[-1]).astype(np.float64)
  mean, biased, unbiased = flat.mean(0), flat.var(0), flat.var(0, ddof=1)
  y = (x - mean) / np.sqrt(biased + EPSILON) * params['scale'] + params['bias']
  new = {
    'mean': 0.9 * stats['mean'] + 0.1 * mean,
    'var': 0.9 * stats['var'] + 0.1 * unbiased,
    'count': stats['count'] + 1,
  }
  return y, {'params': params, 'batch_stats': new}


def run(variables, x, **kw):
  return layers.BatchNorm().apply(variables, x, train=True, mutable=['batch_stats'], **kw)


def assert_stats(ours, want):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ours, want['batch_stats']
  )


def test_batch_norm_in_training():
  x, variables = rng.normal(1, 3, (2, 3, 4, 5)).astype(np.float32), norm_variables(5)
  y, new = run(variables, x)
  want, after = numpy_norm(x, variables)
  np.testing.assert_allclose(y, want, atol=1e-5)
  assert_stats(new['batch_stats'], after)


def test_batch_norm_at_inference_uses_the_running_statistics_and_keeps_them():
  x, variables = rng.normal(size=(2, 3, 4, 5)).astype(np.float32), norm_variables(5)
  stats = variables['batch_stats']
  y, new = layers.BatchNorm().apply(variables, x, train=False, mutable=['batch_stats'])
  want = (x - stats['mean']) / np.sqrt(stats['var'] + EPSILON)
  want = want * variables['params']['scale'] + variables['params']['bias']
  np.testing.assert_allclose(y, want, atol=1e-5)
  assert_stats(new['batch_stats'], variables)


@pytest.mark.parametrize('groups', [1, 2, 6])
def test_group_norm_and_its_gradient_are_those_of_linen(groups):
  """linen derives the gradient, which is written out here."""
  x, g = rng.normal(1, 3, (2, 2, 3, 4, 6)).astype(np.float32)
  params = jax.tree.map(np.float32, norm_variables(6)['params'])
  theirs = nn.GroupNorm(groups, epsilon=EPSILON, use_fast_variance=False)

  def both(params, x):
    nets = layers.GroupNorm(groups), theirs
    total = lambda p, x, net: jnp.sum(g * nn.silu(net.apply({'params': p}, x)))
    each = lambda net: (net.apply({'params': params}, x), jax.grad(total, (0, 1))(params, x, net))
    return [each(net) for net in nets]

  ours, want = whole(both)(params, x)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours, want)


def test_batch_norm_with_a_sample_axis_is_one_call_after_another():
  x, variables = rng.normal(1, 3, (2, 3, 4, 2, 5)).astype(np.float32), norm_variables(5)
  y, new = run(variables, x)
  after = variables
  for n in range(3):
    want, after = numpy_norm(x[:, n], after)
    np.testing.assert_allclose(y[:, n], want, atol=1e-5)
  assert_stats(new['batch_stats'], after)


def test_shared_features_count_as_often_as_they_are_used():
  x, variables = rng.normal(1, 3, (2, 1, 4, 2, 5)).astype(np.float32), norm_variables(5)
  y, new = run(variables, x, updates=3)
  after = variables
  for _ in range(3):
    want, after = numpy_norm(x[:, 0], after)
  np.testing.assert_allclose(y[:, 0], want, atol=1e-5)
  assert_stats(new['batch_stats'], after)


@pytest.mark.parametrize('near', [0.0, 3.0])
def test_statistics_of_one_pass_are_those_of_two(near):
  x = (3 + 0.5 * np.random.default_rng(5).standard_normal((4, 2, 6, 5, 3))).astype(np.float32)
  axes = (0, 2, 3)
  guess = np.full(3, near, np.float32)
  mean, var = layers._one_pass(axes, x, guess)
  exact = x.astype(np.float64)
  np.testing.assert_allclose(mean, exact.mean(axes, keepdims=True), rtol=1e-6)
  np.testing.assert_allclose(var, exact.var(axes, keepdims=True), rtol=1e-6 if near else 3e-5)
  same = layers._one_pass(axes, np.ones_like(x), guess)[1]
  assert np.all(same >= 0)  # by rounding a sum of squares may be the smaller one
  for ours, usual in zip((mean, var), layers._two_passes(axes, 0, x), strict=True):
    np.testing.assert_allclose(ours, usual, rtol=3e-5)


def test_one_value_for_each_channel_does_not_divide_by_zero():
  _, new = run(norm_variables(2), np.ones((1, 1, 1, 2), np.float32))
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(new))


@pytest.mark.parametrize('lead', [(2,), (2, 3)])
def test_transposed_convolution_is_the_published_formula(lead):
  x = rng.normal(size=(*lead, 3, 4, 5)).astype(np.float32)
  kernel, bias = rng.normal(size=(2, 2, 5, 6)), rng.normal(size=6)
  params = {'transposed_kernel': kernel, 'bias': bias}
  y = layers.ConvTranspose2x2(6).apply({'params': params}, x)
  want = np.zeros((*lead, 6, 8, 6))
  for i in range(3):
    for j in range(4):
      for a in range(2):
        for b in range(2):
          want[..., 2 * i + a, 2 * j + b, :] = x[..., i, j, :] @ kernel[a, b] + bias
  np.testing.assert_allclose(y, want, atol=1e-4)


def test_inputs_of_a_transposed_convolution_count_as_concatenated():
  shared, own = (rng.normal(size=(2, n, 3, 4, 5)).astype(np.float32) for n in (1, 3))
  params = {'transposed_kernel': rng.normal(size=(2, 2, 10, 6)), 'bias': rng.normal(size=6)}
  layer = layers.ConvTranspose2x2(6)
  whole = np.concatenate([np.broadcast_to(shared, own.shape), own], -1)
  got, want = layer.apply({'params': params}, shared, own), layer.apply({'params': params}, whole)
  np.testing.assert_allclose(got, want, atol=1e-4)


def test_padding_and_pooling():
  x = rng.normal(size=(2, 4, 6, 3)).astype(np.float32)
  pads = ((0, 0), (1, 1), (1, 1), (0, 0))
  np.testing.assert_array_equal(layers.reflect_pad(x), np.pad(x, pads, mode='reflect'))
  pooled = layers.max_pool2(jnp.asarray(x))
  assert pooled.shape == (2, 2, 3, 3)
  assert pooled[1, 1, 2, 0] == x[1, 2:4, 4:6, 0].max()


@pytest.mark.parametrize('side', [1, 15, 24, 33, 47, 48, 100])
def test_a_wrong_size_names_the_nearest_valid_one(side):
  with pytest.raises(UserError) as e:
    layers.check_multiple((1, 32, side, 3), 16 if side % 16 else 32, 'net')
  of = 16 if side % 16 else 32
  near = int(str(e.value).rpartition('x')[2])
  assert near % of == 0
  assert abs(near - side) == min(abs(k * of - side) for k in range(1, 9))


def test_a_right_size_passes():
  layers.check_multiple((1, 32, 64, 3), 32, 'net')


def test_max_pooling_gives_the_gradient_to_the_first_of_equals():
  x = jnp.array([[[1.0, 3.0, 0.0, 0.0], [3.0, 2.0, 0.0, 0.0]]])[..., None]
  y, pull = jax.vjp(layers.max_pool2, x)
  slope = pull(jnp.ones_like(y))[0]
  np.testing.assert_array_equal(y[0, :, :, 0], [[3, 0]])
  np.testing.assert_array_equal(slope[0, :, :, 0], [[0, 1, 1, 0], [0, 0, 0, 0]])


def test_max_pooling_is_linens():
  x = jax.random.normal(jax.random.key(0), (2, 6, 4, 3))
  weight = jax.random.normal(jax.random.key(1), (2, 3, 2, 3))
  pools = (layers.max_pool2, lambda x: nn.max_pool(x, (2, 2), (2, 2)))
  np.testing.assert_array_equal(*(pool(x) for pool in pools))
  np.testing.assert_array_equal(*(jax.grad(lambda x, f=f: (f(x) * weight).sum())(x) for f in pools))


def test_bilinear_resizing_with_leading_axes_and_its_gradient():
  x = jax.random.normal(jax.random.key(0), (2, 3, 4, 5, 2))
  f = lambda x: resize.resize_bilinear(x, (7, 3), align_corners=False)
  want = jax.image.resize(x, (2, 3, 7, 3, 2), 'bilinear', antialias=False)
  np.testing.assert_allclose(f(x), want, atol=1e-6)
  slope = jax.grad(lambda x: f(x).sum())(x)
  want = jax.grad(lambda x: jax.image.resize(x, want.shape, 'bilinear', antialias=False).sum())(x)
  np.testing.assert_allclose(slope, want, atol=1e-5)
