"""What a run writes beside its checkpoints: numbers, pictures, its config, parameters, a trace."""

import json
import sys
import types

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax import config as configs
from car_jax import lookup, loop, profiling, writers
from car_jax.errors import UserError
from car_jax.methods.base import Samples
from car_jax.methods.train_state import Frozen, State
from car_jax.report import rendering
from tests.test_loop import Counter, config, events, recorded  # noqa: F401


class FirstClass(Counter):
  """Predicts class 1 everywhere."""

  def predictors(self):
    def predict(state, batch, rng, n):
      shape = (len(batch['image']), n, *batch['image'].shape[1:3])
      one = jax.nn.one_hot(jnp.ones(shape, int), self.num_classes)
      return Samples(one, jnp.full(shape[:2], 1 / n))

    return {'first': predict}


def summaries(folder):
  """(step, value) of all TensorBoard files."""
  for path in sorted(folder.iterdir()):
    yield from ((event.step, v) for event in events(path) for v in event.summary.value)


def test_numbers_pictures_and_the_config_are_in_tensorboard(tmp_path):
  picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
  with writers.Writers(tmp_path, True, 3, ('tensorboard',)) as out:
    out.config(3, {'steps': 5, 'best': '', 'data': {'batch': 2, 'scales': [1, 2], 'crop': None}})
    out.scalars(4, {'loss': 0.25})
    out.pictures(4, {'val/a': picture})
  shown = {v.tag: (step, v) for step, v in summaries(tmp_path / 'tensorboard')}
  assert shown['loss'][0] == 4
  assert shown['loss'][1].simple_value == 0.25
  raw = np.frombuffer(shown['val/a'][1].image.encoded_image_string, np.uint8)
  np.testing.assert_array_equal(cv2.imdecode(raw, cv2.IMREAD_COLOR)[..., ::-1], picture)
  text = shown['config/text_summary'][1].tensor.string_val[0].decode()
  assert json.loads(text)['data'] == {'batch': 2, 'scales': [1, 2], 'crop': None}
  plugin = shown['_hparams_/session_start_info'][1].metadata.plugin_data.content
  assert all(name in plugin for name in (b'data.batch', b'data.scales', b'steps'))
  assert (tmp_path / 'metrics.jsonl').read_bytes() == b'{"step": 4, "loss": 0.25}\n'
  assert 'tensorflow' not in sys.modules


def test_only_the_first_process_writes(tmp_path):
  with writers.Writers(tmp_path / 'run', False, 0, ('tensorboard',)) as out:
    out.scalars(1, {'loss': 1.0})
    out.pictures(1, {'a': np.zeros((2, 2, 3), np.uint8)})
    out.config(1, {'steps': 1})
    out.flush()
    assert out.recorded(['loss'])
  assert not (tmp_path / 'run').exists()


@pytest.fixture
def wandb(monkeypatch):
  """A stand-in for the package; `runs` are what was logged to it."""
  made = types.ModuleType('wandb')
  made.runs = []

  def init(**options):
    run = types.SimpleNamespace(options=options, rows=[], about={}, ended=False)
    run.log = run.rows.append
    run.define_metric = lambda name, step_metric: run.about.update({name: step_metric})
    run.config = types.SimpleNamespace(
      update=lambda values, allow_val_change: run.about.update(config=values)
    )
    run.finish = lambda: setattr(run, 'ended', True)
    made.runs.append(run)
    return run

  made.init, made.Image, made.Html = init, np.array, str
  monkeypatch.setitem(sys.modules, 'wandb', made)
  return made


def test_a_run_that_goes_on_is_one_run_of_wandb(config, tmp_path, wandb, monkeypatch):  # noqa: F811
  monkeypatch.setenv('WANDB_PROJECT', 'mine')
  config.writers, config.steps = ('wandb',), 4
  loop.train(config, tmp_path / 'run')
  config.steps = 6
  loop.train(config, tmp_path / 'run')
  first, second = wandb.runs
  assert first.options == second.options
  options = dict(first.options)
  assert len(options.pop('id')) == 12
  run = str(tmp_path / 'run')
  assert options == dict(project='mine', name='run', resume='allow', dir=run)
  logged = [row for run in wandb.runs for row in run.rows if 'loss/fine' in row]
  assert logged == recorded(tmp_path / 'run')
  assert first.about['*'] == 'step'
  assert first.about['config']['data.batch'] == config.data.batch
  assert '"steps": 6' in second.rows[0]['config'].replace('&quot;', '"')
  assert first.ended and second.ended  # noqa: PT018
  assert not (tmp_path / 'run' / 'tensorboard').exists()


def test_wandb_that_is_not_installed_or_refuses(config, tmp_path, wandb, monkeypatch):  # noqa: F811
  config.writers = ('wandb',)

  def refuse(**_):
    raise PermissionError('api_key not configured')

  monkeypatch.setattr(wandb, 'init', refuse)
  with pytest.raises(UserError, match=r'wandb.*api_key not configured(.|\n)*wandb login'):
    loop.train(config, tmp_path / 'run')
  monkeypatch.setitem(sys.modules, 'wandb', None)
  with pytest.raises(UserError, match=r"config.writers: 'wandb'(.|\n)*'car-jax\[wandb\]'"):
    loop.train(config, tmp_path / 'other')
  assert not (tmp_path / 'other').exists()
  with pytest.raises(UserError, match=r"writers\[0\] is 'wandbx'|wandbx"):
    configs.load('configs/smoke.py:supervised', [('writers', "('wandbx',)")])


def test_evaluations_show_images_with_their_readers_and_samples(tmp_path, monkeypatch):
  monkeypatch.setitem(lookup.METHODS, 'first', f'{__name__}:FirstClass')
  c = configs.load('configs/smoke.py:supervised')
  c.unlock()
  c.method, c.steps, c.images = dict(name='first'), 2, 3
  c.evals = dict(val=dict(split='validation[:5]', samples=2, metrics=('miou',)))
  c.best = ''
  loop.train(c, tmp_path / 'run')
  shown = [(s, v) for s, v in summaries(tmp_path / 'run' / 'tensorboard') if v.HasField('image')]
  assert [s for s, _ in shown] == [2, 2, 2]
  assert len({v.tag for _, v in shown}) == 3
  raw = np.frombuffer(shown[0][1].image.encoded_image_string, np.uint8)
  strip = cv2.imdecode(raw, cv2.IMREAD_COLOR)[..., ::-1]
  size, gap = strip.shape[0], 4
  parts = [strip[:, x : x + size] for x in range(0, strip.shape[1], size + gap)]
  *first, one, two, mean, entropy = parts  # the image and its readers; two samples
  assert len(first) >= 2
  for part in (one, two, mean):
    assert (part == part[0, 0]).all()
    np.testing.assert_array_equal(part, one)
  assert (entropy == rendering.HEAT[0]).all()


def test_a_trace_has_the_steps_that_were_asked_for(config, tmp_path):  # noqa: F811
  config.profile = (3, 4)
  loop.train(config, tmp_path / 'run')
  (path,) = (tmp_path / 'run' / 'profile').rglob('*.xplane.pb')
  data = jax.profiler.ProfileData.from_file(str(path))
  steps = [
    dict(event.stats)['step_num']
    for plane in data.planes
    for line in plane.lines
    for event in line.events
    if event.name == 'train'
  ]
  assert sorted(steps) == [3, 4]
  for wrong in ((0, 1), (4, 3), (5, 7)):
    with pytest.raises(UserError, match=r'profile'):
      loop.train(configs.override(config, [('profile', str(wrong))]), tmp_path / 'other')


def test_a_run_that_ends_within_its_trace_keeps_it(tmp_path):
  trace = profiling.Trace((1, 9), tmp_path / 'profile')
  with trace.step(1):
    jnp.ones(3).block_until_ready()
  trace.done(1, None)
  trace.close()
  assert [*(tmp_path / 'profile').rglob('*.xplane.pb')]


def test_the_table_of_parameters(tmp_path):
  params = {'head': {'kernel': np.zeros((3, 4), np.float32), 'bias': np.zeros(4, np.float32)}}
  printed = profiling.overview(State(0, Frozen(params, {})), 1, tmp_path)
  table = (tmp_path / profiling.PARAMETERS).read_text()
  assert 'net/head/kernel' in table
  assert 'Total: 16' in table
  assert printed.count('net/') == 1


def test_who_asks_clu_for_a_writer_of_tensorboard_gets_one(tmp_path):
  from clu.metric_writers.summary_writer import SummaryWriter

  writer = SummaryWriter(str(tmp_path))
  writer.write_scalars(1, {'loss': 0.5})
  writer.close()
  assert list(tmp_path.glob('events.out.tfevents.*'))
