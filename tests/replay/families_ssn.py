"""SSN's head and loss against the official code, and a whole net against the SSN of ATFM."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from car_jax.importers import ambiguous
from car_jax.methods.ssn import SSN, LowRank
from car_jax.optim import AdamW
from tests.replay import Replay, replays
from tests.replay.families_shared import (
  Weights,
  check_gradients,
  check_steps,
  nchw,
  nhwc,
  precision,
  settings,
)

UNET = dict(name='unet', norm=False, align_corners=True)
EPSILON = 1e-5
HEADS = ('mean_l', 'log_cov_diag_l', 'cov_factor_l')


def own_noise(eps: np.ndarray, classes: int, size: tuple[int, ...]) -> np.ndarray:
  """[S, B, C H W] -> [B, S, C, H, W]"""
  return np.moveaxis(eps.reshape(*eps.shape[:2], classes, *size), 0, 1)


def event(x: Any) -> np.ndarray:
  """[B, R, K, H, W] -> [B, K H W, R]"""
  return np.swapaxes(np.asarray(x).reshape(*x.shape[:2], -1), 1, 2)


def by_sample(x: Any) -> np.ndarray:
  """[B, S, C, H, W] -> [S, B, C, H, W]"""
  return np.swapaxes(x, 0, 1)


def method_of(c: dict[str, Any], **options: Any) -> SSN:
  options |= dict(rank=c['rank'], samples=c['samples'])
  classes, widths = c.get('num_classes', 2), tuple(c.get('num_filters', (1,)))
  return SSN(classes, 1, UNET | dict(widths=widths), **options)


def masked(normal: LowRank, mask: Any) -> LowRank:
  """Of a region alone, as the official code has it: enlarged within it, then everywhere."""
  variance = (normal.variance - EPSILON) * mask[:, None] + EPSILON
  return normal.replace(variance=variance, factor=normal.factor * mask[:, None, None])


@replays('families', 'ssn_head')
def head(r: Replay) -> None:
  """The heads alone, by the method's distribution, draws and likelihood."""
  c = settings(r)
  size, classes = tuple(c['size']), c['num_classes']
  weights = Weights(r, lambda w: ambiguous.to_variables('ssn', w))
  every = (r['eps_w'], r['eps_d'])
  shared, own = np.moveaxis(every[0], 0, 1), own_noise(every[1], classes, size)
  half = c['samples'] // 2
  for wide in (True, False):
    with precision(wide) as cast:
      v, mask = cast(weights.variables()), cast(r['mask'])
      method, free = method_of(c), method_of(c, antithetic=False)
      given = cast((nhwc(r['features']), shared, own))
      batch = {'label': r['label'].astype(np.int32)}

      def got(params, features, shared, own, method=method, free=free, mask=mask, batch=batch):
        layer = params['out']
        normal = method.distribution(jax.nn.relu(features) @ layer['kernel'] + layer['bias'])
        normal = masked(normal, mask)
        out = {'normal': normal}
        kinds = {'': normal, 'diagonal/': normal.replace(factor=0 * normal.factor)}
        for name, of in kinds.items():
          pairs = method.sampled(of, (shared[:, :half], own[:, :half]))
          each = free.sampled(of, (shared, own))
          for tag, logits in (('', pairs), ('iid_', each)):
            likelihood = method.log_likelihood(logits, batch)  # of all pixels
            average = jax.nn.logsumexp(likelihood, 1) - jnp.log(likelihood.shape[1])
            out[f'{name}{tag}log_lik'] = likelihood.T
            out[f'{name}{tag}loss'] = -average.mean()
            if not name and not tag:
              out |= {'samples': logits, 'log_lik_per_image': average}
        return out['loss'], out

      run = jax.jit(jax.value_and_grad(got, argnums=(0, 1), has_aux=True))
      (_, out), (grads, of_features) = jax.device_get(run(v['params'], *given))
    check_head(r, out, 2e-6 if wide else 1e-5)
    check_gradients(r, weights.foreign(grads), 1e-4)
    strided = nchw(of_features)[:, :, ::3, ::3]
    r.check('grad/features', strided, 1e-4, relative=True)


def check_head(r: Replay, out: dict[str, Any], tolerance: float) -> None:
  normal = out.pop('normal')
  r.check('samples', by_sample(out.pop('samples')), tolerance, relative=True)
  for key, value in out.items():
    if key in r:
      r.check(key, value, tolerance, relative=True)
  r.check('mean', normal.mean, tolerance, relative=True)
  r.check('cov_diag', normal.variance, tolerance, relative=True)
  r.check('variance', normal.whole_variance, tolerance, relative=True)
  factor = event(normal.factor)
  r.check('cov_factor', factor, tolerance, relative=True)
  diagonal = normal.variance.reshape(len(factor), -1, 1)
  capacitance = np.eye(factor.shape[2]) + np.swapaxes(factor, 1, 2) @ (factor / diagonal)
  r.check('capacitance', capacitance, 10 * tolerance, relative=True)


@replays('families', 'ssn_unet_binary')
def unet(r: Replay) -> None:
  c = settings(r)
  weights = Weights(r, lambda w: ambiguous.to_variables('ssn', w))
  method = method_of(c, one_logit=True)
  shared, own = np.moveaxis(r['eps_w'], 0, 1), own_noise(r['eps_d'], 1, tuple(c['size']))
  for wide in (True, False):
    tolerance = 2e-6 if wide else 1e-5
    with precision(wide) as cast:
      v, x, noise = cast(weights.variables()), cast(nhwc(r['x'])), cast((shared, own))
      batch = {'label': r['mask'][:, 0].astype(np.int32)}

      def got(params, x=x, noise=noise, batch=batch):
        net = method.net
        features = net.apply({'params': params}, x, train=True, method='features')
        normal = method.distribution(net.apply({'params': params}, x, train=True))
        logits = method.sampled(normal, noise)
        likelihood = method.log_likelihood(logits, batch)
        average = jax.nn.logsumexp(likelihood, 1) - jnp.log(likelihood.shape[1])
        return -average.mean(), (features, normal, logits, likelihood.T)

      run = jax.jit(jax.value_and_grad(got, has_aux=True))
      (loss, (features, normal, logits, likelihood)), grads = jax.device_get(run(v['params']))
      r.check('features', nchw(features), tolerance, relative=True)
      r.check('mean', normal.mean, tolerance, relative=True)
      r.check('cov_diag', normal.variance, tolerance, relative=True)
      r.check('cov_factor', event(normal.factor), tolerance, relative=True)
      r.check('samples', by_sample(logits)[:, :, 1:], tolerance, relative=True)
      r.check('log_lik', likelihood, tolerance, relative=True)
      r.check('loss', loss, tolerance, relative=True)
      check_gradients(r, weights.foreign(grads), 2e-5 if wide else 1e-4)
      optimizer = AdamW(lr=1e-4, weight_decay=1e-4)
      check_steps(r, weights, optimizer, run, v['params'], tolerance)
