"""What is wrong with an evaluation or a report is told before training begins."""

import types

import jax
import pytest

from car_jax import config as configs
from car_jax import registry, sharding
from car_jax.data import fake, sources
from car_jax.errors import UserError
from car_jax.evaluate import preflight
from car_jax.evaluate.validate import Validation

VAE = dict(name='unet_vae_generator', hidden=4, latent=2)
CAR = dict(name='car', calnet=None, generator=VAE, discriminator=None, pixel_weight=1.0)
CAR |= dict(adversarial_weight=0.0, calibration_weight=0.0)
PLAIN = dict(name='supervised', model=dict(name='toy_calnet', hidden=4))


def data(*sides):
  """Every split has one image of each size."""
  made = {s: fake.open_dataset(size=s) for s in {*sides}}
  names = ('train', 'validation', 'test')

  def split(text):
    sources.split_name(text)
    if text not in names:
      raise UserError(f'no split {text!r}')
    rows = [made[s].split('train')[0] | {'id': f'{text}-{i}'} for i, s in enumerate(sides)]
    return sources.Listed(rows)

  return sources.Dataset(made[sides[0]].info, split)


def checked(*sides, method=PLAIN, trained=32, evals=None, report=None, **changes):
  config = configs.load('configs/smoke.py:supervised')
  config.data.update(dict(batch=2, rot90=False, size=trained) | changes)
  config.evals = evals or {}
  config.report = report or dict(split='test', samples=2, metrics=('ged2',))
  dataset, mesh = data(*sides), sharding.make_mesh()
  built = registry.method(dict(method), num_classes=2, steps_per_epoch=1)
  batch = {'image': jax.numpy.zeros((2, trained or 32, trained or 32, 3))}
  state = jax.eval_shape(lambda: built.init(0, batch))
  entries = {k: Validation(built, dataset, config, v, mesh) for k, v in config.evals.items()}
  run = types.SimpleNamespace(method=built, validations=entries, mesh=mesh)
  return preflight.check(config, dataset, dataset.split('train'), run, state)


def test_a_run_that_will_work_is_told_nothing_but_what_is_cut():
  assert checked(40, 32) == []
  (line,) = checked(40, 32, eval_size=32, evals=dict(val=dict(split='validation', samples=2)))
  assert 'the central 32x32 pixels of 1 of 2 images (the largest: 40x40)' in line


@pytest.mark.parametrize(
  ('report', 'message'),
  [
    (dict(split='tset'), r"config\.report: no split 'tset'"),
    (dict(split='test', metrics=('gde16',)), r"config\.report: unknown metric 'gde16'\n"),
    (
      dict(split='test', sample=3),
      r"config\.report: .* key 'report\.sample'\n.*samples",
    ),
    (dict(split='test', samples=0), r'config\.report\.samples is 0\n'),
  ],
)
def test_mistakes_in_the_report(report, message):
  with pytest.raises(UserError, match=message):
    checked(32, report=report)


def test_sizes_that_evaluation_cannot_have():
  with pytest.raises(UserError, match=r'config\.report: image test-1 is 32x32, .*eval_size 40\n'):
    checked(40, 32, eval_size=40)
  assert checked(32, 30, method=CAR, evals={}, pad=True) == []  # padded to the size of training
  with pytest.raises(UserError, match=r'images of 40x40 cannot .*\n.*data\.eval_size=32'):
    checked(32, 40, method=CAR)


@pytest.mark.parametrize(
  ('sides', 'changes', 'message'),
  [
    ((32, 32, 40), dict(trained=0), r'differ in size: train-0 is 32x32, train-2 is 40x40\n.*=32'),
    ((40, 32, 28), dict(trained=32), r'1 of 3 .*smaller .* 32: train-2 is 28x28\n.*=28 or less'),
  ],
)
def test_training_images_that_no_batch_can_hold(sides, changes, message):
  with pytest.raises(UserError, match=message):
    checked(*sides, **changes)
  assert checked(40, 32, 28, trained=32, pad=True) == []
