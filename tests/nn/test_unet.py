"""CAR's generators: all samples at once are what one sample after another would be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax.errors import UserError
from car_jax.nn.init import initialize
from car_jax.nn.unet import UNetGenerator, UNetVAEGenerator

B, N, H, W, Z, C = 2, 3, 16, 32, 3, 2
rng = np.random.default_rng(0)
X = rng.normal(size=(B, H, W, 5)).astype(np.float32)
LATENTS = rng.normal(size=(B, N, Z)).astype(np.float32)
NET = UNetGenerator(C, hidden=4, latent=Z, dropout=0.0)
VARIABLES = initialize(NET, 1, X, LATENTS, train=False)
VAE = UNetVAEGenerator(C, hidden=4, latent=Z, dropout=0.0)
VAE_VARIABLES = initialize(VAE, 1, X, LATENTS, train=False)


@jax.jit
def train(variables, x, z):
  return NET.apply(variables, x, z, train=True, mutable=['batch_stats'])


@jax.jit
def infer(variables, x, z):
  return NET.apply(variables, x, z, train=False)


@jax.jit
def infer_vae(variables):
  return VAE.apply(variables, X, LATENTS, train=False)


def close(a, b):
  np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5)


def test_training_with_many_samples_is_a_loop_over_them():
  logits, new = train(VARIABLES, X, LATENTS)
  assert logits.shape == (B, N, H, W, C)
  assert logits.dtype == jnp.float32
  stats = VARIABLES['batch_stats']
  for n in range(N):
    one, after = train(VARIABLES | {'batch_stats': stats}, X, LATENTS[:, n : n + 1])
    close(logits[:, n], one[:, 0])
    stats = {
      name: value if name.startswith('dec') or n == 0 else stats[name]
      for name, value in after['batch_stats'].items()
    }
  jax.tree.map(close, new['batch_stats'], stats)
  counts = {name: int(s['count']) for name, s in new['batch_stats'].items()}
  assert counts == {f'enc{k}_norm': 1 for k in range(1, 5)} | {f'dec{k}_norm': N for k in range(4)}


def test_inference_with_many_samples_is_a_loop_over_samples_and_images():
  _, new = train(VARIABLES, X, LATENTS)
  variables = VARIABLES | new
  logits = infer(variables, X, LATENTS)
  for b in range(B):
    for n in range(N):
      one = infer(variables, X[b : b + 1], LATENTS[b : b + 1, n : n + 1])
      close(logits[b, n], one[0, 0])


def test_the_latent_matters_and_the_order_of_samples_does_not():
  logits = infer(VARIABLES, X, LATENTS)
  assert np.abs(logits[:, 0] - logits[:, 1]).max() > 1e-3
  close(infer(VARIABLES, X, LATENTS[:, ::-1]), logits[:, ::-1])


def test_dropout_masks_differ_between_samples_and_leave_inference_alone():
  net = NET.clone(dropout=0.5)
  z = np.repeat(LATENTS[:, :1], N, 1)
  key = {'dropout': jax.random.key(0)}
  run = lambda: net.apply(VARIABLES, X, z, train=True, rngs=key, mutable=['batch_stats'])[0]
  logits = jax.jit(run)()
  for n in range(1, N):
    assert np.abs(logits[:, 0] - logits[:, n]).max() > 1e-3
  calm = jax.jit(lambda: net.apply(VARIABLES, X, z, train=False))()
  close(calm, infer(VARIABLES, X, z))


def test_a_wrong_size_is_the_users_mistake():
  with pytest.raises(UserError, match=r'UNetGenerator .*multiples of 16, not 20x32; nearest 16x32'):
    jax.eval_shape(
      lambda x: NET.init(jax.random.key(0), x, LATENTS, train=False), X[:, :1].repeat(20, 1)
    )


def loss_gradient(reparameterize):
  net = VAE.clone(reparameterize=reparameterize)

  def loss(params):
    logits, mu, logvar = net.apply(VAE_VARIABLES | {'params': params}, X, LATENTS, train=False)
    return jnp.sum(logits**2), (mu, logvar)

  return jax.jit(jax.grad(loss, has_aux=True))(VAE_VARIABLES['params'])


@pytest.mark.parametrize('reparameterize', [False, True])
def test_the_draw_passes_gradient_to_its_distribution_only_when_asked(reparameterize):
  grads, (mu, logvar) = loss_gradient(reparameterize)
  assert mu.shape == logvar.shape == (B, Z)
  for name in ('mu', 'logvar'):
    assert (np.abs(grads[name]['kernel']).max() > 0) == reparameterize
  assert np.abs(grads['enc4_conv']['kernel']).max() > 0


def test_the_vae_decodes_draws_from_its_own_distribution():
  logits, mu, logvar = infer_vae(VAE_VARIABLES)
  z = mu[:, None] + np.exp(logvar / 2)[:, None] * LATENTS
  params = {k: v for k, v in VAE_VARIABLES['params'].items() if k not in ('mu', 'logvar')}
  close(infer(VAE_VARIABLES | {'params': params}, X, z), logits)


def test_the_log_variance_is_bounded_below():
  params = dict(VAE_VARIABLES['params'])
  params['logvar'] = dict(params['logvar'], bias=np.full(Z, -1e6, np.float32))
  logits, _, logvar = infer_vae(VAE_VARIABLES | {'params': params})
  np.testing.assert_allclose(logvar, np.log(1e-7), rtol=1e-6)
  assert np.isfinite(logits).all()
