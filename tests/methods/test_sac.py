"""DA-SAC's two stages at toy size. The recorded steps are replayed in tests/replay."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy.special import softmax

from car_jax import checkpoints
from car_jax.errors import UserError
from car_jax.init_from import init_from
from car_jax.methods.abn import ABN
from car_jax.methods.sac import SAC
from car_jax.methods.supervised import Supervised
from tests.methods.test_car import changed
from tests.whole import whole

B, G, T, H, W, C = 2, 2, 2, 16, 24, 3
IGNORED = 255
MODEL = dict(name='deeplabv2_vgg', widths=(8,) * 5, depths=(1,) * 5, features=8, rates=(1, 2))
SPEC = dict(
  num_classes=C,
  steps_per_epoch=5,
  model=MODEL,
  optim=dict(name='sgd', lr=3e-2, weight_decay=5e-4),
  ignore_label=IGNORED,
)
BASE = ABN(**SPEC)
METHOD = SAC(**SPEC, views=T, target_weight=1.0, teacher_momentum=0.9, teacher_period=3, lower=0.0)
KEY = jax.random.key(3)


def images(rng, label):
  """Colours that tell the classes apart, and noise."""
  colours = np.array([[-0.8, 0, 0.8], [0.8, -0.8, 0], [0, 0.8, -0.8]])[label]
  return (colours + rng.normal(0, 0.1, colours.shape)).astype(np.float32)


def make_batch():
  rng = np.random.default_rng(0)
  label = np.repeat(np.repeat(rng.integers(0, C, (B + G, 2, 3)), 8, 1), 8, 2).astype(np.int32)
  views = np.repeat(label[B:], T, 0)
  views[1::2] = views[1::2, :, ::-1]
  flip = np.array([[[1, 0, 0], [0, 1, 0]], [[-1, 0, 0], [0, 1, 0]]], np.float32)
  target = images(rng, views)
  views[:, 0] = -1
  batch = {'image': images(rng, label[:B]), 'label': label[:B], 'target': target}
  batch |= {'student': np.float32(target + rng.normal(0, 0.1, target.shape))}
  batch |= dict.fromkeys(('affine', 'affine_inv'), np.concatenate([flip] * G))
  batch['label'][0, :4] = IGNORED
  return batch | {'target_label': views, 'views': np.full(G * T, T, np.int32)}


BATCH = make_batch()
SINGLE = {k: BATCH[k] for k in ('image', 'label', 'target', 'target_label')}
EVALUATED = {
  'image': BATCH['image'],
  'labels': BATCH['label'][:, None],
  'example': np.array([11, 22], np.uint32),
}
sac_step, abn_step = jax.jit(METHOD.step), jax.jit(BASE.step)


@pytest.fixture(scope='module')
def base():
  """The first stage after 40 steps on one batch."""
  state, logs = BASE.init(0, SINGLE), []
  for i in range(40):
    state, found = abn_step(state, BATCH, jax.random.key(i))
    logs.append(found)
  return state, logs


@pytest.fixture(scope='module')
def run(base):
  """The second stage: the states before and after each of eight steps, and their logs."""
  state = METHOD.init(0, BATCH)
  net = state.net.replace(params=base[0].net.params, batch_stats=base[0].net.batch_stats)
  states, logs = [state.replace(net=net)], []
  for i in range(8):
    state, found = sac_step(states[-1], BATCH, jax.random.key(i))
    states.append(state)
    logs.append(found)
  return states, logs


def test_the_first_stage_learns_the_source(base):
  state, logs = base
  losses = [float(log['loss/cross_entropy']) for log in logs]
  assert losses[-1] < 0.7 * losses[0]
  assert int(state.step) == 40
  assert 'target/cross_entropy' in logs[0]


def test_the_target_moves_statistics_alone_and_last():
  """One step is the source's as if alone, then 0.9 of its statistics and 0.1 of the target's."""
  start = BASE.init(0, SINGLE)
  state, _ = abn_step(start, BATCH, KEY)
  alone, _ = jax.jit(lambda s, b, k: Supervised.step(BASE, s, b, k))(start, BATCH, KEY)
  near = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-9)  # two programs
  jax.tree.map(near, state.net.params, alone.net.params)
  jax.tree.map(near, state.net.opt_state, alone.net.opt_state)
  other, _ = abn_step(start, BATCH | {'target': -BATCH['target']}, KEY)
  assert changed(state.net.batch_stats, other.net.batch_stats)
  x = (np.asarray(BATCH['target'], np.float64) + 1) / 2
  x = ((x - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]).astype(np.float32)
  conv = state.net.params['backbone']['stage1_conv1']['conv']
  windows = np.lib.stride_tricks.sliding_window_view(
    np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), (1, 2)
  )
  y = np.einsum('bhwiyx,yxio->bhwo', windows, conv['kernel'], dtype=np.float64) + conv['bias']
  stats = lambda s: s.net.batch_stats['backbone']['stage1_conv1']['norm']
  want = 0.9 * stats(alone)['mean'] + 0.1 * y.mean((0, 1, 2))
  np.testing.assert_allclose(stats(state)['mean'], want, atol=1e-5)
  want = 0.9 * stats(alone)['var'] + 0.1 * y.var((0, 1, 2), ddof=0) * y[..., 0].size / (
    y[..., 0].size - 1
  )
  np.testing.assert_allclose(stats(state)['var'], want, rtol=1e-4)


def test_ignored_pixels_count_in_the_mean():
  logits = np.random.default_rng(1).normal(size=(B, H, W, C)).astype(np.float32)
  found = BASE.loss(logits, BATCH)
  logp = np.asarray(jax.nn.log_softmax(logits), np.float64)
  picked = [-logp[p][BATCH['label'][p]] for p in np.ndindex(B, H, W) if BATCH['label'][p] < C]
  np.testing.assert_allclose(found, sum(picked) / (B * H * W), rtol=1e-5)


def test_both_losses_fall_on_one_batch(run):
  states, logs = run
  total = [float(log['loss/source'] + log['loss/target']) for log in logs]
  assert total[-1] < 0.9 * total[1]
  assert changed(states[-1].net.params, states[0].net.params)
  assert not changed(states[-1].net.batch_stats, states[0].net.batch_stats)
  assert {'kept', 'kept/0', f'threshold/{C - 1}', 'teacher/agreement'} <= logs[0].keys()
  assert all(0 <= float(log['kept']) <= 1 for log in logs)


def test_the_teacher_is_a_copy_then_an_average_of_what_came_before_the_step(run):
  """Steps 0 and 3 of an epoch of five steps move it, so 5 and 8 of the run."""
  states, logs = run
  teacher = states[0].net.variables
  for k, (before, after) in enumerate(itertools.pairwise(states)):
    if k in (3, 5):
      teacher = jax.tree.map(lambda t, s: 0.9 * t + 0.1 * s, teacher, before.net.variables)
    assert bool(after.initialised)
    for a, b in zip(
      jax.tree.leaves(after.teacher.variables), jax.tree.leaves(teacher), strict=True
    ):
      np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-7)
  assert float(logs[0]['teacher/distance']) == 0
  apart = jax.tree.map(lambda a, b: np.linalg.norm(a - b), teacher, states[-2].net.variables)
  np.testing.assert_allclose(logs[-1]['teacher/distance'], sum(jax.tree.leaves(apart)), rtol=1e-3)
  assert float(logs[-1]['teacher/distance']) > 0


def test_an_initialised_teacher_is_not_copied_over():
  state = METHOD.init(0, BATCH)
  other = METHOD.init(1, BATCH)
  state = state.replace(teacher=other.teacher, initialised=np.bool_(True))
  moved = whole(METHOD.with_moved_teacher)(state)
  a, b, c = (
    s.params['head']['branch0']['kernel'] for s in (moved.teacher, other.teacher, state.net)
  )
  np.testing.assert_allclose(a, 0.9 * b + 0.1 * c, atol=1e-7)
  assert not changed(moved.prior, state.prior)


def test_views_of_one_image_share_their_labels(run):
  """Of an image seen twice, once mirrored, the teacher's labels mirror each other."""
  states, _ = run
  batch = BATCH | {'target_label': np.zeros_like(BATCH['target_label'])}
  labels, confidence, _, _ = jax.jit(METHOD.labelled)(states[-1], batch)
  np.testing.assert_array_equal(labels[1], labels[0][:, ::-1])
  np.testing.assert_allclose(confidence[1], confidence[0][:, ::-1], atol=1e-5)
  padded, _, _, _ = jax.jit(METHOD.labelled)(states[-1], BATCH)
  assert np.all(padded[:, 0] == -1)


@pytest.mark.slow
def test_without_a_pool_each_view_stays_as_the_teacher_sees_it(run):
  alone = dataclasses.replace(METHOD, pool='none')
  state = run[0][-1]
  logits, full = whole(alone.net.apply)(state.teacher.variables, BATCH['target'], train=False)
  padded = BATCH['target_label'] < 0
  probs, _ = whole(alone.refined)(logits, state.prior, padded, BATCH['affine'], BATCH['affine_inv'])
  want = np.where(padded[..., None], 0, jax.nn.softmax(full))
  np.testing.assert_allclose(probs, want, atol=1e-6)


def test_weightings():
  losses, confidence = (np.random.default_rng(k).random((G * T, H, W)) for k in (0, 1))
  weighted = lambda **kw: dataclasses.replace(METHOD, **kw).weighted(losses, confidence)
  np.testing.assert_array_equal(weighted(weighting='none'), losses)
  np.testing.assert_array_equal(weighted(weighting='own'), losses * confidence)
  found = weighted(weighting='batch_mean', averaged_views=2)
  np.testing.assert_allclose(found[3], losses[3] * confidence[2:].mean(0), rtol=1e-6)


def test_predictors_are_the_student_then_the_teacher(run):
  state, predict = run[0][-1], METHOD.predictors()
  assert list(predict) == ['student argmax', 'teacher argmax']
  for part, f in zip((state.net, state.teacher), predict.values(), strict=True):
    found = whole(f)(state, EVALUATED, KEY, 2)
    _, logits = whole(METHOD.net.apply)(part.variables, BATCH['image'], train=False)
    assert found.probs.shape == (B, 2, H, W, C)
    np.testing.assert_allclose(found.marginal, softmax(logits, -1), atol=1e-5)
    np.testing.assert_array_equal(found.probs[:, 0].argmax(-1), found.marginal.argmax(-1))
  features = whole(METHOD.features)(state, EVALUATED)
  np.testing.assert_allclose(features.max(-1), 1, rtol=1e-6)


def test_bfloat16_computes_and_the_state_stays_float32():
  narrow = dataclasses.replace(METHOD, model=MODEL | dict(dtype='bfloat16'))
  state = METHOD.init(0, BATCH)
  traced = jax.jit(narrow.step).trace(state, BATCH, KEY)
  after, logs = traced.out_info
  kinds = lambda tree: jax.tree.map(lambda a: (np.shape(a), jnp.result_type(a)), tree)
  assert kinds(after) == kinds(state)
  assert all(log.dtype == np.float32 for log in logs.values())
  assert 'bf16' in str(traced.jaxpr)
  assert 'bf16' not in str(sac_step.trace(state, BATCH, KEY).jaxpr)


@pytest.mark.slow
def test_the_first_stage_becomes_the_student(base, tmp_path):
  with checkpoints.Checkpoints(tmp_path / 'checkpoints', keep=1) as c:
    c.save(40, base[0], {'config': {}})
  init = ConfigDict({'net': f'{tmp_path}:net'})
  state = init_from(METHOD.init(1, BATCH), init)
  assert not changed(state.net.variables, base[0].net.variables)
  state, _ = sac_step(state, BATCH, KEY)
  assert not changed(state.teacher.variables, base[0].net.variables)


@pytest.mark.parametrize(
  ('method', 'without', 'message'),
  [
    (BASE, ('target',), r"'abn' learns from two domains; these data have one\n.*c\.data\.source"),
    (METHOD, ('target',), "'sac' learns from two domains"),
    (METHOD, ('student',), r"needs 'student' in its batches.*\n.*target\.views=4"),
  ],
)
def test_batches_of_another_kind(method, without, message):
  with pytest.raises(UserError, match=message):
    method.init(0, {k: v for k, v in BATCH.items() if k not in without})


def test_views_that_the_data_do_not_have():
  with pytest.raises(UserError, match=r"'abn' takes single target images.*\n.*views=0"):
    BASE.init(0, BATCH)
  with pytest.raises(UserError, match=r'views is 4, the data have 2 views.*\n.*views=2'):
    dataclasses.replace(METHOD, views=4).init(0, BATCH)
  with pytest.raises(UserError, match=r'averaged_views is 3, no divisor of the 4 views'):
    dataclasses.replace(METHOD, averaged_views=3).init(0, BATCH)
