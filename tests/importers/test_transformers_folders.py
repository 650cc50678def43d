"""Folders of transformers say themselves what they hold: against outputs of its own classes."""

import functools
import json
import pathlib

import jax
import numpy as np
import pytest

from car_jax import checkpoints, registry
from car_jax import config as configs
from car_jax.errors import UserError
from car_jax.importers import __main__ as command
from car_jax.importers import huggingface
from car_jax.importers.transformers import processor
from car_jax.nn.composed import MEAN, STD
from tests.golden.fill import state_dict as filled
from tests.importers.test_huggingface import write_safetensors
from tests.importers.torch_writer import state_dict, write_zip

NAMES = ('segformer', 'upernet_swin', 'upernet_convnext', 'mask2former', 'maskformer')
RECORDED = dict(np.load(pathlib.Path('tests/importers/recorded/segmenters.npz')))
SEGFORMER = 'configs/segformer_cityscapes.py:b0'


def text(name, what):
  return json.loads(str(RECORDED[f'{name}/{what}']))


def weights_of(name):
  """By the names on disk."""
  arrays = filled(text(name, 'manifest'))
  return {n: a if a.dtype == np.int64 else np.float32(a) for n, a in arrays.items()}


def newer(name):
  """By the names of `model.state_dict()`."""
  weights = weights_of(name)
  names = text(name, 'newer')
  moved = {new: weights[old] for new, old in names.items()}
  return {n: w for n, w in weights.items() if n not in names.values()} | moved


def folder_of(path, name, **config):
  """config.json and preprocessor_config.json alone."""
  path.mkdir()
  (path / 'config.json').write_text(json.dumps(text(name, 'config') | config))
  (path / 'preprocessor_config.json').write_text(json.dumps(text(name, 'processor')))
  return path


def sharded(folder, weights, parts=3, name='model.safetensors'):
  stem, end = name.split('.')
  files = [f'{stem}-{i + 1:05}-of-{parts:05}.{end}' for i in range(parts)]
  places = {n: files[i % parts] for i, n in enumerate(weights)}
  for file in files:
    inside = {n: weights[n] for n, f in places.items() if f == file}
    if end == 'bin':
      write_zip(folder / file, state_dict(inside))
    else:
      write_safetensors(folder / file, inside)
  index = {'metadata': {'total_size': 1}, 'weight_map': places}
  (folder / f'{name}.index.json').write_text(json.dumps(index))
  return files


def imported(file, out, *more):
  assert command.main(['huggingface', str(file), '--out', str(out), *more]) == 0
  with checkpoints.Checkpoints(out / 'checkpoints') as saved:
    state, meta = saved.restore(0, None)
  net = {k: v or {} for k, v in state['net'].items() if k in ('params', 'batch_stats')}
  return net, meta


@functools.cache
def program(model, classes):
  net = registry.net(json.loads(model), num_classes=classes)
  return jax.jit(lambda v, x: net.apply(v, x, train=False))


def output(variables, meta):
  model = json.dumps(meta['config']['method']['model'], sort_keys=True)
  image = np.float32(RECORDED['image'] / 127.5 - 1)[None]
  return np.moveaxis(np.asarray(program(model, 6)(variables, image))[0], -1, 0)[:, ::4, ::4]


def check(name, variables, meta, tolerance=2e-5):
  want = RECORDED[f'{name}/output']
  actual = output(variables, meta)
  actual = np.exp(actual) if name.startswith('mask') else actual
  np.testing.assert_allclose(actual, want, atol=tolerance * np.abs(want).max())
  assert meta['data']['num_classes'] == 6


@pytest.mark.parametrize('name', NAMES)
def test_a_folder_has_the_outputs_of_its_library(name, tmp_path, capsys):
  folder = folder_of(tmp_path / 'x', name)
  write_safetensors(folder / 'model.safetensors', weights_of(name))
  variables, meta = imported(folder, tmp_path / 'run')
  check(name, variables, meta)
  method, data = meta['config']['method'], meta['config']['data']
  np.testing.assert_allclose(method['model']['mean'], (127.5, 114.75, 102), rtol=1e-6)
  np.testing.assert_allclose(method['model']['std'], (51, 63.75, 76.5), rtol=1e-6)
  assert (method['crop'], method['stride']) == (0, 0)
  frame = tuple(data['fit']), data['fit_multiple'], tuple(data['resize'])
  assert frame == (((1333, 800), 32, ()) if 'mask' in name else ((), 0, (512, 512)))
  text = capsys.readouterr().out
  assert ('images are made 512 x 512 whatever their shape' in text) == ('mask' not in name)


@pytest.mark.parametrize('name', NAMES)
def test_torch_files_in_the_names_of_newer_modules(name, tmp_path):
  folder = folder_of(tmp_path / 'x', name)
  file = write_zip(folder / 'pytorch_model.bin', state_dict(newer(name)))
  if name != 'upernet_convnext':
    assert newer(name).keys() != weights_of(name).keys()
  actual, want = (huggingface.opened(f) for f in (file, folder))
  one, two = (f.state(f.config())[0].net.variables for f in (actual, want))
  jax.tree.map(np.testing.assert_array_equal, one, two)
  write_safetensors(folder / 'model.safetensors', weights_of(name))
  older = huggingface.opened(folder)
  jax.tree.map(np.testing.assert_array_equal, one, older.state(older.config())[0].net.variables)


@pytest.mark.parametrize('kind', ['bfloat16', 'float16'])
def test_half_precision_becomes_float32(kind, tmp_path):
  folder, weights = folder_of(tmp_path / 'x', 'upernet_convnext'), weights_of('upernet_convnext')
  half = {
    n: w.astype(jax.numpy.dtype(kind)) if w.dtype.kind == 'f' else w for n, w in weights.items()
  }
  write_safetensors(folder / 'model.safetensors', half)
  variables, meta = imported(folder, tmp_path / 'run')
  assert {a.dtype.name for a in jax.tree.leaves(variables)} == {'float32', 'int32'}
  check('upernet_convnext', variables, meta, 0.05)


@pytest.mark.parametrize('name', ['model.safetensors', 'pytorch_model.bin'])
def test_parts_are_joined(name, tmp_path):
  folder, weights = folder_of(tmp_path / 'x', 'upernet_swin'), weights_of('upernet_swin')
  parts = sharded(folder, weights, name=name)
  for file in (folder, folder / parts[1], folder / f'{name}.index.json', folder / 'config.json'):
    actual = huggingface.opened(file)
    assert actual.weights.keys() == weights.keys()
    for key, value in weights.items():
      np.testing.assert_array_equal(actual.weights[key], value)


def break_parts(folder, parts, how):
  index = folder / 'model.safetensors.index.json'
  content = json.loads(index.read_text())
  places = content['weight_map']
  if how == 'missing':
    (folder / parts[1]).unlink()
  elif how == 'no index':
    index.unlink()
    return folder / parts[0]
  elif how == 'outside':
    places['a'] = '../a.safetensors'
  elif how == 'lacking':
    places['a.b'] = parts[0]
  elif how == 'twice':
    (folder / parts[1]).write_bytes((folder / parts[0]).read_bytes())
    content['weight_map'] = {n: p for n, p in places.items() if p != parts[1]} | {
      n: parts[1] for n, p in places.items() if p == parts[0] and n < 'b'
    }
  elif how == 'list':
    content['weight_map'] = [1]
  index.write_text(json.dumps(content))
  return folder


@pytest.mark.parametrize(
  ('how', 'message'),
  [
    ('missing', 'has 2 of 3 parts of the weights: model-00002-of-00003.safetensors is missing'),
    ('no index', 'is one of several parts, and model.safetensors.index.json is not there'),
    ('outside', "names a part '../a.safetensors', which is no file beside it"),
    ('lacking', 'model-00001-of-00003.safetensors lacks a.b'),
    ('twice', 'as another part has'),
    ('list', 'cannot be read as an index of weights'),
  ],
)
def test_parts_that_do_not_belong_together(how, message, tmp_path):
  folder = folder_of(tmp_path / 'x', 'upernet_swin')
  file = break_parts(folder, sharded(folder, weights_of('upernet_swin')), how)
  with pytest.raises(UserError) as e:
    huggingface.opened(file)
  assert message in str(e.value)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (dict(model_type='dpt'), "model_type = 'dpt', which no net here is\n  what can be read: segf"),
    (dict(hidden_size=7), 'weights do not fit'),
    (dict(id2label={'0': 'a', '1': 'b', '2': 'c'}), 'weights do not fit'),
    (dict(something=1), 'config.something'),
    (dict(backbone_config=None), 'backbone_config = None'),
    (dict(model_type='segformer'), 'config.auxiliary_channels'),
  ],
)
def test_folders_that_do_not_fit(options, message, tmp_path, capsys):
  folder = folder_of(tmp_path / 'x', 'upernet_swin', **options)
  write_safetensors(folder / 'model.safetensors', weights_of('upernet_swin'))
  assert command.main(['huggingface', str(folder), '--out', str(tmp_path / 'run')]) == 2
  assert message in capsys.readouterr().err
  assert not (tmp_path / 'run').exists()


def test_a_segformer_has_the_classes_that_its_config_names(tmp_path, capsys):
  folder = folder_of(tmp_path / 'x', 'segformer', id2label={'0': 'a', '1': 'b', '2': 'c'})
  write_safetensors(folder / 'model.safetensors', weights_of('segformer'))
  assert command.main(['huggingface', str(folder), '--out', str(tmp_path / 'run')]) == 2
  assert 'its config has 3 classes, its weights have 6' in capsys.readouterr().err


def test_folders_without_something(tmp_path):
  with pytest.raises(UserError, match=r'has no config\.json'):
    huggingface.opened(tmp_path)
  (tmp_path / 'config.json').write_text('{"method": {}}')
  with pytest.raises(UserError, match='has no model_type: it is none of transformers'):
    huggingface.opened(tmp_path)
  folder = folder_of(tmp_path / 'x', 'upernet_swin')
  with pytest.raises(UserError, match=r'has no weights\n.*model\.safetensors'):
    huggingface.opened(folder)
  (folder / 'model.safetensors').write_bytes(b'abc')
  with pytest.raises(UserError, match='cannot be read as a safetensors file'):
    huggingface.opened(folder)
  (tmp_path / 'config.json').unlink()
  for name in ('upernet_swin', 'mask2former'):
    file = write_safetensors(tmp_path / 'lone.safetensors', weights_of(name))
    with pytest.raises(UserError, match=r'has weights without config\.json'):
      huggingface.opened(file)
  (folder / 'config.json').write_text('{"model_type": ')
  with pytest.raises(UserError, match='cannot be read as JSON'):
    huggingface.opened(folder)


def test_a_file_beside_a_run_of_ours_is_read_alone(tmp_path):
  (tmp_path / 'config.json').write_text('{"method": {}}')
  file = write_safetensors(tmp_path / 'x.safetensors', weights_of('segformer'))
  assert not huggingface.opened(file).described


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ('--config.method.model.heads=(1,1,1,1)', 'backbone.heads is (1, 1, 1, 1), in the file (1, 2'),
    ('--config.method.model.mean=(1,2,3)', 'mean is (1.0, 2.0, 3.0), in the file (127.5'),
  ],
)
def test_a_config_of_ours_must_compute_the_same(change, message, tmp_path):
  folder = folder_of(tmp_path / 'x', 'segformer')
  write_safetensors(folder / 'model.safetensors', weights_of('segformer'))
  file = huggingface.opened(folder)
  right = file.config()
  file.check(right)
  wrong = configs.override(right, configs.split_overrides([change]))
  with pytest.raises(UserError) as e:
    file.check(wrong)
  assert message in str(e.value)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (dict(do_center_crop=True), 'do_center_crop = True'),
    (dict(size={'max_pixels': 3}), r'\.size = '),
    (dict(image_std=[0.1, 0, 0.1]), 'images are divided by it'),
    (dict(image_mean=[0.1]), 'it is three numbers'),
    (dict(rescale_factor=0), 'it is a positive number'),
    (dict(sharpen=1), r'preprocessor_config\.sharpen'),
    (dict(resample=3), r'resample = 3'),
    (dict(size_divisor=2.5), 'it is a whole number'),
  ],
)
def test_what_is_not_done_with_images(options, message):
  with pytest.raises(UserError, match=message):
    processor.images(text('segformer', 'processor') | options)


@pytest.mark.parametrize(
  ('options', 'want'),
  [
    ({}, (MEAN, STD, {})),
    (dict(size=512), (MEAN, STD, dict(resize=(512, 512)))),
    (
      dict(size=500, image_processor_type='MaskFormerImageProcessorFast'),
      (MEAN, STD, dict(resize=(512, 512))),
    ),
    (
      dict(size=640, max_size=2560, do_normalize=False),
      ((0,) * 3, (255,) * 3, dict(fit=(2560, 640), fit_multiple=1)),
    ),
    (
      dict(size=640, max_size=2560, feature_extractor_type='MaskFormerFeatureExtractor'),
      (MEAN, STD, dict(fit=(2560, 640), fit_multiple=32)),
    ),
    (
      dict(size={'shortest_edge': 9, 'longest_edge': 20}, size_divisor=0),
      (MEAN, STD, dict(fit=(20, 9), fit_multiple=1)),
    ),
    (
      dict(do_rescale=False, image_mean=[1, 2, 3], image_std=[4, 5, 6], size=9, do_resize=False),
      ((1, 2, 3), (4, 5, 6), {}),
    ),
    (dict(image_mean=0.5, image_std=0.5, rescale_factor=1 / 127.5), (*[(63.75,) * 3] * 2, {})),
  ],
)
def test_how_images_are_prepared(options, want):
  actual = processor.images(options)
  np.testing.assert_allclose(actual[:2], want[:2])
  assert actual.frame == want[2]
