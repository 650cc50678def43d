"""Ensembles, dropout in prediction and copies of the image, by names of runs."""

import dataclasses
import json
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax import combined, config, hub
from car_jax.commands import eval as evaluating
from car_jax.errors import UserError
from car_jax.evaluate import checkpointed, made_of_runs
from car_jax.methods.base import Method, Samples
from car_jax.methods.baselines import uniform
from car_jax.methods.mc_dropout import MCDropout
from car_jax.methods.mixture import TURNS, Member, Mixture, Turn, all_of
from car_jax.methods.supervised import Supervised
from car_jax.predictor import Predictor, outputs
from tests import small

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
SEGNET = dict(name='segnet', widths=(4, 4), depths=(1, 1))


def batch(size=8):
  image = RNG.uniform(-1, 1, (2, size, size, 3)).astype(np.float32)
  return {'image': image, 'example': np.uint32([5, 6])}


class Constant(Method):
  """The same class probabilities for every pixel: those of its state [C]."""

  def __init__(self, has_logits=True):
    self.num_classes, self.has_logits = 2, has_logits

  def logits(self, state, batch):
    return jnp.log(state) * np.ones((*batch['image'].shape[:3], 1), np.float32)

  def predictors(self):
    def samples(state, batch, rng, n):
      probs = jax.nn.softmax(self.logits(state, batch))[:, None].repeat(n, 1)
      return Samples(probs, uniform(len(probs), n))

    return {'samples': samples}


class Position(Constant):
  """A probability that grows with the light of a pixel, and from left to right."""

  def logits(self, state, batch):
    light = batch['image'][..., 0] + jnp.linspace(0, 1, batch['image'].shape[2])
    return jnp.stack([-light, light], -1)


def predicted(method, state, n, b=None):
  (predict,) = method.predictors().values()
  return jax.device_get(jax.jit(predict, static_argnums=3)(state, b or batch(), KEY, n))


@pytest.mark.parametrize('has_logits', [True, False])
@pytest.mark.parametrize('n', [3, 7, 16])
def test_the_mean_over_samples_is_that_of_the_members(n, has_logits):
  members = [Member(Constant(has_logits), k) for k in range(3)]
  state = tuple(np.float32(p) for p in ([0.9, 0.1], [0.5, 0.5], [0.2, 0.8]))
  method = Mixture('ensemble', members)
  got = predicted(method, state, n)
  np.testing.assert_allclose(got.weight.sum(1), 1, atol=1e-6)
  mean = np.einsum('bnhwc,bn->bhwc', got.probs, got.weight)
  np.testing.assert_allclose(mean, np.broadcast_to(np.mean(state, 0), mean.shape), atol=1e-5)
  assert method.predictors()['ensemble'].whole == has_logits


def test_an_ensemble_of_one_says_what_the_run_says():
  method = Supervised(2, 4, SEGNET)
  state, b = method.init(0, batch()), batch()
  got = predicted(Mixture('ensemble', [Member(method)]), (state,), 3, b)
  want = jax.jit(method.probabilities)(state, b)
  for k in range(3):
    np.testing.assert_allclose(got.probs[:, k], want, atol=1e-6)


def test_fewer_samples_than_members_are_of_members_by_chance():
  members = [Member(Constant(), k) for k in range(3)]
  state = tuple(np.float32([p, 1 - p]) for p in (0.1, 0.5, 0.9))
  many = {'image': np.zeros((300, 1, 1, 3), np.float32), 'example': np.arange(300, dtype=np.uint32)}
  got = predicted(Mixture('ensemble', members), state, 1, many).probs.reshape(300, 2)[:, 0]
  counts = [np.isclose(got, p, atol=1e-5).sum() for p in (0.1, 0.5, 0.9)]
  assert sum(counts) == 300
  assert min(counts) > 60


@pytest.mark.parametrize(('members', 'n', 'chunk'), [(2, 17, 16), (5, 8, 6), (4, 16, 6), (3, 4, 1)])
def test_members_have_equal_weights_also_where_samples_are_drawn_in_parts(members, n, chunk):
  method = Mixture('ensemble', [Member(Constant(), k) for k in range(members)])
  state = tuple(np.float32([p, 1 - p]) for p in np.linspace(0.1, 0.9, members) ** 2)
  predict = method.predictors()['ensemble']
  run = jax.jit(lambda state, b: outputs(method, predict, state, b, KEY, n, chunk=chunk))
  got = jax.device_get(run(state, batch()))
  assert got.weights.shape == (2, n)
  np.testing.assert_allclose(got.weights.sum(1), 1, atol=1e-6)
  np.testing.assert_allclose(got.probabilities - np.mean(state, 0), 0, atol=1e-5)
  entropy = lambda p: -(p * np.log(p)).sum(-1)
  want = entropy(np.mean(state, 0)) - np.mean([entropy(p) for p in state])
  np.testing.assert_allclose(got.mutual_information, want, atol=1e-5)


@pytest.mark.parametrize('keys', [('mirror',), ('mirror', 'mirror_rows'), ('rot90',), tuple(TURNS)])
def test_copies_are_all_that_training_may_have_seen(keys):
  x = np.arange(6).reshape(2, 3)
  steps = {'mirror': np.fliplr, 'mirror_rows': np.flipud, 'rot90': np.rot90}
  want, rng = set(), np.random.default_rng(0)
  for _ in range(300):
    y = x
    for key in keys:
      for _ in range(rng.integers(4)):
        y = steps[key](y)
    want.add(str(y))
  turns = all_of([TURNS[key] for key in keys])
  assert turns[0] == Turn()
  assert {str(np.asarray(turn(x))) for turn in turns} == want
  assert len(turns) == len(want)
  for turn in turns:
    np.testing.assert_array_equal(turn.back(turn(x)), x)


@pytest.mark.parametrize('key', TURNS)
def test_copies_are_turned_back(key):
  """Light moves with the image, its place does not: the position is averaged, the light is not."""
  b = batch()
  for turn in all_of([TURNS[key]]):
    got = predicted(Mixture('tta', [Member(Position(), 0, turn)]), (None,), 1, b)
    light, place = b['image'][..., 0], np.broadcast_to(np.linspace(0, 1, 8), (8, 8))
    seen = np.asarray(turn.back(place))
    want = 1 / (1 + np.exp(-2 * (light + seen)))
    np.testing.assert_allclose(got.probs[:, 0, ..., 1], want, atol=1e-5)


def load(variant='supervised', **changes):
  c = small.get_config(variant)
  c.update(changes)
  return small.loaded(c)


def dropping(rate=0.5):
  c = config.read('configs/smoke.py:supervised')
  c.method.model = SEGNET | dict(dropout=rate)
  return small.loaded(c)


def test_steps_are_those_of_all_members():
  steps = iter((6, 80, 6))
  single = lambda run: dataclasses.replace(dropping(), step=next(steps))
  assert made_of_runs.load('ensemble:a,b,c', single).steps == 'steps 6 and 80'
  assert dataclasses.replace(dropping(), step=1200).steps == 'step 1,200'


def test_dropout_goes_on_in_prediction():
  one = made_of_runs.load('dropout:runs/a', lambda run: dropping())
  b = batch()
  got = predicted(one.method, one.state, 6, b)
  assert np.ptp(got.probs, axis=1).max() > 1e-3  # draws differ
  np.testing.assert_allclose(got.probs.sum(-1), 1, atol=1e-5)
  second = predicted(one.method, one.state, 6, {k: v[1:] for k, v in b.items()})
  np.testing.assert_allclose(got.probs[1:], second.probs, atol=1e-5)


def test_dropout_is_that_of_training():
  """A layer's values are zero or divided by the share that is kept, each image with its own."""

  class Net(Constant):
    def logits(self, state, batch):
      x = nn.Dropout(0.25, deterministic=True).apply({}, batch['image'])
      return x[..., :2]

  ones = {'image': np.ones((2, 40, 40, 3), np.float32), 'example': np.uint32([1, 2])}
  probs = predicted(MCDropout(Net(), 'it'), None, 2, ones).probs
  gap = np.log(probs[..., 0] / probs[..., 1])
  values = np.unique(np.round(gap, 3))
  np.testing.assert_allclose(values, [-1.333, 0, 1.333])
  both = 0.75**2 + 0.25**2
  assert (np.isclose(gap, 0, atol=1e-4)).mean() == pytest.approx(both, abs=0.03)
  assert (gap[0, 0] != gap[1, 0]).mean() > 0.3
  assert (gap[0, 0] != gap[0, 1]).mean() > 0.3


def of(kinds):
  """single(RUN) for runs whose names begin with a key of `kinds`."""
  return lambda run: dataclasses.replace(
    next(make for k, make in kinds.items() if run.startswith(k))(), path=pathlib.Path(run)
  )


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('dropout:plain', 'plain has no dropout: all its draws would be alike\n  train one'),
    ('dropout:draws', 'draws draws segmentations of its own; dropout in prediction is of'),
    ('tta:still', 'still was trained on images that were never turned'),
    ('ensemble:plain,others', 'others and plain were trained for other classes'),
    ('ensemble:plain,plain2,plain', 'ensemble:plain,plain2,plain has plain twice'),
    ('ensemble:plain,./plain', 'ensemble:plain,./plain has plain twice'),
    ('ensemble:', 'ensemble: names no run\n  such as ensemble:RUN,RUN'),
    ('tta:', 'tta: names no run\n  such as tta:RUN'),
  ],
)
def test_messages(text, message):
  def others():
    one = load()
    return dataclasses.replace(one, info=dataclasses.replace(one.info, num_classes=5))

  def still():
    c = small.get_config('supervised')
    c.data.update(mirror=False, rot90=False)
    return small.loaded(c)

  kinds = {'plain': load, 'draws': lambda: load('mose'), 'still': still, 'others': others}
  with pytest.raises(UserError) as e:
    made_of_runs.load(text, of(kinds))
  assert str(e.value).startswith(message)


def test_a_predictor_of_any_of_them_shows_what_samples_differ_in():
  kinds = {'a': load, 'b': lambda: load(seed=1)}
  for text in ('ensemble:a,b', 'tta:a', 'ensemble:tta:a,b'):
    single = of(kinds)
    nested = lambda run, single=single: (
      made_of_runs.load(run, single) if combined.is_named(run) else single(run)
    )
    model = Predictor(made_of_runs.load(text, nested))
    out = model.predict(RNG.uniform(0, 255, (12, 16, 3)).astype(np.uint8), samples=4)
    assert out.samples.shape == (4, 12, 16)
    np.testing.assert_allclose(out.probabilities.sum(-1), 1, atol=1e-5)
    assert (out.mutual_information >= 0).all()
    assert not model.single
    assert text in repr(model)
    assert repr(model).startswith('supervised (tests.small:SmallNet), ')


def test_names():
  assert combined.split('ensemble:a, b') == ('ensemble', ['a', 'b'])
  assert combined.split('tta:zoo:x') == ('tta', ['zoo:x'])
  assert not combined.is_named('runs/ensemble')
  named = checkpointed.name_and_folder
  assert named('ensemble:runs/a,runs/b') == ('ensemble of a and b', 'ensemble:runs/a,runs/b')
  assert named('all=dropout:runs/a') == ('all', 'dropout:runs/a')
  made = 'ensemble:a,b'
  assert evaluating.beside(pathlib.Path(made), hub.name_of(made)) == pathlib.Path(
    'runs/ensemble-of-a-and-b/report'
  )
  with pytest.raises(UserError, match='ensemble: names no run'):
    checkpointed.read_config('ensemble:')
  with pytest.raises(UserError, match='begins with no known kind\n  did you mean: ensemble:a,b$'):
    checkpointed.read_config('ensembel:a,b')
  assert hub.folders_of('ensemble:tta:x,zoo:mose-lidc-masks') == [
    pathlib.Path('x'),
    hub.ZOO / 'mose-lidc-masks',
  ]


def test_a_folder_of_trainings_is_an_ensemble(tmp_path):
  for seed in (1, 0, 10):
    (tmp_path / f'seed{seed}' / 'checkpoints').mkdir(parents=True)
  runs = []

  def single(run):
    runs.append(pathlib.Path(run).name)
    return load()

  one = made_of_runs.load(f'ensemble:{tmp_path}', single)
  assert runs == ['seed0', 'seed1', 'seed10']
  assert len(one.state) == len(one.members) == 3


def test_turns_of_a_list_of_transforms_and_of_other_domains_count():
  def trained(**data):
    c = small.get_config('supervised')
    c.data.update({'mirror': False, 'rot90': False} | data)
    return small.loaded(c)

  copies = lambda **data: len(
    made_of_runs.load('tta:a', lambda run: trained(**data)).method._members
  )
  assert copies(transforms=('mirror',)) == 2
  assert copies(transforms=(dict(name='rot90'), 'mirror_rows')) == 8
  assert copies(mirror=True, transforms=('mirror_rows',)) == 4


@pytest.mark.parametrize('text', ['ensemble:hf://a/b,hf://a/c', 'tta:hf://a/b'])
def test_names_of_what_is_made_of_runs_keep_their_slashes(text):
  assert checkpointed.name_and_folder(text)[1] == text
  one = made_of_runs.load('tta:hf://a/b', lambda run: load())
  assert one.path == hub.shown(one.path) == 'tta:hf://a/b'


def test_predictors_of_the_same_runs_are_told_apart():
  """Else predictions of one would count as the other's in a folder of predictions."""
  made = [made_of_runs.load(f'{kind}:a', lambda run: dropping()) for kind in combined.KINDS]
  sums = {json.dumps(one.crc) for one in made}
  assert len(sums) == len(combined.KINDS)


def test_members_that_see_an_image_in_different_ways_predict_none_together():
  def sized(**data):
    c = small.get_config('supervised')
    c.data.update(data)
    return small.loaded(c)

  runs = {'plain': load, 'fitted': lambda: sized(fit=(16, 16)), 'same': load}
  with pytest.raises(UserError) as e:
    Predictor(made_of_runs.load('ensemble:plain,fitted', of(runs)))
  assert str(e.value).startswith(
    'fitted sees images in another way than plain: data.fit is (16, 16), not ()'
  )
  Predictor(made_of_runs.load('ensemble:plain,same', of(runs)))


def test_any_member_may_need_another_models_prediction():
  def reads():
    c = small.get_config('ssn')
    c.method.black_box = 'number'
    one = small.loaded(c)
    return dataclasses.replace(one, info=dataclasses.replace(one.info, black_box=True))

  for text in ('ensemble:plain,reads', 'ensemble:reads,plain'):
    with pytest.raises(UserError, match="predicts from another model's prediction beside"):
      Predictor(made_of_runs.load(text, of({'plain': load, 'reads': reads})))


def test_an_ensemble_is_described_by_all_its_runs():
  runs = {'a': load, 'b': lambda: dataclasses.replace(load('mose'), step=70)}
  first, second, _ = repr(Predictor(made_of_runs.load('ensemble:a,b', of(runs)))).splitlines()
  net = 'supervised (tests.small:SmallNet)'
  assert first == f'{net} and mose (mose), ensemble, of ensemble:a,b'
  assert second == 'trained on fake, 3 steps (only checkpoint) and 70 steps (only checkpoint)'


@pytest.mark.parametrize('n', [3, 7, 17])
def test_members_may_weigh_their_samples(n):
  """Of a member that is made of others, as tta: within ensemble:, each has its share."""
  three = Mixture('tta', [Member(Constant(), k) for k in range(3)])
  method = Mixture('ensemble', [Member(Constant()), Member(three, 1)])
  p, parts = 0.3, (0.1, 0.5, 0.9)
  state = (np.float32([p, 1 - p]), tuple(np.float32([q, 1 - q]) for q in parts))
  got = predicted(method, state, 2 * n)
  share = lambda q: got.weight[np.isclose(got.probs[:, :, 0, 0, 0], q, atol=1e-5)].sum() / 2
  assert share(p) == pytest.approx(1 / 2)
  for q in parts:
    assert share(q) == pytest.approx(1 / 6)
  odd = predicted(method, state, 2 * n + 1)
  mean = np.einsum('bnhwc,bn->bhwc', odd.probs, odd.weight)[..., 0]
  np.testing.assert_allclose(mean, (p + np.mean(parts)) / 2, atol=1e-5)


def test_reports_of_one_folder_have_arrays_of_their_own(tmp_path):
  of_report = checkpointed._arrays_of
  assert of_report(tmp_path / 'run' / 'report') == tmp_path / 'run' / 'arrays'
  assert of_report(tmp_path / 'one') == tmp_path / 'one-arrays'
