"""Attention in blocks of queries, recomputed blocks, low precision, attention maps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax.generate import blocks
from car_jax.generate.blocks import PLAIN, Compute, Transformer
from car_jax.generate.unet import Down, mean_attention
from car_jax.generate.vae import MiddleAttention

RNG = np.random.default_rng(0)


def normal(*shape):
  return RNG.standard_normal(shape).astype(np.float32)


def test_the_autoencoders_attention_is_blocked_too(monkeypatch):
  x, net = normal(1, 6, 6, 4), MiddleAttention(2, PLAIN)
  params = jax.jit(net.init)(jax.random.key(0), x)
  assert set(params['params']) == {'group_norm', 'to_q', 'to_k', 'to_v', 'to_out_0'}
  whole = net.apply(params, x)
  monkeypatch.setattr(blocks, 'attention', functools.partial(blocks.attention, max_scores=36 * 8))
  assert 'scan' in str(jax.make_jaxpr(net.apply)(params, x))
  np.testing.assert_allclose(net.apply(params, x), whole, atol=1e-6)


def of_level(compute):
  return Down(features=4, layers=1, heads=2, groups=2, epsilon=1e-5, compute=compute)


LEVEL = normal(2, 4, 4, 4), normal(2, 8), normal(2, 5, 6), None


@pytest.fixture(scope='module')
def level_params():
  start = jax.jit(of_level(PLAIN).init)(jax.random.key(0), *LEVEL)
  return jax.tree.map(lambda a: a + 0.1 * RNG.standard_normal(a.shape), start)  # no layer is zero


def test_recomputed_blocks_have_the_same_names_and_gradients(level_params):
  grads = {}
  for remat in (False, True):
    level = of_level(Compute(remat=remat))
    loss = lambda p, level=level: jnp.sum(jnp.square(level.apply(p, *LEVEL)[0]))
    grads[remat] = jax.jit(jax.grad(loss))(level_params)
    assert str(jax.make_jaxpr(loss)(level_params)).count('remat') == (2 if remat else 0)
  close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
  jax.tree.map(close, grads[True], grads[False])


def test_low_precision_stays_low_and_is_near(level_params):
  low = of_level(Compute(jnp.bfloat16))
  run = jax.jit(lambda p: (low.apply(p, *LEVEL)[0], of_level(PLAIN).apply(p, *LEVEL)[0]))
  found, exact = run(level_params)
  assert found.dtype == jnp.bfloat16
  np.testing.assert_allclose(np.float32(found), exact, atol=0.1)
  assert np.abs(np.float32(found) - exact).max() > 1e-4


def test_attention_to_chosen_tokens_is_sown_when_asked_for():
  net = Transformer(heads=2, groups=2, compute=PLAIN)
  x, context = normal(2, 3, 4, 4), normal(2, 5, 6)
  params = jax.jit(net.init)(jax.random.key(0), x, context)
  run = lambda *focus: net.apply(params, x, context, *focus, mutable=['intermediates'])[1]
  assert jax.eval_shape(run) == {}
  seen = jax.jit(lambda focus: mean_attention(run(jnp.tile(focus, (2, 1))), (3, 4)))
  every = [np.asarray(seen(row)) for row in np.eye(5, dtype=np.float32)]
  assert every[0].shape == (2, 3, 4)
  assert all((m > 0).all() and (m < 1).all() for m in every)
  np.testing.assert_allclose(sum(every), 1, atol=1e-5)
  np.testing.assert_allclose(seen(np.float32([0, 1, 1, 0, 0])), every[1] + every[2], atol=1e-6)
  levels = {'a': {'attention': (every[0],)}, 'b': {'attention': (every[1][:, :1, :2],)}}
  assert jax.eval_shape(lambda: mean_attention(levels, (6, 8))).shape == (2, 6, 8)
