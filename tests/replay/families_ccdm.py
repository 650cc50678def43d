"""CCDM against its released code: the diffusion, the net, a training step, a chain back."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from car_jax import categorical
from car_jax.importers import ambiguous
from car_jax.methods.ccdm import CCDM
from car_jax.nn.denoising import TimeEmbedding, sinusoid
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
)


class Plain(ImageAsGiven, CCDM):
  """The method, for images that are standardised already."""


def one_hot(labels: Any, like: Any) -> Any:
  return jax.nn.one_hot(labels, like.shape[-1], dtype=like.dtype)


def margin(probs: Any, gumbel: Any) -> float:
  """How much the largest is above the second of what labels are the argmax of."""
  scores = np.sort(np.log(np.asarray(probs)) + gumbel, -1)
  return float(np.min(scores[..., -1] - scores[..., -2]))


@replays('families', 'ccdm_diffusion')
def diffusion(r: Replay) -> None:
  c = settings(r)
  weights = tuple(map(float, r['class_weights']))
  method = CCDM(c['num_classes'], 1, {}, diffusion_steps=c['time_steps'], class_weights=weights)
  for name in ('cosine', 'linear'):
    schedule = categorical.Schedule.of(name, c['time_steps'])
    r.check(f'{name}/betas', schedule.betas, 1e-12)
    r.check(f'{name}/cumalphas', schedule.kept, 1e-12)
  label, time = r['label'].astype(np.int32), r['t'].astype(np.int32)
  beta = categorical.Schedule.of('cosine', c['time_steps']).betas[time - 1][:, None, None, None]
  for wide in (True, False):
    with precision(wide) as cast:
      logits, gumbel = cast(nhwc(r['logits'])), cast(nhwc(r['gumbel']))
      start = np.asarray(one_hot(label, logits))

      def got(logits: Any, start: Any = start, gumbel: Any = gumbel) -> Any:
        x = method.noised(start, time, gumbel)
        step = method.steps.at(time - 1, logits)
        weight = jnp.asarray(weights, logits.dtype)[label]
        apart = method.divergences(x, start, time, logits, weight)
        return apart.mean(), {
          'xt': jnp.argmax(x, -1),
          'q_next_given_xt': categorical.redrawn(x, jnp.asarray(beta, x.dtype)),
          'posterior': categorical.posterior(x, start, *step),
          'predicted_posterior': categorical.posterior(x, jax.nn.softmax(logits), *step),
          'loss_per_image': apart,
        }

      (loss, out), grad = jax.device_get(jax.jit(jax.value_and_grad(got, has_aux=True))(logits))
    check_diffusion(r, loss, out, grad, wide)
  kept = categorical.Schedule.of('cosine', c['time_steps']).kept[time - 1][:, None, None, None]
  q = categorical.redrawn(np.float64(start), 1 - kept)
  r.check('q_xt_given_x0', nchw(q), 2e-6)
  r.check('gumbel_margin', margin(q, nhwc(np.float64(r['gumbel']))), 1e-5)


def check_diffusion(r: Replay, loss: Any, out: dict[str, Any], grad: Any, wide: bool) -> None:
  tolerance = dict.fromkeys(out, 2e-6 if wide else 2e-4)
  tolerance |= {'xt': 0.0, 'predicted_posterior': 1e-4 if wide else 2e-4}
  for key, value in out.items():
    value = nchw(value) if np.ndim(value) == 4 else value
    r.check(key, value, tolerance[key], relative=key != 'xt')
  r.check('loss', loss, tolerance['loss_per_image'], relative=True)
  r.check('grad_logits', nchw(grad), tolerance['loss_per_image'], relative=True)


def method_of(c: dict[str, Any], **options: Any) -> Plain:
  model = dict(
    name='guided_unet',
    widths=tuple(int(c['base'] * m) for m in c['mult']),
    blocks=c['res'],
    attention=tuple(a for a in c['att'] if a < 2 ** len(c['mult'])),  # coarser maps are none
    head_width=c['head'],
    time_width=c['base'],
  )
  return Plain(c['num_classes'], 1, model, **options)


@replays('families', 'ccdm_unet')
def net(r: Replay) -> None:
  c = settings(r)
  weights = Weights(r, lambda w: ambiguous.to_variables('ccdm', w))
  method = method_of(c, diffusion_steps=c['time_steps'])
  batch = {'image': nhwc(r['image']), 'label': r['label'].astype(np.int32)}
  time = r['t'].astype(np.int32)
  adam = Adam(lr=1e-4, schedule='poly', end=1e-6, decay_steps=9, ema=0.9, ema_warmup=False)
  for wide in (True, False):
    tolerance = 1e-5 if wide else 1e-4
    with precision(wide) as cast:
      v, b, gumbel = cast(weights.variables()), cast(batch), cast(nhwc(r['gumbel']))

      def total(params: Any, b: Any = b, gumbel: Any = gumbel) -> Any:
        of = {'params': params, 'batch_stats': {}}
        start = jax.nn.one_hot(b['label'], c['num_classes'], dtype=b['image'].dtype)
        x = method.noised(start, time, gumbel)
        logits = method.trained(of, x, b['image'], time, None)
        wave = sinusoid(time.astype(x.dtype), c['base'])
        features = TimeEmbedding(4 * c['base']).apply({'params': params['time_embedding']}, wave)
        parts, *_ = method.loss(of, b, (time, gumbel))
        return sum(parts.values()), {
          'xt': jnp.argmax(x, -1),
          'x0_probs': jnp.moveaxis(jax.nn.softmax(logits), -1, 1),
          'time_embedding': wave,
          'time_features': features,
        }

      run = jax.jit(jax.value_and_grad(total, has_aux=True))
      (loss, out), grads = jax.device_get(run(v['params']))
      for key, value in out.items():
        r.check(key, value, 0.0 if key == 'xt' else tolerance, relative=key != 'xt')
      r.check('loss', loss, tolerance, relative=True)
      check_gradients(r, weights.foreign(grads), tolerance)
      check_steps(r, weights, adam, run, v['params'], tolerance)
      check_chain(r, method_of(c, diffusion_steps=c['sample_steps']), v, cast, tolerance)


def check_chain(r: Replay, method: Plain, v: Any, cast: Any, tolerance: float) -> None:
  """Step by step, and the whole way in one."""
  image, gumbels = cast(nhwc(r['image'])), cast(nhwc(r['gumbel_chain']))
  state = method.init(0, {'image': image})
  state = state.replace(net=state.net.replace(params=v['params']))
  predict = lambda x, t: jax.nn.softmax(method.predicting(state, image, 1)(x, t))
  labels = jnp.argmax(cast(nhwc(r['gumbel_start'])), -1)[:, None]
  last = len(method.steps.time) - 1
  noise = jnp.concatenate([gumbels, 0 * gumbels[:1]])[::-1, :, None]  # of step k, from 0

  @jax.jit
  def before(labels: Any, k: Any) -> Any:
    x = one_hot(labels, noise)
    probs = categorical.posterior(
      x, predict(x, jnp.asarray(method.steps.time)[k]), *method.steps.at(k, noise)
    )
    return probs, categorical.drawn(probs, noise[k])

  whole = jax.jit(
    lambda labels: categorical.reversed_chain(method.steps, predict, lambda k: noise[k], labels)
  )
  got, smallest, final = [], np.inf, whole(labels)
  for k in range(last, -1, -1):
    got.append(np.asarray(labels[:, 0]))
    probs, labels = before(labels, k)
    if k:
      smallest = min(smallest, margin(probs, noise[k]))
  r.check('chain', np.stack(got), 0.0)
  r.check('chain_margin', smallest, 1e-4)
  r.check('chain_final_probs', nchw(final[:, 0]), tolerance, relative=True)
