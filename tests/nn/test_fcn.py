"""FCN-8s: which sizes it takes, what drops out and what learns. Values are replayed elsewhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax import registry
from car_jax.errors import UserError
from car_jax.nn import multiscale
from car_jax.nn.init import initialize
from tests.nn.test_nets import shapes

SPEC = dict(name='fcn8s_vgg', widths=(4, 4, 4, 8, 8), depths=(1, 1, 1, 1, 1), features=16)
rng = np.random.default_rng(0)


@pytest.fixture(scope='module')
def made():
  net = registry.net(SPEC, num_classes=3)
  x = np.float32(rng.uniform(-1, 1, (2, 32, 64, 3)))
  return net, initialize(net, 0, x, train=False), x


def test_sizes(made):
  (low, full), _ = shapes(made[0], (2, 64, 96, 3))
  assert (low.shape, full.shape) == ((2, 8, 12, 3), (2, 64, 96, 3))
  assert low.dtype == full.dtype == jnp.float32


def test_a_size_that_cannot_be_halved_five_times_is_refused(made):
  with pytest.raises(UserError, match=r'multiples of 32, not 65x129; nearest 64x128'):
    shapes(made[0], (1, 65, 129, 3))


@pytest.mark.parametrize('spec', [SPEC, dict(name='segnet', widths=(4, 4, 4, 4, 4))])
def test_sizes_at_other_scales_are_those_that_the_net_takes(spec):
  net = registry.net(spec, num_classes=3)
  assert net.multiple == 32
  size = multiscale.scaled((64, 96), 0.75, net.multiple)
  jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, *size, 3)), train=False))


def test_whole_channels_drop_out_while_statistics_are_kept(made):
  net, variables, x = made
  kw = {'train': True, 'norm_train': False, 'mutable': ['batch_stats']}
  run = jax.jit(lambda v, key: net.apply(v, x, rngs={'dropout': key}, **kw))
  (one, _), stats = run(variables, jax.random.key(0))
  (two, _), _ = run(variables, jax.random.key(1))
  assert np.any(one != two)
  jax.tree.map(np.testing.assert_array_equal, stats['batch_stats'], variables['batch_stats'])
  still = jax.jit(lambda v: net.apply(v, x, train=False)[0])
  assert np.any(still(variables) != one)
  np.testing.assert_array_equal(still(variables), still(variables))


def test_dropped_channels_are_dropped_at_every_place(made):
  """With the skips' scores and the biases off, equal features everywhere stay equal everywhere."""
  net, variables, _ = made
  params = jax.tree.map(np.copy, variables['params'])
  for name in ('score3', 'score4'):
    params[name] = jax.tree.map(np.zeros_like, params[name])
  params['head_conv1']['kernel'][:] = 0
  params['head_conv1']['bias'][:] = 1
  x = np.float32(rng.uniform(-1, 1, (2, 64, 64, 3)))
  inputs = variables | {'params': params}
  kw = {'train': True, 'norm_train': False, 'rngs': {'dropout': jax.random.key(3)}}
  (low, _), _ = jax.jit(lambda v: net.apply(v, x, mutable=['batch_stats'], **kw))(inputs)
  np.testing.assert_allclose(low, np.broadcast_to(low[:, :1, :1], low.shape), rtol=1e-4)
  assert np.any(np.abs(low[0, 0, 0] - low[1, 0, 0]) > 1e-4)  # each image drops its own


def test_weights_start_as_published(made):
  params = initialize(made[0].clone(features=64), 0, made[2], train=False)['params']
  for name in ('score3', 'score4'):
    assert 0.003 < np.std(params[name]['kernel']) < 0.03
    assert np.any(params[name]['bias'])
  bound = 1 / np.sqrt(49 * 8)
  assert 0.95 * bound < np.abs(params['head_conv1']['kernel']).max() <= bound
