"""The U-Net of guided diffusion: its parts by hand; its values are replayed in tests/replay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax.errors import UserError
from car_jax.nn.denoising import ResBlock, sinusoid
from car_jax.nn.guided_unet import GuidedUNet, PlacesAttention
from car_jax.nn.init import initialize
from tests.whole import whole

RNG = np.random.default_rng(0)
SIZES = dict(widths=(4, 8), blocks=1, attention=(2,), head_width=4, groups=2)
X, TIME = np.ones((1, 8, 8, 2), np.float32), np.ones(1, np.float32)
GIVEN = X, X[..., :1], TIME


def shapes(**options):
  net = GuidedUNet(2, **SIZES | options)
  make = lambda: net.init(jax.random.key(0), *GIVEN, train=False)
  return jax.eval_shape(make)['params']


def moved(params):
  return jax.tree.map(lambda p: np.float32(p + RNG.normal(0, 0.3, p.shape)), params)


def test_it_starts_at_nothing_and_as_torch_does():
  net = GuidedUNet(2, **SIZES)
  v = initialize(net, 0, *GIVEN, train=False)
  assert not np.any(whole(net.apply)(v, *GIVEN, train=False))
  params = v['params']
  assert not np.any(params['down0_0']['conv2']['kernel'])
  assert not np.any(params['middle0_attention']['proj_out']['kernel'])
  bias = params['time_embedding']['linear_1']['bias']
  assert 0 < np.abs(bias).max() <= 1 / np.sqrt(4)


def test_published_numbers_of_parameters():
  def count(net):
    x = jnp.ones((1, 16, 16, net.num_classes))
    made = jax.eval_shape(
      lambda: net.init(jax.random.key(0), x, x[..., :1], TIME, train=False)['params']
    )
    return sum(np.prod(p.shape) for p in jax.tree.leaves(made))

  assert count(GuidedUNet(2)) == 5_699_138  # CCDM's
  medfm = dict(widths=(64, 128, 256, 256), attention=(2,), head_width=0, scale_shift=True)
  assert count(GuidedUNet(1, **medfm, resampling='pooling')) == 23_250_241


def test_time_is_added_or_scales_and_shifts():
  x, time = np.float32(RNG.normal(size=(2, 4, 4, 4))), np.float32(RNG.normal(size=(2, 6)))
  for scale_shift in (False, True):
    block = ResBlock(4, 2, 1e-5, scale_shift=scale_shift)
    params = moved(whole(block.init)(jax.random.key(0), x, time)['params'])
    kernel = params['time_emb_proj']['kernel']
    assert kernel.shape == (6, 8 if scale_shift else 4)
    got = whole(block.apply)({'params': params}, x, time)
    np.testing.assert_allclose(got, by_hand(params, x, time, scale_shift), atol=1e-4)


def by_hand(params, x, time, scale_shift):
  silu = lambda a: a / (1 + np.exp(-a))

  def norm(a, name):
    parts = a.reshape(*a.shape[:3], 2, 2)
    parts = parts - parts.mean((1, 2, 4), keepdims=True)
    parts = parts / np.sqrt(np.square(parts).mean((1, 2, 4), keepdims=True) + 1e-5)
    return parts.reshape(a.shape) * params[name]['scale'] + params[name]['bias']

  def conv(a, name):
    a, kernel = np.pad(a, ((0, 0), (1, 1), (1, 1), (0, 0))), params[name]['kernel']
    shifted = lambda i, j: a[:, i : i + 4, j : j + 4] @ kernel[i, j]
    return sum(shifted(i, j) for i in range(3) for j in range(3)) + params[name]['bias']

  of = silu(time) @ params['time_emb_proj']['kernel'] + params['time_emb_proj']['bias']
  of = of[:, None, None]
  y = conv(silu(norm(np.float64(x), 'norm1')), 'conv1')
  if scale_shift:
    y = norm(y, 'norm2') * (1 + of[..., :4]) + of[..., 4:]
  else:
    y = norm(y + of, 'norm2')
  return x + conv(silu(y), 'conv2')


def test_attention_of_several_heads():
  x = np.float32(RNG.normal(size=(1, 2, 3, 4)))
  layer = PlacesAttention(heads=2, groups=1)
  params = moved(whole(layer.init)(jax.random.key(0), x)['params'])
  y = np.float64(x).reshape(6, 4)
  y = (y - y.mean()) / np.sqrt(y.var() + 1e-5) * params['norm']['scale'] + params['norm']['bias']
  y = y @ params['qkv']['kernel'] + params['qkv']['bias']
  heads = []
  for head in range(2):
    q, k, v = (y[:, 6 * head + 2 * part : 6 * head + 2 * part + 2] for part in range(3))
    weights = np.exp(q @ k.T / np.sqrt(2))
    heads.append(weights / weights.sum(1, keepdims=True) @ v)
  out = np.concatenate(heads, 1) @ params['proj_out']['kernel'] + params['proj_out']['bias']
  got = whole(layer.apply)({'params': params}, x)
  np.testing.assert_allclose(got, x + out.reshape(x.shape), atol=1e-4)


def test_the_sinusoid():
  got = whole(lambda t: sinusoid(t, 6))(np.float32([0, 3]))
  rates = 10_000.0 ** (-np.arange(3) / 3)
  want = [np.concatenate([np.cos(t * rates), np.sin(t * rates)]) for t in (0, 3)]
  np.testing.assert_allclose(got, want, atol=1e-6)


def test_options_of_its_parts():
  assert {'halved0', 'doubled1'} <= {*shapes()}
  assert not {'halved0', 'doubled1'} & {*shapes(resampling='pooling')}
  assert shapes(time_width=6)['time_embedding']['linear_1']['kernel'].shape == (6, 24)
  assert {k for k in shapes(attention=()) if 'attention' in k} == {'middle0_attention'}
  assert 'down1_0_attention' in shapes()


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (dict(groups=3), 'method.model.widths, of groups: 4 is no multiple of 3'),
    (dict(head_width=3), 'method.model.widths, of heads: 8 is no multiple of 3'),
    (dict(head_width=0, heads=5), 'of heads: 8 is no multiple of 5'),
    (dict(attention=(2, 8)), 'attention has 8; with 2 widths, maps are 1, 2 times smaller'),
    (dict(time_width=1), 'is 1: time has a sine and a cosine'),
  ],
)
def test_sizes_that_do_not_fit(options, message):
  with pytest.raises(UserError, match=message):
    shapes(**options)
