"""Flow matching against MedFM's released code: the path, the net, a training step, both solvers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from car_jax.importers import ambiguous
from car_jax.methods.flow_matching import FOREGROUND, FlowMatching, Noise
from car_jax.optim import AdamW
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


class Plain(ImageAsGiven, FlowMatching):
  """The method, for images that are standardised already."""


def method_of(c: dict[str, Any], **options: Any) -> Plain:
  model = dict(
    name='guided_unet',
    widths=tuple(int(c['model_channels'] * m) for m in c['channel_mult']),
    blocks=c['num_res_blocks'],
    attention=tuple(c['attention']),
    head_width=0,
    scale_shift=True,
    resampling='pooling',
    time_width=c['model_channels'],
  )
  return Plain(2, 1, model, one_channel=True, image_dropout=0.5, **options)


@replays('families', 'flow_matching_medfm')
def medfm(r: Replay) -> None:
  c = settings(r)
  weights = Weights(r, lambda w: ambiguous.to_variables('flow_matching', w))
  method = method_of(c)
  batch = {'image': nhwc(r['image']), 'label': r['mask'][:, 0].astype(np.int32)}
  adam = AdamW(lr=1e-4, b2=0.95, weight_decay=0.01, ema=0.999)
  for wide in (True, False):
    tolerance = 1e-5 if wide else 1e-4
    with precision(wide) as cast:
      v, b = cast(weights.variables()), cast(batch)
      start, time = cast(nhwc(r['noise'])), cast(r['t'])

      def total(params: Any, seen: Any, b: Any = b, start: Any = start, time: Any = time) -> Any:
        of = {'params': params, 'batch_stats': {}}
        parts, *_ = method.loss(of, b, Noise(start, time, seen))
        end = method.end(b['label'], b['label'] >= 0, b['image'])
        t = time[:, None, None, None]
        x = t * end + (1 - t) * start
        image = jnp.where(seen[:, None, None, None], b['image'], 0)
        return sum(parts.values()), (x, end - start, method.trained(of, x, image, time, None))

      run = jax.jit(jax.value_and_grad(total, has_aux=True))
      every = np.ones(len(time), bool)
      (loss, (x, target, velocity)), grads = jax.device_get(run(v['params'], every))
      r.check('x_t', nchw(x), tolerance, relative=True)
      r.check('target', nchw(target), tolerance, relative=True)
      r.check('velocity', nchw(velocity), tolerance, relative=True)
      r.check('loss', loss, tolerance, relative=True)
      check_gradients(r, weights.foreign(grads), tolerance)
      (loss, (*_, velocity)), _ = jax.device_get(run(v['params'], ~every))
      r.check('velocity_without_image', nchw(velocity), tolerance, relative=True)
      r.check('loss_without_image', loss, tolerance, relative=True)
      check_steps(
        r, weights, adam, lambda p, run=run, seen=every: run(p, seen), v['params'], tolerance
      )
      check_paths(r, c, v, b, start[:, None])


def check_paths(r: Replay, c: dict[str, Any], v: Any, batch: Any, start: Any) -> None:
  guided = dict(sampling_steps=c['midpoint_steps'], guidance=c['cfg_scale'])
  solvers = {'guided_midpoint': guided}
  solvers['euler'] = dict(solver='euler', sampling_steps=c['euler_steps'])
  for key, options in solvers.items():
    method = method_of(c, **options)
    state = method.init(0, batch)
    state = state.replace(net=state.net.replace(params=v['params']))
    x = np.asarray(jax.jit(method.flowed)(state, batch, start))[:, 0]
    r.check(key, nchw(x), 1e-4, relative=True)
    if key == 'guided_midpoint':
      r.check('guided_midpoint_mask', nchw(x) >= FOREGROUND, 0.0)
