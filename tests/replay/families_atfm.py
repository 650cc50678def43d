"""The net of ATFM's second stage: its velocities, its loss over readers, its sampler."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from car_jax.importers import atfm, rules
from car_jax.methods.flow_matching import FlowMatching, Noise
from tests.replay import Replay, replays
from tests.replay.families_shared import (
  ImageAsGiven,
  Weights,
  check_gradients,
  nchw,
  nhwc,
  precision,
  settings,
)


class Plain(ImageAsGiven, FlowMatching):
  """One whose start is taken as it is, too."""

  def started(self, state: Any, batch: Any, noise: Any) -> Any:
    return noise


def method_of(c: dict[str, Any]) -> Plain:
  model = dict(name='linear_attention_unet', width=c['dim'], multipliers=tuple(c['dim_mults']))
  kw = dict(solver='euler', sampling_steps=c['euler_steps'], one_channel=True, all_readers=True)
  start = dict(name='ssn', model=dict(name='unet', widths=(4,)))
  return Plain(2, 1, model | dict(multiplied_kernels=True), start=start, **kw)


@replays('families', 'flow_matching_atfm')
def flow(r: Replay) -> None:
  """One draw and one time of each image for all of its readers, as the release has it."""
  c = settings(r)
  weights, method = Weights(r, lambda w: rules.convert(atfm.unet(w), w)), method_of(c)
  masks = r['masks'].astype(np.int32)
  share = np.full(masks.shape[:2], 1 / masks.shape[1], np.float32)
  batch = {'image': nhwc(r['image']), 'labels': masks, 'label_weight': share}
  for wide in (True, False):
    tolerance = 1e-5 if wide else 1e-4
    with precision(wide) as cast:
      start = jax.nn.sigmoid(cast(nhwc(r['prior_logits'])))
      noise = Noise(start, cast(r['t']), np.ones(len(start), bool))
      params, b = cast(weights.variables()['params']), cast(batch)

      def total(params: Any, b: Any, noise: Any) -> Any:
        """-> the loss; velocities [B, M, H, W, 1] and losses [M] of single readers."""
        v = {'params': params, 'batch_stats': {}}
        parts, *_ = method.loss(v, b, noise)
        t, seen = noise.time[:, None, None, None], jnp.ones(masks.shape[2:], bool)
        ends = [method.end(m, seen, b['image']) for m in np.moveaxis(masks, 1, 0)]
        each = [
          method.trained(v, t * e + (1 - t) * noise.start, b['image'], noise.time, None)
          for e in ends
        ]
        losses = [jnp.square(o - (e - noise.start)).mean() for e, o in zip(ends, each, strict=True)]
        return sum(parts.values()), (jnp.stack(each, 1), jnp.stack(losses))

      run = jax.jit(jax.value_and_grad(total, has_aux=True))
      (loss, (velocity, losses)), grads = jax.device_get(run(params, b, noise))
      r.check('velocity', velocity[..., 0], tolerance, relative=True)
      r.check('losses', losses, tolerance, relative=True)
      r.check('loss', loss, tolerance, relative=True)
      check_gradients(r, weights.foreign(grads), tolerance)
      state = method.init(0, b)
      state = state.replace(net=state.net.replace(params=params))
      made = jax.jit(method.flowed)(state, b, start[:, None])
      r.check('sample', nchw(np.asarray(made)[:, 0]), tolerance, relative=True)
