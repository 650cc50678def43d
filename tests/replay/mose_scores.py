"""MoSE's loss on given logits, and its scores, against the recorded values."""

import jax
import jax.numpy as jnp
import numpy as np

from car_jax.losses import transport
from car_jax.metrics import calibration, stochastic
from tests.replay import Replay, replays
from tests.whole import whole


def size(x: np.ndarray) -> float:
  return max(float(np.max(np.abs(x), initial=0)), 1e-30)


@replays('mose', 'loss')
def loss(r: Replay) -> None:
  for case in r['names']:
    one_loss(r, lambda key, case=case: f'{case}/{key}')


def one_loss(r: Replay, at) -> None:
  logits = np.moveaxis(r[at('logits')], 2, -1)
  labels, weight = r[at('gt')].astype(np.int32), jnp.asarray(r[at('prob_gt')])
  per, experts = int(r[at('per_expert')]), int(r[at('experts')])
  limit, beta, threshold = (float(r[at(k)]) for k in ('gamma', 'beta', 'G'))
  soft = bool(r[at('softmax')])

  def run(logits, gate):
    out = jax.nn.softmax(logits) if soft else logits
    cost = (transport.iou_cost if soft else transport.cross_entropy_cost)(out, labels)
    plan = transport.greedy_plan(jax.lax.stop_gradient(cost), weight, limit)
    prob = jnp.repeat(jax.nn.softmax(gate) / per, per, axis=1)
    ids = transport.expert_groups(out, experts, threshold) if threshold < 1 else None
    found = transport.transport(cost, plan, prob, beta, ids)
    masses = (prob, plan.sum(2))
    return found.loss, (
      found,
      None if ids is None else tuple(transport.grouped(x, ids) for x in masses),
    )

  with jax.default_matmul_precision('highest'):
    grads, (found, groups) = jax.jit(jax.grad(run, (0, 1), has_aux=True))(
      logits, r[at('gate_logits')]
    )
  ours = {'cost': found.cost, 'P': found.plan, 'loss': found.loss}
  ours |= {'seg_loss': found.segmentation, 'kl_loss': found.gate, 'grad_gate': grads[1]}
  ours |= dict(zip(('grouped_prob', 'grouped_target'), groups or (), strict=False))
  for key, value in ours.items():
    r.check(at(key), value, 1e-5, relative=True)
  norms = np.sqrt(np.sum(np.square(np.asarray(grads[0], np.float64)), (2, 3)))
  want = r[at('grad_logits_norm')]
  r.check(
    at('grad_logits_norm'),
    norms if want.ndim == 3 else np.linalg.norm(norms, axis=-1),
    1e-5,
    relative=True,
  )
  if at('pair_iou_cost') in r:
    hard = jax.nn.one_hot(jnp.argmax(jnp.asarray(logits), -1), logits.shape[-1])
    cost = transport.iou_cost(hard, jnp.argmax(jnp.asarray(logits), -1))
    r.check(at('pair_iou_cost'), cost, 1e-5)


@replays('mose', 'metrics')
def scores(r: Replay) -> None:
  """Absent from both maps: an IoU of 1 for the one class of LIDC, skipped among several."""
  cases = sorted({key.partition('/')[0] for key in r.arrays if '/' in key})
  r['names']
  for case in cases:
    classes = tuple(int(c) for c in r[f'{case}/label_range'])
    several = int(r[f'{case}/nlabels']) > 2
    weight = lambda key, case=case: (
      jnp.asarray(r[f'{case}/{key}']) if f'{case}/{key}' in r else None
    )
    found = whole(stochastic.compare)(
      r[f'{case}/samples'].astype(np.int32),
      r[f'{case}/gt'].astype(np.int32),
      classes=classes,
      absent='skip' if several else 'one',
      sample_weight=weight('prob_sample'),
      reader_weight=weight('prob_gt'),
    )
    with jax.enable_x64(True):  # the sums over pairs, which differ by 1e-6 in float32
      wide = jax.tree.map(lambda a: np.asarray(a, np.float64), found)
      ged = np.asarray(whole(stochastic.ged)(wide).ged)
    ours = {'ged': ged, 'm_iou': whole(stochastic.hm_iou)(found)}
    for name, values in ours.items():
      if f'{case}/{name}_per_image' in r:
        r.check(f'{case}/{name}_per_image', values, 1e-6)
      if f'{case}/{name}' in r:
        r.check(f'{case}/{name}', np.nanmean(values), 1e-6)


@replays('mose', 'ece')
def calibration_error(r: Replay) -> None:
  """Maps of the samples' mean and the readers' shares, and the error over all pixels."""
  for case in r['names']:
    at = lambda key, case=case: r[f'{case}/{key}']
    at('first_batch')  # how the record was computed; sums of batches are sums
    pred = np.moveaxis(np.asarray(at('pred'), np.float64), 2, -1)
    if pred.max() > 1:  # the released code's sign of logits
      pred = np.exp(pred - pred.max(-1, keepdims=True))
      pred /= pred.sum(-1, keepdims=True)
    mean = np.einsum('bnhwc,bn->bhwc', pred, at('prob')).astype(np.float32)
    labels, weight = at('masks').astype(np.int32), at('prob_gt')
    assert mean.shape[-1] == at('n_classes')
    flat = lambda maps: np.moveaxis(maps, -1, 0).reshape(maps.shape[-1], -1)
    r.check(f'{case}/conf', flat(mean), 1e-6)
    shares, _ = whole(calibration._shares)(mean, labels, weight, None)
    r.check(f'{case}/gt_conf', flat(np.asarray(shares)), 1e-6)
    classes = tuple(int(c) for c in at('label_range'))
    sums = whole(calibration.listed_sums)(mean, labels, weight, classes=classes)
    total = jax.tree.map(lambda x: np.asarray(x, np.float64).sum(0), sums)
    r.check(f'{case}/ece', calibration.ece(total, mean[..., 0].size), 1e-6)
