"""Sizes of the published nets, shared layers, refusals of wrong image sizes. No weights needed."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax.errors import UserError
from car_jax.nn.deeplab import DeepLabV3CalNet
from car_jax.nn.discriminator import PixelDiscriminator
from car_jax.nn.init import initialize
from car_jax.nn.resnet import ResNet
from car_jax.nn.segnet import SegNetCalNet
from car_jax.nn.toy_calnet import ToyCalNet
from car_jax.nn.unet import UNetGenerator


def shapes(net, *inputs):
  """-> (output, variables) as shapes, for inputs given as shapes."""
  arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in inputs]
  run = lambda *x: net.init_with_output(jax.random.key(0), *x, train=False)
  return jax.eval_shape(run, *arrays)


@pytest.mark.parametrize(
  ('net', 'inputs', 'count'),
  [
    (SegNetCalNet(2), [(1, 64, 64, 3)], 39_789_804),
    (SegNetCalNet(25), [(1, 64, 64, 28)], 39_823_133),
    (ToyCalNet(2), [(1, 32, 32, 3)], 114_242),
    (ToyCalNet(25), [(1, 32, 32, 28)], 141_913),
    (DeepLabV3CalNet(2), [(1, 64, 64, 3)], 58_626_114),
    (UNetGenerator(2, latent=8), [(1, 32, 32, 5), (1, 1, 8)], 619_490),
    (UNetGenerator(25, latent=32), [(1, 32, 32, 28), (1, 1, 32)], 633_017),
    (PixelDiscriminator(), [(1, 128, 128, 5)], 3_431_809),
    (PixelDiscriminator(), [(1, 128, 128, 28)], 3_445_057),
    (PixelDiscriminator(), [(1, 256, 512, 28)], 3_551_553),
  ],
)
def test_parameter_counts_are_the_published_ones(net, inputs, count):
  out, variables = shapes(net, *inputs)
  assert sum(leaf.size for leaf in jax.tree.leaves(variables['params'])) == count
  assert out.dtype == jnp.float32
  if not isinstance(net, PixelDiscriminator):
    assert out.shape[-3:] == (*inputs[0][1:3], net.num_classes)


@pytest.mark.parametrize('stride', [8, 16, 32])
def test_the_output_stride_of_a_resnet(stride):
  (*_, out), _ = shapes(ResNet(50, stride, 4), (1, 64, 96, 3))
  assert out.shape == (1, 64 // stride, 96 // stride, 128)


def test_shared_layers_of_segnet_update_once_for_every_use():
  net = SegNetCalNet(2, widths=(4, 4, 4, 4, 4), depths=(1, 1, 1, 1, 1), dropout=0.0)
  x = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
  variables = initialize(net, 0, x, train=False)
  run = lambda v, x: net.apply(v, x, train=True, mutable=['batch_stats'])
  logits, new = jax.jit(run)(variables, x)
  assert logits.shape == (2, 32, 32, 2)
  counts = {k: int(v['norm']['count']) for k, v in new['batch_stats'].items()}
  shared = {k: n for k, n in counts.items() if n != 1}
  assert shared == {'dec5_middle': 4, 'dec4_middle': 2, 'dec3_middle': 2}
  assert 'dec2_middle' not in counts


@pytest.mark.parametrize('net', [SegNetCalNet(2), DeepLabV3CalNet(2, blocks=(1, 1, 1, 1))])
def test_low_precision_inside_gives_float32_logits(net):
  out, variables = shapes(net.clone(dtype=jnp.bfloat16), (1, 32, 32, 3))
  assert out.dtype == jnp.float32
  assert {leaf.dtype for leaf in jax.tree.leaves(variables['params'])} == {jnp.dtype('float32')}


def test_segnet_refuses_a_size_it_cannot_halve_five_times():
  with pytest.raises(UserError, match=r'multiples of 32, not 48x100; nearest 64x96'):
    shapes(SegNetCalNet(2), (1, 48, 100, 3))


@pytest.mark.parametrize('side', [8, 23, 30, 31, 126, 127])
def test_the_discriminator_names_the_nearest_size_that_it_takes(side):
  net = PixelDiscriminator(hidden=4)
  with pytest.raises(UserError) as e:
    shapes(net, (1, 32, side, 5))
  near = int(re.search(r'nearest (\d+)', str(e.value))[1])
  valid = [s for s in range(24, 160) if s % 8 <= 5]
  assert near in valid
  assert abs(near - side) == min(abs(s - side) for s in valid)


@pytest.mark.parametrize('side', [24, 29, 32, 37])
def test_sizes_that_the_discriminator_takes(side):
  out, variables = shapes(PixelDiscriminator(hidden=4), (3, 32, side, 5))
  assert out.shape == (3,)
  assert variables['params']['score']['kernel'].shape == (4 * 2 * (side // 8 - 2), 1)


def test_scores_keep_their_axis_and_stay_inside_the_clamp():
  net = PixelDiscriminator(hidden=4, dropout=0.5)
  x = np.random.default_rng(0).normal(size=(1, 24, 24, 5)).astype(np.float32)
  variables = initialize(net, 0, x, train=False)
  low = jax.tree.map(np.copy, variables)
  low['params']['score']['bias'] = np.array([-50], np.float32)
  run = jax.jit(lambda v, x: net.apply(v, x, train=False))
  assert run(variables, x).shape == (1,)
  np.testing.assert_allclose(run(low, x), [1e-7])
  drop = jax.jit(lambda key: net.apply(variables, x, train=True, rngs={'dropout': key}))
  assert len({float(drop(jax.random.key(k))[0]) for k in range(8)}) > 1
