"""A pipeline that the diffusers library saved; see tests/golden/diffusers/README.md."""

import jax.numpy as jnp
import numpy as np

from car_jax.generate import samplers, weights
from tests.replay import Replay, replays
from tests.replay.genval_networks import full_precision, jitted, nchw, nhwc
from tests.replay.genval_samplers import trajectory_of

SCALE, STEPS = 5.0, 4  # with which the recorded latents were generated


@replays('diffusers', 'pipeline')
@full_precision
def pipeline(r: Replay) -> None:
  found = weights.load_pipeline(r.folder / 'pipeline')
  control, control_params = weights.load('controlnet', r.folder / 'controlnet')
  unet, params, texts = found.unet, found.params, [str(text) for text in r['texts']]
  r.check('ids', found.tokenizer(texts), 0)
  r.check('context', found.context(texts), 1e-4, relative=True)
  inputs = nhwc(r['sample']), r['timestep'], r['ctx']
  hint = np.repeat(np.repeat(nhwc(r['hint_small']), 4, 1), 4, 2)
  added = jitted(lambda p, *x: control.apply({'params': p}, *x))(control_params, *inputs, hint)
  r.check('mid', nchw(added[-1]), 1e-4, relative=True)
  r.check('down_last', nchw(added[-2]), 1e-4, relative=True)
  predict = jitted(lambda p, x, t, c, added: unet.apply({'params': p}, x, t, c, added))
  nothing = [jnp.zeros_like(a) for a in added]
  r.check('eps', nchw(predict(params['unet'], *inputs, nothing)), 1e-4, relative=True)
  r.check('eps_control', nchw(predict(params['unet'], *inputs, added)), 1e-4, relative=True)
  vae, latents = found.vae, nhwc(r['mean']) * found.vae.scaling_factor

  @jitted
  def both_ways(params, image, latents):
    mean, _ = vae.apply({'params': params}, image, method='posterior')
    return mean, vae.apply({'params': params}, latents, method='decode')

  mean, decoded = both_ways(params['vae'], nhwc(r['image']), latents)
  r.check('mean', nchw(mean), 1e-4, relative=True)
  r.check('decoded', nchw(decoded), 1e-4, relative=True)
  made = lambda steps: samplers.SAMPLERS[found.sampler](found.schedule, steps)
  r.check('pndm_timesteps', made(5).timesteps, 0)
  context = found.context(['', texts[0]])

  def guided(p, x, t):
    eps = predict(p, jnp.concatenate([x, x]), np.int64(t), context, nothing)
    return samplers.guided(eps, SCALE)

  trajectory = trajectory_of(made(STEPS), guided, params['unet'], jnp.asarray(nhwc(r['latents'])))
  r.check('generated', nchw(trajectory[-1]), 1e-3, relative=True)
