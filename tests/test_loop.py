"""The loop's refusals and what it leaves behind, with the smallest method there is."""

import contextlib
import dataclasses
import itertools
import json
import struct
import time

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from car_jax import checkpoints, lock, lookup, loop, memory, saved_steps, sharding, writers
from car_jax import config as configs
from car_jax.data import pipeline
from car_jax.errors import UserError
from car_jax.methods.base import Method


class State(flax.struct.PyTreeNode):
  step: jax.Array
  total: jax.Array


@dataclasses.dataclass(frozen=True)
class Counter(Method):
  """Adds up the images it sees."""

  num_classes: int

  def init(self, seed, batch):
    return State(step=np.int32(0), total=np.float32(0))

  def step(self, state, batch, rng):
    logs = {'loss/fine': jnp.float32(1), 'loss/odd': jnp.float32(1)}
    return State(state.step + 1, state.total + jnp.sum(batch['image'])), logs

  def predictors(self):
    return {}


@pytest.fixture
def config(monkeypatch):
  monkeypatch.setitem(lookup.METHODS, 'counter', 'tests.test_loop:Counter')
  c = configs.load('configs/smoke.py:supervised')
  c.unlock()
  c.method = dict(name='counter')
  c.evals, c.best, c.steps, c.save_every, c.images = {}, '', 6, 2, 0
  return configs.complete(c)


def recorded(run):
  return [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]


def test_the_start_says_how_many_arrays_fsdp_splits(config):
  mesh = sharding.make_mesh()
  whole = State(np.int32(0), np.zeros(4096, np.float32))
  state = sharding.place_state(whole, mesh, fsdp=True)
  assert 'fsdp' not in loop.describe(config, mesh, [], state)
  config.fsdp = True
  assert 'state 0.0 MB on each device, fsdp splits 0 of 2 arrays' in loop.describe(
    config, mesh, [], state
  )


def test_memory_is_kept_while_it_trains_and_evaluates(tmp_path, monkeypatch):
  config, calls = configs.load('configs/smoke.py:supervised'), []
  config.steps, config.eval_every, config.save_every, config.log_every = 4, 2, 0, 1

  @contextlib.contextmanager
  def kept():
    calls.append('begin')
    yield
    calls.append('end')

  monkeypatch.setattr(memory, 'kept', kept)
  for name in ('report', 'evaluate'):
    method = getattr(loop.Run, name)
    noted = lambda *a, name=name, method=method: (calls.append(name), method(*a))[1]
    monkeypatch.setattr(loop.Run, name, noted)
  loop.train(config, tmp_path / 'run')
  assert calls == ['begin', *['report', 'report', 'evaluate'] * 2, 'end']


def test_another_config_in_the_same_workdir_is_refused_unless_new(config, tmp_path):
  loop.train(config, tmp_path / 'run')
  config.seed = 3
  with pytest.raises(UserError, match=r'(?s)seed: 0 -> 3.*--new'):
    loop.train(config, tmp_path / 'run')
  state = loop.train(config, tmp_path / 'run', new=True)
  assert int(state.step) == 6
  assert (tmp_path / 'run.old-1' / 'checkpoints').is_dir()


def test_a_run_of_a_version_with_fewer_options_goes_on(config, tmp_path):
  """What its config.json or its checkpoints leave out had the default."""
  loop.train(config, tmp_path / 'run')
  path = tmp_path / 'run' / 'config.json'
  kept = json.loads(path.read_text())
  hidden = ('threads', 'crop', 'corruption', 'eval_batch', 'source', 'transforms')
  fewer = kept | {'data': {k: v for k, v in kept['data'].items() if k not in hidden}}
  fewer['data']['augment'] = 'host'  # an option that is gone
  fewer['data']['flip'] = fewer['data'].pop('mirror')  # one that is called otherwise now
  path.write_text(json.dumps(fewer))
  assert int(loop.train(config, tmp_path / 'run').step) == 6
  assert json.loads(path.read_text()) == kept
  path.write_text(json.dumps(kept | {'stpes': 3}))
  with pytest.raises(UserError, match=r"config.json: unknown config key 'stpes'\n(.|\n)*--new"):
    loop.train(config, tmp_path / 'run')


@pytest.mark.parametrize('text', ['[]', 'null', '3', '{"steps":', '\xff'])
def test_a_config_json_of_another_kind_is_named(config, tmp_path, text):
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'config.json').write_bytes(text.encode('latin-1'))
  with pytest.raises(UserError, match=r'config.json cannot be read(.|\n)*--new'):
    loop.train(config, tmp_path / 'run')


def test_a_run_goes_on_to_more_steps_as_if_it_had_had_them(config, tmp_path, capsys):
  want = loop.train(config, tmp_path / 'whole').total
  config.steps, config.save_every = 4, 0
  loop.train(config, tmp_path / 'run')
  config.update(dict(steps=6, log_every=1, save_every=5, keep=1, report={'samples': 5}))
  config.data.threads = 3
  assert loop.train(config, tmp_path / 'run').total == want
  out = capsys.readouterr().out
  for line in (
    'steps: 4 -> 6',
    'log_every: 2 -> 1',
    'report.samples: 4 -> 5',
    'data.threads: 2 -> 3',
  ):
    assert line in out
  assert [row['step'] for row in recorded(tmp_path / 'run')] == [2, 4, 5, 6]
  assert configs.saved(json.loads((tmp_path / 'run' / 'config.json').read_text())).steps == 6
  config.steps = 4
  with pytest.raises(UserError, match=r'has 6 steps; config.steps is 4\n  use --config.steps=6'):
    loop.train(config, tmp_path / 'run')
  assert configs.saved(json.loads((tmp_path / 'run' / 'config.json').read_text())).steps == 6


def test_what_was_computed_with_another_value_is_not_gone_on_with(config, tmp_path):
  """Not even where config.json was lost: the checkpoints have it too."""
  loop.train(config, tmp_path / 'run')
  (tmp_path / 'run' / 'config.json').unlink()
  for key, value in (('steps', 8), ('seed', 3)):
    config[key] = value
  config.data.batch = 4
  with pytest.raises(
    UserError,
    match=r'another config:\n  data.batch: 8 -> 4\n  seed: 0 -> 3\n  it goes on with .*batch=8, on',
  ):
    loop.train(config, tmp_path / 'run')
  config.data.batch, config.seed = 8, 0
  config.data.data_dir = str(tmp_path / 'scratch')  # where the host has the data now
  assert int(loop.train(config, tmp_path / 'run').step) == 8


def test_a_folder_that_is_being_trained_in_is_left_alone(config, tmp_path):
  loop.train(config, tmp_path / 'run')
  with lock.exclusive(tmp_path / 'run'):
    for new in (False, True):
      with pytest.raises(UserError, match='is being trained in by process'):
        loop.train(config, tmp_path / 'run', new=new)
  assert not (tmp_path / 'run.old-1').exists()
  assert not (tmp_path / 'run' / lock.NAME).exists()


class Validation:
  """Stands for an evaluation that takes long: a signal comes while it works at step `stops`."""

  names, stops, asked = ('score',), -1, False

  def __init__(self, *_):
    pass

  def __call__(self, state):
    if int(state.step) == Validation.stops:
      Validation.asked = True
      time.sleep(1.5)
    return {'score': float(state.total) % 7}


def test_a_run_stopped_while_it_evaluates_makes_up_for_it(config, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(loop, 'Validation', Validation)
  monkeypatch.setattr(loop.preflight, 'check', lambda *_: [])
  monkeypatch.setattr(loop.Interrupt, 'asked', lambda self: Validation.asked)
  config.update(dict(evals={'val': {'split': 'test'}}, best='val/score:max', eval_every=3))
  loop.train(config, tmp_path / 'whole')
  for step in (3, 6):
    monkeypatch.setattr(Validation, 'stops', step)
    monkeypatch.setattr(Validation, 'asked', False)
    with pytest.raises(SystemExit) as e:
      loop.train(config, tmp_path / 'run')
    assert e.value.code in (0, 130)
    assert f'saved step {step}' in capsys.readouterr().out
  monkeypatch.setattr(Validation, 'stops', -1)
  monkeypatch.setattr(Validation, 'asked', False)
  loop.train(config, tmp_path / 'run')
  for kind in ('latest', 'best'):
    ends = []
    for name in ('whole', 'run'):
      folder, step = saved_steps.locate(tmp_path / name, kind)
      with checkpoints.Checkpoints(folder) as saved:
        ends.append((step, saved.meta(step)['crc'], saved.meta(step).get('scores')))
    assert ends[0] == ends[1]
  scores = lambda run: [row for row in recorded(tmp_path / run) if 'val/score' in row]
  assert scores('run') == scores('whole')
  assert [row['step'] for row in scores('run')] == [3, 6]


def test_tensorboard_forgets_the_steps_after_the_last_checkpoint(config, tmp_path):
  """As a killed run leaves them: the file of the run that goes on says where it begins."""
  config.steps, config.save_every = 2, 0
  loop.train(config, tmp_path / 'run')
  with writers.Writers(tmp_path / 'run', True, 2) as out:
    out.scalars(5, {'loss/fine': 7.0})
  config.steps = 6
  loop.train(config, tmp_path / 'run')
  shown: dict[int, float] = {}
  for path in sorted((tmp_path / 'run' / 'tensorboard').iterdir()):  # as TensorBoard reads them
    for event in events(path):
      if event.HasField('session_log') and event.session_log.status == event.session_log.START:
        shown = {k: v for k, v in shown.items() if k < event.step}
      for value in event.summary.value:
        if value.tag == 'loss/fine':
          shown[event.step] = value.simple_value
  assert shown == {2: 1, 4: 1, 6: 1}


def events(path):
  """Of a TensorBoard file: records of length, its CRC, data, their CRC."""
  raw = path.read_bytes()
  while raw:
    (size,) = struct.unpack('<Q', raw[:8])
    yield event_pb2.Event.FromString(raw[12 : 12 + size])
    raw = raw[16 + size :]


def test_metrics_have_one_line_per_log_step(config, tmp_path):
  loop.train(config, tmp_path / 'run')
  lines = recorded(tmp_path / 'run')
  assert [line['step'] for line in lines] == [2, 4, 6]
  assert lines[0]['loss/fine'] == 1
  assert {'steps_per_s', 'data_wait'} <= set(lines[0])
  assert list((tmp_path / 'run' / 'tensorboard').iterdir())


def test_a_damaged_newest_checkpoint_is_reported_and_training_goes_on(config, tmp_path, capsys):
  want = loop.train(config, tmp_path / 'run').total
  newest = tmp_path / 'run' / 'checkpoints' / '6' / 'state'
  for path in newest.rglob('*'):
    if path.is_file():
      path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  assert loop.train(config, tmp_path / 'run').total == want
  assert 'damaged checkpoint' in capsys.readouterr().err


def test_nothing_is_left_behind_by_a_wrong_config(config, tmp_path):
  config.data.batch = 64
  with pytest.raises(UserError, match='fewer than a batch of 64'):
    loop.train(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_best_must_name_what_an_evaluation_gives(config):
  with pytest.raises(UserError, match='expected NAME:min or NAME:max'):
    loop.best_rule('val/ged16')
  name, better = loop.best_rule('val/ged16:min')
  assert name == 'val/ged16'
  assert better(1.0, None)
  assert better(1.0, 2.0)
  assert not better(2.0, 1.0)
  assert better(1.0, 1.0)  # of equal ones the later
  assert not better(np.nan, None)


def test_parts_of_another_run_start_a_new_one(tmp_path):
  c = configs.load('tests/small.py:supervised')
  c.unlock()
  c.method.model = dict(name='toy_calnet', hidden=4)
  c.update(dict(steps=1, evals={}, best='', save_every=0))
  trained = loop.train(c, tmp_path / 'first')
  car = configs.load('tests/small.py:car')
  car.update(dict(steps=0, evals={}, best=''))
  car.init.calnet = f'{tmp_path / "first"}:net'
  state = loop.train(car, tmp_path / 'second')
  for a, b in zip(
    jax.tree.leaves(trained.net.params), jax.tree.leaves(state.calnet.params), strict=True
  ):
    np.testing.assert_array_equal(a, b)
  car.init.calnet = f'{tmp_path / "first"}:nett'
  with pytest.raises(UserError, match="no part 'nett'"):
    loop.train(car, tmp_path / 'third')
  car.init = {'generator': f'{tmp_path / "first"}:net'}
  with pytest.raises(UserError, match='does not fit'):
    loop.train(car, tmp_path / 'third')


def test_what_was_learnt_before_the_data_broke_is_kept(config, tmp_path, monkeypatch, capsys):
  want = loop.train(config, tmp_path / 'whole').total
  whole = pipeline.train_batches

  def broken(*args, **kw):
    yield from itertools.islice(whole(*args, **kw), 3)
    raise UserError('record 7 is damaged')

  config.save_every = 0
  with monkeypatch.context() as m:
    m.setattr(pipeline, 'train_batches', broken)
    with pytest.raises(UserError, match='record 7 is damaged'):
      loop.train(config, tmp_path / 'run')
  assert 'saved step 3; the same command continues' in capsys.readouterr().out
  assert loop.train(config, tmp_path / 'run').total == want
  assert 'continuing from step 3' in capsys.readouterr().out


def test_an_update_after_the_last_step_is_refused(tmp_path):
  c = configs.load('configs/smoke.py:supervised')
  c.method.optim.accumulate = c.steps + 1
  with pytest.raises(UserError, match=r'accumulate=7 steps.* is 6: .*\n  use --config.steps=7'):
    loop.train(c, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (dict(best='val/ged4:min'), 'no evaluation gives'),
    (dict(best='val/ged4'), 'expected NAME:min or NAME:max'),
    (dict(evals={'val': {'metrics': ('ged4',)}}), 'names no split'),
    (dict(evals={'val': {'split': 'validation'}}), 'predicts no segmentation'),
    (dict(seed=-1), r'config.seed is -1\n  it is a whole number from 0'),
    (dict(keep=0), r'config.keep is 0\n  it is a whole number, at least 1'),
  ],
)
def test_a_mistake_is_told_before_the_first_step_and_leaves_nothing(
  config, change, message, tmp_path
):
  config.update(change)
  with pytest.raises(UserError, match=message):
    loop.train(config, tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_a_misspelt_score_for_the_best_names_the_nearest(tmp_path):
  c = configs.load('configs/smoke.py:supervised')
  c.best = 'val/ged_4:min'
  with pytest.raises(UserError, match='did you mean: val/ged4'):
    loop.train(c, tmp_path / 'run')


def test_new_moves_aside_what_has_lost_its_config(config, tmp_path):
  loop.train(config, tmp_path / 'run')
  (tmp_path / 'run' / 'config.json').unlink()
  config.steps = 2
  assert int(loop.train(config, tmp_path / 'run', new=True).step) == 2
  assert (tmp_path / 'run.old-1' / 'checkpoints' / '6').is_dir()


def test_a_workdir_that_cannot_be_one(config, tmp_path):
  (tmp_path / 'file').write_text('mine')
  with pytest.raises(UserError, match='name another folder'):
    loop.train(config, tmp_path / 'file')
  (tmp_path / 'file').unlink()
  (tmp_path / 'run').mkdir()
  (tmp_path / 'run' / 'config.json').write_text('{"steps":')
  with pytest.raises(UserError, match='cannot be read'):
    loop.train(config, tmp_path / 'run')


def test_the_record_of_a_run_survives_lines_that_were_spoiled(config, tmp_path, capsys):
  config.steps = 4
  loop.train(config, tmp_path / 'run')
  record = tmp_path / 'run' / 'metrics.jsonl'
  spoiled = ('x}', '[1]', '{"step": "x"}', '{"step": 1e999}', '{"a": 1}', '[' * 9999, '{"step": 1')
  record.write_text(record.read_text() + '\n'.join(spoiled))
  loop.train(config, tmp_path / 'run')
  assert [row['step'] for row in recorded(tmp_path / 'run')] == [2, 4]
  assert 'metrics.jsonl: 7 damaged line(s) left out' in capsys.readouterr().err
