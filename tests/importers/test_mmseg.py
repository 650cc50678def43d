"""Checkpoints in mmsegmentation's formats, written here as torch writes them."""

import errno
import re

import jax
import numpy as np
import pytest

from car_jax import checkpoints
from car_jax import config as configs
from car_jax.errors import UserError
from car_jax.importers import __main__ as command
from car_jax.importers import mmseg
from car_jax.importers.transformers import mit
from tests.importers import torch_writer
from tests.importers.torch_writer import write_legacy
from tests.replay.nets_torch import SPECS as ALL
from tests.replay.nets_torch import imported, manifest_of, weights_of

SPECS = {name: spec for name, spec in ALL.items() if not name.endswith('huggingface')}


@pytest.fixture
def tiny_config(tmp_path):
  """A config file of the supervised method on a tiny net."""

  def write(spec, method='supervised'):
    path = tmp_path / 'tiny.py'
    path.write_text(
      'from ml_collections import ConfigDict\n'
      'def get_config():\n'
      f'  return ConfigDict(dict(method=dict(name={method!r}, model={spec!r}),'
      " data=dict(name='cityscapes')))\n"
    )
    return str(path)

  return write


def checkpoint(weights, prefix=''):
  named = torch_writer.state_dict({prefix + k: v for k, v in weights.items()})
  return {'meta': {'CLASSES': ('road', 'sky'), 'epoch': 3}, 'state_dict': named}


@pytest.mark.parametrize('write', [write_legacy, torch_writer.write_zip])
@pytest.mark.parametrize('prefix', ['', 'module.'])
def test_every_wrapping_gives_the_same_weights(write, prefix, tmp_path):
  weights = weights_of('deeplabv3plus_basic')
  found = mmseg.opened(write(tmp_path / 'x.pth', checkpoint(weights, prefix))).weights
  assert found.keys() == weights.keys()
  for name, value in weights.items():
    np.testing.assert_array_equal(found[name], value)
  plain = mmseg.opened(
    torch_writer.write_zip(tmp_path / 'y.pth', torch_writer.state_dict(weights))
  ).weights
  assert plain.keys() == weights.keys()


@pytest.mark.parametrize('name', SPECS)
def test_a_file_becomes_a_checkpoint(name, tmp_path, tiny_config):
  weights = weights_of(name)
  extra = {'auxiliary_head.conv_seg.weight': np.ones((2, 3)), 'data_preprocessor.mean': np.ones(3)}
  file = write_legacy(tmp_path / 'x.pth', checkpoint(weights | extra))
  arguments = ['mmseg', str(file), '--config', tiny_config(SPECS[name])]
  assert command.main([*arguments, '--out', str(tmp_path / 'run')]) == 0
  with checkpoints.Checkpoints(tmp_path / 'run' / 'checkpoints') as saved:
    state, meta = saved.restore(0, None)
  assert meta['data']['num_classes'] == len(weights['decode_head.conv_seg.bias'])
  want = imported(name, weights)
  jax.tree.map(np.testing.assert_array_equal, state['net']['params'], want['params'])


@pytest.mark.parametrize('name', SPECS)
def test_every_name_has_a_place(name):
  numbered = {n: np.full(s, i) for i, (n, s) in enumerate(manifest_of(name).items())}
  places = imported(name, numbered)
  numbers = {int(np.ravel(leaf)[0]) for leaf in jax.tree.leaves(places)}
  assert numbers == set(range(len(numbered)))


def shaped(manifest):
  return {n: np.broadcast_to(np.float32(0), s) for n, s in manifest.items()}


def test_the_variant_of_a_segformer_is_recognised():
  names = {}
  for k, (width, depth) in enumerate(zip((64, 128, 320, 512), (3, 8, 27, 3), strict=True)):
    names[f'backbone.layers.{k}.0.projection.weight'] = (width, 1)
    names[f'backbone.layers.{k}.1.{depth - 1}.norm1.weight'] = (width,)
  assert mmseg.segformer_variant(shaped(names)) == 'b4'


@pytest.mark.parametrize(
  ('change', 'spec', 'method', 'message'),
  [
    (lambda w: w | {'odd': np.ones(2)}, None, 'supervised', 'odd (2,): no place for it'),
    (lambda w: w, dict(features=8), 'supervised', 'weights do not fit'),
    (lambda w: w, 'segnet', 'supervised', "the config trains 'segnet'\n  without --config"),
    (lambda w: w, None, 'mose', "the config trains 'mose'\n  without --config"),
    (
      lambda w: {'a': np.ones(2)},
      None,
      'supervised',
      (
        'is no segmenter as mmsegmentation names its parts: its names begin with a\n'
        '  an architecture of your own cannot be imported: save its softmax as files'
      ),
    ),
  ],
)
def test_mistakes_leave_no_folder(change, spec, method, message, tmp_path, capsys, tiny_config):
  file = write_legacy(tmp_path / 'x.pth', checkpoint(change(weights_of('segformer_mmseg'))))
  other = isinstance(spec, str)
  config = tiny_config(
    dict(name=spec) if other else SPECS['segformer_mmseg'] | (spec or {}), method
  )
  arguments = ['mmseg', str(file), '--config', config, '--out', str(tmp_path / 'run')]
  assert command.main(arguments) == 2
  assert message in capsys.readouterr().err
  assert not (tmp_path / 'run').exists()


class Foreign:
  pass


def test_files_that_are_none(tmp_path):
  weights = weights_of('deeplabv3plus_basic')
  whole = write_legacy(tmp_path / 'x.pth', checkpoint(weights)).read_bytes()
  for share in (0.001, 0.1, 0.4, 0.99):
    (tmp_path / 'short.pth').write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match='cut short'):
      mmseg.opened(tmp_path / 'short.pth')
  with pytest.raises(UserError, match='no file'):
    mmseg.opened(tmp_path / 'none.pth')
  (tmp_path / 'short.pth').write_bytes(b'')
  with pytest.raises(UserError, match='short.pth is empty'):
    mmseg.opened(tmp_path / 'short.pth')
  torch_writer.write_zip(tmp_path / 'list.pth', [1, 2])
  with pytest.raises(UserError, match='holds no table of weights'):
    mmseg.opened(tmp_path / 'list.pth')
  for write in (write_legacy, torch_writer.write_zip):
    content = checkpoint(weights)
    content['state_dict']['odd'] = Foreign()
    with pytest.raises(UserError, match=r'odd is a .*Foreign.*\n.*with torch'):
      mmseg.opened(write(tmp_path / 'foreign.pth', content))


def test_a_runner_s_checkpoint_is_read_without_the_rest(tmp_path):
  weights = weights_of('deeplabv3plus_basic')
  content = checkpoint(weights) | {'message_hub': {'loss': Foreign()}, 'optimizer': Foreign()}
  for write in (write_legacy, torch_writer.write_zip):
    found = mmseg.opened(write(tmp_path / 'iter_80000.pth', content)).weights
    assert found.keys() == weights.keys()


def nvlabs(weights):
  """Weights in transformers' names -> those of NVlabs' SegFormer."""
  kinds = {'layer_norm_1': 'norm1', 'layer_norm_2': 'norm2', 'attention.self.query': 'attn.q'}
  kinds |= {'attention.self.key': 'attn.kv', 'attention.output.dense': 'attn.proj'}
  kinds |= {'attention.self.sr': 'attn.sr', 'attention.self.layer_norm': 'attn.norm'}
  kinds |= {'mlp.dense': 'mlp.fc', 'decode_head.batch_norm': 'decode_head.linear_fuse.bn'}
  kinds |= {'head.linear_fuse.weight': 'head.linear_fuse.conv.weight', 'classifier': 'linear_pred'}
  count = lambda text: lambda m: text.format(int(m[1]) + 1)
  found = {}
  for name, value in weights.items():
    if 'self.value' in name:
      continue
    if 'self.key' in name:
      value = np.concatenate([value, weights[name.replace('self.key', 'self.value')]])
    norms = r'encoder\.patch_embeddings\.(\d)\.layer_norm'
    name = re.sub(norms, count('backbone.patch_embed{}.norm'), name.removeprefix('segformer.'))
    name = re.sub(r'encoder\.patch_embeddings\.(\d)', count('backbone.patch_embed{}'), name)
    name = re.sub(r'encoder\.layer_norm\.(\d)', count('backbone.norm{}'), name)
    name = re.sub(r'encoder\.block\.(\d)', count('backbone.block{}'), name)
    name = re.sub(r'linear_c\.(\d)', count('linear_c{}'), name)
    for theirs, ours in kinds.items():
      name = name.replace(theirs, ours)
    found[name] = value
  unused = {'decode_head.conv_seg.weight': np.ones((6, 9, 1, 1))}  # of a class NVlabs derive from
  return found | unused


def config_of(tmp_path, tiny_config, **spec):
  spec = SPECS['segformer_mmseg'] | {'features': 0} | spec
  return configs.load(tiny_config(spec))


def test_nvlabs_names(tmp_path, tiny_config):
  weights = weights_of('segformer_huggingface')
  assert 'backbone.block1.0.attn.kv.weight' in nvlabs(weights)
  file = write_legacy(tmp_path / 'x.pth', checkpoint(nvlabs(weights)))
  config = config_of(tmp_path, tiny_config)
  state, data = mmseg.opened(file).state(config)
  assert data['num_classes'] == 6
  model = config.method.model
  assert (model.features, model.normed_projections) == (12, False)
  assert (model.norm_epsilon, model.embed_epsilon) == (1e-6, 1e-5)
  want = mit.to_variables('segformer', weights)
  jax.tree.map(np.testing.assert_array_equal, state.net.variables, want)


def test_the_width_of_the_head_is_the_file_s(tmp_path, tiny_config):
  file = write_legacy(tmp_path / 'x.pth', checkpoint(weights_of('segformer_mmseg')))
  config = config_of(tmp_path, tiny_config)
  state, _ = mmseg.opened(file).state(config)
  assert config.method.model.features == 16
  assert state.net.params['fuse']['conv']['kernel'].shape[-1] == 16


@pytest.mark.parametrize('order', [('model.', 'ema_model.'), ('ema_model.', 'model.')])
@pytest.mark.parametrize('outer', ['', 'module.', 'model.'])
def test_of_a_student_and_its_average_the_average_is_taken(tmp_path, capsys, order, outer):
  weights = weights_of('deeplabv3plus_basic')
  parts = {'model.': {n: w + 1 for n, w in weights.items()}, 'ema_model.': weights}
  both = {outer + p + n: w for p in order for n, w in parts[p].items()}
  both |= {f'{outer}imnet_model.{n}': w for n, w in weights.items()}
  found = mmseg.opened(write_legacy(tmp_path / 'x.pth', checkpoint(both))).weights
  assert found.keys() == weights.keys()
  for name, value in weights.items():
    np.testing.assert_array_equal(found[name], value)
  out = capsys.readouterr().out
  assert 'under ema_model. are taken' in out
  assert f'{len(weights)} weights under model., {len(weights)} weights under imnet_model.' in out


@pytest.mark.parametrize('outer', ['model.', 'module.model.', 'model.module.'])
def test_what_wraps_a_model_is_taken_off(tmp_path, outer):
  weights = weights_of('deeplabv3plus_basic')
  named = {outer + n: w for n, w in weights.items()}
  assert (
    mmseg.opened(write_legacy(tmp_path / 'x.pth', checkpoint(named))).weights.keys()
    == weights.keys()
  )


@pytest.mark.parametrize(
  ('names', 'message'),
  [
    (['patch_embed1.proj.weight', 'head.weight'], r'encoder alone .*NVlabs.*\n  give the file'),
    (['layers.0.0.projection.weight'], r'encoder alone .*mmsegmentation\n  give the file'),
    (['backbone.layers.0.0.projection.weight'], r'MixVisionTransformer, without decode_head'),
    (
      ['backbone.patch_embed1.proj.weight', 'decode_head.embed_layers.0.proj.weight'],
      r"DAFormer's head.*\n  give a SegFormer",
    ),
    (
      ['segformer.encoder.patch_embeddings.0.proj.weight', 'decode_head.classifier.weight'],
      'import huggingface',
    ),
    (['layer1.0.conv1.weight'], 'import torchvision'),
    (['decode_head.conv_seg.weight'], 'a segmenter of mmsegmentation\n.*where it has its backbone'),
    (['zebra', 'ant'], 'its names begin with ant, zebra'),
  ],
)
def test_files_without_a_place_are_named(tmp_path, tiny_config, names, message):
  weights = {name: np.ones((2, 2, 1, 1), np.float32) for name in names}
  file = write_legacy(tmp_path / 'x.pth', checkpoint(weights))
  with pytest.raises(UserError, match=message):
    mmseg.opened(file).state(config_of(tmp_path, tiny_config))


@pytest.mark.parametrize('shape', [(), (0, 3), (2**17, 1), (5,)])
def test_a_head_of_no_classes(tmp_path, tiny_config, shape):
  weights = weights_of('segformer_mmseg') | {'decode_head.conv_seg.weight': np.zeros(shape)}
  file = write_legacy(tmp_path / 'x.pth', checkpoint(weights))
  with pytest.raises(UserError, match='is no segmenter|more rows|do not fit'):
    mmseg.opened(file).state(config_of(tmp_path, tiny_config))


def test_a_full_disk_leaves_no_folder(tmp_path, tiny_config, monkeypatch, capsys):
  def full(*_, **__):
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(checkpoints.Checkpoints, 'save', full)
  file = write_legacy(tmp_path / 'x.pth', checkpoint(weights_of('deeplabv3plus_basic')))
  arguments = ['mmseg', str(file), '--config', tiny_config(SPECS['deeplabv3plus_basic'])]
  out = tmp_path / 'out' / 'run'
  assert command.main([*arguments, '--out', str(out)]) == 2
  assert 'No space left' in capsys.readouterr().err
  assert not list(tmp_path.glob('out/*'))


def test_a_folder_of_other_files_is_left_alone(tmp_path, capsys):
  (tmp_path / 'photos').mkdir()
  (tmp_path / 'photos' / 'a.png').write_bytes(b'x')
  assert command.main(['mmseg', 'x.pth', '--out', str(tmp_path / 'photos')]) == 2
  assert 'holds other files' in capsys.readouterr().err
