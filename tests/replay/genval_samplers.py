"""Samplers and whole loops of generation against the recorded ones."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from car_jax.generate import boxes, cldm, configs, pipelines, samplers, style, weights
from tests.golden import fill
from tests.replay import Replay, replays
from tests.replay.genval_networks import (
  KINDS,
  full_precision,
  hint,
  jitted,
  loss_of,
  nchw,
  network,
  nhwc,
  norms,
  read_json,
  schedule,
)

NAMES = {'scheduler_ddim': 'ddim', 'scheduler_ddim_eta': 'ddim'}
NAMES |= {'scheduler_pndm': 'pndm', 'scheduler_dpmpp2m': 'dpmpp_2m'}


@replays('genval', *NAMES)
def steps(r: Replay) -> None:
  kind, spacing = NAMES[r.stem], schedule(r)
  made = lambda steps, **kw: samplers.SAMPLERS[kind](spacing, steps, **kw)
  eps, options = jnp.asarray(r['eps']), {'eta': float(r['eta'])} if 'eta' in r else {}
  sampler = made(len(eps) - (kind == 'pndm'), **options)
  r.check('timesteps', sampler.timesteps, 0)
  noise = jnp.asarray(r['variance_noise']) if 'variance_noise' in r else jnp.zeros(())

  @jitted
  def run(x):
    body = lambda state, i: (sampler.step(state, i, eps[i], noise[i] if options else None),) * 2
    return jax.lax.scan(body, sampler.start(x), jnp.arange(len(eps)))[1].x

  r.check('trajectory', run(jnp.asarray(r['x_T'])), 1e-5, relative=True)
  for key in [k for k in r.arrays if k.startswith('timesteps_')]:
    r.check(key, made(int(key.removeprefix('timesteps_'))).timesteps, 0)
  if 'alphas_cumprod' in r:
    r.check('alphas_cumprod', spacing.alphas_cumprod, 1e-5, relative=True)


@replays('genval', 'add_noise')
def add_noise(r: Replay) -> None:
  found = schedule(r).noised(jnp.asarray(r['x0']), jnp.asarray(r['noise']), r['timesteps'])
  r.check('noisy', found, 1e-5, relative=True)


def networks(r: Replay, *names: str) -> tuple[pipelines.Networks, dict[str, Any]]:
  """Networks of configs.json and their parameters, by the names that a pipeline has for them."""
  parts = {KINDS[name]: network(r, name) for name in (*names, 'clip_text', 'vae')}
  nets = pipelines.Networks(**{kind: net for kind, (net, _) in parts.items()})
  return nets, {kind: params for kind, (_, params) in parts.items()}


@replays('genval', 'pipeline_controlnet')
@full_precision
def pipeline_controlnet(r: Replay) -> None:
  nets, params = networks(r, 'unet4', 'controlnet')
  sampler = samplers.DDIM(schedule(r), len(r['timesteps']))
  r.check('timesteps', sampler.timesteps, 0)

  @jitted
  def run(params, ids, latents, hint):
    how = dict(scale=float(r['guidance_scale']), keep=True)
    trajectory = pipelines.repainted(nets, sampler, params, ids, latents, hint, **how)
    first = (trajectory[0] - sampler.table['x'][0] * latents) / sampler.table['eps'][0]
    return first, trajectory, pipelines.decoded(nets, params, trajectory[-1])

  first, trajectory, image = run(params, r['input_ids'], nhwc(r['latents']), hint(r))
  r.check('guided_eps_first', nchw(first), 1e-3, relative=True)
  r.check('trajectory', np.moveaxis(trajectory, -1, 2), 1e-3, relative=True)
  image = np.asarray(image)[:, ::2, ::2]
  r.check('image', nchw(image), 1e-3, relative=True)
  r.check('image_uint8', style.pixels(image, truncated=True), 1)


@replays('genval', 'pipeline_inpaint')
@full_precision
def pipeline_inpaint(r: Replay) -> None:
  nets, params = networks(r, 'unet9')
  image = np.repeat(np.repeat(nhwc(r['image']), 4, 1), 4, 2)
  row, column, size = map(int, r['mask_box'])
  mask = boxes.Box(row, column, size, size).mask(*image.shape[1:3])[None] >= boxes.INSIDE

  @jitted
  def prepared(params, image, masked_noise, noise):
    beside = pipelines.surroundings(nets, params, image, mask, masked_noise)
    return beside, pipelines.encoded(nets, params, image, noise)

  beside, latents = prepared(params, image, nhwc(r['eps_masked']), nhwc(r['eps_image']))
  r.check('mask_latents', nchw(beside[..., :1]), 0)
  r.check('masked_image_latents', nchw(beside[..., 1:]), 1e-3, relative=True)
  r.check('image_latents', nchw(latents), 1e-3, relative=True)
  text = jitted(lambda p, ids: pipelines.context(nets, p, ids))(params, r['input_ids'])
  predict = jitted(
    lambda p, x, t, scale: pipelines.guided_noise(nets, p, text, scale, beside=beside)(x, t)
  )
  decode = jitted(lambda p, x: pipelines.decoded(nets, p, x))
  for name, kind in (('s100', 'ddim'), ('s065', 'ddim'), ('s100_pndm', 'pndm')):
    recorded = lambda key, name=name: r[f'{name}/{key}']
    strength = float(recorded('strength')) if f'{name}/strength' in r else 1.0
    count = int(recorded('num_inference_steps'))
    sampler = samplers.SAMPLERS[kind](schedule(r), count, strength=strength)
    r.check(f'{name}/timesteps', sampler.timesteps, 0)
    noise = jnp.asarray(nhwc(r['noise']))
    x = pipelines.first_latents(schedule(r), sampler, latents, noise, strength)
    r.check(f'{name}/start', nchw(x), 1e-3, relative=True)
    found = trajectory_of(sampler, predict, params, x, float(recorded('guidance_scale')))
    r.check(f'{name}/trajectory', np.moveaxis(found, -1, 2), 1e-3, relative=True)
    picture = decode(params, found[-1])[:, ::2, ::2]
    r.check(f'{name}/image', nchw(picture), 1e-3, relative=True)


def trajectory_of(sampler: samplers.Sampler, predict, params, x, *options) -> np.ndarray:
  """As samplers.denoised(keep=True), for a program that is compiled already."""
  step, state, found = jitted(sampler.step), sampler.start(x), []
  for i, t in enumerate(sampler.timesteps):
    state = step(state, i, predict(params, state.x, t, *options))
    found.append(state.x)
  return np.stack(found)


def cldm_networks(r: Replay) -> dict[str, tuple[Any, Any, dict[str, str]]]:
  """Component -> net, parameters, the checkpoint's names -> diffusers'."""
  state = fill.state_dict(str(r.folder / 'manifest_cldm.json'))
  sizes, names = read_json(r, 'configs')['cldm_as_diffusers'], cldm.translated(state)
  found = {}
  for kind, config in sizes.items():
    net = configs.module(kind, config, 'configs.json')
    ours = {name: theirs for name, (of, theirs) in names.items() if of == kind}
    own = {theirs: state[name] for name, theirs in ours.items()}
    found[kind] = net, weights.fitted(kind, net, own, kind, np.float32), ours
  return found


@replays('genval', 'cldm')
@full_precision
def cldm_code(r: Replay) -> None:
  nets = cldm_networks(r)
  (net, params, _), (control, control_params, names) = nets['unet'], nets['controlnet']

  @jitted
  def run(params, control_params, x, t, context, hint):
    added = control.apply({'params': control_params}, x, t, context, hint)
    return net.apply({'params': params}, x, t, context, added), added

  both, seen = (params, control_params), hint(r)
  eps, added = run(*both, nhwc(r['x']), r['timesteps'], r['ctx'], seen)
  r.check('eps', nchw(eps), 1e-3, relative=True)
  for i, x in enumerate(added):
    r.check(f'control_{i}', nchw(x), 1e-3, relative=True)
  context, first = r['ctx'][::-1], np.stack([seen[0], seen[0]])  # without the text, with it
  predict = lambda p, x, t: samplers.guided(
    run(*p, jnp.concatenate([x, x]), np.array([t, t]), context, first)[0], 8.0
  )
  for i, count in enumerate(r['ddim_num_steps']):
    sampler = samplers.DDIM(schedule(r, timestep_spacing='genval'), int(count))
    r.check(f'ddim_ts_{i}', sampler.timesteps, 0)
    found = trajectory_of(sampler, predict, both, jnp.asarray(nhwc(r['x_T'])))
    r.check(f'ddim_out_{i}', nchw(found[-1]), 1e-3, relative=True)
  loss = loss_of(net, params, control, r, schedule(r))
  (value, each), grads = jitted(jax.value_and_grad(loss, has_aux=True))(control_params)
  r.check('loss', value, 1e-3, relative=True)
  r.check('loss_per_sample', each, 1e-3, relative=True)
  ours = norms(grads)
  r.check('grad_norms', [ours[names[n]] for n in map(str, r['grad_names'])], 1e-3, relative=True)
