"""The U-Net with linear attention; the whole net is replayed in tests/replay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax.errors import UserError
from car_jax.nn.init import initialize
from car_jax.nn.linear_attention_unet import Attention, LinearAttentionUNet, embedded
from car_jax.nn.standardised import StandardisedConv
from tests.nn.test_nets import shapes

RNG = np.random.default_rng(0)
SIZE = [(1, 16, 16, 1), (1, 16, 16, 1), (1,)]


def test_it_has_the_parameters_of_the_release():
  out, variables = shapes(LinearAttentionUNet(1), *SIZE)
  assert sum(leaf.size for leaf in jax.tree.leaves(variables['params'])) == 38_547_585
  assert (out.shape, out.dtype) == ((1, 16, 16, 1), jnp.float32)


def normed(x):
  """[P, F] by the mean and deviation of all of it."""
  return (x - x.mean()) / np.sqrt(x.var() + 1e-5)


@pytest.mark.parametrize('linear', [True, False])
def test_attention_is_its_definition(linear):
  x = RNG.normal(size=(2, 3, 4, 6)).astype(np.float32)
  net = Attention(linear)
  params = jax.tree.map(lambda a: RNG.normal(size=a.shape), net.init(jax.random.key(0), x))
  got = net.apply(params, x)
  p = params['params']
  for image, ours in zip(x, got, strict=True):
    places = image.reshape(12, 6)
    seen = normed(places) * p['norm']['scale'] + p['norm']['bias']
    parts = (seen @ p['joint']['kernel']).reshape(12, 3, 4, 32)
    made = []
    for head in range(4):
      q, k, v = parts[:, 0, head], parts[:, 1, head], parts[:, 2, head]
      if linear:
        q, k = np.exp(q), np.exp(k)
        by = (q / q.sum(1, keepdims=True)) @ (k / k.sum(0)).T  # [12, 12]: of each place for each
      else:
        by = np.exp(q @ k.T / np.sqrt(32))
        by /= by.sum(1, keepdims=True) / np.sqrt(32)
      made.append(by @ v / np.sqrt(32))
    y = np.concatenate(made, 1) @ p['out']['kernel'][0, 0] + p['out']['bias']
    if linear:
      y = normed(y) * p['out_norm']['scale'] + p['out_norm']['bias']
    np.testing.assert_allclose(ours.reshape(12, 6), places + y, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('multiplied', [True, False])
def test_kernels_are_standardised_or_multiplied(multiplied):
  """By a map of one pixel, which a kernel's middle alone meets."""
  net = StandardisedConv(5, 3, multiplied=multiplied, use_bias=True)
  x = RNG.normal(size=(1, 1, 1, 4)).astype(np.float32)
  kernel, bias = RNG.normal(size=(3, 3, 4, 5)), RNG.normal(size=5)
  got = net.apply({'params': {'kernel': kernel, 'bias': bias}}, x)[0, 0, 0]
  flat = kernel.reshape(36, 5)
  factor = flat.std(0) if multiplied else 1 / flat.std(0)
  want = x[0, 0, 0] @ ((kernel[1, 1] - flat.mean(0)) * factor) + bias
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_times_become_waves():
  t = np.float32([0, 0.25, 1])
  rates = 10_000.0 ** -(np.arange(4) / 3)
  waves = np.concatenate([np.sin(np.outer(t, rates)), np.cos(np.outer(t, rates))], 1)
  np.testing.assert_allclose(embedded(jnp.asarray(t), 8), waves, atol=1e-6)


def test_a_size_that_cannot_be_halved_is_refused():
  net = LinearAttentionUNet(1, width=8, multipliers=(1, 1, 1))
  with pytest.raises(UserError, match='multiples of 4, not 16x18; nearest 16x'):
    initialize(net, 0, *(np.zeros(s) for s in [(1, 16, 18, 1), (1, 16, 18, 1), (1,)]), train=False)


def test_times_may_be_whole_numbers():
  """Of CCDM, whose steps are counted."""
  want = embedded(jnp.float32([1, 3, 250]), 8)
  np.testing.assert_array_equal(embedded(jnp.int32([1, 3, 250]), 8), want)
  assert np.abs(want[:, 1:4]).min() > 0


def test_a_time_of_one_number_is_one_message():
  with pytest.raises(UserError, match='width is 1: time has a sine and a cosine'):
    shapes(LinearAttentionUNet(1, width=1), *SIZE)
