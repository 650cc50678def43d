"""MobileNetV3 and lite R-ASPP: published sizes, padding and pooling by loops, slopes."""

import jax
import numpy as np
import pytest

from car_jax import registry
from car_jax.errors import UserError
from car_jax.nn.layers import NormedConv
from car_jax.nn.lraspp import LRASPPHead
from car_jax.nn.mobilenetv3 import MobileNetV3, squeezed
from car_jax.nn.resize import resize_bilinear
from tests.nn.learning import still
from tests.nn.test_nets import shapes
from tests.whole import whole

LARGE = dict(backbone=dict(name='mobilenetv3'), head=dict(name='lraspp'))


def features(*shape):
  return np.float32(np.random.default_rng(len(shape)).normal(size=shape))


def test_the_published_size():
  net = registry.net(dict(name='composed') | LARGE, num_classes=19)
  out, variables = shapes(net, (1, 392, 400, 3))
  count = sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
  assert round(count / 1e6, 2) == 3.28
  assert out.shape == (1, 392, 400, 19)
  assert net.least == 385


@pytest.mark.parametrize(
  ('options', 'widths'),
  [
    (dict(outputs=(1, 3, 16)), (16, 24, 960)),
    (dict(outputs=(15, 6)), (40, 160)),
    (dict(variant='small', outputs=(0, 1, 12)), (16, 16, 576)),
    (dict(variant='small', outputs=(8, 11, 12), reduction=2), (48, 48, 576)),
  ],
)
def test_widths_and_strides_of_the_maps(options, widths):
  maps, _ = shapes(MobileNetV3(**options), (1, 65, 97, 3))
  assert tuple(a.shape[-1] for a in maps) == widths
  assert maps[-1].shape[1:3] == (9, 13)
  assert len({a.shape[1:3] for a in maps}) == (3 if 1 in options['outputs'] else 1)


def test_squeezes_have_the_published_widths():
  inner = (16, 72, 96, 120, 144, 240, 288, 480, 576, 672, 960)
  assert [*map(squeezed, inner)] == [8, 24, 24, 32, 40, 64, 72, 120, 144, 168, 240]


@pytest.mark.parametrize(('side', 'size'), [(8, 3), (7, 3), (8, 5), (7, 5)])
def test_strided_filters_of_an_even_side_start_further_in(side, size):
  x = features(1, side, side, 1)
  module = NormedConv(1, size, stride=2, same=True, activation=None, epsilon=0.0)
  made = jax.eval_shape(lambda: module.init(jax.random.key(0), x, train=False))
  variables = jax.tree.map(lambda a: np.ones(a.shape, np.float32), made)
  variables['params']['norm']['bias'] = np.ones(1, np.float32)  # as the mean: a norm of nothing
  out = whole(lambda v, x: module.apply(v, x, train=False))(variables, x)
  before = size // 2 - (side % 2 == 0)
  for i, j in np.ndindex(*out.shape[1:3]):
    top, left = 2 * i - before, 2 * j - before
    seen = x[0, max(top, 0) : top + size, max(left, 0) : left + size]
    np.testing.assert_allclose(out[0, i, j, 0], seen.sum(), rtol=1e-4, atol=1e-4)


def test_the_gate_comes_from_means_over_windows():
  x = features(1, 70, 75, 2)
  head = LRASPPHead(3, 4, branches=())
  made = jax.eval_shape(lambda: head.init(jax.random.key(0), [x], train=False))
  rng = np.random.default_rng(0)
  variables = jax.tree.map(lambda a: np.float32(rng.random(a.shape) + 0.1), made)
  out = whole(lambda v, x: head.apply(v, [x], train=False))(variables, x)
  p, stats = variables['params'], variables['batch_stats']['project']['norm']
  means = np.empty((2, 2, 2), np.float32)
  for i, j in np.ndindex(2, 2):
    means[i, j] = x[0, 16 * i : 16 * i + 49, 20 * j : 20 * j + 49].mean((0, 1))
  gate = 1 / (1 + np.exp(-means @ p['gate']['kernel'][0, 0]))
  gate = resize_bilinear(np.float32(gate), (70, 75), align_corners=False)
  norm = p['project']['norm']
  y = (x[0] @ p['project']['conv']['kernel'][0, 0] - stats['mean']) / np.sqrt(stats['var'] + 1e-3)
  y = np.maximum(y * norm['scale'] + norm['bias'], 0) * gate
  for name in ('mix', 'head'):
    y = y @ p[name]['kernel'][0, 0] + p[name]['bias']
  np.testing.assert_allclose(out[0], y, rtol=1e-4, atol=1e-4)


def test_every_parameter_learns():
  backbone = dict(name='mobilenetv3', variant='small', outputs=(12,))
  head = dict(name='fcn', features=4, num_convs=1)
  net = registry.net(dict(name='composed', backbone=backbone, head=head), num_classes=3)
  assert still(net, features(4, 64, 64, 3)) == []
  maps = [features(2, 98, 100, 3), features(2, 51, 52, 4), features(2, 49, 50, 5)]
  assert still(LRASPPHead(3, 4, branches=(2, 3)), maps) == []


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (dict(branches=(2,)), 'LRASPPHead has 1 branches for 2 maps and the last one'),
    (dict(index=(0, 1, 5)), 'LRASPPHead has no map 5\n  they are 0 to 2'),
  ],
)
def test_maps_that_the_head_refuses(options, message):
  maps = [features(1, 49, 50, k) for k in (3, 4, 5)]
  with pytest.raises(UserError) as e:
    jax.eval_shape(lambda: LRASPPHead(2, 4, **options).init(jax.random.key(0), maps, train=False))
  assert message in str(e.value)
