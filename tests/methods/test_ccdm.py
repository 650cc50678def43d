"""CCDM's loss, chain and options; the diffusion itself: tests/test_categorical.py, tests/replay."""

import jax
import numpy as np
import pytest

from car_jax import registry
from car_jax.errors import UserError
from car_jax.methods.ccdm import CCDM
from tests.methods.learning import check_it_learns
from tests.methods.test_ssn import batch

KEY = jax.random.key(0)
NET = dict(name='guided_unet', widths=(8, 8), blocks=1, attention=(), head_width=0, groups=4)
METHOD = CCDM(2, 4, NET, optim=dict(lr=5e-3), diffusion_steps=4)
NOISE = jax.jit(METHOD.training_noise)(KEY, batch())


def test_the_loss_is_the_divergence_of_the_step_before():
  """Of the first steps, whose net says that all classes are as likely: in closed form."""
  state = METHOD.init(0, batch())
  start = np.eye(2)[batch()['label']]
  wide = lambda a: np.reshape(a, (-1, 1, 1, 1))
  steps, loss = METHOD.steps, jax.jit(METHOD.loss)
  for time in (1, 2, 4):
    times = np.full(2, time)
    parts, _, _ = loss(state.net.variables, batch(), (times, NOISE[1]))
    x = np.asarray(jax.jit(METHOD.noised)(start, times, NOISE[1]))
    redrawn, before = wide(steps.redrawn[time - 1]), wide(steps.before[time - 1])
    here = (1 - redrawn) * x + redrawn / 2
    to = np.stack([here * ((1 - before) * np.eye(2)[k] + before / 2) for k in range(2)])
    to = to / to.sum(-1, keepdims=True)
    true = np.where(start[..., 1:] == 1, to[1], to[0])
    with np.errstate(divide='ignore', invalid='ignore'):
      terms = np.where(true > 0, true * np.log(true / to.mean(0)), 0)
    assert float(parts['loss/divergence']) == pytest.approx(terms.sum() / 2, rel=1e-4)
  assert time == METHOD.diffusion_steps


def test_noised_maps_are_those_of_the_chain():
  """The first step keeps nearly all, the last nearly none; the share is that of the schedule."""
  start = np.eye(2)[np.ones((2, 64, 64), int)]
  _, gumbel = jax.jit(METHOD.training_noise)(KEY, batch(64))
  for time in (1, 3, 4):
    x = jax.jit(METHOD.noised)(start, np.full(2, time), gumbel)
    kept = np.cos(((time - 1) / 4 + 0.008) / 1.008 * np.pi / 2) ** 2
    assert np.asarray(x)[..., 1].mean() == pytest.approx(kept + (1 - kept) / 2, abs=0.02)


def test_ignored_pixels_are_neither_learnt_from_nor_seen():
  method = CCDM(**vars(METHOD) | dict(num_classes=3, ignore_label=2))
  state = method.init(0, batch())
  noise = jax.jit(method.training_noise)(KEY, batch())
  some = batch()
  some['label'][:, :4] = 2
  grads = jax.jit(jax.grad(lambda x, b: method.loss(x, b, noise)[0]['loss/divergence']))
  loss = jax.jit(lambda b: method.loss(state.net.variables, b, noise)[0]['loss/divergence'])
  every = some | {'label': np.full_like(some['label'], 2)}
  assert float(loss(every)) == 0
  nothing = grads(state.net.variables, every)
  assert not any(np.any(g) for g in jax.tree.leaves(nothing))
  assert 0 < float(loss(some)) < float(loss(batch()))


def test_classes_have_weights():
  loss = lambda w: CCDM(**vars(METHOD) | dict(class_weights=w)).loss
  state = METHOD.init(0, batch())
  got = lambda w: float(jax.jit(loss(w))(state.net.variables, batch(), NOISE)[0]['loss/divergence'])
  none, one, two = got(()), got((1.0, 0.0)), got((0.0, 1.0))
  assert one + two == pytest.approx(none, rel=1e-5)
  assert got((2.0, 3.0)) == pytest.approx(2 * one + 3 * two, rel=1e-5)


def test_it_learns_and_its_samples_do_not_depend_on_the_batch():
  """Two squares, each with its own image: chains of two steps find them."""
  method = CCDM(**vars(METHOD) | dict(diffusion_steps=2))
  check_it_learns(method, batch(), 'loss/divergence', 0.2)


def test_ways_back_of_fewer_steps_and_to_probabilities():
  b = batch()
  state = METHOD.init(0, b)
  for options in (dict(sampling_steps=2), dict(schedule='linear', last_step='probabilities')):
    method = CCDM(**vars(METHOD) | options)
    probs = jax.jit(method.predictors()['samples'], static_argnums=3)(state, b, KEY, 2).probs
    assert probs.shape == (2, 2, 8, 8, 2)
    np.testing.assert_allclose(probs.sum(-1), 1, atol=1e-6)
  np.testing.assert_allclose(probs, 0.5, atol=1e-6)  # the net is at its start


def test_a_way_back_of_as_many_steps_is_the_whole_chain():
  b, state = batch(), METHOD.init(0, batch())
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda p: np.float32(rng.normal(size=p.shape)), state.net.params)
  state = state.replace(net=state.net.replace(params=params))
  drawn = lambda method: jax.jit(method.drawn)(state, b, jax.random.split(KEY, (2, 3)))
  same = CCDM(**vars(METHOD) | dict(sampling_steps=4, last_step='probabilities'))
  want = drawn(CCDM(**vars(METHOD) | dict(last_step='probabilities')))
  np.testing.assert_array_equal(drawn(same), want)
  assert np.abs(want - 0.5).max() > 0.01


def test_the_noise_of_a_step_exists_at_a_time():
  """By the compiler's count: twenty times the steps take no more memory."""
  size, n = 16, 8

  def scratch(steps):
    method = CCDM(**vars(METHOD) | dict(diffusion_steps=steps))
    state = method.init(0, batch(size))
    predict = method.predictors()['samples']
    lowered = jax.jit(lambda s, b, k: predict(s, b, k, n)).lower(state, batch(size), KEY)
    return lowered.compile().memory_analysis().temp_size_in_bytes

  assert scratch(100) < scratch(5) + 4 * 2 * n * size * size * 2


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (dict(sampling_steps=9), 'sampling_steps is 9, of 4 diffusion_steps\n  give less, or 0'),
    (dict(class_weights=(1.0,)), r'class_weights has 1 number\(s\); the data have 2 classes'),
  ],
)
def test_wrong_options(options, message):
  spec = dict(name='ccdm', num_classes=2, model=NET, diffusion_steps=4) | options
  with pytest.raises(UserError, match=message):
    registry.method(spec, steps_per_epoch=1)
