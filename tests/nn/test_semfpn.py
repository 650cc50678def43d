"""The feature pyramid network and semantic FPN's head: sums by loops over places, sizes, slopes."""

import jax
import numpy as np
import pytest

from car_jax import registry
from car_jax.errors import UserError
from car_jax.nn.fpn import FPN
from car_jax.nn.semfpn import FPNHead
from tests.nn.learning import still
from tests.nn.test_nets import shapes
from tests.whole import whole

SIZES = [(7, 9), (4, 5), (2, 3)]
RESNET = dict(name='resnet', depth=18, stem_channels=4, blocks=(1, 1, 1, 1))


def maps(sizes, width=2):
  rng = np.random.default_rng(0)
  return [np.float32(rng.normal(size=(1, *size, width))) for size in sizes]


def passing(module, inputs):
  """Variables with which its convolutions pass each place on as it is."""
  made = jax.eval_shape(lambda: module.init(jax.random.key(0), inputs, train=False))

  def value(path, leaf):
    zeros = np.zeros(leaf.shape, np.float32)
    if path[-1].key == 'kernel':
      side = leaf.shape[0] // 2
      zeros[side, side] = np.eye(*leaf.shape[2:])
    return zeros + (path[-1].key in ('scale', 'var'))

  return jax.tree_util.tree_map_with_path(value, made)


def test_a_place_of_the_pyramid_is_the_sum_of_those_above_it():
  inputs = maps(SIZES)
  module = FPN(2, outputs=5)
  out = whole(lambda v, x: module.apply(v, x, train=False))(passing(module, inputs), inputs)
  assert [x.shape[1:3] for x in out] == [*SIZES, (1, 2), (1, 1)]
  for i, j in np.ndindex(7, 9):
    a, b = i * 4 // 7, j * 5 // 9
    want = inputs[0][0, i, j] + inputs[1][0, a, b] + inputs[2][0, a * 2 // 4, b * 3 // 5]
    np.testing.assert_allclose(out[0][0, i, j], want, rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(out[3], out[2][:, ::2, ::2])


def test_a_pyramid_that_starts_at_a_coarser_map():
  inputs = maps(SIZES)
  run = lambda module, x: whole(lambda v, x: module.apply(v, x, train=False))(passing(module, x), x)
  for one, other in zip(run(FPN(2, first=1), inputs), run(FPN(2), inputs[1:]), strict=True):
    np.testing.assert_array_equal(one, other)


def test_the_head_adds_maps_after_as_many_doublings_as_their_strides_have():
  inputs = [np.full((1, 2 * s, 3 * s, 2), v, np.float32) for s, v in ((4, 1), (4, 2), (1, 4))]
  head = FPNHead(2, 2, strides=(8, 8, 32))
  variables = passing(head, inputs)
  out = whole(lambda v, x: head.apply(v, x, train=False))(variables, inputs)
  assert sorted(variables['params']) == [
    'head',
    'map0_conv0',
    'map1_conv0',
    'map2_conv0',
    'map2_conv1',
  ]
  np.testing.assert_allclose(out, np.full((1, 8, 12, 2), 7), rtol=1e-4)  # norms' epsilon


def test_the_published_size():
  spec = dict(name='composed', backbone=dict(name='resnet', depth=50, deep_stem=True))
  spec |= dict(neck=dict(name='fpn'), head=dict(name='semfpn'))
  out, variables = shapes(registry.net(spec, num_classes=19), (1, 65, 97, 3))
  count = sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
  assert round(count / 1e6, 2) == 28.50
  assert out.shape == (1, 65, 97, 19)


def test_every_parameter_learns():
  spec = dict(name='composed', backbone=RESNET, neck=dict(name='fpn', features=4))
  spec |= dict(head=dict(name='semfpn', features=4))
  x = np.float32(np.random.default_rng(0).normal(size=(2, 64, 64, 3)))
  assert still(registry.net(spec, num_classes=3), x) == []


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (dict(strides=(4, 8)), 'FPNHead has 2 strides for 3 maps\n  give one per map'),
    (dict(index=(0, 3)), 'FPNHead has no map 3\n  they are 0 to 2'),
  ],
)
def test_maps_that_the_head_refuses(options, message):
  with pytest.raises(UserError) as e:
    jax.eval_shape(
      lambda: FPNHead(2, 4, **options).init(jax.random.key(0), maps(SIZES), train=False)
    )
  assert message in str(e.value)
