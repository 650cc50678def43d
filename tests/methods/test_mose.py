"""MoSE's step and predictions; layers, loss and gradients are replayed in tests/replay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from car_jax.errors import UserError
from car_jax.evaluate import predict
from car_jax.losses import transport
from car_jax.methods.mose import MoSE
from tests.whole import whole

KEY = jax.random.key(0)
METHOD = MoSE(
  num_classes=2,
  steps_per_epoch=4,
  model=dict(name='mose', widths=(8, 16), latent=1, experts=3),
  optim=dict(lr=3e-3),
  samples=(2,),
  row_patience=0,
)
UPDATE = jax.jit(METHOD.update)


def step(state, batch, key):
  """METHOD.step, by the program that the tests with given noise run too."""
  return UPDATE(state, batch, jax.random.normal(key, (2, 2, 3, 1)))


def test_a_step_is_an_update_with_normal_noise(monkeypatch):
  noise, drawn = [], jax.random.normal(KEY, (2, 2, 3, 1))
  monkeypatch.setattr(MoSE, 'update', lambda self, state, batch, eps: noise.append(eps))
  METHOD.step(None, batch(), KEY)
  np.testing.assert_array_equal(noise, [drawn])


def batch(seed=0, size=16):
  """Discs whose radius differs between readers; the second image has two readers only."""
  rng = np.random.default_rng(seed)
  grid = np.indices((size, size)) - size / 2
  far = np.hypot(*grid)
  labels = np.stack([[far < r for r in (3, 3.5, 4, 0)], [far < 5, far < 6, far < 5, far < 5]])
  image = np.repeat((far < 5)[None, ..., None] - 0.5, 2, 0) + rng.normal(0, 0.2, (2, size, size, 1))
  return {
    'image': np.repeat(image, 3, -1).astype(np.float32),
    'labels': labels.astype(np.int32),
    'label_weight': np.float32([[0.25] * 4, [0.5, 0.5, 0, 0]]),
    'example': np.uint32([3, 4]),
  }


@pytest.fixture(scope='module')
def trained():
  state, logs = METHOD.init(0, batch()), []
  for k in range(40):
    state, found = step(state, batch(), jax.random.fold_in(KEY, k))
    logs.append(found)
  return state, logs


def test_the_loss_falls(trained):
  _, logs = trained
  mean = lambda rows: np.mean([float(r['loss/transport']) for r in rows])
  assert mean(logs[-8:]) < 0.75 * mean(logs[:4])


def test_schedules_move_at_the_end_of_an_epoch_that_was_no_better():
  state = first = METHOD.init(0, batch())
  noise = jax.random.normal(KEY, (2, 2, 3, 1))
  limits = []
  for _ in range(9):  # its parameters put back, it learns nothing
    state, logs = UPDATE(state, batch(), noise)
    state = state.replace(net=state.net.replace(params=first.net.params))
    limits.append(float(logs['schedule/row_limit']))
  assert limits == [0.5] * 7 + [1.0] * 2


def test_absent_readers_change_nothing():
  other = batch()
  other['labels'][1, 2:] = 1 - other['labels'][1, 2:]
  noise = jax.random.normal(KEY, (2, 2, 3, 1))
  state = METHOD.init(0, batch())
  one, two = (UPDATE(state, b, noise)[1] for b in (batch(), other))
  assert float(one['loss/transport']) == float(two['loss/transport'])


def test_training_on_one_annotation_never_sees_the_others():
  other = batch()
  other['labels'][:, 1:] = 0
  rng = np.random.default_rng(5)
  logits, schedule = rng.normal(size=(2, 3, 16, 16, 2)), METHOD.init(0, batch()).schedule
  weight = rng.dirichlet(np.ones(3), 2)
  for one_annotation in (True, False):
    method = MoSE(**vars(METHOD) | {'one_annotation': one_annotation})
    loss = jax.jit(lambda b, m=method: m.loss(np.float32(logits), np.float32(weight), b, schedule))
    one, two = (float(loss(b).loss) for b in (batch(), other))
    assert (one == two) == one_annotation


def test_predictions_need_no_label(trained):
  state, _ = trained
  image = {k: batch()[k] for k in ('image', 'example')}
  draws = jax.jit(METHOD.predictors()['samples'], static_argnums=3)(state, image, KEY, 200)
  assert draws.probs.shape == (2, 200, 16, 16, 2)
  best = jax.jit(METHOD.predictors()['likeliest expert'], static_argnums=3)(state, image, KEY, 2)
  features, gate = whole(METHOD.encoded)(state, image)
  z = np.asarray(state.net.params['means'])[np.argmax(gate, 1)][:, None]
  want = whole(METHOD.decoded)(state, features, z)[:, 0]
  np.testing.assert_array_equal(best.probs[:, 1].argmax(-1), want.argmax(-1))


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (dict(samples=4), r'samples is 4; it is a list, such as \(1,\)'),
    (dict(row_limits=()), 'row_limits is'),
    (dict(pixel_mean=(0.5,)), r'pixel_mean is \(0.5,\)'),
    (dict(pixel_std=(0.5, 0.5), pixel_mean=(0.5, 0.5)), 'pixel_mean is'),
    (dict(stretched=True), 'stretched changes nothing'),
    (dict(optim=dict(lr=1e-3, milestones=(3,))), 'optim.milestones'),
    (dict(optim=dict(lr=1e-3, schedule='poly')), 'optim.schedule'),
  ],
)
def test_wrong_options(change, message):
  with pytest.raises(UserError, match=message):
    MoSE(**vars(METHOD) | change)


def test_a_plan_gives_every_annotation_its_mass_within_the_limit():
  rng = np.random.default_rng(1)
  cost = jnp.asarray(rng.random((3, 12, 5)), jnp.float32)
  weight = jnp.float32([[0.2] * 5, [0.25] * 4 + [0], [1, 0, 0, 0, 0]])
  plan = np.asarray(whole(transport.greedy_plan)(cost, weight, 0.125, weight > 0))
  np.testing.assert_allclose(plan.sum(1), weight, atol=1e-6)
  assert plan.sum(2).max() <= 0.125 + 1e-6
  free = np.asarray(whole(transport.greedy_plan)(cost, weight, 1.0, weight > 0))
  assert (free.argmax(1) == cost.argmin(1))[np.asarray(weight) > 0].all()


@pytest.mark.parametrize('limit', [0.1, 0.25, 1.0])
def test_the_exact_plan_is_the_optimum_of_the_linear_program(limit):
  rng = np.random.default_rng(2)
  cost = rng.random((3, 12, 5)).astype(np.float32)
  weight = rng.dirichlet(np.ones(5), 3).astype(np.float32)
  weight[2] = [0.25, 0.25, 0.25, 0.25, 0]
  plan = np.asarray(whole(transport.exact_plan)(cost, weight, limit, weight > 0), np.float64)
  np.testing.assert_allclose(plan.sum(1), weight, atol=1e-5)
  assert plan.min() >= 0
  assert plan.sum(2).max() <= limit + 1e-5
  for k in range(3):
    columns = np.kron(np.ones((1, 12)), np.eye(5))
    rows = np.kron(np.eye(12), np.ones((1, 5)))
    want = scipy.optimize.linprog(
      cost[k].ravel(), rows, np.full(12, limit), columns, weight[k] / weight[k].sum()
    )
    assert np.sum(plan[k] * cost[k]) == pytest.approx(want.fun, abs=1e-5)
    greedy = whole(transport.greedy_plan)(cost, weight, limit, weight > 0)
    assert limit < 1 or np.sum(plan[k] * cost[k]) <= np.sum(greedy[k] * cost[k]) + 1e-5


@pytest.mark.parametrize('coupling', ['greedy', pytest.param('exact', marks=pytest.mark.slow)])
def test_either_plan_trains(coupling):
  method = MoSE(**vars(METHOD) | dict(coupling=coupling))
  run = step if method == METHOD else jax.jit(method.step)
  state, logs = run(method.init(0, batch()), batch(), KEY)
  assert np.isfinite(float(logs['loss/transport']))
  assert int(state.step) == 1


@pytest.mark.parametrize(('kind', 'extra'), [('number', 1), ('one_hot', 2)])
def test_the_black_box_is_an_input(kind, extra):
  method = MoSE(**vars(METHOD) | dict(black_box=kind))
  told = batch() | {'black_box': np.ones((2, 16, 16), np.int32)}
  state = method.init(0, told)
  assert state.net.params['down0']['conv1']['kernel'].shape[2] == 1 + extra
  seen = np.asarray(whole(method.observed)(told))[..., 1:]
  # of two classes the last is 'unlabelled', which the released code calls 0
  np.testing.assert_array_equal(seen, np.broadcast_to({1: [0], 2: [0, 1]}[extra], seen.shape))
  with pytest.raises(UserError, match='no black-box predictions'):
    method.init(0, batch())


def test_a_fixed_mean_and_deviation_replace_those_of_the_image():
  method = MoSE(**vars(METHOD) | dict(channels=3, pixel_mean=(0.2, 0.3, 0.4), pixel_std=(0.5,) * 3))
  got = np.asarray(whole(method.observed)(batch()))
  want = ((batch()['image'] + 1) / 2 - [0.2, 0.3, 0.4]) / 0.5
  np.testing.assert_allclose(got, want, atol=1e-5)


def test_an_image_gets_mean_0_and_deviation_1_unless_it_is_uniform():
  even = np.float32([0.1, 1 / 3, -0.7, 0.999])[:, None, None, None] * np.ones(
    (1, 13, 11, 1), np.float32
  )
  random = np.random.default_rng(0).uniform(-1, 1, (2, 13, 11, 1)).astype(np.float32)
  got = np.asarray(whole(METHOD.observed)({'image': np.concatenate([even, random])}))
  np.testing.assert_array_equal(got[:4], 0)
  want = (random - random.mean((1, 2), keepdims=True)) / random.std((1, 2), keepdims=True)
  np.testing.assert_allclose(got[4:], want, atol=1e-5)


def test_each_image_may_be_stretched_first():
  images = np.stack([np.linspace(-0.2, 0.6, 12), np.full(12, 0.3)]).reshape(2, 2, 2, 3)
  options = dict(channels=3, pixel_mean=(0.5,) * 3, pixel_std=(0.5,) * 3, stretched=True)
  got = whole(MoSE(**vars(METHOD) | options).observed)({'image': np.float32(images)})
  np.testing.assert_allclose(got[0].ravel(), np.linspace(-1, 1, 12), atol=1e-6)
  np.testing.assert_allclose(got[1], -1, atol=1e-6)


def test_more_samples_are_drawn_when_the_loss_stops_falling(monkeypatch):
  method = MoSE(**vars(METHOD) | dict(samples=(1, 3), sample_patience=0))
  state, advanced = method.init(0, batch()), jax.jit(method.advanced)
  same = transport.Transport(*[jnp.float32(1)] * len(transport.Transport._fields))
  drawn = []
  for k in range(13):
    drawn.append(method.phase(k, state))
    state = state.replace(step=k + 1, schedule=advanced(state.schedule, k, same))
  assert drawn[:4] == [1] * 4
  assert drawn[-1] == 3
  assert sorted(drawn) == drawn
  monkeypatch.setattr(MoSE, 'update', lambda self, state, batch, noise: noise)
  assert method.step(state, batch(), KEY, phase=drawn[-1]).shape == (2, 3, 3, 1)


@pytest.mark.parametrize(('n', 'chunk'), [(3, 1), (6, 2), (9, 4), (8, 3)])
def test_weighted_experts_carry_the_gate_also_in_parts(trained, n, chunk):
  """Every expert once in each part: nine samples are three of each, whatever the memory holds."""
  state, _ = trained
  _, gate = whole(METHOD.encoded)(state, batch())
  row = next(r for r in predict.subjects(METHOD, state) if r.name == 'weighted experts')
  assert not row.traits.draws
  run = jax.jit(lambda state, b: predict.predict(row.predict, n, chunk, None, state, b, KEY))
  weight = np.asarray(run(state, batch()).weight)
  np.testing.assert_allclose(weight.sum(1), 1, atol=1e-6)
  want = np.sort(np.tile(gate, (1, max(1, n // 3))) / max(1, n // 3), 1)
  got = np.sort(weight, 1)[:, -want.shape[1] :]
  np.testing.assert_allclose(got, want, atol=1e-5)


def test_weighted_experts_carry_the_gate(trained):
  state, _ = trained
  predict = jax.jit(METHOD.predictors()['weighted experts'], static_argnums=3)
  _, gate = whole(METHOD.encoded)(state, batch())
  for n, used in ((2, 2), (8, 6)):
    weight = np.asarray(predict(state, batch(), KEY, n).weight)
    assert weight.shape == (2, n)
    np.testing.assert_allclose(weight.sum(1), 1, atol=1e-6)
    assert not weight[:, used:].any()
    best = np.sort(np.asarray(gate), 1)[:, ::-1][:, : min(n, 3)]
    want = np.tile(best / best.sum(1, keepdims=True), max(1, n // 3)) / max(1, n // 3)
    np.testing.assert_allclose(weight[:, :used], want, atol=1e-6)


def test_in_the_balanced_cost_every_class_of_an_annotation_weighs_the_same():
  rng = np.random.default_rng(4)
  logits = rng.normal(size=(2, 3, 5, 6, 4)).astype(np.float32)
  labels = rng.choice(4, (2, 2, 5, 6), p=(0.8, 0.15, 0.05, 0))
  logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  got = np.asarray(whole(transport.balanced_cross_entropy_cost)(logits, labels))
  for b, n, m in np.ndindex(2, 3, 2):
    at = labels[b, m]
    want = np.mean([-logp[b, n][at == c][:, c].mean() for c in np.unique(at)])
    assert got[b, n, m] == pytest.approx(want, abs=1e-5)
