"""ImageNet's weights in torchvision's formats, at toy size, as the encoders of our nets."""

import jax
import numpy as np
import pytest

from car_jax import checkpoints, registry
from car_jax.errors import UserError
from car_jax.importers import __main__ as command
from car_jax.importers import encoders, torchvision
from car_jax.nn.init import initialize
from tests.importers import torch_writer
from tests.importers.torch_writer import write_legacy

rng = np.random.default_rng(0)
WIDTHS = (2, 2, 4, 4, 4)


def norm(name, width):
  kinds = ('weight', 'bias', 'running_mean', 'running_var')
  return {f'{name}.{kind}': np.float32(rng.normal(size=width)) for kind in kinds}


def kernel(*shape):
  return np.float32(rng.normal(size=shape))


def vgg_file(depths, widths=WIDTHS):
  """torchvision's names, counted as its own code builds the list of layers."""
  found, index, before = {}, 0, 3
  for depth, width in zip(depths, widths, strict=True):
    for _ in range(depth):
      found[f'features.{index}.weight'] = kernel(width, before, 3, 3)
      found[f'features.{index}.bias'] = kernel(width)
      found |= norm(f'features.{index + 1}', width)
      index, before = index + 3, width
    index += 1
  return found | {'classifier.0.weight': kernel(5, 7), 'classifier.6.bias': kernel(9)}


def resnet_file(blocks, width=4):
  found = {'conv1.weight': kernel(width, 3, 7, 7)} | norm('bn1', width)
  before = width
  for k, count in enumerate(blocks):
    middle = width * 2**k
    for i in range(count):
      at = f'layer{k + 1}.{i}'
      found[f'{at}.conv1.weight'] = kernel(middle, before, 1, 1)
      found[f'{at}.conv2.weight'] = kernel(middle, middle, 3, 3)
      found[f'{at}.conv3.weight'] = kernel(4 * middle, middle, 1, 1)
      for j, size in enumerate((middle, middle, 4 * middle), 1):
        found |= norm(f'{at}.bn{j}', size)
      if i == 0:
        found[f'{at}.downsample.0.weight'] = kernel(4 * middle, before, 1, 1)
        found |= norm(f'{at}.downsample.1', 4 * middle)
      before = 4 * middle
  return found | {'fc.weight': kernel(10, before), 'fc.bias': kernel(10)}


VGG16, VGG19 = vgg_file((2, 2, 3, 3, 3)), vgg_file((2, 2, 4, 4, 4))
RESNET = resnet_file((1, 1, 2, 1))
SMALL = dict(stem_channels=4, blocks=(1, 1, 2, 1))
CASES = {
  'deeplabv2_resnet': (SMALL, RESNET),
  'deeplabv3': (SMALL | dict(features=4), RESNET),
  'deeplabv2_vgg': (dict(widths=WIDTHS, features=4), VGG16),
  'fcn8s_vgg': (dict(widths=WIDTHS, features=4), VGG16),
  'segnet': (dict(widths=WIDTHS), VGG19),
}


def made(name, **kw):
  net = registry.net({'name': name} | CASES[name][0] | kw, num_classes=3)
  return net, initialize(net, 0, np.zeros((1, 32, 32, 3)), train=False)


def to_variables(name, weights, template, **kw):
  names = encoders.opened('x', weights, torchvision.NAMES, 'torchvision').names
  net = registry.net({'name': name} | CASES.get(name, ({},))[0] | kw, num_classes=3)
  return encoders.to_variables(net, names, weights, template)


def flat(tree):
  return {
    '/'.join(p.key for p in path): leaf
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
  }


@pytest.mark.parametrize('name', CASES)
def test_the_encoder_is_the_files_and_the_rest_as_it_starts(name):
  _, first = made(name)
  weights = CASES[name][1]
  found = to_variables(name, weights, first)
  assert jax.tree.structure(found) == jax.tree.structure(first)
  before, after = flat(first), flat(found)
  changed = {p for p in after if np.any(before[p] != after[p])}
  inside = lambda path: path.split('/')[1].startswith(('backbone', 'enc'))
  assert changed == {p for p in after if inside(p) and not p.endswith('/count')}
  used = [n for n in weights if not n.startswith(('fc.', 'classifier.'))]
  assert len(changed) == len(used)
  sizes = sorted(float(np.abs(weights[n]).sum()) for n in used)
  np.testing.assert_allclose(sorted(np.abs(after[p]).sum() for p in changed), sizes, rtol=1e-5)


def test_layers_keep_their_order():
  """Widths repeat, so sizes alone would not tell one layer from the next."""
  _, first = made('deeplabv2_vgg')
  found = flat(to_variables('deeplabv2_vgg', VGG16, first)['params'])
  for path, index in (('stage3_conv2', 17), ('stage4_conv3', 30), ('stage5_conv1', 34)):
    want = VGG16[f'features.{index}.weight'].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(found[f'backbone/{path}/conv/kernel'], want)
    scale = found[f'backbone/{path}/norm/scale']
    np.testing.assert_array_equal(scale, VGG16[f'features.{index + 1}.weight'])


@pytest.mark.parametrize('write', [write_legacy, torch_writer.write_zip])
def test_a_file_becomes_a_checkpoint_to_start_from(write, tmp_path):
  model = dict(name='deeplabv2_resnet') | SMALL
  (tmp_path / 'tiny.py').write_text(
    'from ml_collections import ConfigDict\n'
    'def get_config():\n'
    f'  return ConfigDict(dict(method=dict(name="supervised", model={model!r}),'
    ' data=dict(name="fake", size=32, num_classes=3)))\n'
  )
  file = write(tmp_path / 'x.pth', torch_writer.state_dict(RESNET))
  arguments = ['torchvision', str(file), '--config', str(tmp_path / 'tiny.py')]
  assert command.main([*arguments, '--out', str(tmp_path / 'run')]) == 0
  with checkpoints.Checkpoints(tmp_path / 'run' / 'checkpoints') as saved:
    state, meta = saved.restore(0, None)
  assert meta['data']['num_classes'] == 3
  kernel = state['net']['params']['backbone']['stem_conv']['kernel']
  np.testing.assert_array_equal(kernel, RESNET['conv1.weight'].transpose(2, 3, 1, 0))
  assert state['net']['params']['head']['branch3']['kernel'].shape == (3, 3, 128, 3)


PLAIN = {n: w for n, w in VGG16.items() if w.ndim != 1}


@pytest.mark.parametrize(
  ('name', 'weights', 'message'),
  [
    ('deeplabv2_resnet', VGG16, 'the file holds a vgg, the encoder of DeepLabV2ResNet is a resnet'),
    ('fcn8s_vgg', RESNET, 'the file holds a resnet, the encoder of FCN8sVGG is a vgg'),
    ('fcn8s_vgg', VGG19, 'weights do not fit'),
    ('fcn8s_vgg', PLAIN, 'of the VGGs of torchvision, vgg16_bn and vgg19_bn are read'),
    ('segnet', VGG16, 'not in the file'),
    ('deeplabv2_resnet', resnet_file((1, 1, 1, 1)), 'not in the file'),
    ('deeplabv2_resnet', RESNET | {'odd': np.ones(2)}, r'odd \(2,\): no place for it'),
    (
      'deeplabv2_resnet',
      {'a': np.ones(2)},
      'no encoder in the names of torchvision: its names',
    ),
    ('segformer', RESNET, 'the encoder of SegFormer is a mit'),
  ],
)
def test_files_that_do_not_fit(name, weights, message):
  template = made(name)[1] if name in CASES else {'params': {}}
  with pytest.raises(UserError, match=message):
    to_variables(name, weights, template)


def test_other_files_and_methods(tmp_path, capsys):
  file = torch_writer.write_zip(tmp_path / 'x.pth', [1])
  with pytest.raises(UserError, match='is no file of torchvision'):
    torchvision.opened(file)
  file = torch_writer.write_zip(tmp_path / 'x.pth', torch_writer.state_dict(RESNET))
  arguments = ['torchvision', str(file), '--config', 'configs/smoke.py:car']
  assert command.main([*arguments, '--out', str(tmp_path / 'run')]) == 2
  assert "the method 'car' has several nets; use the config" in capsys.readouterr().err
  assert not (tmp_path / 'run').exists()
