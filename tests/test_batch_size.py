"""Batches on any number of devices, and rates and steps that follow a batch."""

import math

import jax
import numpy as np
import pytest

from car_jax import batch_size, config, loop, sharding
from car_jax.data import opening, pipeline
from car_jax.errors import UserError
from car_jax.evaluate.validate import Validation


def smoke(variant='supervised', **changes):
  return config.override(config.load(f'configs/smoke.py:{variant}'), [*changes.items()])


@pytest.mark.parametrize(
  ('batch', 'devices', 'wanted'), [(8, 2, 8), (9, 2, 10), (12, 8, 16), (11, 8, 8), (16, 16, 16)]
)
def test_a_batch_becomes_the_nearest_that_devices_share(batch, devices, wanted):
  given = smoke(**{'data.batch': str(batch)})
  made, lines = batch_size.effective(given, devices)
  assert (made.data.batch, given.data.batch) == (wanted, batch)
  assert [f'{batch} -> {wanted}' in line for line in lines] == [True] * (batch != wanted)
  assert batch_size.effective(made, devices) == (made, [])


def test_fewer_images_than_devices_are_refused():
  with pytest.raises(UserError, match=r'batch is 8: fewer .*\n.*batch=16, .*base_batch=8'):
    batch_size.effective(smoke(), 16)
  with pytest.raises(UserError, match=r'target.groups is 2: .*\n.*target.groups=4\n'):
    batch_size.effective(smoke('sac', **{'data.batch': '16'}), 16)


@pytest.mark.parametrize(
  ('groups', 'devices', 'hosts', 'wanted'), [(2, 8, 1, 2), (2, 4, 2, 2), (3, 4, 2, 4), (3, 8, 1, 4)]
)
def test_views_are_shared_by_devices_and_their_images_by_processes(groups, devices, hosts, wanted):
  given = smoke('sac', **{'data.target.groups': str(groups)})
  made, _ = batch_size.effective(given, devices, hosts)
  assert made.data.target.groups == wanted
  assert wanted * 4 % devices == wanted % hosts == 0


@pytest.mark.parametrize(('rule', 'factor'), [('linear', 4.0), ('sqrt', 2.0)])
def test_rates_and_steps_follow_the_batch(rule, factor):
  given = smoke('car', steps='400', base_batch='2', lr_scaling=rule, eval_every='0')
  given.method.optim.generator.update(schedule='poly', decay_steps=80, end=1e-6, milestones=(3,))
  made, (line,) = batch_size.effective(given, 1)
  assert (made.steps, made.log_every, made.eval_every, made.save_every) == (100, 1, 0, 1)
  old, new = (c.method.optim.generator for c in (given, made))
  assert math.isclose(new.lr, old.lr * factor)
  assert math.isclose(new.end, 1e-6 * factor)
  assert (new.decay_steps, new.warmup_steps, tuple(new.milestones)) == (20, 0, (3,))  # of epochs
  assert math.isclose(made.method.optim.discriminator.lr, 1e-5 * factor)
  assert rule in line
  assert '400 -> 100' in line
  assert batch_size.effective(made, 1) == (made, [])


def test_rates_follow_the_images_of_an_update_and_steps_those_of_a_batch():
  given = smoke('car', steps='400', base_batch='16')  # a batch of 8
  given.method.optim.generator.update(accumulate=2)
  made, (line,) = batch_size.effective(given, 1)
  assert made.steps == 800
  for net, factor in (('generator', 1.0), ('discriminator', 0.5)):
    old, new = (c.method.optim[net].lr for c in (given, made))
    assert math.isclose(new, old * factor)
  assert 'rates x 0.5 and 1 (linear)' in line


def test_a_method_s_first_steps_see_as_many_images_as_before():
  given = smoke('ssn', **{'base_batch': '2', 'method.mean_steps': '40', 'steps': '400'})
  made, _ = batch_size.effective(given, 1)  # a batch of 8
  assert (made.steps, made.method.mean_steps) == (100, 10)


def test_rates_that_follow_already_are_not_advised():
  given = smoke(**{'data.batch': '6', 'base_batch': '12'})
  made, (rounded, scaled) = batch_size.effective(given, 4)
  assert rounded == 'batch 6 -> 8, which 4 devices share'
  assert 'batch 8, base_batch 12' in scaled
  assert batch_size.ratio(given, made) == 8 / 12
  assert batch_size.ratio(made, made) == 1


def test_the_steps_that_a_message_advises_go_on(tmp_path, capsys):
  changes = {'data.batch': '16', 'base_batch': '8', 'evals': '{}', 'best': ''}
  loop.train(smoke(steps='6', **changes), tmp_path / 'run')
  with pytest.raises(UserError, match=r'has 3 steps; config.steps is 2\n  use --config.steps=6 or'):
    loop.train(smoke(steps='4', **changes), tmp_path / 'run')
  loop.train(smoke(steps='6', **changes), tmp_path / 'run')
  assert 'step 3 of 3 is done; a larger --config.steps goes on' in capsys.readouterr().out


def test_a_scaling_of_nothing_is_refused():
  with pytest.raises(UserError, match=r"lr_scaling is 'sqrt', .*\n.*base_batch=N"):
    batch_size.effective(smoke(lr_scaling='sqrt'), 1)


@pytest.mark.parametrize('devices', [1, 3, 8, 16])
def test_every_image_is_evaluated_once_whatever_divides(devices):
  """Seven rows at a time of 16 images, on devices that share neither."""
  c = smoke(**{'data.eval_batch': '7'})
  data = opening.open_dataset(c.data)
  source = data.split('test')
  seen = []
  for batch in pipeline.eval_batches(source, data.info, c.data, devices=devices):
    assert len(batch['valid']) == -(-7 // devices) * devices
    seen += list(batch['id'][batch['valid']])
  assert seen == [source[i]['id'] for i in range(len(source))]


def test_padding_changes_no_score():
  c = config.override(config.load('tests/small.py:supervised'), [('data.eval_batch', '3')])
  data = opening.open_dataset(c.data)
  method = loop.build_method(c, data.info, 8)
  state = method.init(0, {'image': np.zeros((1, 32, 32, 3), np.float32)})
  validation = Validation(method, data, c, c.evals['val'], sharding.make_mesh())
  source, subject, rng = data.split('test'), validation._subject(state), jax.random.key(0)
  scores = []
  for devices in (1, 7):
    batches = pipeline.eval_batches(source, data.info, c.data, devices=devices)
    scores.append(validation._evaluator([subject], batches, rng=rng).scalars())
  assert scores[0] == scores[1]
  assert np.isfinite([*scores[0].values()]).all()
