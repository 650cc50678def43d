"""ImageNet's encoders of timm, torchvision and transformers: their own features, in our nets."""

import json
import pathlib
import re

import jax
import numpy as np
import pytest

from car_jax import checkpoints, registry
from car_jax.errors import UserError
from car_jax.importers import __main__ as command
from car_jax.importers import encoders, families, huggingface, timm, torchvision
from car_jax.importers.spellings import from_newer
from car_jax.importers.transformers import backbones
from car_jax.nn.init import initialize
from car_jax.nn.swin import SwinTransformer, merged
from car_jax.nn.vit import VisionTransformer
from tests.golden.fill import state_dict as filled
from tests.importers.test_huggingface import write_safetensors
from tests.importers.torch_writer import state_dict, write_zip

RECORDED = dict(np.load(pathlib.Path('tests/importers/recorded/encoders.npz')))
FILES = sorted({k.rpartition('/')[0] for k in RECORDED} - {''})
BACKBONES = {
  'swin': dict(width=8, depths=(2, 1, 2, 1), heads=(1, 2, 2, 4), window=2),
  'convnext': dict(widths=(4, 8, 8, 12), depths=(2, 1, 2, 1), layer_scale=0.5),
  'vit': dict(width=8, depth=2, heads=2, patch=16, image_size=(64, 64)),
  'resnetv2': dict(blocks=(1, 1, 1, 1), widths=(128,) * 4, stem_channels=32),
  'resnet': dict(depth=50, stem_channels=4, width=2, blocks=(1, 1, 2, 1)),
  'mit': dict(widths=(4, 8, 6, 8), depths=(1, 2, 1, 1), heads=(1, 2, 3, 4), epsilon=1e-5),
}
BACKBONES['mit'] |= dict(reductions=(8, 4, 2, 1), embed_epsilon=1e-5)
LIBRARIES = {'timm': timm.NAMES, 'torchvision': torchvision.NAMES, 'transformers': backbones.NAMES}


def model_of(kind, **options):
  backbone = dict(name=kind) | BACKBONES[kind] | options
  return dict(name='composed', backbone=backbone, head=dict(name='fcn', features=4))


def weights_of(file):
  arrays = filled(json.loads(str(RECORDED[f'{file}/manifest'])))
  return {n: a if a.dtype == np.int64 else np.float32(a) for n, a in arrays.items()}


def started(file, kind, **options):
  """-> the net, its first variables, those with the file's encoder."""
  library, weights = file.split('/')[0], weights_of(file)
  net = registry.net(model_of(kind, **options), num_classes=3)
  first = initialize(net, 0, np.zeros((1, 64, 64, 3)), train=False)
  names = encoders.find(LIBRARIES[library], weights)
  assert names.part == kind
  return net, first, encoders.to_variables(net, names, weights, first)


def flat(tree):
  paths = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {'/'.join(p.key for p in path): leaf for path, leaf in paths}


@pytest.mark.parametrize('file', FILES)
def test_the_features_are_those_of_the_library(file):
  kind = file.split('/')[1]
  options = dict(epsilon=1e-12) if file == 'transformers/vit' else {}
  net, first, actual = started(file, kind, **options)
  image = np.float32(RECORDED['image'] / 127.5 - 1)
  run = jax.jit(lambda v, x: net.apply(v, x, train=False, mutable=['intermediates']))
  _, kept = run(actual, image)
  (features,) = kept['intermediates']['backbone_features']
  want = RECORDED[f'{file}/features']
  np.testing.assert_allclose(features[0], want, atol=2e-5 * np.abs(want).max())
  before, after = flat(first), flat(actual)
  assert before.keys() == after.keys()
  for path in before:
    if not path.split('/')[1].startswith('backbone'):
      np.testing.assert_array_equal(before[path], after[path])


def test_older_names_of_swin():
  """In Microsoft's own file, what merges places is at the end of the stage before."""
  _, _, want = started('timm/swin', 'swin')
  weights = weights_of('timm/swin')
  before = lambda m: f'layers.{int(m[1]) - 1}.downsample'
  older = {re.sub(r'layers\.(\d)\.downsample', before, n): w for n, w in weights.items()}
  names = encoders.find(timm.NAMES, older)
  net = registry.net(model_of('swin'), num_classes=3)
  first = initialize(net, 0, np.zeros((1, 64, 64, 3)), train=False)
  jax.tree.map(np.testing.assert_array_equal, encoders.to_variables(net, names, older, first), want)


def test_names_of_metas_convnext():
  _, _, want = started('timm/convnext', 'convnext')
  pairs = (('stem.', 'downsample_layers.0.'), ('.blocks.', '.'), ('conv_dw', 'dwconv'))
  pairs += (('mlp.fc', 'pwconv'), ('head.norm', 'norm'), ('head.fc', 'head'))
  older = {}
  for name, value in weights_of('timm/convnext').items():
    for new, old in pairs:
      name = name.replace(new, old)
    older[re.sub(r'^stages\.(\d)\.downsample', r'downsample_layers.\1', name)] = value
  net = registry.net(model_of('convnext'), num_classes=3)
  first = initialize(net, 0, np.zeros((1, 64, 64, 3)), train=False)
  names = encoders.find(timm.NAMES, older)
  actual = encoders.to_variables(net, names, older, first)
  jax.tree.map(np.testing.assert_array_equal, actual, want)


def test_places_are_merged_in_the_order_of_the_backbone():
  x = np.random.default_rng(0).normal(size=(1, 6, 4, 3)).astype(np.float32)
  order = families.merged_order(SwinTransformer(merge_by_channel=True))
  one, two = (np.asarray(merged(x, by_channel=b)) for b in (False, True))
  np.testing.assert_array_equal(np.moveaxis(order(np.moveaxis(one, -1, 0)), 0, -1), two)
  net, _, actual = started('timm/swin', 'swin', merge_by_channel=True)
  image = np.float32(RECORDED['image'] / 127.5 - 1)
  run = jax.jit(lambda v, x: net.apply(v, x, train=False, mutable=['intermediates']))
  _, kept = run(actual, image)
  (features,) = kept['intermediates']['backbone_features']
  np.testing.assert_allclose(features[0], RECORDED['timm/swin/features'], atol=1e-4)


def test_codes_and_biases_of_other_sizes_are_resized():
  codes = np.random.default_rng(0).normal(size=(1, 17, 3)).astype(np.float32)
  flat_ones = np.concatenate([codes[:, :1], np.ones((1, 16, 3), np.float32)], 1)
  fit = families.position_codes(VisionTransformer(image_size=(96, 160), patch=16))
  actual = fit(flat_ones)
  assert actual.shape == (1, 61, 3)
  np.testing.assert_array_equal(actual[:, 0], codes[:, 0])
  np.testing.assert_allclose(actual[:, 1:], 1, rtol=1e-6)
  same = families.position_codes(VisionTransformer(image_size=(64, 64), patch=16))
  np.testing.assert_array_equal(same(codes), codes)
  column = np.broadcast_to(np.arange(5.0)[:, None, None], (5, 5, 2)).reshape(25, 2)
  actual = families.window_biases(5)(np.float32(column)).reshape(9, 9, 2)
  want = (-0.1008, 0.2593, 0.8422, 1.4582, 2, 2.5418, 3.1578, 3.7407, 4.1008)  # torch's bicubic
  np.testing.assert_allclose(actual[:, 3, 1], want, atol=1e-4)


def config_file(path, model):
  path.write_text(
    'from ml_collections import ConfigDict\n'
    'def get_config():\n'
    f'  return ConfigDict(dict(method=dict(name="supervised", model={model!r}),'
    ' data=dict(name="fake", size=32, num_classes=3)))\n'
  )
  return str(path)


@pytest.mark.parametrize('file', ['timm/convnext', 'torchvision/swin', 'transformers/mit'])
def test_a_file_becomes_a_checkpoint_to_start_from(file, tmp_path):
  library, kind = file.split('/')
  weights = weights_of(file)
  if library == 'torchvision':
    saved = write_zip(tmp_path / 'x.pth', state_dict(weights))
  else:
    saved = write_safetensors(tmp_path / 'model.safetensors', weights)
  name = 'huggingface' if library == 'transformers' else library
  config = config_file(tmp_path / 'tiny.py', model_of(kind))
  arguments = [name, str(saved), '--config', config, '--out', str(tmp_path / 'run')]
  assert command.main(arguments) == 0
  with checkpoints.Checkpoints(tmp_path / 'run' / 'checkpoints') as kept:
    state, meta = kept.restore(0, None)
  assert meta['data']['num_classes'] == 3
  _, _, want = started(file, kind)
  jax.tree.map(
    np.testing.assert_array_equal, state['net']['params']['backbone'], want['params']['backbone']
  )


def test_newer_names_of_transformers_encoders():
  names = json.loads(str(RECORDED['transformers/mit/newer']))
  back = from_newer({n: np.zeros(1) for n in names})
  assert back.keys() == json.loads(str(RECORDED['transformers/mit/manifest'])).keys()
  for kind in ('swin', 'vit', 'convnext', 'resnet'):
    file = f'transformers/{kind}'
    table = encoders.find(backbones.NAMES, weights_of(file)).rules(
      encoders.backbone_of(registry.net(model_of(kind), num_classes=3))[1], {}
    )

    def placed(names, table=table):
      actual = set()
      for name in names:
        rule = next((r for r in table if re.fullmatch(r.pattern, name)), None)
        actual |= {re.sub(rule.pattern, rule.path, name)} if rule else set()
      return actual

    assert placed(json.loads(str(RECORDED[f'{file}/newer']))) == placed(weights_of(file))


@pytest.mark.parametrize(
  ('file', 'kind', 'message'),
  [
    ('timm/swin', 'convnext', 'the file holds a swin, the encoder of Composed is a convnext'),
    ('torchvision/vit', 'vit', 'weights do not fit'),
  ],
)
def test_encoders_that_do_not_fit(file, kind, message):
  library, weights = file.split('/')[0], weights_of(file)
  net = registry.net(model_of(kind, **({'depth': 3} if kind == 'vit' else {})), num_classes=3)
  first = initialize(net, 0, np.zeros((1, 64, 64, 3)), train=False)
  names = encoders.find(LIBRARIES[library], weights)
  with pytest.raises(UserError, match=message):
    encoders.to_variables(net, names, weights, first)


def test_an_encoder_alone_needs_a_config(tmp_path, capsys):
  weights = weights_of('transformers/swin')
  folder = tmp_path / 'x'
  folder.mkdir()
  (folder / 'config.json').write_text('{"model_type": "swin"}')
  write_safetensors(folder / 'model.safetensors', weights)
  for name, file in (('huggingface', folder), ('timm', folder / 'model.safetensors')):
    assert command.main([name, str(file), '--out', str(tmp_path / 'run')]) == 2
    error_text = capsys.readouterr().err
    if name == 'huggingface':
      assert (
        'is an encoder alone (swin) in the names of transformers\n  it is a start' in error_text
      )
    else:
      assert 'is no encoder in the names of timm' in error_text
  with pytest.raises(UserError, match='is no encoder in the names of torchvision'):
    torchvision.opened(write_zip(tmp_path / 'x.pth', state_dict(weights)))
  assert not huggingface.opened(folder).described
