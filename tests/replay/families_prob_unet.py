"""The Probabilistic U-Net against its port, and the original's formulas on the port's blocks."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from car_jax import gaussian
from car_jax.importers import ambiguous
from car_jax.methods.prob_unet import ProbabilisticUNet
from car_jax.optim import Adam
from tests.replay import Replay, replays
from tests.replay.families_shared import (
  ImageAsGiven,
  Weights,
  check_gradients,
  check_steps,
  nchw,
  nhwc,
  precision,
  settings,
  squares,
)

DECAY = 1e-5


class Plain(ImageAsGiven, ProbabilisticUNet):
  """The method, for images that are standardised already."""


class Masked(Plain):
  """One whose posterior sees labels that the loss leaves out."""

  def labelled(self, batch: Any) -> Any:
    return batch['label'], batch['known']


def method_of(c: dict[str, Any], made: Any = Plain, **options: Any) -> Plain:
  model = dict(
    name='prob_unet',
    widths=tuple(c['num_filters']),
    latent=c['latent_dim'],
    combination=c['no_convs_fcomb'],
    one_logit=c['num_classes'] == 1,
  )
  classes = max(2, c['num_classes'])
  return made(classes, 1, model, beta=c['beta'], **options)


def outputs(method: Plain, v: Any, batch: Any, noise: Any) -> dict[str, Any]:
  x, seen = batch['image'], batch['label']
  logits, prior, posterior = method.net.apply(v, x, seen, noise[:, None], train=True)
  logs, _, _ = method.loss(v, batch, noise[:, None])
  return {
    'rec_logits': logits[:, 0],
    'prior_mu': prior.mean,
    'prior_log_sigma': jnp.log(prior.deviation),
    'post_mu': posterior.mean,
    'post_log_sigma': jnp.log(posterior.deviation),
    'z_post': posterior.drawn(noise),
    'kl_per_image': gaussian.divergence(posterior, prior),
    'cross_entropy': logs['loss/cross_entropy'],
    'divergence': logs['loss/divergence'],
    'norms': logs.get('loss/norms', 0.0),
  }


def check_outputs(r: Replay, got: dict[str, Any], tolerance: float) -> None:
  for key in ('prior_mu', 'prior_log_sigma', 'post_mu', 'post_log_sigma', 'z_post', 'kl_per_image'):
    r.check(key, got[key], tolerance, relative=True)
  logits = nchw(got['rec_logits'])
  r.check('rec_logits', logits[:, -r['rec_logits'].shape[1] :], tolerance, relative=True)
  r.check('kl', got['kl_per_image'].mean(), tolerance, relative=True)


def replayed(r: Replay, method: Plain, batch: Any, wide: bool, decay: bool) -> Any:
  """Outputs, loss, gradients and steps -> the outputs, the variables."""
  weights = Weights(r, lambda w: ambiguous.to_variables('prob_unet', w))
  tolerance = 2e-6 if wide else 1e-5
  with precision(wide) as cast:
    v, batch, noise = cast(weights.variables()), cast(batch), cast(r['eps_post'])

    def total(params: Any) -> Any:
      got = outputs(method, {'params': params}, batch, noise)
      loss = sum(got[k] for k in ('cross_entropy', 'divergence', 'norms'))
      if decay:
        loss += DECAY * squares(params, f'combine{method.net.combination - 1}')
      return loss, got

    run = jax.jit(jax.value_and_grad(total, has_aux=True))
    (loss, got), grads = jax.device_get(run(v['params']))
    check_outputs(r, got, tolerance)
    r.check('loss', loss, tolerance, relative=True)
    check_gradients(r, weights.foreign(grads), 2e-5 if wide else 1e-4)
    check_steps(r, weights, Adam(lr=1e-4), run, v['params'], tolerance)
    return got, v


@replays('families', 'prob_unet')
def port(r: Replay) -> None:
  c = settings(r)
  method = method_of(c, sum_over_batch=True, norm_weight=DECAY)
  batch = {'image': nhwc(r['x']), 'label': r['segm'][:, 0].astype(np.int32)}
  for wide in (True, False):
    tolerance = 2e-6 if wide else 1e-5
    got, v = replayed(r, method, batch, wide, decay=False)
    r.check('rec_loss_sum', got['cross_entropy'], tolerance, relative=True)
    pixels = np.prod(r['segm'].shape)
    r.check('rec_loss_mean', got['cross_entropy'] / pixels, tolerance, relative=True)
    r.check('reg_loss', got['norms'] / DECAY, tolerance, relative=True)
    with precision(wide) as cast:
      inputs = cast((v, batch['image'], np.moveaxis(r['eps_prior'], 0, 1)))
      run = jax.jit(functools.partial(_sampled, method))
      features, samples, mean = jax.device_get(run(*inputs))
    r.check('features', nchw(features), tolerance, relative=True)
    r.check('sample_logits', nchw(samples)[:, :, 1:], tolerance, relative=True)
    r.check('prior_mean_logits', nchw(mean)[:, 1:], tolerance, relative=True)
  q, p = ((r[f'{k}_mu'], np.exp(np.float64(r[f'{k}_log_sigma']))) for k in ('post', 'prior'))
  log_density = lambda m, s: (-0.5 * np.square((r['z_post'] - m) / s) - np.log(s)).sum(1)
  r.check('kl_sampled_per_image', log_density(*q) - log_density(*p), 1e-5, relative=True)


def _sampled(method: Plain, v: Any, x: Any, noise: Any) -> Any:
  net = method.net
  features = net.apply(v, x, train=False, method='features')
  prior = net.apply(v, x, train=False, method='prior')
  z = jax.tree.map(lambda a: a[:, None], prior).drawn(noise)
  logits = lambda z: net.apply(v, features, z, method='combined')
  return features, logits(z), logits(prior.mean[:, None])[:, 0]


@replays('families', 'prob_unet_multiclass')
def original(r: Replay) -> None:
  c = settings(r)
  method = method_of(c, Masked)
  left_out = r['loss_mask'] > 0
  for wide in (True, False):
    tolerance = 2e-6 if wide else 1e-5
    batch = {'image': nhwc(r['x']), 'label': r['label'].astype(np.int32)}
    batch['known'] = ~left_out
    got, v = replayed(r, method, batch, wide, decay=True)
    rec = got['cross_entropy']
    r.check('rec_loss_sum', rec, tolerance, relative=True)
    r.check('rec_loss_mean', rec / np.mean(batch['known'].sum((1, 2))), tolerance, relative=True)
    reg = float(squares(jax.tree.map(np.float64, v['params']), f'combine{c["no_convs_fcomb"] - 1}'))
    r.check('reg_loss', reg, tolerance, relative=True)
