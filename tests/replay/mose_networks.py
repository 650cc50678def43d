"""MoSE's network and training step against the recorded outputs of the released code."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from car_jax.importers import mose
from car_jax.losses import transport
from car_jax.metrics import stochastic
from car_jax.nn.mose import MoSENet
from car_jax.optim import Adam
from tests.golden.fill import fill
from tests.replay import Replay, replays
from tests.whole import whole

CONFIGS = ('lidc', 'lidc_light', 'city', 'city_light')


def nhwc(x: np.ndarray) -> np.ndarray:
  return np.moveaxis(np.asarray(x, np.float32), -3, -1)


def nchw(x: Any) -> np.ndarray:
  return np.moveaxis(np.asarray(x), -1, -3)


def network(r: Replay, config: str) -> tuple[MoSENet, dict[str, Any], dict[str, list[int]]]:
  """The net that a manifest describes, its recorded weights, the manifest."""
  manifest = json.loads((r.folder / f'manifest_{config}.json').read_text())
  weights = {name: fill(name, tuple(shape)) for name, shape in manifest.items()}
  weights |= {k: r[k] for k in ('mu', 'log_sigma') if k in r}
  levels = 1 + max(int(k.split('.')[2]) for k in manifest if 'contracting_path' in k)
  first = ['backbone.contracting_path.0.layers.0.weight']
  first += [f'backbone.contracting_path.{k}.layers.1.weight' for k in range(1, levels)]
  net = MoSENet(
    num_classes=manifest['last_layer.weight'][0],
    widths=tuple(manifest[k][0] for k in first),
    latent=manifest['mu'][1],
    experts=manifest['mu'][0],
  )
  return net, mose.to_variables(weights), manifest


def run(net: MoSENet, method: str, variables: Any, *inputs: Any, **kw: Any) -> Any:
  call = jax.jit(lambda v, *x: net.apply(v, *x, method=method, **kw))
  with jax.default_matmul_precision('highest'):
    return call(variables, *inputs)


@replays('mose', *(f'backbone_{c}' for c in CONFIGS))
def backbone(r: Replay) -> None:
  net, variables, _ = network(r, r.stem.removeprefix('backbone_'))
  skips, features = run(net, 'features', variables, nhwc(r['x']), train=False)
  step = int(r['stride'])
  r.check('u_g', nchw(skips[-1]), 1e-5, relative=True)
  r.check('u_d_strided', nchw(features)[:, :, ::step, ::step], 1e-5, relative=True)
  wide = np.asarray(features, np.float64)
  r.check('u_d_sum', wide.sum((1, 2)), 1e-4, relative=True)
  r.check('u_d_abs_sum', abs(wide).sum((1, 2)), 1e-4, relative=True)
  for k, skip in enumerate(skips):
    r.check(f'enc{k}_sum', np.asarray(skip, np.float64).sum((1, 2)), 1e-4, relative=True)
  r.check('expert_probs', run(net, 'gate', variables, skips[-1]), 1e-6)


def masked(logits: Any, label: np.ndarray) -> Any:
  """The released void: where the first annotation is class 0 the prediction is (1, 0, ..)."""
  void = (np.asarray(label)[:, 0] == 0)[:, None, :, :, None]
  return jnp.where(void, jax.nn.one_hot(0, logits.shape[-1]), logits)


def said(config: str, logits: Any, label: np.ndarray) -> Any:
  return masked(logits, label) if config.startswith('city') else jax.nn.softmax(logits)


@replays('mose', *(f'forward_{c}' for c in CONFIGS))
def forward(r: Replay) -> None:
  config = r.stem.removeprefix('forward_')
  net, variables, _ = network(r, config)
  skips, features = run(net, 'features', variables, nhwc(r['x']), train=False)
  gate = run(net, 'gate', variables, skips[-1])
  eps, ids = r['eps'], r['std_expert_id'].astype(np.int32)
  latents = {
    '': run(net, 'compact', variables, eps),
    'std_': run(net, 'drawn', variables, ids, r['std_eps']),
  }
  weights = {
    '': np.repeat(gate / eps.shape[1], eps.shape[1], axis=1),
    'std_': np.full(ids.shape, 1 / ids.shape[1]),
  }
  every, few = int(r['pred_stride']), int(r['sample_stride'])
  for tag, z in latents.items():
    out = said(config, run(net, 'head', variables, features, z, train=False), r['label'])
    r.check(f'{tag}z', z, 1e-6)
    r.check(f'{tag}sample_probs', weights[tag], 1e-6)
    logits = config.startswith('city')
    r.check(f'{tag}pred', nchw(out)[:, ::few, :, ::every, ::every], 1e-5, relative=logits)
    total = np.asarray(out, np.float64).sum((2, 3))
    r.check(f'{tag}pred_sum', total, 1e-5, scale=out.shape[2] * out.shape[3] * abs(out).max())
    scores(r, tag, config, np.asarray(jnp.argmax(out, -1)), weights[tag])


def scores(r: Replay, tag: str, config: str, samples: np.ndarray, weight: np.ndarray) -> None:
  flips = (2, 12, 14, 9, 1, 20, 21, 22, 23, 24)
  conventions = (
    {'classes': flips, 'absent': 'skip'} if config.startswith('city') else {'classes': (1,)}
  )
  found = whole(stochastic.compare)(
    samples,
    r['label'].astype(np.int32),
    sample_weight=np.float32(weight),
    reader_weight=r['prob_gt'],
    **conventions,
  )
  r.check(f'{tag}ged', np.nanmean(whole(stochastic.ged)(found).ged), 2e-3)
  r.check(f'{tag}m_iou', np.nanmean(whole(stochastic.hm_iou)(found)), 2e-3)


def loss_of(config: str, logits: Any, weight: Any, batch: dict[str, Any], r: Any) -> Any:
  """The released loss, soft grouping included."""
  label, q = batch['label'], batch['weight']
  out = said(config, logits, label)
  kind = transport.cross_entropy_cost if config.startswith('city') else transport.iou_cost
  cost = kind(out, label)
  plan = transport.greedy_plan(jax.lax.stop_gradient(cost), q, float(r['gamma']))
  if float(r['G']) >= 1:
    return transport.transport(cost, plan, weight, float(r['beta'])), None
  ids = transport.expert_groups(out, r['mu'].shape[0], float(r['G']))
  found = transport.transport(cost, plan, weight, float(r['beta']), ids)
  return found, tuple(transport.grouped(x, ids) for x in (weight, plan.sum(2)))


TRAIN = {
  'train_lidc_full': 'lidc_light',
  'train_lidc_gamma1': 'lidc_light',
  'train_lidc_1annot': 'lidc_light',
  'train_lidc_deep': 'lidc',
  'train_city': 'city_light',
  'train_city_soft': 'city_light',
}


def by_name(tree: Any, manifest: dict[str, list[int]], group: str) -> dict[str, np.ndarray]:
  """Our `params` or `batch_stats` under the released names and layouts."""
  numbers = mose.to_variables({n: np.full(s, i) for i, (n, s) in enumerate(manifest.items())})
  names, out = list(manifest), {}
  for number, leaf in zip(jax.tree.leaves(numbers[group]), jax.tree.leaves(tree), strict=True):
    name = names[int(np.ravel(number)[0])]
    shape = manifest[name]
    order = {4: (3, 2, 0, 1), 2: (1, 0)}.get(np.ndim(leaf))
    plain = (
      np.asarray(leaf) if name in ('mu', 'log_sigma') or order is None else leaf.transpose(order)
    )
    out[name] = np.reshape(plain, shape)
  return out


@replays('mose', *TRAIN)
def train(r: Replay) -> None:
  config = TRAIN[r.stem]
  net, variables, manifest = network(r, config)
  assert r['eps'].shape[1] == r['sample_per_mode']
  batch = {'label': r['label'].astype(np.int32), 'weight': jnp.asarray(r['prob_gt'])}

  def loss(params):
    v = variables | {'params': params}
    (logits, weight), new = net.apply(
      v, nhwc(r['x']), r['eps'], train=True, mutable=['batch_stats']
    )
    found, groups = loss_of(config, logits, weight, batch, r)
    return found.loss, (found, groups, new['batch_stats'])

  r['mu'], r['label'], r['prob_gt'], r['beta'], r['gamma'], r['G'], r['x'], r['eps']
  with jax.default_matmul_precision('highest'):
    grads, (found, groups, stats) = jax.jit(jax.grad(loss, has_aux=True))(variables['params'])
  for key, ours in (
    ('loss', found.loss),
    ('seg_loss', found.segmentation),
    ('kl_loss', found.gate),
  ):
    r.check(key, ours, 1e-5)
  r.check('cost', found.cost, 1e-5)
  r.check('coupling', found.plan, 1e-6)
  for key, ours in zip(('grouped_prob', 'grouped_target'), groups or (), strict=False):
    r.check(key, ours, 1e-5)
  grads, stats = by_name(grads, manifest, 'params'), by_name(stats, manifest, 'batch_stats')
  total = np.sqrt(sum(np.sum(np.square(g, dtype=np.float64)) for g in grads.values()))
  for key in [k for k in r.arrays if k.startswith('grad_norm/')]:
    want = float(r[key])
    norm = np.linalg.norm(grads[key.removeprefix('grad_norm/')])
    r.check(key, norm, 0.02 * want + 1e-4 * total)
  for key in [k for k in r.arrays if k.startswith('grad_full/')]:
    r.check(key, grads[key.removeprefix('grad_full/')], 0.05, relative=True)
  for key in [k for k in r.arrays if k.startswith('buffer/')]:
    r.check(key, stats[key.removeprefix('buffer/')], 1e-5, relative=True)


@replays('mose', 'train_steps')
def several_steps(r: Replay) -> None:
  """Losses only, as the record says for float32; the state after them drifts by Adam's noise."""
  net, variables, _ = network(r, 'lidc_light')
  optimizer = Adam(lr=float(r['lr']), weight_decay=float(r['weight_decay']))
  state = optimizer.init(variables['params'])

  def loss(params, stats, x, eps, label, q):
    v = {'params': params, 'batch_stats': stats}
    (logits, weight), new = net.apply(v, x, eps, train=True, mutable=['batch_stats'])
    found, _ = loss_of('lidc', logits, weight, {'label': label, 'weight': q}, r.arrays | {'G': 1})
    return found.loss, (found, new['batch_stats'])

  r['beta'], r['gamma'], r['losses']
  step = jax.jit(jax.grad(loss, has_aux=True))
  params, stats = variables['params'], variables['batch_stats']
  for i, tolerance in zip(range(len(r['x'])), (1e-5, 1e-3, 5e-3, 1e-2), strict=False):
    label = r['label'][i].astype(np.int32)
    with jax.default_matmul_precision('highest'):
      grads, (found, stats) = step(
        params, stats, nhwc(r['x'][i]), r['eps'][i], label, jnp.asarray(r['prob_gt'])
      )
    params, state = optimizer.update(i, grads, state, params)
    ours = np.stack([found.loss, found.segmentation, found.gate])
    r.check('losses', ours, tolerance, want=r['losses'][i], name=f'losses[{i}]')
  for key in [k for k in r.arrays if k.startswith(('after', 'eval_'))]:
    r[key]  # float64 only


@replays('mose', 'coupling')
def coupling(r: Replay) -> None:
  for case in r['names']:
    limit = float(r[f'{case}/gamma'])
    ours = transport.greedy_plan(r[f'{case}/cost'], r[f'{case}/prob_gt'], limit)
    r.check(f'{case}/P', ours, 1e-6)
