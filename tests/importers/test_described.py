"""Files of mmsegmentation that say what they hold: real configs' texts, real predictions."""

import json
import pathlib

import jax
import numpy as np
import pytest

from car_jax import checkpoints, registry
from car_jax import config as configs
from car_jax.errors import UserError
from car_jax.importers import __main__ as command
from car_jax.importers import mmseg
from car_jax.importers.openmmlab import config_text, testing
from tests.golden.fill import fill
from tests.importers import torch_writer

FOLDER = pathlib.Path('tests/importers/recorded')
NAMES = [f'mmseg0/{n}' for n in ('corners', 'edges', 'multigrid')]
NAMES += [f'mmseg1/{n}' for n in ('upernet', 'segformer')]


def recorded(name):
  """-> image, config's text, weights, logits"""
  file, _, key = name.partition('/')
  with np.load(FOLDER / f'{file}.npz') as z:
    manifest = json.loads(str(z[f'{key}/manifest']))
    weights = {n: np.asarray(fill(n, tuple(s))) for n, s in manifest.items()}
    weights = {
      n: w.astype(np.float32 if w.dtype.kind == 'f' else w.dtype) for n, w in weights.items()
    }
    return z['image'], str(z[f'{key}/config']), weights, z[f'{key}/logits']


def write(path, name, change=lambda text: text):
  """A checkpoint as the library's trainings save them, with what they save beside the weights."""
  _, text, weights, _ = recorded(name)
  state = torch_writer.state_dict(weights)
  if name.startswith('mmseg0'):
    meta = dict(config=change(text), CLASSES=('road', 'sky'), epoch=1, hook_msgs={'best': 0.5})
    content = dict(meta=meta, state_dict=state, optimizer={'state': {}})
  else:
    meta = dict(cfg=change(text), dataset_meta={'classes': ('road',)}, epoch=0, iter=1)
    content = dict(meta=meta, state_dict=state, message_hub=Unknown(), param_schedulers=[])
  return torch_writer.write_zip(path, content)


class Unknown:
  """Of a module that is not there when the file is read."""


def predicted(run, image):
  config = configs.saved(json.loads((run / 'config.json').read_text()))
  with checkpoints.Checkpoints(run / 'checkpoints') as saved:
    state, meta = saved.restore(0, None)
  method = registry.method(config.method.to_dict() | meta['data'], steps_per_epoch=1)
  x = np.float32(image / 127.5 - 1)[None]
  batch = {'image': x, 'labels': np.zeros((1, 1, 27, 39), np.int32)}
  start = method.init(0, batch)
  start = start.replace(
    net=start.net.replace(**{k: state['net'][k] for k in ('params', 'batch_stats')})
  )
  return config, np.moveaxis(jax.device_get(jax.jit(method.logits)(start, batch))[0], -1, 0)


@pytest.mark.parametrize('name', NAMES)
def test_a_file_says_what_it_is(name, tmp_path):
  """Of three, names and shapes are the same, and answers are not."""
  image, _, _, logits = recorded(name)
  file = write(tmp_path / 'x.pth', name)
  assert command.main(['mmseg', str(file), '--out', str(tmp_path / 'run')]) == 0
  config, actual = predicted(tmp_path / 'run', image)
  np.testing.assert_allclose(actual, logits, atol=1e-5 * np.abs(logits).max())
  slide = name.endswith(('corners', 'segformer'))
  assert config.method.crop == ((48, 64) if slide else 0)
  assert config.method.stride == ((32, 40) if slide else 0)
  assert config.data.fit == ((2049, 1025) if name.endswith('corners') else (2048, 1024))


def test_three_files_of_the_same_names_answer_differently():
  logits = [recorded(name)[-1] for name in NAMES[:3]]
  assert len({json.dumps(sorted(recorded(n)[2])) for n in NAMES[:3]}) == 1
  for a, b in ((0, 1), (0, 2), (1, 2)):
    assert np.abs(logits[a] - logits[b]).max() > 0.01 * np.abs(logits[a]).max()


def test_an_option_overrides_what_the_file_says(tmp_path):
  file = write(tmp_path / 'x.pth', 'mmseg0/corners')
  arguments = ['mmseg', str(file), '--out', str(tmp_path / 'run')]
  assert command.main([*arguments, '--config.method.model.align_corners=False']) == 0
  config = json.loads((tmp_path / 'run' / 'config.json').read_text())
  assert config['method']['model']['align_corners'] is False


def test_a_config_that_contradicts_the_file_is_refused(tmp_path, capsys):
  file = write(tmp_path / 'x.pth', 'mmseg0/edges')
  config = 'configs/segmenters_cityscapes.py:deeplabv3plus_r50'
  arguments = ['mmseg', str(file), '--config', config, '--out', str(tmp_path / 'run')]
  assert command.main(arguments) == 2
  error_text = capsys.readouterr().err
  assert 'do not describe the same net' in error_text
  assert 'align_corners is True, in the file False' in error_text
  assert not (tmp_path / 'run').exists()


def test_a_file_that_does_not_say_is_asked_about(tmp_path, capsys):
  file = write(tmp_path / 'x.pth', 'mmseg0/corners', lambda text: '')
  assert command.main(['mmseg', str(file), '--out', str(tmp_path / 'run')]) == 2
  error_text = capsys.readouterr().err
  assert 'do not tell dilations' in error_text
  assert '--config configs/segmenters_cityscapes.py:VARIANT' in error_text


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda t: t.replace("type='ResNetV1c'", "type='ResNetV1d'"), "'ResNetV1d', which no net here"),
    (
      lambda t: t.replace('num_stages=4', 'num_stages=4, avg_down=True'),
      'backbone.avg_down = True',
    ),
    (lambda t: t.replace('num_stages=4', 'num_stages=4, nothing=1'), 'model.backbone.nothing'),
    (lambda t: t.replace("mode='slide'", "mode='tiles'"), "test_cfg.mode = 'tiles'"),
    (lambda t: t.replace('stride=(32, 40)', 'stride=(50, 40)'), 'which leave gaps'),
    (lambda t: t.replace('to_rgb=True', 'to_rgb=False'), 'img_norm_cfg.to_rgb = False'),
    (
      lambda t: t.replace('keep_ratio=True', 'keep_ratio=False'),
      'test_pipeline.keep_ratio = False',
    ),
    (lambda t: t + '\n)', 'its config cannot be read'),
    (lambda t: t.replace('c1_channels=6', 'c1_channels=7'), 'weights do not fit'),
    (
      lambda t: t.replace('c1_channels=6', 'c1_channels=2 * 3'),
      'computes model.decode_head.c1_channels',
    ),
    (lambda t: t.replace('num_classes=', 'num_classes=1'), 'classes, its weights have 5'),
    (lambda t: t.replace('crop_size=', 'crop_size=[], old='), 'cannot be read as the config of'),
    (lambda t: t.replace('depth=50', 'depth=49'), 'ResNet of depth 49'),
    (lambda t: t.replace('depth=50', "depth='x'"), 'x.pth: config.method.model.backbone.depth is'),
    (lambda t: t.replace('57.12,', '0,'), 'images are divided by it'),
    (
      lambda t: t.replace('base_channels=8', 'base_channels=0'),
      'backbone.base_channels = 0\n  it is a whole number from 1 on',
    ),
    (
      lambda t: t.replace('align_corners=True', "align_corners='perhaps'"),
      "decode_head.align_corners = 'perhaps'\n  it is True or False",
    ),
    (
      lambda t: t + "\ntest_pipeline = 'Resize'\n",
      "config.test_pipeline = 'Resize'\n  it is a list of steps",
    ),
    (
      lambda t: t.replace('transforms=[', "transforms=['Resize', "),
      "'Resize' in test_pipeline\n  a step is a dict",
    ),
    (lambda t: t.replace('flip=False', 'flip=True'), 'test_pipeline.flip = True'),
    (
      lambda t: t.replace('flip=False', 'flip=False, img_ratios=[0.5, 1.0]'),
      'test_pipeline.img_ratios = (0.5, 1.0)',
    ),
    (
      lambda t: t.replace("type='RandomFlip'", "type='ResizeToMultiple', size_divisor=32"),
      "'ResizeToMultiple' in test_pipeline, which is not done here",
    ),
  ],
)
def test_what_no_net_here_does_is_refused(change, message, tmp_path, capsys):
  file = write(tmp_path / 'x.pth', 'mmseg0/corners', change)
  assert command.main(['mmseg', str(file), '--out', str(tmp_path / 'run')]) == 2
  assert message in capsys.readouterr().err
  assert not (tmp_path / 'run').exists()


ZOO = sorted(p for p in pathlib.Path('tests/golden/zoo').glob('*.npz') if p.stem[-3:] != '_hf')


@pytest.mark.parametrize('path', ZOO, ids=lambda p: p.stem)
def test_checkpoints_of_every_kind_of_net_are_read(path, tmp_path):
  with np.load(path) as z:
    shapes, text = json.loads(str(z['manifest'])), f'model = {json.loads(str(z["config"]))!r}\n'
  weights = {n: np.broadcast_to(np.float32(0), shape) for n, shape in shapes.items()}
  content = dict(meta=dict(config=text), state_dict=torch_writer.state_dict(weights))
  file = mmseg.opened(torch_writer.write_zip(tmp_path / 'x.pth', content))
  assert file.state(file.config())[1] == {'num_classes': 11}


def test_a_text_is_read_and_not_run(tmp_path):
  target = tmp_path / 'made'
  text = (
    f'import os\nopen({str(target)!r}, "w")\nbase = dict(a=1, b=[-2, (3.5, None)])\n'
    f'x = dict(base, c="t", d={{"e": True}}, f=base)\ny = open({str(target)!r}, "w")\n'
    'z = 2 + 3\nw = missing\n'
  )
  read = config_text.read(text, 'x.pth')
  base = {'a': 1, 'b': [-2, (3.5, None)]}
  assert read['x'] == base | {'c': 't', 'd': {'e': True}, 'f': base}
  assert {read[k] for k in 'yzw'} == {config_text.UNREAD}
  assert not target.exists()
  for hostile in (
    '(' * 100_000,
    '[' * 5_000 + ']' * 5_000,
    'a = ' + '-' * 50_000 + '1',
    'x' * 2**21,
    'model = dict(type="A", head=dict(classes=2,\n  type="B", classes=3))',
  ):
    with pytest.raises(UserError, match='its config'):
      config_text.read(hostile, 'x.pth')


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda t: t.replace('keep_ratio=True', 'old=True'), 'test_pipeline.keep_ratio = False'),
    (lambda t: t.replace('=True, scale=(', '=True, scale_factor=0.5, scale=('), 'scale_factor'),
    (lambda t: t.replace('bgr_to_rgb=True', 'old=True'), 'data_preprocessor.bgr_to_rgb = False'),
    (
      lambda t: t.replace('bgr_to_rgb=True', 'bgr_to_rgb=True, test_cfg=dict(size_divisor=32)'),
      "data_preprocessor.test_cfg = {'size_divisor': 32}",
    ),
  ],
)
def test_defaults_and_padding_since_version_1(change, message, tmp_path):
  file = mmseg.opened(write(tmp_path / 'x.pth', 'mmseg1/segformer', change))
  with pytest.raises(UserError) as e:
    file.config()
  assert message in str(e.value)


def test_a_frame_that_is_assumed_is_said(tmp_path, capsys):
  without = lambda t: t.replace('test_pipeline', 'other').replace('pipeline=', 'other=')
  for change, said in ((without, True), (lambda t: t, False)):
    file = write(tmp_path / 'x.pth', 'mmseg0/corners', change)
    config = mmseg.opened(file).config()
    out = capsys.readouterr().out
    assert ('does not say how large test images are' in out) == said
    assert (str(config.data.fit) in out) == said


def test_a_preprocessor_without_a_mean_leaves_images_as_they_are():
  given = dict(type='SegDataPreProcessor', bgr_to_rgb=True)
  for text in (dict(model=dict(data_preprocessor=given)), dict(model={}, data_preprocessor=given)):
    actual = testing.testing(text)
    assert (actual.mean, actual.std) == ((0.0,) * 3, (1.0,) * 3)


def test_mean_and_deviation_of_the_file_count(tmp_path):
  change = lambda t: t.replace('mean=[123.675, 116.28, 103.53]', 'mean=[1.0, 2.0, 3.0]')
  config = mmseg.opened(write(tmp_path / 'x.pth', 'mmseg0/edges', change)).config()
  assert config.method.model.mean == (1.0, 2.0, 3.0)


def test_how_a_net_is_tested_is_found_wherever_it_stands():
  resize = dict(type='Resize', scale=(2048, 1024), keep_ratio=True)
  model = dict(test_cfg=dict(mode='whole'))
  new = dict(model=model, test_dataloader=dict(dataset=dict(pipeline=[resize])))
  assert testing.testing(new).fit == (2048, 1024)
  inner = dict(type='MultiScaleFlipAug', img_scale=[(2049, 1025)], transforms=[dict(type='Resize')])
  old = dict(
    model=dict(),
    test_cfg=dict(mode='slide', crop_size=9, stride=5),
    data=dict(test=dict(pipeline=[inner])),
  )
  actual = testing.testing(old)
  assert (actual.fit, actual.crop, actual.stride, actual.mean) == (
    (2049, 1025),
    (9, 9),
    (5, 5),
    None,
  )
