"""ControlNet: how it starts, what it takes over, and that it is saved whole."""

import jax
import numpy as np
import pytest

from car_jax.errors import UserError
from car_jax.generate import weights
from car_jax.generate.unet import ControlNet, UNet, controlnet_from_unet
from car_jax.nn.init import initialize

SIZES = dict(block_out_channels=(4, 6), attention_levels=(False, False), num_heads=2)
SIZES |= dict(layers_per_block=1, cross_attention_dim=3, norm_num_groups=2)
HINTS = (16, 32, 4)
NET = UNet(**SIZES)
CONTROL = ControlNet(**SIZES, conditioning_channels=1, conditioning_embedding_out_channels=HINTS)


@pytest.fixture(scope='module')
def nets():
  """UNet's parameters, ControlNet's made of them."""
  params = initialize(NET, 1, *NET.smallest())['params']
  return params, controlnet_from_unet(CONTROL, params, seed=3)


def test_a_controlnet_starts_as_the_unets_copy_and_zeros(nets):
  params, control = nets
  for part in ('conv_in', 'time_embedding', 'down_blocks_0', 'down_blocks_1', 'mid_block'):
    assert jax.tree.all(jax.tree.map(np.array_equal, control[part], params[part]))
  zeros = {name: part for name, part in control.items() if name.startswith('controlnet_down')}
  zeros |= {'mid': control['controlnet_mid_block']}
  encoder = control['controlnet_cond_embedding']
  zeros |= {'hint': encoder['conv_out']}
  assert len(zeros) == 4 + 2  # conv_in, a layer and a downsampler, a layer; the middle; the hint
  assert not any(leaf.any() for leaf in jax.tree.leaves(zeros))


@pytest.mark.parametrize(('layer', 'inputs'), [('conv_in', 1), ('blocks_1', 16), ('blocks_2', 32)])
def test_the_hints_encoder_starts_uniform(nets, layer, inputs):
  for leaf in nets[1]['controlnet_cond_embedding'][layer].values():
    bound = 1 / np.sqrt(9 * inputs)
    assert np.abs(leaf).max() <= bound
    assert np.abs(leaf).max() > 0.8 * bound
    np.testing.assert_allclose(leaf.std(), bound / np.sqrt(3), rtol=0.3)


def test_untrained_it_adds_nothing(nets):
  rng = np.random.default_rng(0)
  draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)
  inputs = draw(2, 4, 4, 4), np.array([3, 700]), draw(2, 7, 3)
  run = jax.jit(lambda p, hint: CONTROL.apply({'params': p}, *inputs, hint))
  added = run(nets[1], draw(2, 16, 16, 1))
  assert not any(np.asarray(a).any() for a in added)
  shape = jax.eval_shape(lambda p: NET.apply({'params': p}, *inputs, added), nets[0])
  assert shape.shape == (2, 4, 4, 4)


def test_a_unet_for_inpainting_is_none_to_start_from(nets):
  wide = dict(nets[0], conv_in={'kernel': np.zeros((3, 3, 9, 4)), 'bias': np.zeros(4)})
  with pytest.raises(UserError, match=r"the UNet's conv_in does not fit[^\n]*\n.*with 4 input"):
    controlnet_from_unet(CONTROL, wide)


def test_wrong_inputs_are_named():
  latents, time, text, hint = CONTROL.smallest()
  shaped = lambda *x: jax.eval_shape(CONTROL.init, jax.random.key(0), *x)
  with pytest.raises(ValueError, match='hints of 3 channels, not 1'):
    shaped(latents, time, text, np.zeros((1, 8, 8, 3)))
  with pytest.raises(ValueError, match='text of width 3, not 4 and 5'):
    shaped(latents, time, np.zeros((1, 1, 5)), hint)
  with pytest.raises(ValueError, match='latents of 3x2: both must be multiples of 2'):
    shaped(np.zeros((1, 3, 2, 4)), time, text, np.zeros((1, 12, 8, 1)))


def test_saved_and_loaded_it_is_the_same(nets, tmp_path):
  weights.save('controlnet', tmp_path / 'new' / 'control', CONTROL, nets[1])
  net, params = weights.load('controlnet', tmp_path / 'new' / 'control')
  assert net == CONTROL
  assert jax.tree.all(jax.tree.map(np.array_equal, params, nets[1]))
  (tmp_path / 'full').mkdir()
  (tmp_path / 'full' / 'config.json').write_text('{"_class_name": "ControlNetModel"}')
  with pytest.raises(UserError, match='holds other files'):
    weights.save('controlnet', tmp_path / 'full', CONTROL, nets[1])
