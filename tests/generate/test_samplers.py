"""Samplers against what they approximate: where the noise is known, the picture comes back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax.errors import UserError
from car_jax.generate.samplers import DDIM, PNDM, SAMPLERS, NoiseSchedule, guided
from car_jax.generate.samplers import denoised as run

RNG = np.random.default_rng(0)
PICTURE, NOISE = (RNG.standard_normal((2, 3, 3, 4)).astype(np.float32) for _ in range(2))


@pytest.mark.parametrize(
  ('spacing', 'strength'),
  [('leading', 1.0), ('leading', 0.5), ('trailing', 1.0), ('linspace', 1.0), ('genval', 0.5)],
)
@pytest.mark.parametrize('kind', SAMPLERS)
def test_with_the_true_noise_every_step_stays_on_the_way_to_the_picture(kind, spacing, strength):
  schedule = NoiseSchedule(spacing=spacing)
  sampler = SAMPLERS[kind](schedule, 8, strength=strength)
  assert len(sampler.timesteps) == round(8 * strength) + (kind == 'pndm')
  assert (np.diff(sampler.timesteps) <= 0).all()
  start = schedule.noised(PICTURE, NOISE, int(sampler.timesteps[0]))
  found = run(sampler, lambda x, t: jnp.asarray(NOISE), start)
  end = PICTURE if kind == 'dpmpp_2m' else schedule.noised(PICTURE, NOISE, 0)
  np.testing.assert_allclose(found, end, atol=2e-4)


def test_set_alpha_to_one_ends_without_noise():
  sampler = DDIM(NoiseSchedule(set_alpha_to_one=True), 5)
  start = NoiseSchedule().noised(PICTURE, NOISE, int(sampler.timesteps[0]))
  found = run(sampler, lambda x, t: jnp.asarray(NOISE), start)
  np.testing.assert_allclose(found, PICTURE, atol=1e-4)


@pytest.mark.parametrize('kind', SAMPLERS)
def test_more_steps_come_nearer_to_the_exact_path(kind):
  """Of normal data of deviation s the path is known: x falls with the deviation of its time."""
  schedule, s = NoiseSchedule(set_alpha_to_one=True), 0.5
  table = schedule.alphas_cumprod

  def error(steps):
    sampler = SAMPLERS[kind](schedule, steps)
    a = jnp.asarray(table, jnp.float32)
    predict = lambda x, t: jnp.sqrt(1 - a[t]) / (a[t] * s**2 + 1 - a[t]) * x
    first = table[sampler.timesteps[0]]
    start = NOISE * np.float32(np.sqrt(first * s**2 + 1 - first))
    return np.abs(run(sampler, predict, start) - s * NOISE).max()

  coarse, fine = error(10), error(80)
  assert fine < coarse / 5
  assert fine < 0.05


def test_eta_adds_the_variance_of_the_forward_process():
  """Normal data again: with eta 1 samples keep the deviation s, whatever noise is drawn."""
  schedule, s, n = NoiseSchedule(set_alpha_to_one=True), 0.7, 5_000
  sampler = DDIM(schedule, 500, eta=1.0)
  a = jnp.asarray(schedule.alphas_cumprod, jnp.float32)
  predict = lambda x, t: jnp.sqrt(1 - a[t]) / (a[t] * s**2 + 1 - a[t]) * x
  key = jax.random.key(0)
  noise = lambda i: jax.random.normal(jax.random.fold_in(key, i), (n,))
  start = jax.random.normal(jax.random.fold_in(key, 1_000), (n,))
  found = jax.jit(lambda x: run(sampler, predict, x, noise))(start)
  assert np.std(found) == pytest.approx(s, rel=0.03)
  assert np.abs(np.corrcoef(found, start)[0, 1]) < 0.3  # the start is forgotten
  with pytest.raises(ValueError, match='takes noise'):
    run(sampler, predict, start)


def test_a_loop_is_its_steps():
  sampler, predict = PNDM(NoiseSchedule(), 4), lambda x, t: jnp.sin(x) * (t / 1_000)
  state, wanted = sampler.start(jnp.asarray(NOISE)), []
  for i, t in enumerate(sampler.timesteps):
    state = sampler.step(state, i, predict(state.x, t))
    wanted.append(state.x)
  kept = jax.jit(lambda x: run(sampler, predict, x, keep=True))(NOISE)
  np.testing.assert_allclose(kept, np.stack(wanted), atol=1e-6)
  np.testing.assert_allclose(run(sampler, predict, jnp.asarray(NOISE)), wanted[-1], atol=1e-6)


def test_genvals_steps():
  genval = NoiseSchedule(spacing='genval')
  assert list(genval.timesteps(6)) == [997, 831, 665, 499, 333, 167, 1]  # one more than asked for
  np.testing.assert_array_equal(genval.timesteps(25), NoiseSchedule().timesteps(25))
  failing = [3, 9, 27, 36, 110, 300, 501]  # where the published code raises IndexError
  for steps in failing:
    with pytest.raises(UserError, match='reach timestep 1000, where the last is 999') as caught:
      genval.timesteps(steps)
    near = int(str(caught.value).split('\n')[1].split()[0])
    assert near not in failing
    assert genval.timesteps(near).max() < 1_000


@pytest.mark.parametrize('steps', [-1, 0, 1_001])
def test_numbers_of_steps_that_cannot_be(steps):
  for kind, make in SAMPLERS.items():
    most = 999 if kind == 'dpmpp_2m' else 1_000
    with pytest.raises(UserError, match=f'{steps} steps; from 1 to {most} can'):
      make(NoiseSchedule(steps_offset=0), steps)
    assert make(NoiseSchedule(steps_offset=0), most).timesteps[0] == 999
  with pytest.raises(UserError, match='1000 steps reach timestep 1000, .* is 999\n.*offset of 1'):
    SAMPLERS['ddim'](NoiseSchedule(), 1_000)


@pytest.mark.parametrize('strength', [0.0, 0.05, 1.5])
def test_a_strength_that_leaves_no_step(strength):
  with pytest.raises(UserError, match='leave none to make\n.*at least 0.1'):
    DDIM(NoiseSchedule(), 10, strength=strength)


@pytest.mark.parametrize('kind', SAMPLERS)
def test_one_step(kind):
  sampler = SAMPLERS[kind](NoiseSchedule(), 1)
  assert len(sampler.timesteps) == 1
  start = NoiseSchedule().noised(PICTURE, NOISE, int(sampler.timesteps[0]))
  found = run(sampler, lambda x, t: jnp.asarray(NOISE), start)
  assert np.isfinite(found).all()


def test_guidance():
  eps = jnp.asarray([[1.0, 2.0], [3.0, 5.0]])
  np.testing.assert_allclose(guided(eps, 8.0), [[17.0, 26.0]])
  np.testing.assert_allclose(guided(eps, 1.0), [[3.0, 5.0]])


def test_clipped_ddim_holds_the_picture_predicted_in_its_range():
  """By its definition: the picture predicted is clipped, and the noise is what is left."""
  schedule = NoiseSchedule(clip=0.5)
  sampler = SAMPLERS['ddim'](schedule, 4)
  rng = np.random.default_rng(0)
  x, eps = rng.standard_normal((2, 3, 5)).astype(np.float32)
  a = schedule.alphas_cumprod
  for i, t in enumerate(sampler.timesteps):
    to = a[sampler.timesteps[i + 1]] if i < 3 else a[0]
    clean = np.clip((x - np.sqrt(1 - a[t]) * eps) / np.sqrt(a[t]), -0.5, 0.5)
    noise = (x - np.sqrt(a[t]) * clean) / np.sqrt(1 - a[t])
    wanted = np.sqrt(to) * clean + np.sqrt(1 - to) * noise
    found = sampler.step(sampler.start(jnp.asarray(x)), i, jnp.asarray(eps)).x
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert np.abs(clean).max() == 0.5
