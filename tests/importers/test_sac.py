"""Snapshots of DA-SAC's authors, written here as torch writes them, at toy size."""

import json
import pathlib

import jax
import numpy as np
import pytest

from car_jax import checkpoints
from car_jax.errors import UserError
from car_jax.importers import __main__ as command
from car_jax.importers import sac
from tests.golden.fill import fill
from tests.importers import torch_writer
from tests.importers.test_mmseg import Foreign
from tests.importers.torch_writer import write_legacy
from tests.nn.test_deeplabv2 import NAMES

GOLDEN = pathlib.Path('tests/golden/sac')
RESNET = dict(name='deeplabv2_resnet', stem_channels=4, blocks=(1, 1, 2, 1))
VGG = dict(name='deeplabv2_vgg', widths=(2, 2, 4, 4, 4), features=6)
FCN = dict(name='fcn8s_vgg', widths=(2, 2, 4, 4, 4), features=6)
CLASSES = 5


def manifest_of(name):
  return json.loads((GOLDEN / f'manifest_{name}.json').read_text())


def names_of(spec):
  """The published names of a small net -> shapes: the large one with fewer blocks and channels."""
  name = {v: k for k, v in NAMES.items()}[spec['name']]
  thin = {3: 3, 19: CLASSES, 64: 2, 128: 2, 256: 4, 512: 4, 1024: 6, 4096: 6}
  if spec['name'] == 'deeplabv2_resnet':
    thin = {3: 3, 7: 7, 19: CLASSES} | {64 * 2**k: 4 * 2**k for k in range(6)}
  found = {}
  for n, shape in manifest_of(name).items():
    layer, _, block = n.removeprefix('model.layer').partition('.')
    numbered = n.startswith('model.layer') and layer in '1234'
    if numbered and int(block.split('.')[0]) >= spec['blocks'][int(layer) - 1]:
      continue
    found[n] = tuple(thin.get(s, s) for s in shape[:2]) + tuple(shape[2:])
  return found


def weights_of(spec, salt=''):
  return {n: np.float32(fill(salt + n, s)) for n, s in names_of(spec).items()}


def snapshot(spec, *, teacher=None, started=1.0, prefix='module.'):
  model = {f'{prefix}backbone.{n}': w for n, w in weights_of(spec).items()}
  if teacher:
    model |= {f'{prefix}slow_net.{n}': w for n, w in weights_of(spec, teacher).items()}
    model |= {f'{prefix}running_conf': np.linspace(0.1, 0.5, CLASSES, dtype=np.float32)}
    model |= {f'{prefix}slow_init': np.full(1, started, np.float32)}
  state = {0: {'momentum_buffer': torch_writer.Tensor(np.ones(2, np.float32))}}
  groups = [{'params': [0], 'lr': 2.5e-4, 'momentum': 0.9, 'nesterov': False}]
  optimizer = {'state': state, 'param_groups': groups}
  return {'model': torch_writer.state_dict(model), 'opt': optimizer, 'score': 0.53, 'epoch': 136}


@pytest.fixture
def config_of(tmp_path):
  """A config file of a method on a tiny net."""

  def write(spec, method='sac'):
    path = tmp_path / f'tiny_{method}.py'
    method = dict(name=method, model=spec, optim=dict(name='sgd', lr=1e-3))
    path.write_text(
      'from ml_collections import ConfigDict\n'
      'def get_config():\n'
      f'  return ConfigDict(dict(method={method!r}, data=dict(name="cityscapes")))\n'
    )
    return str(path)

  return write


def run(tmp_path, file, config):
  out = tmp_path / 'run'
  code = command.main(['sac', str(file), '--config', config, '--out', str(out)])
  if code:
    return code
  with checkpoints.Checkpoints(out / 'checkpoints') as saved:
    return saved.restore(0, None)


def same(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize('name', [*NAMES, 'tiny'])
def test_every_published_name_has_a_place_of_its_own(name):
  names = manifest_of(name)
  numbered = {n: np.full((1,) * len(s), i) for i, (n, s) in enumerate(names.items())}
  places = jax.tree.leaves(sac.to_variables(NAMES.get(name, 'deeplabv2_resnet'), numbered))
  assert {int(np.ravel(leaf)[0]) for leaf in places} == set(range(len(names)))


@pytest.mark.parametrize('write', [write_legacy, torch_writer.write_zip])
@pytest.mark.parametrize('spec', [RESNET, VGG, FCN], ids=lambda s: s['name'])
def test_a_final_snapshot_becomes_student_and_teacher(spec, write, tmp_path, config_of):
  file = write(tmp_path / 'x.pth', snapshot(spec, teacher='slow'))
  state, meta = run(tmp_path, file, config_of(spec))
  assert meta['data']['num_classes'] == CLASSES
  for part, salt in (('net', ''), ('teacher', 'slow')):
    want = sac.to_variables(spec['name'], weights_of(spec, salt))
    same(state[part]['params'], want['params'])
    same(state[part]['batch_stats'], want['batch_stats'])
  np.testing.assert_array_equal(state['prior'], np.linspace(0.1, 0.5, CLASSES, dtype=np.float32))
  assert state['initialised']
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(state['net']['opt_state']))


@pytest.mark.parametrize('teacher', [None, 'slow'])
def test_a_teacher_that_never_started_is_the_student(teacher, tmp_path, config_of):
  content = snapshot(RESNET, teacher=teacher, started=0.0, prefix='')
  file = torch_writer.write_zip(tmp_path / 'x.pth', content)
  state, _ = run(tmp_path, file, config_of(RESNET))
  same(state['teacher']['params'], state['net']['params'])
  same(state['teacher']['batch_stats'], state['net']['batch_stats'])
  assert not state['initialised']
  np.testing.assert_array_equal(state['prior'], np.full(CLASSES, 1e-3, np.float32))


def test_the_first_stage_takes_the_student_of_either(tmp_path, config_of):
  file = torch_writer.write_zip(tmp_path / 'x.pth', snapshot(VGG, teacher='slow'))
  state, _ = run(tmp_path, file, config_of(VGG, 'abn'))
  same(state['net']['params'], sac.to_variables('deeplabv2_vgg', weights_of(VGG))['params'])


def test_what_a_file_says_of_itself(tmp_path):
  file = torch_writer.write_zip(tmp_path / 'x.pth', snapshot(FCN))
  found = sac.read(file)
  assert (found.net, found.epoch, found.score, found.num_classes) == ('fcn8s_vgg', 136, 0.53, 5)
  assert found.teacher is None
  alone = torch_writer.write_zip(tmp_path / 'y.pth', snapshot(FCN)['model'])
  assert sac.read(alone).student.keys() == found.student.keys()
  assert sac.read(alone).epoch is None


def test_only_the_counts_of_norms_may_be_missing():
  weights = weights_of(RESNET)
  full = sac.to_variables('deeplabv2_resnet', weights)
  few = {n: w for n, w in weights.items() if not n.endswith('num_batches_tracked')}
  same(sac.to_variables('deeplabv2_resnet', few, full), full)
  for gone in ('model.bn1.running_var', 'model.layer5.conv2d_list.2.bias'):
    part = {n: w for n, w in weights.items() if n != gone}
    with pytest.raises(UserError, match='not in the file'):
      sac.to_variables('deeplabv2_resnet', part, full)
  with pytest.raises(UserError, match=r'model\.odd \(2,\): no place for it'):
    sac.to_variables('deeplabv2_resnet', weights | {'model.odd': np.ones(2)}, full)


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    ([1, 2], 'holds no table of weights'),
    ({'model': 3}, 'holds no table of weights'),
    ({'module.odd': torch_writer.Tensor(np.ones(2))}, 'no place for odd'),
    ({'backbone.a': torch_writer.Tensor(np.ones(2))}, r'has none of model\.layer5'),
  ],
)
def test_files_that_are_none(content, message, tmp_path):
  file = torch_writer.write_zip(tmp_path / 'x.pth', content)
  with pytest.raises(UserError, match=message):
    sac.read(file)


def test_what_a_training_saves_beside_its_model_is_left(tmp_path):
  file = torch_writer.write_zip(tmp_path / 'x.pth', snapshot(RESNET) | {'args': Foreign()})
  assert sac.read(file).epoch == 136
  file = torch_writer.write_zip(tmp_path / 'x.pth', snapshot(RESNET) | {'model': Foreign()})
  with pytest.raises(UserError, match=r'holds a .*Foreign.*\n.*with torch'):
    sac.read(file)


@pytest.mark.parametrize(
  ('spec', 'method', 'message'),
  [
    (VGG, 'sac', "the config trains 'deeplabv2_vgg'\n  use --config configs/sac_gta5.py:resnet101"),
    (RESNET | dict(blocks=(1, 1, 1, 1)), 'sac', 'weights do not fit'),
    (dict(name='segnet'), 'mose', "the config trains 'segnet'"),
  ],
)
def test_configs_that_do_not_fit(spec, method, message, tmp_path, capsys, config_of):
  file = torch_writer.write_zip(tmp_path / 'x.pth', snapshot(RESNET))
  assert run(tmp_path, file, config_of(spec, method)) == 2
  assert message in capsys.readouterr().err
  assert not (tmp_path / 'run').exists()
