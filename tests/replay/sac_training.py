"""DA-SAC's refinement, pseudo labels, losses, teacher and whole steps against the recorded ones."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

from car_jax.importers import sac as importer
from car_jax.losses import consistency
from car_jax.methods import sac
from car_jax.methods.abn import ABN
from car_jax.methods.supervised import Supervised
from car_jax.methods.train_state import Frozen, State, TrainState
from car_jax.nn.resize import resize_bilinear
from tests.replay import Replay, replays
from tests.replay.car_networks import nchw, nhwc
from tests.replay.sac_networks import loaded, manifest_of, spec_of
from tests.sharding_worker import double
from tests.whole import whole

IGNORED = 255
POOLS = {'zoom_in': 'mean', 'zoom_out': 'mean', 'minent': 'surest'}


def method_of(cls: Any, classes: int, **options: Any) -> Any:
  options = {'model': {}, 'steps_per_epoch': 100, 'ignore_label': IGNORED} | options
  return cls(num_classes=classes, **options)


def from_minus_one(labels: Any) -> np.ndarray:
  """Our labels, -1 for none -> the recorded ones."""
  return np.where(np.asarray(labels) < 0, IGNORED, labels)


def soft(logits: np.ndarray, size: tuple[int, int]) -> Any:
  return softmax(whole(resize_bilinear)(logits, size, align_corners=True), -1)


@replays('sac', 'refine')
def refine(r: Replay) -> None:
  views = int(r['group_size'])
  for case, pool in POOLS.items():
    get = lambda key, case=case: r[f'{case}_{key}']
    get('params')  # what the matrices were made of
    logits, padded = nhwc(get('teacher_logits')), get('pad_mask')
    affine, inverse = get('affine'), get('affine_inv')
    classes = logits.shape[-1]
    method = method_of(sac.SAC, classes, views=views, pool=pool)
    prior = np.full(classes, 1e-3, np.float32)
    refined, prior = jax.jit(method.refined)(logits, prior, padded, affine, inverse)
    r.check(f'{case}_running_conf', prior, 1e-5, relative=True)
    r.check(f'{case}_refined', nchw(refined), 2e-4)
    probs = np.where(padded[..., None], 0, soft(logits, padded.shape[1:]))
    r.check(f'{case}_aligned_c0', np.asarray(whole(sac.warp.sample)(probs, affine))[..., 0], 2e-4)
    pool_in = whole(sac.aligned)(probs, affine, inverse)
    r.check(f'{case}_pool_in_c0', np.asarray(pool_in)[..., 0], 2e-4)
    pooled, seen = map(np.asarray, whole(consistency.POOLS[pool])(pool_in, views))
    miss = np.mean(np.asarray(seen[..., 0]) != r.arrays[f'{case}_pool_mask'].astype(bool))
    r.check(f'{case}_pool_mask', miss, 1e-3, want=np.zeros(()))
    key = f'{case}_pooled_c0'
    if pool == 'mean':
      r.check(key, pooled[..., 0], 2e-4)
    else:  # which view is surest may turn on the last digit
      far = np.mean(np.abs(pooled[..., 0] - r.arrays[key]) > 2e-4)
      r.check(key, far, 1e-3, want=np.zeros(()))


@replays('sac', 'pseudo_labels')
def pseudo_labels(r: Replay) -> None:
  steps, classes = int(r['n_steps']), r.arrays['probs_0'].shape[1]
  r['min_margin']  # how near a pixel comes to its threshold
  options = dict(upper=float(r['upper']), lower=float(r['lower']), prior_scale=float(r['beta']))
  method = method_of(sac.SAC, classes, prior_momentum=float(r['stat_momentum']), **options)
  flat = method_of(sac.SAC, classes, discount=False, **options)
  prior = np.full(classes, method.prior_scale, np.float32)
  for i in range(steps):
    probs, padded = nhwc(r[f'probs_{i}']), r[f'pad_mask_{i}']
    prior = whole(consistency.updated_prior)(
      prior, probs, start=method.prior_scale, momentum=method.prior_momentum
    )
    r.check(f'running_conf_{i}', prior, 1e-5, relative=True)
    probs = np.where(padded[..., None], 0, probs)
    least = whole(method.thresholds)(probs, prior)
    r.check(f'threshold_{i}', least, 1e-5, relative=True)
    labels, confidence = whole(consistency.pseudo_labels)(probs, padded, least)
    r.check(f'labels_{i}', from_minus_one(labels), 0)
    r.check(f'confidence_{i}', np.asarray(confidence)[:, None], 1e-6)
    labels, _ = whole(consistency.pseudo_labels)(
      probs, padded, whole(flat.thresholds)(probs, prior)
    )
    r.check(f'labels_no_discount_{i}', from_minus_one(labels), 0)


@replays('sac', 'target_loss')
def target_loss(r: Replay) -> None:
  logits, prior, power = nhwc(r['logits']), r['running_conf'], float(r['focal_p'])
  labels = np.where(r['labels'] == IGNORED, -1, r['labels'].astype(np.int32))
  confidence = r['confidence'][:, 0]
  r.check('focal_weight', whole(consistency.focal_weight)(prior, power), 1e-5, relative=True)
  focal = lambda x: consistency.focal_losses(x, labels, prior, power=power)
  classes = np.arange(len(prior))
  parts = np.mean(whole(focal)(logits)[..., None] * (labels[..., None] == classes), (0, 1, 2))
  for name, weighting in (
    ('focal_ce', 'none'),
    ('focal_ce_conf', 'batch_mean'),
    ('own_conf', 'own'),
    ('source_ce', ''),
  ):
    method = method_of(sac.SAC, len(prior), weighting=weighting or 'own')
    if weighting:
      loss = lambda x, m=method: jnp.mean(m.weighted(focal(x), confidence))
    else:
      loss = lambda x, m=method: m.loss(x, {'label': r['labels'].astype(np.int32)})
    value, grad = jax.jit(jax.value_and_grad(loss))(logits)
    r.check(f'{name}_loss', value, 1e-5, relative=True)
    r.check(f'{name}_grad', nchw(grad), 1e-5, relative=True)
    if f'{name}_per_class' in r:
      r.check(f'{name}_per_class', parts, 1e-5, relative=True)


@replays('sac', 'momentum')
def momentum(r: Replay) -> None:
  part = lambda name: {
    k.partition('/')[2]: r[k] if 'num_batches' not in k else r[k].astype(np.int32)
    for k in r.arrays
    if k.startswith(f'{name}/')
  }
  as_net = lambda weights: Frozen(params=weights, batch_stats={})
  classes = len(r['running_conf_init'])
  method = method_of(sac.SAC, classes, teacher_momentum=float(r['momentum']), steps_per_epoch=10)
  student, teacher = (as_net(part(f'{n}0')) for n in ('student', 'teacher'))
  state = sac.State(
    step=jnp.int32(0),
    net=student,
    teacher=teacher,
    prior=jnp.full(classes, 0.5),
    initialised=jnp.bool_(False),
  )
  move = jax.jit(method.with_moved_teacher)
  state = move(state)
  r.check('running_conf_init', state.prior, 1e-6, relative=True)
  r.check('diff_init', [sac.distance(state.teacher, state.net)], 0)
  for k, v in state.teacher.params.items():
    r.check(f'teacher1/{k}', v, 1e-6, relative=True)
  student = as_net(part('student1'))
  waiting = move(state.replace(step=jnp.int32(3), net=student))
  for key in ('diff_no_update', 'diff_update'):  # both before a change
    r.check(key, [sac.distance(waiting.teacher, student)], 1e-6, relative=True)
  state = move(waiting.replace(step=jnp.int32(100)))
  for k, v in state.teacher.params.items():
    r.check(f'teacher2/{k}', v, 1e-6, relative=True)


def by_name(manifest: dict[str, Any], variables: Any) -> dict[str, np.ndarray]:
  """Our arrays under the reference's names, found by importing numbered ones; layouts stay ours."""
  names = list(manifest)
  numbered = {name: np.full(shape, i) for i, (name, shape) in enumerate(manifest.items())}
  numbers = importer.to_variables('deeplabv2_resnet', numbered)
  ours = {}
  for group, tree in variables.items():
    pairs = zip(jax.tree.leaves(numbers[group]), jax.tree.leaves(jax.device_get(tree)), strict=True)
    ours |= {names[int(np.ravel(n)[0])]: np.asarray(leaf, np.float64) for n, leaf in pairs}
  return ours


def norms(found: dict[str, np.ndarray], names: Any) -> np.ndarray:
  return np.array([np.linalg.norm(found[n]) for n in names])


def moves(after: dict[str, np.ndarray], before: dict[str, np.ndarray], names: Any) -> np.ndarray:
  return norms({n: after[n] - before[n] for n in names}, names)


def check_each(r: Replay, key: str, ours: np.ndarray, tolerance: float) -> None:
  """Every element relative to the recorded one."""
  r.check(key, ours / r.arrays[key], tolerance, want=np.ones(len(ours)))


def tiny(r: Replay, cls: Any, **options: Any) -> tuple[Any, Any, dict[str, Any]]:
  """-> (method, variables, manifest) of the recorded small net."""
  manifest = manifest_of(r.folder, 'tiny')
  net, variables = loaded(r.folder, 'tiny')
  method = method_of(cls, net.num_classes, model=spec_of('tiny', manifest), **options)
  assert method.net == net
  return method, variables, manifest


def sgd(lr: float) -> dict[str, Any]:
  return dict(name='sgd', lr=lr, weight_decay=5e-4)


def images(r: Replay, i: int, *names: str) -> dict[str, np.ndarray]:
  return {name: nhwc(r[f'{name}_image_{i}']) for name in names}


@replays('sac', 'abn_steps')
def abn_steps(r: Replay) -> None:
  method, variables, manifest = tiny(r, ABN, optim=sgd(2.5e-4))
  params = variables['params']
  net = TrainState(params, variables['batch_stats'], method.optimizer.init(params))
  state, key, names, stats = State(0, net), jax.random.key(0), r['param_names'], r['stat_names']

  @jax.jit
  def run(state, batch):
    """-> the state after the source, after both, their logs, logits seen, gradients."""
    see = lambda net, image: method.net.apply(
      net.variables, image, train=True, mutable=['batch_stats']
    )[0][0]
    after_source, _ = Supervised.step(method, state, batch, key)
    after, logs = method.step(state, batch, key)
    apply = lambda params: method.net.apply(
      net.variables | {'params': params}, batch['image'], train=True, mutable=['batch_stats']
    )[0][1]
    grads = jax.grad(lambda params: method.loss(apply(params), batch))(state.net.params)
    seen = see(state.net, batch['image']), see(after.net, batch['target'])
    return after_source, after, logs, seen, grads

  for i in range(int(r['n_iter'])):
    found = images(r, i, 'source', 'target')
    batch = {'image': found['source'], 'target': found['target']}
    batch['label'] = r[f'source_label_{i}'].astype(np.int32)
    batch['target_label'] = r[f'target_label_{i}'].astype(np.int32)
    before = by_name(manifest, state.net.variables)
    after_source, state, logs, seen, grads = run(state, batch)
    r.check(f'source_loss_{i}', logs['loss/cross_entropy'], 1e-5, relative=True)
    r.check(f'target_loss_{i}', logs['target/cross_entropy'], 1e-5, relative=True)
    for domain, logits in zip(('source', 'target'), seen, strict=True):
      r.check(f'{domain}_logits_{i}', nchw(logits), 1e-4, relative=True)
    check_each(r, f'grad_norms_{i}', norms(by_name(manifest, {'params': grads}), names), 0.02)
    after = by_name(manifest, state.net.variables)
    check_each(r, f'param_delta_norms_{i}', moves(after, before, names), 0.03)
    for domain, now in (
      ('source', by_name(manifest, after_source.net.variables)),
      ('target', after),
    ):
      r.check(f'stat_norms_after_{domain}_{i}', norms(now, stats), 1e-5, relative=True)
      for kind in ('mean', 'var'):
        ours = now[f'model.bn1.running_{kind}']
        r.check(f'bn1_{kind}_after_{domain}_{i}', ours, 1e-5, relative=True)
  logits, _ = method.net.apply(state.net.variables, nhwc(r['target_image_0']), train=False)
  r.check('final_eval_logits', nchw(logits), 1e-4, relative=True)


def check_step(r: Replay, i: int, logs, state: sac.State, labels, confidence) -> None:
  r.check(f'source_loss_{i}', logs['loss/source'], 1e-4, relative=True)
  r.check(f'self_loss_{i}', logs['loss/target'], 1e-4, relative=True)
  r.check(f'target_gt_loss_{i}', logs['target/cross_entropy'], 1e-4, relative=True)
  r.check(f'teacher_diff_{i}', logs['teacher/distance'], 0.01, relative=bool(i))
  r.check(f'running_conf_{i}', state.prior, 1e-5, relative=True)
  wrong = np.mean(from_minus_one(labels) != r.arrays[f'pseudo_{i}'])
  r.check(f'pseudo_{i}', wrong, 1e-3, want=np.zeros(()))
  r.check(f'confidence_s2_{i}', confidence[:, ::2, ::2], 2e-4)


@replays('sac', 'sac_steps')
def sac_steps(r: Replay) -> None:
  options = dict(upper=float(r['upper']), lower=float(r['lower']), views=int(r['group_size']))
  options |= dict(teacher_momentum=float(r['net_momentum']), teacher_period=int(r['period']))
  options |= dict(target_weight=float(r['lr_target']), weighting='batch_mean')
  method, variables, manifest = tiny(r, sac.SAC, optim=sgd(float(r['lr'])), **options)
  params, head_scale = dict(variables['params']), np.float32(r['head_scale'])
  params['head'] = {
    name: conv | {'kernel': conv['kernel'] * head_scale} for name, conv in params['head'].items()
  }
  half = jax.tree.map(lambda leaf: leaf * np.float32(0.5), params)
  state = sac.State(
    step=jnp.int32(0),
    net=TrainState(params, variables['batch_stats'], method.optimizer.init(params)),
    teacher=Frozen(half, variables['batch_stats']),
    prior=jnp.full(method.num_classes, method.prior_scale, jnp.float32),
    initialised=jnp.bool_(False),
  )
  key, names = jax.random.key(0), r['param_names']

  @jax.jit
  def run(state, batch):
    """-> the state after a step, its logs, pseudo labels, confidence, gradients of both losses."""
    made = method.with_moved_teacher(state)
    labels, confidence, prior, _ = method.labelled(made, batch)
    both, _ = method.gradients(made.net, batch, labels, confidence, prior, key)
    nothing = jnp.full_like(labels, -1)
    source, _ = method.gradients(made.net, batch, nothing, confidence, prior, key)
    return *method.step(state, batch, key), labels, confidence, source, both

  fine = state  # its teacher in float64: what moves it is less than float32 tells
  for i in range(int(r['n_iter'])):
    found = images(r, i, 'source', 'student', 'teacher')
    batch = {'image': found['source'], 'student': found['student'], 'target': found['teacher']}
    batch['label'] = r[f'source_label_{i}'].astype(np.int32)
    batch['target_label'] = r[f'target_label_{i}'].astype(np.int32)
    batch |= {name: r[f'{name}_{i}'] for name in ('affine', 'affine_inv')}
    with jax.enable_x64(True):
      fine = method.with_moved_teacher(double(fine.replace(step=state.step, net=state.net)))
    state, logs, labels, confidence, source, both = run(state, batch)
    check_step(r, i, logs, state, labels, confidence)
    for name, grads in (('source', source), ('total', both)):
      ours = norms(by_name(manifest, {'params': grads}), names)
      check_each(r, f'grad_norms_{name}_{i}', ours, 0.01)
  for name, part in (('student', state.net), ('teacher', state.teacher)):
    kept = fine.teacher if name == 'teacher' else part
    now, first = (
      by_name(manifest, kept.variables),
      by_name(manifest, variables | {'params': params}),
    )
    check_each(r, f'{name}_delta_norms', moves(now, first, names), 0.1)
    logits, _ = method.net.apply(part.variables, nhwc(r['teacher_image_0'])[:2], train=False)
    r.check(f'final_{name}_logits', nchw(logits), 1e-4, relative=True)
