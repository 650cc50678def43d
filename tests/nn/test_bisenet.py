"""BiSeNetV1 and V2: their blocks by loops over places, published sizes, slopes."""

import jax
import numpy as np
import pytest

from car_jax import registry
from car_jax.errors import UserError
from car_jax.nn.bisenetv1 import AttentionRefinement, FeatureFusion
from car_jax.nn.bisenetv2 import GuidedAggregation
from car_jax.nn.layers import NormedConv
from car_jax.nn.resize import resize_bilinear
from tests.nn.learning import still
from tests.nn.test_nets import shapes
from tests.whole import whole

V1 = dict(name='bisenetv1', stem_channels=4, blocks=(1, 1, 1, 1), spatial_features=(3, 4, 5, 6))
V1 |= dict(context_features=4, features=6)
WIDE = dict(name='bisenetv1', depth=50, spatial_features=(256, 256, 256, 512))
WIDE |= dict(context_features=512, features=1024)
V2 = dict(name='bisenetv2', detail_features=(4, 5, 6), semantic_features=(4, 5, 5, 6), expansion=2)


def features(*shape):
  return np.float32(np.random.default_rng(len(shape)).normal(size=shape))


def applied(module, *inputs):
  """-> its output at random variables, and those."""
  made = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, train=False))
  rng = np.random.default_rng(0)
  draw = lambda a: np.float32(np.abs(rng.normal(size=a.shape)) + 0.1)
  variables = jax.tree.map(draw, made)
  return whole(lambda v, *x: module.apply(v, *x, train=False))(variables, *inputs), variables


def leaves(variables, *path):
  """-> kernel, and what its norm does to an array."""
  params, stats = variables['params'], variables['batch_stats']
  for name in path:
    params, stats = params[name], stats[name]
  norm, seen = params['norm'], stats['norm']
  scale = norm['scale'] / np.sqrt(seen['var'] + 1e-5)
  return params['conv']['kernel'], lambda x: (x - seen['mean']) * scale + norm['bias']


def unit(x, variables, *path):
  """[.., D] -> [.., E]: a 1 x 1 convolution and a norm."""
  kernel, normed = leaves(variables, *path)
  return normed(x @ kernel[0, 0])


def filtered(x, variables, *path):
  """[h, w, D] -> [h, w, E]: a 3 x 3 convolution, perhaps of each channel alone, and a norm."""
  kernel, normed = leaves(variables, *path)
  padded = np.pad(np.float64(x), ((1, 1), (1, 1), (0, 0)))
  each, out = x.shape[2] // kernel.shape[2], np.zeros((*x.shape[:2], kernel.shape[3]))
  for i, j, o in np.ndindex(*out.shape):
    first = o // (kernel.shape[3] // each) if each > 1 else 0
    seen = padded[i : i + 3, j : j + 3, first : first + kernel.shape[2]]
    out[i, j, o] = (seen * kernel[..., o]).sum()
  return normed(out)


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def test_fusion_adds_what_its_attention_lets_through():
  one, two = features(1, 3, 4, 2), features(1, 3, 4, 3)
  out, v = applied(FeatureFusion(4), one, two)
  x = np.maximum(unit(np.concatenate([one, two], -1)[0], v, 'join'), 0)
  gate = sigmoid(np.maximum(unit(x.mean((0, 1)), v, 'weigh'), 0))
  np.testing.assert_allclose(out[0], x * (1 + gate), rtol=1e-4)


def test_attention_refines_by_what_may_be_negative_before_its_sigmoid():
  x = features(1, 3, 4, 2)
  out, v = applied(AttentionRefinement(4), x)
  y = np.maximum(filtered(x[0], v, 'project'), 0)
  gate = sigmoid(unit(y.mean((0, 1)), v, 'weigh'))
  np.testing.assert_allclose(out[0], y * gate, rtol=1e-4)


def test_filters_of_a_channel_lie_side_by_side():
  x = features(1, 3, 4, 2)
  out, v = applied(NormedConv(6, 3, depthwise=True, activation=None), x)
  np.testing.assert_allclose(out[0], filtered(x[0], v), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('corners', [True, False])
def test_each_branch_gates_the_other(corners):
  detail, semantic = features(1, 8, 12, 3), features(1, 2, 3, 3)
  out, v = applied(GuidedAggregation(corners), detail, semantic)
  point = lambda x, name: x @ v['params'][name]['kernel'][0, 0] + v['params'][name]['bias']
  large = lambda x: resize_bilinear(np.float32(x), (8, 12), align_corners=corners)
  fine = point(filtered(detail[0], v, 'detail_depthwise'), 'detail_point')
  fine = fine * sigmoid(large(filtered(semantic[0], v, 'semantic_gate')))
  strided = filtered(detail[0], v, 'detail_down')[::2, ::2]
  means = np.zeros((2, 3, 3))
  for i, j in np.ndindex(2, 3):  # of nine places, those outside the map are zeros
    rows, columns = slice(max(2 * i - 1, 0), 2 * i + 2), slice(max(2 * j - 1, 0), 2 * j + 2)
    means[i, j] = strided[rows, columns].sum((0, 1)) / 9
  coarse = point(filtered(semantic[0], v, 'semantic_depthwise'), 'semantic_point')
  want = filtered(fine + large(means * sigmoid(coarse)), v, 'fuse')
  np.testing.assert_allclose(out[0], np.maximum(want, 0), rtol=1e-4, atol=1e-4)


def test_branches_of_different_widths_are_refused():
  net = registry.build('backbone', V2 | dict(detail_features=(4, 5, 7)))
  with pytest.raises(UserError) as e:
    shapes(net, (1, 32, 32, 3))
  assert "BiSeNetV2's branches end with 7 and 6 channels" in str(e.value)


@pytest.mark.parametrize(
  ('backbone', 'features', 'millions'),
  [
    (dict(name='bisenetv1'), 256, 13.28),
    (WIDE, 1024, 56.87),
    (dict(name='bisenetv2'), 1024, 3.36),
  ],
)
def test_the_published_sizes(backbone, features, millions):
  head = dict(name='fcn', features=features, num_convs=1, concat_input=False, index=0)
  spec = dict(name='composed', backbone=backbone, head=head)
  out, variables = shapes(registry.net(spec, num_classes=19), (1, 65, 97, 3))
  count = sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
  assert out.shape == (1, 65, 97, 19)
  assert round(count / 1e6, 2) == millions


@pytest.mark.parametrize('backbone', [V1, V2])
def test_every_parameter_learns(backbone):
  head = dict(name='fcn', features=4, num_convs=1, concat_input=False, index=0)
  net = registry.net(dict(name='composed', backbone=backbone, head=head), num_classes=3)
  assert still(net, features(4, 40, 32, 3)) == []


@pytest.mark.parametrize(
  ('backbone', 'sides'),
  [
    (V1, [(6, 9), (6, 9), (3, 5)]),
    (V2, [(6, 9), (11, 17), (6, 9), (3, 5), (2, 3)]),
  ],
)
def test_the_maps_that_are_given(backbone, sides):
  every, _ = shapes(registry.build('backbone', backbone), (1, 41, 65, 3))
  few, _ = shapes(registry.build('backbone', backbone | dict(outputs=(2, 0))), (1, 41, 65, 3))
  assert [a.shape[1:3] for a in every] == sides
  assert few == (every[2], every[0])
