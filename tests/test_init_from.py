"""config.init: parts of another run as the start of this one."""

import dataclasses

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from car_jax import checkpoints, registry
from car_jax.errors import UserError
from car_jax.init_from import init_from, untaught
from car_jax.methods.train_state import for_evaluation
from tests.methods.test_car import BATCH
from tests.methods.test_car import METHOD as CAR
from tests.methods.test_supervised import METHOD as SUPERVISED


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A finished run of each method, and the states they ended with."""
  states = {'car': CAR.init(5, BATCH), 'supervised': SUPERVISED.init(6, BATCH)}
  root = tmp_path_factory.mktemp('runs')
  for name, state in states.items():
    with checkpoints.Checkpoints(root / name / 'checkpoints', keep=1) as c:
      c.save(3, state, {'config': {}})
  return root, states


def started(init):
  return init_from(CAR.init(0, BATCH), ConfigDict(init))


def same(a, b):
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), b)


def test_a_supervised_net_becomes_the_calibration_net(run):
  root, states = run
  state = started({'calnet': f'{root / "supervised"}:net'})
  same(state.calnet.variables, states['supervised'].net.variables)
  same(state.generator.params, CAR.init(0, BATCH).generator.params)
  assert state.step == 0


def test_parts_keep_their_name_and_structure(run):
  root, states = run
  where = str(root / 'car')
  state = started(dict.fromkeys(('calnet', 'generator', 'discriminator'), where))
  for part in ('calnet', 'generator', 'discriminator'):
    same(getattr(state, part).variables, getattr(states['car'], part).variables)
  assert jax.tree.structure(state) == jax.tree.structure(CAR.init(0, BATCH))


@pytest.mark.parametrize(
  ('part', 'where', 'message'),
  [
    ('generator', 'supervised:net', 'does not fit'),
    ('calnet', 'supervised:nets', "no part 'nets'\n  did you mean: net"),
    ('calnets', 'supervised:net', "this method has no part 'calnets'"),
    ('calnet', 'nowhere:net', 'no checkpoint in'),
  ],
)
def test_parts_that_do_not_fit(run, part, where, message):
  with pytest.raises(UserError, match=message):
    started({part: f'{run[0]}/{where}'})


def test_a_run_that_is_not_there_is_told_with_the_key_that_names_it(tmp_path):
  with pytest.raises(
    UserError, match=r'config\.init\.calnet: no checkpoint in .*\n.*\n.*train it first'
  ):
    started({'calnet': f'{tmp_path / "none"}:net'})


def test_an_averaged_run_lends_its_average_and_an_averaged_one_begins_its_own_there(tmp_path):
  averaged = dataclasses.replace(SUPERVISED, optim=dict(SUPERVISED.optim, ema=0.9))
  state = averaged.init(6, BATCH)
  average = jax.tree.map(lambda a: a + 1, state.net.opt_state.params)
  state = state.replace(
    net=state.net.replace(opt_state=state.net.opt_state.replace(params=average))
  )
  with checkpoints.Checkpoints(tmp_path / 'checkpoints', keep=1) as c:
    c.save(3, state, {'config': {}})
  init = ConfigDict({'net': f'{tmp_path}:net'})
  begun = init_from(averaged.init(0, BATCH), init)
  same(begun.net.params, average)
  same(begun.net.opt_state.params, average)
  same(for_evaluation(state).net.params, average)
  assert for_evaluation(state).net.opt_state == ()


def test_a_net_that_only_another_run_could_teach_is_named():
  start = dict(name='ssn', model=dict(name='unet', widths=(4, 4)))
  flow = dict(name='flow_matching', model=dict(name='guided_unet'), one_channel=True)
  of = lambda spec, **init: untaught(
    registry.method(spec, num_classes=2, steps_per_epoch=1), ConfigDict(init)
  )
  assert of(flow) == of(flow | dict(start=start), start='runs/ssn:net') == []
  (line,) = of(flow | dict(start=start))
  assert line.startswith('start stays as it is drawn')
  assert '--config.init.start=FOLDER:net' in line
  (line,) = of(dict(name='lts', segmenter=dict(name='segnet')))
  assert line.startswith('segmenter stays')
