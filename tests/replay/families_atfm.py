"""The net of ATFM's second stage: its velocities, its loss over readers, its sampler."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from car_jax.importers import atfm, rules
from car_jax.nn.linear_attention_unet import LinearAttentionUNet
from tests.replay import Replay, replays
from tests.replay.families_shared import Weights, check_gradients, nchw, nhwc, precision, settings


@replays('families', 'flow_matching_atfm')
def flow(r: Replay) -> None:
  """One draw and one time of each image for all of its readers, as the release has it."""
  c = settings(r)
  weights = Weights(r, lambda w: rules.convert(atfm.unet(w), w))
  net = LinearAttentionUNet(1, c['dim'], tuple(c['dim_mults']), multiplied_kernels=True)

  def found(params: Any, image: Any, masks: Any, start: Any, t: Any) -> Any:
    """masks [B, M, H, W, 1], start [B, H, W, 1] -> the mean of readers' losses; velocities
    [B, M, H, W, 1], losses [M]."""
    share, start = t[:, None, None, None, None], start[:, None]
    on_the_way = share * masks + (1 - share) * start
    of_reader = lambda x: net.apply({'params': params}, x, image, t, train=True)
    velocity = jax.vmap(of_reader, 1, 1)(on_the_way)
    losses = jnp.mean(jnp.square(velocity - (masks - start)), (0, 2, 3, 4))
    return losses.mean(), (velocity, losses)

  def sample(params: Any, image: Any, start: Any) -> Any:
    """Euler's method from the draw on."""
    x, steps = start, c['euler_steps']
    for k in range(steps):
      t = jnp.full(len(image), k / steps, image.dtype)
      x = x + net.apply({'params': params}, x, image, t, train=False) / steps
    return x

  for wide in (True, False):
    tolerance = 1e-5 if wide else 1e-4
    with precision(wide) as cast:
      given = (nhwc(r['image']), r['masks'][..., None], jax.nn.sigmoid(nhwc(r['prior_logits'])))
      params, image, masks, start, t = cast((weights.variables()['params'], *given, r['t']))
      run = jax.jit(jax.value_and_grad(found, has_aux=True))
      (loss, (velocity, losses)), grads = jax.device_get(run(params, image, masks, start, t))
      r.check('velocity', velocity[..., 0], tolerance, relative=True)
      r.check('losses', losses, tolerance, relative=True)
      r.check('loss', loss, tolerance, relative=True)
      check_gradients(r, weights.foreign(grads), tolerance)
      made = jax.jit(sample)(params, image, start)
      r.check('sample', nchw(np.asarray(made)), tolerance, relative=True)
