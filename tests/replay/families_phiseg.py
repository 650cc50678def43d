"""PHiSeg against UNet-Zoo's port with free sizes."""

import functools
from typing import Any

import jax
import numpy as np

from car_jax.importers import ambiguous
from car_jax.methods.phiseg import PHiSeg
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


class Plain(ImageAsGiven, PHiSeg):
  """The method, for images that are standardised already."""


def method_of(c: dict[str, Any], **options: Any) -> Plain:
  model = dict(name='phiseg', widths=tuple(c['num_filters']), levels=c['latent_levels'])
  return Plain(c['num_classes'], 1, model, **options)


def total(method: Plain, params: Any, stats: Any, batch: Any, noise: Any) -> Any:
  """The loss; what the nets say, the parts of the loss, the running statistics."""
  v = {'params': params, 'batch_stats': stats}
  parts, logs, new = method.loss(v, batch, noise)
  args = (v, batch['image'], batch['label'], noise)
  nets, _ = method.net.apply(*args, train=True, mutable=['batch_stats'])
  return sum(parts.values()), (nets, logs, new)


def check_training(r: Replay, got: Any, noise: Any, tolerance: float) -> None:
  logits, priors, posteriors = got
  size = np.array(r['s0'].shape[-2:])
  for i, (s, p, q) in enumerate(zip(logits, priors, posteriors, strict=True)):
    s = nchw(s)
    times = size // s.shape[-2:]
    whole = s.repeat(times[0], -2).repeat(times[1], -1)
    r.check(f's{i}', whole, tolerance, relative=True)
    for name, of in (('prior', p), ('post', q)):
      r.check(f'{name}_mu{i}', nchw(of.mean), tolerance, relative=True)
      r.check(f'{name}_sigma{i}', nchw(of.deviation), tolerance, relative=True)
    r.check(f'z{i}', nchw(q.mean + q.deviation * noise[i]), tolerance, relative=True)


def check_losses(
  r: Replay, method: Plain, loss: Any, logs: Any, grads: dict[str, np.ndarray], wide: bool
) -> None:
  tag, prefix = ('_port', 'port/') if method.port_kl else ('', '')
  tolerance = 1e-5 if wide else 1e-4
  for i in range(method.net.levels):
    if not tag:
      r.check(f'ce{i}', logs[f'cross_entropy/level{i}'], tolerance, relative=True)
    r.check(f'kl{tag}{i}', logs[f'divergence/level{i}'], tolerance, relative=True)
  r.check(f'loss{tag}', loss, tolerance, relative=True)
  own = 0.0 if wide else 5e-3
  check_gradients(r, grads, 2e-5 if wide else 1e-3, prefix, own)


def check_generated(r: Replay, method: Plain, variables: Any, x: Any, eps: Any, wide: bool) -> None:
  def generated(v, x, eps):
    maps = method.net.apply(v, x, method='encoded')
    return method.net.apply(v, maps, eps, method='generated')

  logits, priors, draws = jax.device_get(jax.jit(generated)(variables, x, eps))
  tolerance, shape = 1e-5 if wide else 1e-4, eps[0].shape[:2]
  r.check('gen_logits', nchw(logits), tolerance, relative=True)
  for i, (prior, z) in enumerate(zip(priors, draws, strict=True)):
    each = {'mu': prior.mean, 'sigma': prior.deviation, 'z': z}
    for name, a in each.items():
      r.check(
        f'gen_{name}{i}', nchw(a).reshape(*shape, *nchw(a).shape[1:]), tolerance, relative=True
      )


@replays('families', 'phiseg')
def phiseg(r: Replay) -> None:
  c = settings(r)
  levels = range(c['latent_levels'])
  weights = Weights(r, lambda w: ambiguous.to_variables('phiseg', w))
  method, port = method_of(c), method_of(c, port_kl=True)
  batch = {'image': nhwc(r['x']), 'label': r['label'].astype(np.int32)}
  post = [nhwc(r[f'eps_post{i}']) for i in levels]
  gen = [np.moveaxis(nhwc(r[f'eps_gen{i}']), 0, 1) for i in levels]
  unused = f'upsampling_path.{levels[-1]}.'
  for wide in (True, False):
    tolerance = 1e-5 if wide else 1e-4
    with precision(wide) as cast:
      v, b, noise = cast(weights.variables()), cast(batch), cast(post)
      args = (v['batch_stats'], b, noise)
      for of in (port, method):
        run = jax.jit(jax.value_and_grad(functools.partial(total, of), has_aux=True))
        (loss, (nets, logs, stats)), grads = jax.device_get(run(v['params'], *args))
        check_losses(r, of, loss, logs, weights.foreign(grads), wide)
      check_training(r, nets, noise, tolerance)
      for name, value in weights.foreign(stats, 'batch_stats').items():
        if (key := f'buffer/{name}') in r and unused not in name:
          r.check(key, value, tolerance, relative=True)
      check_generated(r, method, {**v, 'batch_stats': stats}, b['image'], cast(gen), wide)
      step = jax.tree_util.Partial(lambda args, p, run=run: run(p, *args), args)
      adam = Adam(lr=1e-3, weight_decay=1e-5)
      params = check_steps(r, weights, adam, step, v['params'], tolerance)
      (_, ((logits, *_), *_)), _ = jax.device_get(step(params))
      r.check('after_logits', nchw(sum(logits)), 1e-5 if wide else 5e-3, relative=True)
  r.leave_out('of a block that is never run', f'buffer/*{unused}*')
