"""CAR's step and predictors at toy size. The recorded steps are replayed in tests/replay."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax.errors import UserError
from car_jax.methods import base
from car_jax.methods.car import CAR

B, M, SIDE, C, N = 3, 2, 32, 2, 3
FAST = dict(lr=1e-2, b1=0.5, b2=0.99)
SPEC = dict(
  num_classes=C,
  steps_per_epoch=10,
  calnet=dict(name='toy_calnet', hidden=4),
  generator=dict(name='tests.small:SmallGenerator'),
  discriminator=dict(name='pixel_discriminator', hidden=4),
  optim=dict(calnet=FAST, generator=FAST, discriminator=FAST | dict(lr=1e-3)),
  samples=N,
  critic_steps=2,
  rest_steps=3,
)


def make_batch() -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  y, x = np.mgrid[:SIDE, :SIDE]
  label = np.stack([np.hypot(y - 12 - b, x - 16) < 8 for b in range(B)]).astype(np.int32)
  image = np.repeat(2.0 * label[..., None] - 1, 3, -1) + rng.normal(0, 0.1, (B, SIDE, SIDE, 3))
  return {
    'image': image.astype(np.float32),
    'label': label,
    'example': np.array([11, 22, 33], np.uint32),
  }


UNET = dict(name='unet_generator', hidden=4, latent=3)  # its own steps are in tests/nn/test_unet.py
BATCH = make_batch()
KEY = jax.random.key(7)
METHOD = CAR(**SPEC)
STATE = METHOD.init(0, BATCH)
step = jax.jit(METHOD.step, static_argnames='phase')


def at(number, accuracy=0.0):
  return STATE.replace(step=np.int32(number), accuracy=np.float32(accuracy))


def changed(a, b) -> bool:
  leaves = (jax.tree.leaves(jax.device_get(tree)) for tree in (a, b))
  return any((x != y).any() for x, y in zip(*leaves, strict=True))


@pytest.fixture(scope='module')
def trained():
  """The state after 12 steps on one batch, and each step's logs."""
  state, logs = STATE, []
  for i in range(12):
    state, log = step(state, BATCH, jax.random.key(i), phase=METHOD.phase(i))
    logs.append({k: float(v) for k, v in log.items()})
  return jax.device_get(state), logs


def test_the_losses_fall_on_one_batch(trained):
  state, logs = trained
  assert state.step == 12
  assert logs[-1]['loss/calnet'] < 0.7 * logs[0]['loss/calnet']
  assert all(np.isfinite(v) for log in logs for v in log.values())


def test_the_discriminator_learns_in_its_phase_only(trained):
  _, logs = trained
  # epochs have 10 steps: at step 10 the accuracy counts as 0 again
  turns = [i % 5 < 2 for i in range(12)]
  before = [0.0] + [log['discriminator/accuracy'] for log in logs]
  want = [
    turn and (a < 0.85 or i % 10 == 0)
    for i, (turn, a) in enumerate(zip(turns, before, strict=False))
  ]
  assert [bool(log['discriminator/updated']) for log in logs] == want
  assert any(want)


@pytest.mark.parametrize(
  ('number', 'accuracy', 'learns'),
  [
    (1, 0.0, True),
    (1, 0.8499, True),
    (1, 0.85, False),
    (2, 0.0, False),
    (4, 0.0, False),
    (5, 0.5, True),
    (10, 0.99, True),  # the first step of an epoch forgets the accuracy
    (11, 0.99, False),
  ],
)
def test_phases_and_the_cap_on_accuracy(number, accuracy, learns):
  new, logs = step(at(number, accuracy), BATCH, KEY, phase=METHOD.phase(number))
  assert bool(logs['discriminator/updated']) == learns
  assert changed(new.discriminator, STATE.discriminator) == learns
  assert (float(logs['loss/r1']) > 0) == learns
  assert changed(new.generator.params, STATE.generator.params)
  assert changed(new.calnet.params, STATE.calnet.params)
  assert new.accuracy == logs['discriminator/accuracy']
  assert new.step == number + 1


def test_a_frozen_calnet_is_left_alone_and_the_samples_mean_comes_closer_to_it(trained):
  nothing_else = dict(freeze_calnet=True, discriminator=None, adversarial_weight=0.0)
  method = dataclasses.replace(METHOD, **nothing_else)
  run = jax.jit(method.step, static_argnames='phase')
  state, losses = trained[0].replace(discriminator=None), []
  for i in range(12):
    assert method.phase(i) == 'rest'
    state, logs = run(state, BATCH, jax.random.key(i), phase='rest')
    losses.append(float(logs['loss/calibration']))
  assert min(losses[-3:]) < 0.7 * losses[0]
  assert not changed(state.calnet, trained[0].calnet)
  assert changed(state.generator.params, trained[0].generator.params)
  again = run(trained[0].replace(discriminator=None), BATCH, jax.random.key(99), phase='rest')[1]
  assert again['loss/calnet'] == logs['loss/calnet']  # no dropout, no drifting statistics


def shape_of_step(method):
  """(state before, state after, logs) of a step, without compiling it."""
  state = method.init(0, BATCH)
  run = lambda s: method.step(s, BATCH, jax.random.key(0), method.phase(0))
  return state, *jax.eval_shape(run, state)


def test_without_a_calnet_the_generator_sees_the_image_alone():
  method = CAR(**SPEC | dict(calnet=None, calibration_weight=0.0, generator=UNET))
  state, new, logs = shape_of_step(method)
  assert state.calnet is None
  assert new.calnet is None
  assert state.generator.params['enc1_conv']['kernel'].shape[2] == 3
  names = {'adversarial', 'discriminator', 'r1'}
  assert {k for k in logs if k.startswith('loss/')} == {f'loss/{name}' for name in names}
  assert list(method.predictors()) == ['samples']
  predict = method.predictors()['samples']
  draws = jax.eval_shape(lambda s: predict(s, BATCH, KEY, 2), state)
  assert draws.probs.shape == (B, 2, SIDE, SIDE, C)
  assert draws.marginal is None


def test_without_a_discriminator_only_calibration_and_pixels_teach():
  method = CAR(
    **SPEC | dict(discriminator=None, adversarial_weight=0.0, pixel_weight=1.0, generator=UNET)
  )
  state, new, logs = shape_of_step(method)
  assert state.discriminator is None
  assert new.discriminator is None
  assert set(logs) == {'loss/calnet', 'loss/calibration', 'loss/pixel', 'generator/sample_variance'}


def test_the_vae_generator_adds_its_latents_divergence():
  vae = dict(name='unet_vae_generator', hidden=4, latent=3)
  *_, logs = shape_of_step(CAR(**SPEC | dict(generator=vae, complexity_weight=1.0)))
  assert 'loss/complexity' in logs


def test_a_black_box_prediction_is_seen_by_the_calnet():
  batch = BATCH | {'black_box': BATCH['label']}
  state = METHOD.init(0, batch)
  assert state.calnet.params['conv1']['kernel'].shape[2] == 3 + C
  assert state.generator.params['enc1_conv']['kernel'].shape[2] == 3 + C
  jax.eval_shape(lambda s: METHOD.step(s, batch, jax.random.key(0), 'rest'), state)


@pytest.mark.parametrize(
  ('net', 'weight'), [('calnet', 'calibration'), ('discriminator', 'adversarial')]
)
def test_weights_must_agree_with_the_nets_that_are_there(net, weight):
  with pytest.raises(UserError, match=rf'method\.{net} is None, so method\.{weight}_weight'):
    CAR(**SPEC | {net: None})


def test_a_generator_that_nothing_teaches_is_refused():
  spec = dict(calnet=None, discriminator=None, adversarial_weight=0.0, calibration_weight=0.0)
  with pytest.raises(UserError, match='nothing for the generator to learn from'):
    CAR(**SPEC | spec)


# Prediction --------------------------------------------------------------------------------------

PREDICT = {
  name: jax.jit(predict, static_argnums=3) for name, predict in METHOD.predictors().items()
}


def some_of(batch, rows):
  return {k: v[np.array(rows)] for k, v in batch.items()}


@pytest.mark.parametrize('name', PREDICT)
def test_predictions_do_not_depend_on_the_batch_around_an_example(name, trained):
  state, _ = trained
  whole = PREDICT[name](state, BATCH, KEY, 4)
  mixed = PREDICT[name](state, some_of(BATCH, [2, 0, 1]), KEY, 4)
  alone = PREDICT[name](state, some_of(BATCH, [2, 2, 2]), KEY, 4)
  np.testing.assert_allclose(mixed.probs[0], whole.probs[2], atol=1e-5)
  np.testing.assert_allclose(alone.probs[0], whole.probs[2], atol=1e-5)
  np.testing.assert_allclose(alone.marginal[0], whole.marginal[2], atol=1e-5)
  assert whole.probs.shape == (B, 4, SIDE, SIDE, C)
  np.testing.assert_allclose(whole.probs.sum(-1), 1, atol=1e-5)
  np.testing.assert_allclose(whole.weight.sum(1), 1, atol=1e-6)


def test_predictors_differ_in_what_they_draw(trained):
  state, _ = trained
  car, argmax, independent = (PREDICT[name](state, BATCH, KEY, 4).probs for name in PREDICT)
  assert (argmax[:, 0] == argmax[:, 1]).all()
  assert (car[:, 0] != car[:, 1]).any()
  assert set(np.unique(independent)) == {0, 1}
  other = PREDICT['samples'](state, BATCH, jax.random.key(8), 4).probs
  assert np.abs(other - car).max() > 1e-4


def test_independent_pixels_have_the_calnets_frequencies():
  from car_jax.methods import baselines

  rng = np.random.default_rng(0)
  probs = rng.dirichlet(np.ones(3), (2, 3, 3)).astype(np.float32)
  probs[0, 0, 0] = (0, 0, 1)
  batch = {'example': np.array([5, 6], np.uint32)}
  draw = jax.jit(lambda p: baselines.independent_pixels(p, batch, KEY, 4000).probs.mean(1))
  frequencies = draw(probs)
  np.testing.assert_allclose(frequencies, probs, atol=0.04)
  assert frequencies[0, 0, 0, 2] == 1


def test_ignored_pixels_are_given_to_every_output(trained):
  state, _ = trained
  method = dataclasses.replace(METHOD, ignore_label=1)
  batch = BATCH
  draws = jax.jit(method.predictors()['samples'], static_argnums=3)(state, batch, KEY, 2)
  ignored = np.broadcast_to((batch['label'] == 1)[:, None], draws.probs.shape[:-1])
  assert (np.asarray(draws.probs)[ignored] == (0, 1)).all()
  assert (np.asarray(draws.marginal)[batch['label'] == 1] == (0, 1)).all()


def test_a_key_belongs_to_an_example_not_to_its_place():
  keys = base.example_keys(KEY, {'example': jnp.array([3, 4, 3], jnp.uint32)})
  data = jax.random.key_data(keys)
  assert (data[0] == data[2]).all()
  assert (data[0] != data[1]).any()


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (dict(critic_steps=0, rest_steps=0), 'at least 1 step'),
    (dict(complexity_weight=1.0), 'unet_vae_generator'),
    (dict(discriminator=None), 'adversarial_weight must be 0'),
  ],
)
def test_options_that_would_be_passed_over_are_refused(change, message):
  with pytest.raises(UserError, match=message):
    dataclasses.replace(METHOD, **change)
