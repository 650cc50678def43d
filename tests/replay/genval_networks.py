"""Stable Diffusion's networks against the diffusers library; see tests/golden/genval/README.md."""

import functools
import json
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from car_jax.generate import cldm, configs, tokenizer, weights
from car_jax.generate.samplers import NoiseSchedule
from car_jax.methods.controlnet import controlled_losses
from car_jax.optim import AdamW
from tests.golden import fill
from tests.replay import Replay, replays

KINDS = {'unet4': 'unet', 'unet9': 'unet', 'controlnet': 'controlnet', 'vae': 'vae'}
KINDS |= {'clip_text': 'text_encoder'}
FULL_SIZE = {
  'unet': ('unet', {}),
  'unet_inpaint_differs': ('unet', dict(in_channels=9)),
  'controlnet_1ch': ('controlnet', dict(conditioning_channels=1)),
  'controlnet_3ch_differs': ('controlnet', {}),
  'vae': ('vae', {}),
  'text_encoder': ('text_encoder', {}),
}


def nhwc(x: Any) -> np.ndarray:
  return np.moveaxis(np.asarray(x), 1, -1)


def nchw(x: Any) -> np.ndarray:
  return np.moveaxis(np.asarray(x), -1, 1)


def read_json(r: Replay, name: str) -> Any:
  return json.loads((r.folder / f'{name}.json').read_text())


def full_precision(check):
  """Accelerators round products of matrices otherwise."""

  @functools.wraps(check)
  def run(r: Replay) -> None:
    with jax.default_matmul_precision('highest'):
      check(r)

  return run


def jitted(function: Any) -> Any:
  """On a CPU without optimisation: these programs take seconds to compile, milliseconds to run."""
  if jax.default_backend() != 'cpu':
    return jax.jit(function)
  options: dict[str, Any] = {'xla_backend_optimization_level': 0}
  if jax.__version__.startswith('0.10.'):  # newer ones do not know it
    options['xla_cpu_use_fusion_emitters'] = False
  return jax.jit(function, compiler_options=options)


def network(r: Replay, name: str) -> tuple[Any, Any]:
  """-> the net of configs.json and its parameters."""
  net = configs.module(KINDS[name], read_json(r, 'configs')[name], 'configs.json')
  filled = fill.state_dict(str(r.folder / f'manifest_{name}.json'))
  return net, weights.fitted(KINDS[name], net, filled, name, np.float32)


def schedule(r: Replay, **changed: Any) -> NoiseSchedule:
  config = read_json(r, 'configs')['scheduler'] | {'_class_name': 'DDIMScheduler'} | changed
  return configs.schedule(config, 'configs.json')[0]


def hint(r: Replay) -> np.ndarray:
  return np.repeat(np.repeat(nhwc(r['hint_small']), 16, 1), 16, 2)


def norms(tree: Any) -> dict[str, float]:
  """diffusers' name -> L2 norm"""
  return {n: np.linalg.norm(np.float64(a)) for n, a in weights.to_torch(tree).items()}


@replays('genval', 'unet4', 'unet9')
@full_precision
def unet(r: Replay) -> None:
  net, params = network(r, r.stem)
  taps = [key.removeprefix('tap/') for key in r.arrays if key.startswith('tap/')]
  places = {re.sub(r'\.(\d+)', r'_\1', tap).replace('.', '/'): tap for tap in taps}
  wanted = lambda module, method: method == '__call__' and '/'.join(module.path) in places
  run = jitted(lambda p, *x: net.apply({'params': p}, *x, capture_intermediates=wanted))
  out, kept = run(params, nhwc(r['sample']), r['timesteps'], r['ctx'])
  r.check('out', nchw(out), 1e-4, relative=True)
  for place, tap in places.items():
    node = functools.reduce(lambda tree, key: tree[key], place.split('/'), kept['intermediates'])
    seen = node['__call__'][0]
    seen = seen[0] if isinstance(seen, tuple) else seen
    mean = seen if seen.ndim == 2 else seen.mean((1, 2))
    r.check(f'tap/{tap}', mean, 1e-4, relative=True)


@replays('genval', 'controlnet')
@full_precision
def controlnet(r: Replay) -> None:
  (control, control_params), (net, params) = network(r, 'controlnet'), network(r, 'unet4')
  inputs = nhwc(r['sample']), r['timesteps'], r['ctx']
  encoder = lambda module, method: module.path == ('controlnet_cond_embedding',)

  @jitted
  def run(control_params, params, strength, hint, *inputs):
    found, kept = control.apply(
      {'params': control_params}, *inputs, hint, strength, capture_intermediates=encoder
    )
    return found, kept, net.apply({'params': params}, *inputs, control=found)

  found, kept, eps = run(control_params, params, 1.0, hint(r), *inputs)
  for i, x in enumerate(found[:-1]):
    r.check(f'down_{i}', nchw(x), 1e-4, relative=True)
  r.check('mid', nchw(found[-1]), 1e-4, relative=True)
  (embedded,) = kept['intermediates']['controlnet_cond_embedding']['__call__']
  r.check('hint_embed', nchw(embedded)[:, :, ::2, ::2], 1e-4, relative=True)
  r.check('eps', nchw(eps), 1e-4, relative=True)
  *_, eps = run(control_params, params, 0.7, hint(r), *inputs)
  r.check('eps_scale07', nchw(eps), 1e-4, relative=True)


@replays('genval', 'vae')
@full_precision
def vae(r: Replay) -> None:
  net, params = network(r, 'vae')
  variables = {'params': params}

  @jitted
  def run(variables, image, noise, latents):
    posterior = net.apply(variables, image, method='posterior')
    drawn = net.apply(variables, image, noise, method='encode')
    return *posterior, drawn, net.apply(variables, latents, method='decode')

  found = run(variables, *(nhwc(r[key]) for key in ('image', 'eps', 'latents')))
  for key, ours in zip(('mean', 'logvar', 'z_scaled', 'decoded'), found, strict=True):
    r.check(key, nchw(ours), 1e-4, relative=True)


@replays('genval', 'clip_text')
@full_precision
def clip_text(r: Replay) -> None:
  net, params = network(r, 'clip_text')
  last = f'layers_{net.num_hidden_layers - 1}'
  places = ('embeddings',), ('encoder', f'layers_{net.num_hidden_layers - 2}')
  kept = lambda module, method: module.path in places
  run = jitted(lambda p, ids: net.apply({'params': p}, ids, capture_intermediates=kept))
  found, seen = run(params, r['input_ids'])
  r.check('last_hidden_state', found, 1e-4, relative=True)
  seen = seen['intermediates']
  assert last not in seen['encoder']
  (embedded,), (penultimate,) = (
    functools.reduce(lambda tree, key: tree[key], place, seen)['__call__'] for place in places
  )
  r.check('hidden0_mean', embedded.mean(1), 1e-4, relative=True)
  r.check('penultimate_mean', penultimate.mean(1), 1e-4, relative=True)


@replays('genval', 'clip_text')
def tokens(r: Replay) -> None:
  lines = (r.folder / 'tokenizer_merges.txt').read_text().splitlines()[1:]
  merges = [tuple(line.split()) for line in lines]
  read = tokenizer.Tokenizer(read_json(r, 'tokenizer_vocab'), merges)
  cases = read_json(r, 'tokenizer_cases')
  wanted = [case['input_ids'] for case in cases]
  r.check('tokenizer_cases.json', read([case['text'] for case in cases]), 0, want=wanted)


def loss_of(net, params, control, r: Replay, sequence):
  """control's parameters -> mean squared error of the predicted noise, and that of each sample."""
  seen = tuple(jnp.asarray(x) for x in (nhwc(r['z0']), nhwc(r['noise']), r['timesteps']))
  ctx, shown = r['ctx'], hint(r)

  def loss(control_params):
    both = params, control_params
    each = controlled_losses((net, control), both, sequence, seen, ctx, shown)
    return each.mean(), each

  return loss


@replays('genval', 'controlnet_train')
@full_precision
def controlnet_train(r: Replay) -> None:
  (control, control_params), (net, params) = network(r, 'controlnet'), network(r, 'unet4')
  loss = loss_of(net, params, control, r, schedule(r))
  both = jitted(jax.value_and_grad(loss, has_aux=True))
  (value, each), grads = both(control_params)
  r.check('loss', value, 1e-5, relative=True)
  r.check('loss_per_sample', each, 1e-5, relative=True)
  names = [str(n) for n in r['param_names']]
  ours = norms(grads)
  assert {*names} == {*ours}
  r.check('grad_norms', [ours[n] for n in names], 1e-3, relative=True)
  optimizer = AdamW(lr=float(r['adamw_lr']))

  @jitted
  def step(control_params, grads):
    new, _ = optimizer.update(0, grads, optimizer.init(control_params), control_params)
    return jax.tree.map(jnp.subtract, new, control_params), new

  updates, control_params = step(control_params, grads)
  ours = norms(updates)
  r.check('update_norms', [ours[n] for n in names], 1e-2, relative=True)
  (value, _), _ = both(control_params)
  r.check('loss_after_step', value, 1e-2, relative=True)


@replays('genval', 'cldm')
def names_and_shapes(r: Replay) -> None:
  """Of the real networks: every tensor claimed once, with its shape."""
  manifests = read_json(r, 'full_size_manifests')
  missed = 0
  for key, (kind, fields) in FULL_SIZE.items():
    wanted = manifests[key]
    net = configs.MODULES[kind](**fields)
    prefix = 'text_model.' if kind == 'text_encoder' else ''
    shapes = weights.torch_shapes(weights.template(net))
    ours = {prefix + n: list(s) for n, s in shapes.items()}
    if key.endswith('_differs'):
      whole = {'unet': 'unet', 'controlnet': 'controlnet_1ch'}[kind]
      ours = {n: s for n, s in ours.items() if s != manifests[whole].get(n)}
    missed += ours != wanted
  r.check('full_size_manifests.json', missed, 0, want=0)
  table = read_json(r, 'cldm_to_diffusers')
  ours = {name: list(to) for name, to in cldm.translated(manifests['cldm_checkpoint']).items()}
  r.check('cldm_to_diffusers.json', ours != table, 0, want=0)
