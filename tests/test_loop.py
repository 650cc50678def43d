"""The loop's refusals and what it leaves behind, with the smallest method there is."""

import dataclasses
import json

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax import checkpoints, loop, registry
from car_jax import config as configs
from car_jax.errors import UserError


@flax.struct.dataclass
class State:
  step: jax.Array
  total: jax.Array


@dataclasses.dataclass(frozen=True)
class Counter:
  """Adds up the images it sees; its loss breaks at step `breaks`."""

  num_classes: int
  breaks: int = -1

  def init(self, seed, batch):
    return State(step=np.int32(0), total=np.float32(0))

  def step(self, state, batch, rng):
    bad = state.step + 1 == self.breaks
    logs = {'loss/fine': jnp.float32(1), 'loss/odd': jnp.where(bad, jnp.nan, 1.0)}
    return State(state.step + 1, state.total + jnp.sum(batch['image'])), logs

  def predictors(self):
    return {}


@pytest.fixture
def config(monkeypatch):
  monkeypatch.setitem(registry.METHODS, 'counter', 'tests.test_loop:Counter')
  c = configs.load('configs/smoke.py:supervised')
  c.unlock()
  c.method = dict(name='counter', breaks=-1)
  c.evals, c.best, c.steps, c.save_every = {}, '', 6, 2
  return c


def test_a_loss_that_is_not_finite_names_the_step_and_the_term(config, tmp_path):
  config.method.breaks = 5
  with pytest.raises(UserError, match='loss/odd is nan at step 5'):
    loop.train(config, tmp_path / 'run')
  assert checkpoints.locate(tmp_path / 'run')[1] == 4  # the last good one is kept


def test_another_config_in_the_same_workdir_is_refused_unless_new(config, tmp_path):
  loop.train(config, tmp_path / 'run')
  config.seed = 3
  with pytest.raises(UserError, match=r'(?s)seed: 0 -> 3.*--new'):
    loop.train(config, tmp_path / 'run')
  state = loop.train(config, tmp_path / 'run', new=True)
  assert int(state.step) == 6
  assert (tmp_path / 'run.old-1' / 'checkpoints').is_dir()


def test_metrics_have_one_line_per_log_step(config, tmp_path):
  loop.train(config, tmp_path / 'run')
  lines = [json.loads(line) for line in (tmp_path / 'run' / 'metrics.jsonl').open()]
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
  assert not better(np.nan, None)


def test_parts_of_another_run_start_a_new_one(tmp_path):
  c = configs.load('configs/smoke.py:supervised')
  c.update(dict(steps=1, evals={}, best='', save_every=0))
  trained = loop.train(c, tmp_path / 'first')
  car = configs.load('configs/smoke.py:car')
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


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (dict(best='val/ged4:min'), 'no evaluation gives'),
    (dict(best='val/ged4'), 'expected NAME:min or NAME:max'),
    (dict(evals={'val': {'metrics': ('ged4',)}}), 'names no split'),
    (dict(evals={'val': {'split': 'validation'}}), 'predicts no segmentation'),
    (dict(seed=-1), 'config.seed is -1; it is at least 0'),
    (dict(keep=0), 'config.keep is 0; it is at least 1'),
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


def test_the_record_of_a_run_survives_a_line_that_was_spoiled(config, tmp_path):
  config.steps = 4
  loop.train(config, tmp_path / 'run')
  record = tmp_path / 'run' / 'metrics.jsonl'
  record.write_text(record.read_text() + 'x}\n{"step": 9')
  loop.train(config, tmp_path / 'run')
  assert [json.loads(line)['step'] for line in record.open()] == [2, 4]
