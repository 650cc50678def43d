"""Dropout does what flax's does with a mask of its own, which is as random as dropout can tell."""

import itertools
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax.nn.dropout import Dropout, bernoulli_mask

KEYS = [jax.random.fold_in(jax.random.key(seed), k) for seed in (0, 1) for k in range(4)]


class Net(nn.Module):
  """Two dropouts around a layer, by either class."""

  kind: type
  rate: float = 0.3
  axes: tuple[int, ...] = ()

  @nn.compact
  def __call__(self, x, train=True):
    x = self.kind(self.rate, broadcast_dims=self.axes, deterministic=not train)(x)
    return self.kind(self.rate)(nn.Dense(5)(x), deterministic=not train)


def dropped(x, rate, key, **kw):
  drop = lambda x: Dropout(rate, **kw).apply({}, x, deterministic=False, rngs={'dropout': key})
  return drop(x), jax.grad(lambda x: drop(x).sum())(x)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('axes', [(), (1, 2)])
def test_values_are_dropped_or_larger_and_so_are_their_gradients(dtype, axes):
  x = jnp.asarray(1 + np.random.RandomState(0).rand(2, 8, 3, 6), dtype)
  y, slope = dropped(x, 0.25, KEYS[0], broadcast_dims=axes)
  assert y.dtype == slope.dtype == x.dtype
  mask = np.asarray(y != 0)
  np.testing.assert_array_equal(slope, (mask / 0.75).astype(dtype))
  np.testing.assert_array_equal(y, jnp.where(mask, x / 0.75, 0))
  assert 0 < mask.mean() < 1
  for axis in axes:
    np.testing.assert_array_equal(mask, np.take(mask, [0] * mask.shape[axis], axis))


@pytest.mark.parametrize('rate', [0.0, 1.0])
def test_all_or_nothing_is_dropped_without_a_draw(rate):
  x = jnp.arange(1.0, 13).reshape(3, 4)
  for value, kept_value in zip(dropped(x, rate, KEYS[0]), (x, jnp.ones_like(x)), strict=True):
    np.testing.assert_array_equal(value, (1 - rate) * kept_value)


@pytest.mark.parametrize('share', [0.1, 0.5, 0.9])
def test_the_share_that_is_kept(share):
  """Of all, and of each place over 4,096 keys: within five standard deviations."""
  n = 2**20
  for key in KEYS:
    assert (
      abs(bernoulli_mask(key, share, (n,)).mean() - share) < 5 * (share * (1 - share) / n) ** 0.5
    )
  keys = jax.random.split(KEYS[0], 4096)
  by_place = jax.vmap(lambda key: bernoulli_mask(key, share, (3, 5, 7)))(keys).mean(0)
  assert np.abs(by_place - share).max() < 5 * (share * (1 - share) / len(keys)) ** 0.5


def correlation(a, b):
  """In units of its standard deviation if the two were independent."""
  a, b = (np.asarray(m, float).ravel() for m in (a, b))
  return np.corrcoef(a, b)[0, 1] * len(a) ** 0.5


def test_neighbours_and_keys_are_independent():
  """Places near and far along each axis, powers of two apart, and the masks of different keys."""
  masks = [np.asarray(bernoulli_mask(key, 0.8, (4, 64, 64, 64))) for key in KEYS]
  for mask in masks[:2]:
    for axis, side in enumerate(mask.shape):
      for apart in [k for k in (1, 2, 3, 4, 8, 16, 32) if k < side]:
        n = side - apart
        near, far = (np.take(mask, range(k, k + n), axis) for k in (0, apart))
        assert abs(correlation(near, far)) < 5
  for a, b in itertools.combinations(masks, 2):
    assert abs(correlation(a, b)) < 5


def test_how_many_are_kept_of_a_row_is_binomial():
  """Rows of 64: mean and variance of their counts."""
  counts = np.asarray(bernoulli_mask(KEYS[0], 0.75, (2**15, 64))).sum(1)
  assert abs(counts.mean() - 48) < 5 * (12 / len(counts)) ** 0.5
  assert abs(counts.var() / 12 - 1) < 5 * (2 / len(counts)) ** 0.5


def test_a_key_gives_one_mask_and_each_dropout_of_a_net_its_own():
  np.testing.assert_array_equal(
    bernoulli_mask(KEYS[0], 0.5, (9, 9)), bernoulli_mask(KEYS[0], 0.5, (9, 9))
  )
  assert (bernoulli_mask(KEYS[0], 0.5, (9, 9)) != bernoulli_mask(KEYS[1], 0.5, (9, 9))).any()

  class Twice(nn.Module):
    @nn.compact
    def __call__(self, x):
      return [Dropout(0.5, deterministic=False)(x) for _ in range(2)]

  one, two = Twice().apply({}, jnp.ones((9, 9)), rngs={'dropout': KEYS[0]})
  assert (one != two).any()


def test_sizes_that_a_program_is_told_later():
  import jax.export

  sizes = jax.export.symbolic_shape('b, h')
  mask = jax.jit(lambda x, key: bernoulli_mask(key, 0.5, x.shape))
  shapes = jax.ShapeDtypeStruct(sizes, jnp.float32), jax.typeof(KEYS[0])
  exported = jax.export.export(mask)(*shapes)
  np.testing.assert_array_equal(
    exported.call(np.ones((3, 5)), KEYS[0]), bernoulli_mask(KEYS[0], 0.5, (3, 5))
  )


def test_without_training_nothing_is_dropped():
  x = jnp.ones((2, 6))
  variables = Net(nn.Dropout).init(KEYS[0], x, train=False)
  ours, theirs = (Net(kind).apply(variables, x, train=False) for kind in (Dropout, nn.Dropout))
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
