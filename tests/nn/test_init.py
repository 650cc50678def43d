"""First weights: the stated distributions, the same on every call, others for other seeds."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen import initializers
from scipy import stats

from car_jax import lookup
from car_jax.nn import init
from car_jax.nn.init import initialize
from car_jax.nn.layers import ConvTranspose2x2
from car_jax.nn.prob_unet import ProbUNet
from car_jax.nn.segnet import SegNetCalNet
from car_jax.nn.three_conv_unet import UNet
from car_jax.nn.toy_calnet import ToyCalNet
from car_jax.nn.unet import UNetGenerator

IMAGE = np.zeros((1, 32, 32, 5))
SEGNET = initialize(SegNetCalNet(2, widths=(16, 16, 16, 32, 32)), 0, IMAGE, train=False)
UNET = initialize(UNetGenerator(4, hidden=16, latent=8), 0, IMAGE, np.zeros((1, 1, 8)), train=False)
TOY = initialize(ToyCalNet(2, hidden=32), 0, IMAGE, train=False)


def uniform(values, bound, rtol=0.1):
  assert np.abs(values).max() <= bound
  np.testing.assert_allclose(np.abs(values).max(), bound, rtol=rtol)
  np.testing.assert_allclose(values.std(), bound / np.sqrt(3), rtol=rtol)


def normal(values, deviation):
  np.testing.assert_allclose(values.std(), deviation, rtol=0.06)
  assert np.abs(values).max() > 2.5 * deviation


def test_convolutions_start_as_torchs():
  layer = TOY['params']['conv2']
  uniform(layer['kernel'], 1 / np.sqrt(9 * 32))
  uniform(layer['bias'], 1 / np.sqrt(9 * 32), rtol=0.3)


def test_transposed_convolutions_count_their_outputs_as_torch_does():
  layer = UNET['params']['dec0_up']
  assert layer['transposed_kernel'].shape == (2, 2, 128, 64)
  uniform(layer['transposed_kernel'], 1 / np.sqrt(4 * 64))
  uniform(layer['bias'], 1 / np.sqrt(4 * 64))


def test_segnet_has_kaiming_weights_without_bias_except_for_its_upsampling():
  params = SEGNET['params']
  normal(params['enc2_conv2']['layer']['kernel'], np.sqrt(2 / (9 * 16)))
  normal(params['enc4_conv1']['layer']['kernel'], np.sqrt(2 / (9 * 32)))  # from its outputs
  normal(params['dec4_first']['layer']['kernel'], np.sqrt(2 / (9 * 64)))  # from its inputs
  normal(params['dec5_middle']['layer']['kernel'], np.sqrt(2 / (9 * 32)))
  for name in ('enc1_conv1', 'dec4_last', 'dec5_middle'):
    assert not params[name]['layer']['bias'].any()
  assert not params['head']['bias'].any()
  uniform(params['dec5_up']['transposed_kernel'], 1 / np.sqrt(4 * 32))


def test_noise_injectors():
  params = UNET['params']['noise1']
  uniform(params['shift']['kernel'], np.sqrt(6 / (8 + 32)))
  uniform(params['scale']['kernel'], np.sqrt(6 / (8 + 32)))
  assert not params['shift']['bias'].any()
  mix = params['mix']['kernel']
  np.testing.assert_allclose(mix @ mix.T, np.eye(32), atol=1e-6)
  head = UNET['params']['head']['mix']['kernel']
  np.testing.assert_allclose(head.T @ head, np.eye(4), atol=1e-6)


def test_u_nets_start_as_their_options_say():
  image, label, noise = np.zeros((1, 8, 8, 1)), np.zeros((1, 8, 8), np.int32), np.zeros((1, 1, 6))
  for torch_start in (True, False):
    net = UNet(2, (16, 32), torch_start=torch_start)
    layer = initialize(net, 0, image, train=False)['params']['down1']['conv2']
    if torch_start:
      uniform(layer['kernel'], 1 / np.sqrt(9 * 32))
      uniform(layer['bias'], 1 / np.sqrt(9 * 32), rtol=0.3)
    else:
      normal(layer['kernel'], np.sqrt(2 / (9 * 32)))
      assert np.abs(layer['bias']).max() < 0.002
  for orthogonal in (True, False):
    net = ProbUNet(2, (16, 16), orthogonal=orthogonal)
    params = initialize(net, 0, image, label, noise, train=False)['params']
    for name, fewer in (('combine0', 16), ('combine1', 16), ('combine3', 2)):
      kernel = params[name]['kernel'].reshape(-1, params[name]['kernel'].shape[-1])
      apart = np.abs(kernel.T @ kernel - np.eye(fewer)).max()
      assert apart < 1e-5 if orthogonal else apart > 0.1


def test_the_tiny_biases_have_no_tails():
  draws = init.tiny_truncated_normal(np.random.default_rng(0), (4000,), 1)
  assert np.abs(draws).max() < 0.002
  assert np.abs(draws).max() > 0.0019
  np.testing.assert_allclose(draws.std(), 0.001 * 0.8796, rtol=0.05)  # of a normal cut at 2


def test_norms_start_neutral():
  norm = UNET['params']['enc1_norm']
  assert (norm['scale'] == 1).all()
  assert (norm['bias'] == 0).all()
  stats = UNET['batch_stats']['enc1_norm']
  assert (stats['mean'] == 0).all()
  assert (stats['var'] == 1).all()
  assert stats['count'] == 0
  assert stats['count'].dtype == np.int32


def test_seeds_and_paths_decide_the_values():
  again = initialize(ToyCalNet(2, hidden=32), 0, IMAGE, train=False)
  jax.tree.map(np.testing.assert_array_equal, again, TOY)
  other = initialize(ToyCalNet(2, hidden=32), 1, IMAGE, train=False)
  kernels = [t['params'][c]['kernel'] for t in (TOY, other) for c in ('conv2', 'conv3')]
  assert all((a != b).any() for i, a in enumerate(kernels) for b in kernels[:i])


@pytest.mark.parametrize('net', [ToyCalNet(2, hidden=8), ConvTranspose2x2(3)])
def test_shapes_and_types_are_linens_own(net):
  kw = {'train': False} if isinstance(net, ToyCalNet) else {}
  ours = initialize(net, 0, IMAGE, **kw)
  x = jnp.zeros(IMAGE.shape)
  linens = jax.eval_shape(lambda: net.init(jax.random.key(0), x, **kw))
  assert jax.tree.structure(ours) == jax.tree.structure(dict(linens))
  for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(linens), strict=True):
    assert (a.shape, a.dtype) == (b.shape, b.dtype)


class Unusual(nn.Module):
  """Leaves of every initialiser of linen's that draws, and of some that do not."""

  KINDS = dict(
    narrow=initializers.normal(0.02),
    seven=initializers.constant(7.0),
    cut=initializers.truncated_normal(0.5),
    glorot=initializers.glorot_normal(),
    he=initializers.he_uniform(),
    lecun=initializers.lecun_normal(),
    square=initializers.orthogonal(),
    delta=initializers.delta_orthogonal(),
    mine=lambda key, shape, dtype=jnp.float32: jax.random.gamma(key, 2.0, shape, dtype),
    ids=lambda key, shape: jax.random.permutation(key, jnp.arange(8)),
  )

  @nn.compact
  def __call__(self, x):
    shapes = dict(delta=(3, 3, 40, 40))
    for name, kind in self.KINDS.items():
      self.param(name, kind, shapes.get(name, (40, 60)))
    half = nn.Dense(30, param_dtype=jnp.bfloat16, kernel_init=initializers.normal(3.0))
    return half(nn.Embed(50, 60)(jnp.int32(x[..., 0])))


def test_unusual_initialisers_are_linens_to_the_distribution():
  net, x = Unusual(), np.zeros((1, 2), np.float32)
  ours, linens = initialize(net, 3, x)['params'], net.init(jax.random.key(0), x)['params']
  assert jax.tree.structure(ours) == jax.tree.structure(dict(linens))
  leaves = jax.tree_util.tree_flatten_with_path(ours)[0]
  for (path, a), b in zip(leaves, map(np.asarray, jax.tree.leaves(linens)), strict=True):
    assert (a.shape, a.dtype) == (b.shape, b.dtype), path
    a, b = np.float64(a).ravel(), np.float64(b).ravel()
    error = 5 * b.std() / np.sqrt(len(b)) + 1e-12
    assert abs(a.mean() - b.mean()) <= np.sqrt(2) * error, path
    assert abs(a.std() - b.std()) <= 0.12 * b.std() + 1e-6, path
    if b.std() > 0:
      assert stats.ks_2samp(a, b).pvalue > 1e-4, path
  assert (ours['seven'] == 7).all()
  assert sorted(ours['ids']) == list(range(8))
  np.testing.assert_allclose(ours['square'] @ ours['square'].T, np.eye(40), atol=1e-5)


def test_a_leaf_without_a_rule_is_an_error():
  class Ruled(nn.Module):
    @nn.compact
    def __call__(self, x):
      return x + self.param('offset', init.RULED, (3,))

  with pytest.raises(ValueError, match='nothing says how params/offset starts'):
    initialize(Ruled(), 0, np.zeros((1, 3)))


@pytest.mark.parametrize('name', [n for n in lookup.NETS if n != 'local_temperature'])
def test_every_kernel_of_our_nets_has_a_published_rule(name):
  """Not linen's, which no publication of theirs has used."""
  cls = lookup.find('net', name)
  parts = dict(backbone=dict(name='resnet'), head=dict(name='psp')) if name == 'composed' else {}
  table = cls(2, **parts).INIT if isinstance(cls.INIT, property) else cls.INIT
  matched = lambda path: any(re.search(pattern, path) for pattern, _ in table)
  assert matched('params/any/kernel')
  assert matched('params/any/bias')
