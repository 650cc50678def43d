"""ControlNet and diffusion from scratch at toy size; the recorded training is in tests/replay."""

import dataclasses
import itertools
import pathlib

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax import checkpoints, sharding
from car_jax.errors import UserError
from car_jax.generate import tokenizer, weights
from car_jax.generate.samplers import NoiseSchedule
from car_jax.generate.vae import PIXEL_SCALE, Pixels
from car_jax.methods.controlnet import ControlNetTraining
from car_jax.methods.diffusion import Diffusion, drawn
from tests.methods.test_car import changed

KEY = jax.random.key(3)
B, L = 2, 6
WORDS = tokenizer.Tokenizer({'a</w>': 0, tokenizer.BEGIN: 18, tokenizer.END: 19}, [], length=L)
SIZES = dict(widths=(4,), attention=(False,), heads=2, groups=2)
TEXT = dict(vocab_size=20, text_width=4, text_layers=1)
OPTIM = dict(name='adamw', lr=1e-2)
SCRATCH = Diffusion(patch=1, optim=OPTIM | dict(ema=0.5), **SIZES, **TEXT)
_RNG = np.random.default_rng(0)
BATCH = dict(
  image=_RNG.uniform(-1, 1, (B, 4, 8, 3)).astype(np.float32),
  hint=_RNG.uniform(0, 1, (B, 4, 8, 1)).astype(np.float32),
  tokens=_RNG.integers(0, 20, (B, L), dtype=np.int32),
)


class Data:
  """What an export reads of config.data."""

  def words(self):
    return WORDS


@pytest.fixture(scope='module')
def scratch():
  """A diffusion model as if it had learnt: random networks, and other averages of them."""
  rng = np.random.default_rng(1)
  draw = lambda tree: jax.tree.map(lambda a: np.float32(0.3 * rng.standard_normal(a.shape)), tree)
  state = SCRATCH.init(0, BATCH)
  learnt = lambda net: net.replace(
    params=draw(net.params), opt_state=net.opt_state.replace(params=draw(net.params))
  )
  return state.replace(unet=learnt(state.unet), text_encoder=learnt(state.text_encoder))


def saved(state, *parts):
  """A state as a checkpoint gives it back."""
  tree = {}
  for part in parts:
    net = jax.device_get(getattr(state, part))
    average = getattr(net.opt_state, 'params', None)
    opt_state = dict(state=(), params=average) if average is not None else ()
    tree[part] = dict(params=net.params, batch_stats={}, opt_state=opt_state)
  return tree


@pytest.fixture(scope='module')
def folder(scratch, tmp_path_factory):
  """The model's pipeline."""
  out = tmp_path_factory.mktemp('tiny') / 'pipeline'
  SCRATCH.export(saved(scratch, 'unet', 'text_encoder'), Data(), out)
  return out


@pytest.fixture(scope='module')
def method(folder):
  kw = dict(hint_widths=(2,), remat=False, frozen_dtype='float32')
  return ControlNetTraining(weights=str(folder), optim=OPTIM | dict(accumulate=2), **kw)


@pytest.fixture(scope='module')
def first(method):
  return method.init(0, BATCH)


@pytest.fixture(scope='module')
def trained(first, method):
  """States after each of 12 steps, of the same noise, and their losses."""
  step, states, losses = jax.jit(method.step), [first], []
  for _ in range(12):
    state, logs = step(states[-1], BATCH, KEY)
    states.append(state)
    losses.append(float(logs['loss/noise']))
  return states, losses


def test_only_the_controlnet_learns_and_its_loss_falls(trained):
  (first, *_, last), losses = trained
  assert losses[-1] < losses[2] < losses[0]
  assert changed(last.controlnet.params, first.controlnet.params)
  for part in ('unet', 'text_encoder'):
    before, after = getattr(first, part), getattr(last, part)
    assert before.digest == after.digest
    assert jax.tree.all(jax.tree.map(np.array_equal, before.arrays, after.arrays))
    assert jax.tree.leaves(after.arrays)
  sizes = lambda tree: sum(np.size(a) for a in jax.tree.leaves(tree))
  assert sizes(last.controlnet.opt_state) < 4 * sizes(last.controlnet.params)  # of nothing else


def test_gradients_of_as_many_steps_as_are_accumulated_make_an_update(trained):
  states, losses = trained
  for k, (one, two) in enumerate(itertools.pairwise(states)):
    assert changed(one.controlnet.params, two.controlnet.params) == (k % 2 == 1)
  assert losses[::2] == losses[1::2]


def test_a_new_controlnet_leaves_the_unet_as_it_is(first, trained, method):
  """And what the step reports is the loss of the UNet alone, frozen in half precision nearly so."""
  opened, state = method.frozen, first
  latents, noise, timesteps = drawn(opened.vae, {}, BATCH['image'], opened.schedule, KEY)
  noisy = opened.schedule.noised(latents, noise, timesteps)

  @jax.jit
  def alone(unet_params, text_params):
    context = opened.text_encoder.apply({'params': text_params}, BATCH['tokens'])
    return opened.unet.apply({'params': unet_params}, noisy, timesteps, context)

  frozen = state.unet.arrays, state.text_encoder.arrays
  wanted = np.mean(np.square(alone(*frozen) - noise))
  assert trained[1][0] == pytest.approx(wanted, rel=1e-5)
  half = lambda tree: jax.tree.map(lambda a: a.astype(jnp.bfloat16), tree)
  rounded = alone(*map(half, frozen))
  assert rounded.dtype == jnp.float32
  rounded = np.mean(np.square(rounded - noise))
  assert 0 < abs(rounded - wanted) < 0.02 * wanted


def test_the_frozen_part_is_kept_in_half_precision_the_controlnet_in_full(method):
  state = dataclasses.replace(method, frozen_dtype='bfloat16').init(0, BATCH)
  types = lambda tree: {str(a.dtype) for a in jax.tree.leaves(tree)}
  assert types(state.unet.arrays) == types(state.text_encoder.arrays) == {'bfloat16'}
  assert types(state.controlnet.params) == {'float32'}
  exact = weights.load('unet', pathlib.Path(method.weights) / 'unet')[1]
  assert not changed(state.controlnet.params['mid_block'], exact['mid_block'])


class Posterior(nn.Module):
  """An autoencoder whose latents are what it is given to draw by."""

  factor, latent_channels = 2, 5

  def encode(self, image, noise):
    return noise


def test_what_is_drawn_is_normal_and_uniform_and_independent():
  image = np.ones((256, 4, 4, 3), np.float32)
  latents, noise, timesteps = drawn(Posterior(), {}, image, NoiseSchedule(), KEY)
  assert latents.shape == noise.shape == (256, 2, 2, 5)
  for draws in (latents, noise):
    assert abs(float(draws.mean())) < 0.1
    assert abs(float(draws.std()) - 1) < 0.1
  assert abs(np.corrcoef(latents.ravel(), noise.ravel())[0, 1]) < 0.1
  assert 0 <= timesteps.min() < 50
  assert 950 < timesteps.max() < 1000
  assert len({*np.asarray(timesteps)}) > 200  # of 256 of a thousand


def test_the_encoder_is_the_unets(first):
  ours, unet = first.controlnet.params, first.unet.arrays
  for part in ('conv_in', 'time_embedding', 'down_blocks_0', 'mid_block'):
    assert not changed(ours[part], unet[part])
  zero = [k for k in ours if k.startswith('controlnet_') and k != 'controlnet_cond_embedding']
  assert len(zero) == 3  # two of the way down, one of the middle
  assert not any(np.any(a) for a in jax.tree.leaves([ours[k] for k in zero]))


def test_a_checkpoint_holds_the_controlnet_alone_and_wants_the_same_weights(
  method, scratch, trained, tmp_path
):
  last = trained[0][-1]
  with checkpoints.Checkpoints(tmp_path / 'checkpoints', keep=1) as kept:
    kept.save(12, last, {'config': {}})
    kept.wait()
    assert {name.partition('/')[0] for name in kept.meta(12)['shapes']} == {'step', 'controlnet'}
    again = sharding.place_state(method.init(1, BATCH), sharding.make_mesh())
    state, _ = kept.restore(12, again)
    assert jax.tree.all(jax.tree.map(np.array_equal, state, last))
    other = tmp_path / 'pipeline'
    changed_by = lambda net: net.replace(opt_state=net.opt_state.replace(params=net.params))
    less = scratch.replace(unet=changed_by(scratch.unet))
    SCRATCH.export(saved(less, 'unet', 'text_encoder'), Data(), other)
    template = dataclasses.replace(method, weights=str(other)).init(0, BATCH)
    message = 'other weights than there are now: unet\n  put the files back'
    with pytest.raises(UserError, match=message):
      kept.restore(12, template)


def test_exported_a_controlnet_is_what_was_trained_and_goes_on(method, trained, tmp_path):
  last = trained[0][-1]
  method.export(saved(last, 'controlnet'), Data(), tmp_path / 'out')
  net, params = weights.load('controlnet', tmp_path / 'out')
  assert net.conditioning_channels == 1
  assert not changed(params, last.controlnet.params)
  begun = dataclasses.replace(method, start=str(tmp_path / 'out'), hint_widths=(16, 32))
  assert not changed(begun.init(0, BATCH).controlnet.params, last.controlnet.params)
  three = BATCH | dict(hint=np.zeros((B, 4, 8, 3), np.float32))
  with pytest.raises(UserError, match='conditioning_channels is 1, not 3\n.*config.data.hint'):
    begun.init(0, three)


@pytest.mark.parametrize(
  ('given', 'batch', 'message'),
  [
    (dict(weights=''), {}, 'config.method.weights is missing'),
    (dict(weights='nowhere'), {}, 'no folder nowhere'),
    (dict(hint_widths=(2, 4, 8)), {}, 'made 4 times smaller, the picture 1 times\n.*1 numbers'),
    ({}, dict(tokens=np.full((B, L), 20)), 'up to number 20; .* 6 below 20'),
    ({}, dict(tokens=np.zeros((B, 20), np.int32)), 'captions of 20 tokens'),
  ],
)
def test_what_does_not_fit_is_told_before_the_first_weight(
  method, given, batch, message, monkeypatch
):
  monkeypatch.setattr(weights, 'read', None)
  with pytest.raises(UserError, match=message):
    dataclasses.replace(method, **given).init(0, BATCH | batch)
  with pytest.raises(UserError, match='config.data.name=captioned'):
    method.init(0, dict(image=BATCH['image'], label=np.zeros((B, 4, 8), np.int32)))


# From scratch ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_small_model_of_pixels_learns():
  step, state, losses = jax.jit(SCRATCH.step), SCRATCH.init(0, BATCH), []
  first = state
  for _ in range(4):
    state, logs = step(state, BATCH, KEY)
    losses.append(float(logs['loss/noise']))
  assert losses == sorted(losses, reverse=True)
  _, noise, _ = drawn(SCRATCH.autoencoder, {}, BATCH['image'], SCRATCH.schedule, KEY)
  assert losses[0] == pytest.approx(np.mean(np.square(noise)))  # it begins by predicting nothing
  for part in ('unet', 'text_encoder'):
    assert changed(getattr(state, part).params, getattr(first, part).params)


def test_its_folder_holds_the_averaged_networks_and_the_tokenizer(scratch, folder):
  found = weights.load_pipeline(folder)
  assert (found.vae.factor, found.unet.in_channels) == (1, 3)
  assert (found.sampler, found.schedule) == ('ddim', SCRATCH.schedule)
  assert found.schedule.clip == PIXEL_SCALE
  for part in ('unet', 'text_encoder'):
    net = getattr(scratch, part)
    assert not changed(found.params[part], net.opt_state.params)
  np.testing.assert_array_equal(found.tokenizer(['a b']), WORDS(['a b']))


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    (dict(attention=(True, False)), 'of 2 levels .* widths has 1'),
    (dict(widths=(6,), groups=4), '6 is no multiple of 4'),
    (dict(text_width=5), 'text_width, of heads: 5 is no multiple of 2'),
  ],
)
def test_sizes_that_do_not_go_together(given, message):
  with pytest.raises(UserError, match=message):
    dataclasses.replace(SCRATCH, **given)


def test_pictures_and_models_of_several_levels():
  two = dataclasses.replace(SCRATCH, widths=(4, 4), attention=(False, False), patch=2)
  with pytest.raises(UserError, match='8x6: .* multiples of 4\n  such as 8x4'):
    two.init(0, BATCH | dict(image=np.zeros((B, 6, 8, 3), np.float32)))


def test_without_an_autoencoder_latents_are_blocks_of_pixels():
  pixels, image = Pixels(2), jnp.asarray(BATCH['image'])
  latents = pixels.apply({}, image, method='encode')
  assert latents.shape == (B, 2, 4, 12)
  np.testing.assert_array_equal(latents[0, 1, 2], PIXEL_SCALE * image[0, 2:4, 4:6].reshape(-1))
  np.testing.assert_array_equal(pixels.apply({}, latents, method='decode'), image)
  with pytest.raises(ValueError, match='sides are multiples of 2'):
    pixels.apply({}, image[:, :3])
