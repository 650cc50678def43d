"""Plain cross-entropy training at toy size."""

import jax
import numpy as np
import pytest

from car_jax.methods.supervised import Supervised
from tests.methods.test_car import BATCH, SIDE, B, C, changed

METHOD = Supervised(
  num_classes=C,
  steps_per_epoch=10,
  model=dict(name='toy_calnet', hidden=4),
  optim=dict(lr=1e-2),
)
KEY = jax.random.key(3)


@pytest.fixture(scope='module')
def trained():
  step = jax.jit(METHOD.step)
  state, losses = METHOD.init(0, BATCH), []
  for i in range(8):
    state, logs = step(state, BATCH, jax.random.key(i))
    losses.append(float(logs['loss/cross_entropy']))
  return state, losses


def test_the_loss_falls_on_one_batch(trained):
  state, losses = trained
  assert losses[-1] < 0.7 * losses[0]
  assert state.step == 8
  assert changed(state.net.batch_stats, METHOD.init(0, BATCH).net.batch_stats)


def test_the_seed_decides_the_first_state():
  first, again, other = (METHOD.init(seed, BATCH).net.params for seed in (0, 0, 1))
  assert not changed(first, again)
  assert changed(first, other)


@pytest.mark.parametrize('name', METHOD.predictors())
def test_predictions_do_not_depend_on_the_batch_around_an_example(name, trained):
  predict = jax.jit(METHOD.predictors()[name], static_argnums=3)
  whole = predict(trained[0], BATCH, KEY, 3)
  mixed = predict(trained[0], {k: v[::-1] for k, v in BATCH.items()}, KEY, 3)
  assert whole.probs.shape == (B, 3, SIDE, SIDE, C)
  np.testing.assert_array_equal(mixed.probs[0], whole.probs[-1])
  np.testing.assert_allclose(mixed.marginal[0], whole.marginal[-1], atol=1e-6)
  np.testing.assert_allclose(whole.weight, 1 / 3, rtol=1e-6)


def test_masked_labels_teach_nothing(trained):
  ignoring = Supervised(**vars(METHOD) | {'ignore_label': 1})
  all_ignored = BATCH | {'label': np.ones_like(BATCH['label'])}
  _, logs = jax.jit(ignoring.step)(METHOD.init(0, BATCH), all_ignored, KEY)
  assert logs['loss/cross_entropy'] == 0
