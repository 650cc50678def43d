"""DeepLabv2: sizes and groups of the published nets, its head and pooling against plain loops."""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax import optim, registry
from car_jax.importers import sac
from car_jax.nn.deeplabv2 import AtrousHead, DeepLabV2ResNet, DeepLabV2VGG
from car_jax.nn.fcn import FCN8sVGG
from car_jax.nn.init import initialize
from car_jax.nn.layers import conv, max_pool3
from tests.nn.test_nets import shapes
from tests.whole import whole

GOLDEN = pathlib.Path('tests/golden/sac')
NETS = {'resnet101': DeepLabV2ResNet, 'vgg16': DeepLabV2VGG, 'fcn_vgg16': FCN8sVGG}
NAMES = {'resnet101': 'deeplabv2_resnet', 'vgg16': 'deeplabv2_vgg', 'fcn_vgg16': 'fcn8s_vgg'}
SMALL = {
  'deeplabv2_resnet': dict(stem_channels=4, blocks=(1, 1, 2, 1)),
  'deeplabv2_vgg': dict(widths=(4, 4, 8, 8, 8), depths=(1, 1, 1, 1, 2), features=8),
}
rng = np.random.default_rng(0)


@functools.cache
def small(name, **kw):
  net = registry.net({'name': name, 'rates': (1, 2)} | SMALL[name] | kw, num_classes=3)
  x = np.float32(rng.uniform(-1, 1, (2, 33, 40, 3)))
  return net, initialize(net, 0, x, train=False), x


@pytest.mark.parametrize(
  ('name', 'params', 'stats'),
  [
    ('resnet101', 43_901_068, 105_344),
    ('vgg16', 29_581_452, 8_448),
    ('fcn_vgg16', 134_377_849, 24_832),
  ],
)
def test_parameter_counts_are_the_published_ones(name, params, stats):
  (_, full), variables = shapes(NETS[name](19), (1, 64, 96, 3))
  assert full.shape == (1, 64, 96, 19)
  total = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree) if leaf.ndim)
  assert total(variables['params']) == params
  assert total(variables['batch_stats']) == stats


@pytest.mark.parametrize(
  ('size', 'resnet', 'vgg'),
  [
    ((65, 129), (9, 17), (8, 16)),
    ((512, 1024), (65, 129), (64, 128)),
    ((640, 63), (81, 9), (80, 7)),
  ],
)
def test_sizes_of_the_low_logits(size, resnet, vgg):
  """They do not depend on the depth."""
  for name, want in (('deeplabv2_resnet', resnet), ('deeplabv2_vgg', vgg)):
    (low, full), _ = shapes(small(name)[0], (1, *size, 3))
    assert low.shape == (1, *want, 3)
    assert full.shape == (1, *size, 3)


@pytest.mark.parametrize('name', NETS)
def test_every_parameter_is_in_its_published_group(name):
  manifest = json.loads((GOLDEN / f'manifest_{name}.json').read_text())
  groups = json.loads((GOLDEN / f'param_groups_{name}.json').read_text())
  numbered = {n: np.full((1,) * len(s), i) for i, (n, s) in enumerate(manifest.items())}
  places = sac.to_variables(NAMES[name], numbered)['params']
  sgd = optim.optimizer({'name': 'sgd', 'weight_decay': 1.0}, 1, NETS[name](19))
  found = {}
  for path, number in jax.tree_util.tree_flatten_with_path(places)[0]:
    group = optim.GROUPS[sgd.group('/'.join(p.key for p in path))]
    found.setdefault(group, set()).add(list(manifest)[int(np.ravel(number)[0])])
  want = {(g['lr_mult'], float(g['weight_decay'] > 0)): set(g['params']) for g in groups.values()}
  assert found == want
  assert optim.GROUPS.keys() == {'old_weights', 'old_biases', 'new_weights', 'new_biases'}


@pytest.mark.parametrize('size', [(5, 7), (13, 9)])
def test_the_head_is_a_sum_of_dilated_convolutions(size):
  head = AtrousHead(3, (1, 2, 6))
  x = np.float32(rng.normal(size=(2, *size, 4)))
  variables = initialize(head, 0, x)
  want = np.zeros((2, *size, 3))
  for branch, rate in enumerate((1, 2, 6)):
    params = variables['params'][f'branch{branch}']
    padded = np.pad(x, ((0, 0), (rate, rate), (rate, rate), (0, 0)))
    want += params['bias']
    for i in range(3):
      for j in range(3):
        part = padded[:, rate * i : rate * i + size[0], rate * j : rate * j + size[1]]
        want += part @ np.float64(params['kernel'][i, j])
  np.testing.assert_allclose(jax.jit(head.apply)(variables, x), want, atol=1e-5)


@pytest.mark.parametrize('sides', [(8, 7), (9, 10), (2, 3)])
@pytest.mark.parametrize('ceil', [False, True])
def test_pooling_takes_the_windows_that_torch_takes(sides, ceil):
  x = np.float32(rng.normal(size=(1, *sides, 2)))
  padded = np.pad(x, ((0, 0), (1, 3), (1, 3), (0, 0)), constant_values=-np.inf)
  h, w = (len(range(0, side + (ceil and side % 2 == 0), 2)) for side in sides)
  want = [
    [padded[0, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max((0, 1)) for j in range(w)]
    for i in range(h)
  ]
  np.testing.assert_array_equal(whole(max_pool3)(x, ceil=ceil)[0], want)


def test_the_first_of_equal_values_in_a_window_has_the_gradient():
  slope = whole(jax.grad(lambda x: jnp.sum(max_pool3(x))))(jnp.zeros((1, 3, 3, 1)))
  np.testing.assert_array_equal(slope[0, :, :, 0], [[1, 1, 0], [1, 1, 0], [0, 0, 0]])


@pytest.mark.parametrize('stride', [1, 2])
def test_a_pointwise_convolution_is_a_convolution(stride):
  x, layer = np.float32(rng.normal(size=(2, 5, 6, 3))), conv(4, 1, stride, 0)
  params = initialize(layer, 0, x)
  kernel, bias = params['params']['kernel'], params['params']['bias']
  want = x[:, ::stride, ::stride] @ np.float64(kernel[0, 0]) + bias
  np.testing.assert_allclose(whole(layer.apply)(params, x), want, atol=1e-5)


@pytest.mark.parametrize(
  'name', [pytest.param('deeplabv2_resnet', marks=pytest.mark.slow), 'deeplabv2_vgg']
)
def test_kept_statistics_leave_scales_and_offsets_to_learn(name):
  net, variables, x = small(name)

  def loss_of(params, norm_train):
    inputs = {'params': params, 'batch_stats': variables['batch_stats']}
    kw = {'mutable': ['batch_stats'], 'norm_train': norm_train}
    (_, full), new = net.apply(inputs, x, train=True, **kw)
    return jnp.mean(jnp.square(full)), new['batch_stats']

  grads, kept = jax.jit(jax.grad(lambda p: loss_of(p, False), has_aux=True))(variables['params'])
  jax.tree.map(np.testing.assert_array_equal, kept, variables['batch_stats'])
  norms = [p for p in jax.tree_util.tree_flatten_with_path(grads)[0] if p[0][-1].key == 'scale']
  assert norms
  assert all(np.any(slope) for _, slope in norms)
  new = jax.jit(lambda p: loss_of(p, None)[1])(variables['params'])
  moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), new, variables['batch_stats'])
  assert all(jax.tree.leaves(moved))


def test_images_are_brought_to_imagenets_scale_unless_they_are():
  net, variables, x = small('deeplabv2_resnet')
  mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
  scaled = np.float32(((x + 1) / 2 - mean) / std)
  run = jax.jit(lambda net, x: net.apply(variables, x, train=False), static_argnums=0)
  (low, full), (same, _) = run(net, x), run(net.clone(normalise=False), scaled)
  np.testing.assert_allclose(low, same, atol=1e-5 * np.abs(low).max())
  corners = np.ix_((0, 1), (0, -1), (0, -1))
  np.testing.assert_allclose(full[corners], low[corners], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('name', SMALL)
def test_low_precision_inside_gives_float32_logits(name):
  out, variables = shapes(small(name, dtype='bfloat16')[0], (1, 32, 32, 3))
  assert {leaf.dtype for leaf in jax.tree.leaves((out, variables['params']))} == {
    jnp.dtype('float32')
  }


def test_weights_start_as_published():
  _, variables, _ = small('deeplabv2_resnet', stem_channels=16)
  params = variables['params']
  for kernel in (params['backbone']['stem_conv']['kernel'], params['head']['branch0']['kernel']):
    assert abs(np.std(kernel) - 0.01) < 1e-3
  bias, bound = params['head']['branch1']['bias'], 1 / np.sqrt(9 * 32 * 16)
  assert 0 < np.abs(bias).max() <= bound
  _, variables, _ = small('deeplabv2_vgg', widths=(4, 4, 8, 8, 64))
  params = variables['params']
  layer = params['backbone']['stage5_conv2']['conv']
  assert abs(np.std(layer['kernel']) / np.sqrt(2 / (9 * 64)) - 1) < 0.02
  assert not np.any(layer['bias'])
  assert 0.9 / 24 < np.abs(params['fc6']['kernel']).max() <= 1 / 24  # of 9 * 64 inputs
