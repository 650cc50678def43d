"""Dropout gives what flax's gives, and draws its mask once where the program is for a TPU."""

import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax.nn.dropout import Dropout


class Net(nn.Module):
  """Two dropouts around a layer, by either class."""

  kind: type
  rate: float = 0.3
  axes: tuple[int, ...] = ()

  @nn.compact
  def __call__(self, x, train=True):
    x = self.kind(self.rate, broadcast_dims=self.axes, deterministic=not train)(x)
    return self.kind(self.rate)(nn.Dense(5)(x), deterministic=not train)


def applied(net, x, **kw):
  variables = net.init(jax.random.key(0), x, train=False)
  value = lambda v, x: net.apply(v, x, rngs={'dropout': jax.random.key(1)}, **kw)
  loss = lambda v, x: (value(v, x) ** 2).sum()
  return value(variables, x), *jax.tree.leaves(jax.grad(loss, (0, 1))(variables, x))


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize(
  'options', [{}, dict(axes=(1, 2)), dict(rate=0.0), dict(rate=1.0)], ids=str
)
def test_values_and_gradients_are_those_of_flax(options, dtype):
  x = jnp.asarray(np.random.RandomState(0).randn(2, 4, 3, 6), dtype)
  for ours, theirs in zip(
    applied(Net(Dropout, **options), x), applied(Net(nn.Dropout, **options), x), strict=True
  ):
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)


def test_without_training_nothing_is_dropped():
  x = jnp.ones((2, 6))
  for ours, theirs in zip(
    applied(Net(Dropout), x, train=False), applied(Net(nn.Dropout), x, train=False), strict=True
  ):
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(('platform', 'arrays'), [('tpu', 1), ('cpu', 0)])
def test_the_mask_is_an_array_of_its_own_for_a_tpu(platform, arrays):
  drop = lambda x, key: Dropout(0.5).apply({}, x, deterministic=False, rngs={'dropout': key})
  traced = jax.jit(drop).trace(jnp.ones((4, 8)), jax.random.key(0))
  text = traced.lower(lowering_platforms=(platform,)).as_text()
  assert text.count('stablehlo.optimization_barrier') == arrays


def test_every_net_uses_it():
  files = [*pathlib.Path('car_jax').rglob('*.py')]
  assert [p for p in files if 'nn.Dropout(' in p.read_text() and p.stem != 'dropout'] == []
