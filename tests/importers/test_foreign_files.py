"""Files that torch and transformers wrote themselves; see tests/importers/torch_files/README.md."""

import functools
import pathlib
import re
import shlex

import jax
import numpy as np
import pytest

from car_jax import registry
from car_jax.errors import UserError
from car_jax.importers import mmseg, spellings, tables, torch_file
from car_jax.importers.safetensors_file import read_safetensors
from car_jax.importers.transformers import mit

GOLDEN = pathlib.Path('tests/importers/torch_files')
STATE = dict(np.load(GOLDEN / 'state.npz'))
SPEC = dict(name='segformer', widths=(4, 8, 6, 8), depths=(1, 2, 1, 1), heads=(1, 2, 3, 4))
SPEC |= dict(features=6, normed_projections=False, norm_epsilon=1e-5)


def weights_of(name):
  path = GOLDEN / name
  return tables.find(path, torch_file.read_saved(path, 'state_dict', 'weights'), 'thing')


@pytest.mark.parametrize('name', sorted(p.name for p in GOLDEN.glob('[mr]*-*.pth')))
def test_weights_are_taken_out_of_whatever_is_around_them(name, capsys):
  found = weights_of(name)
  assert found.keys() == STATE.keys()
  for key, want in STATE.items():
    assert found[key].dtype == want.dtype
    np.testing.assert_array_equal(found[key], want)
  told = capsys.readouterr().out
  if name.startswith('runner'):
    left = "'meta', 'message_hub', 'optimizer', 'param_schedulers'"
    assert told == f"{GOLDEN / name}: 'state_dict' is taken; left: {left}\n"
  elif 'pickle' in name:
    assert "'model' is taken; left: 'epoch'" in told


def test_a_known_key_inside_an_unknown_one_is_found(capsys):
  saved = torch_file.read_saved(GOLDEN / 'bfloat16-zip.pth', 'state_dict', 'weights')
  found = tables.find('x', {'checkpoint': {'state_dict': saved, 'step': 3}, 'epoch': 3}, 'thing')
  assert found.keys() == STATE.keys()
  told = "x: 'checkpoint.state_dict' is taken; left: 'epoch', 'step'\n"
  assert capsys.readouterr().out == told


@pytest.mark.parametrize('kind', ['zip', 'stream'])
def test_bfloat16(kind):
  for key, got in weights_of(f'bfloat16-{kind}.pth').items():
    assert got.dtype.name == ('bfloat16' if STATE[key].dtype.kind == 'f' else 'int64')
    np.testing.assert_allclose(np.float32(got), STATE[key], rtol=2**-8)


@pytest.mark.parametrize('kind', ['zip', 'stream'])
def test_views_of_one_storage(kind):
  found, want = torch_file.read(GOLDEN / f'views-{kind}.pth'), STATE['a.weight']
  np.testing.assert_array_equal(found['whole'], want)
  np.testing.assert_array_equal(found['turned'], want.swapaxes(0, 1))
  np.testing.assert_array_equal(found['part'], want[1:])
  np.testing.assert_array_equal(found['wide'], np.ones(4))
  np.testing.assert_array_equal(found['buffer'], np.ones(2))
  np.testing.assert_array_equal(found['small'], np.zeros(3, np.uint16))


def test_numbers_that_are_not_read_matter_where_they_are_wanted():
  assert weights_of('complex-stream.pth').keys() == STATE.keys()
  with pytest.raises(UserError, match=r'w is a torch\._utils\._rebuild_qtensor') as e:
    weights_of('quantised-zip.pth')
  python, option, code = shlex.split(str(e.value).splitlines()[-1])
  assert (python, option) == ('python', '-c')
  assert str(GOLDEN / 'quantised-zip.pth') in code
  compile(code, 'code', 'exec')


@functools.cache
def program(**spec):
  net = registry.net(SPEC | spec, num_classes=3)
  return jax.jit(lambda v, x: net.apply(v, x, train=False))


def logits(weights, **spec):
  want = np.load(GOLDEN / 'segformer.npz')
  normalised = np.moveaxis(want['image'], 1, -1)
  image = normalised * [0.229, 0.224, 0.225] + [0.485, 0.456, 0.406]
  variables = mit.to_variables('segformer', weights)
  found = program(**spec)(variables, np.float32(2 * image - 1))
  return np.moveaxis(found, -1, 1), want['logits']


def renamed(weights):
  """NVlabs' names, by the modules of its mix_transformer.py and segformer_head.py."""
  pairs = [
    (r'segformer\.encoder\.patch_embeddings\.(\d)\.proj', r'backbone.patch_embed{}.proj'),
    (r'segformer\.encoder\.patch_embeddings\.(\d)\.layer_norm', r'backbone.patch_embed{}.norm'),
    (r'segformer\.encoder\.layer_norm\.(\d)', r'backbone.norm{}'),
    (r'segformer\.encoder\.block\.(\d)', r'backbone.block{}'),
    (r'decode_head\.linear_c\.(\d)', r'decode_head.linear_c{}'),
  ]
  parts = {'layer_norm_1': 'norm1', 'layer_norm_2': 'norm2', 'attention.self.query': 'attn.q'}
  parts |= {'attention.output.dense': 'attn.proj', 'attention.self.sr': 'attn.sr'}
  parts |= {'attention.self.layer_norm': 'attn.norm', 'mlp.dense': 'mlp.fc'}
  parts |= {'linear_fuse': 'linear_fuse.conv', 'batch_norm': 'linear_fuse.bn'}
  parts |= {'classifier': 'linear_pred'}
  found = {}
  for name, value in weights.items():
    for pattern, to in pairs:
      name = re.sub(pattern, lambda m, to=to: to.format(int(m[1]) + 1), name)
    for part, to in parts.items():
      name = name.replace(part, to)
    found[name] = value
  for name in [n for n in found if 'self.key' in n]:
    joint = np.concatenate([found.pop(name), found.pop(name.replace('.key', '.value'))])
    found[name.replace('attention.self.key', 'attn.kv')] = joint
  unused = {'weight': (3, 6, 1, 1), 'bias': (3,)}  # of a base class that is never called
  return found | {f'decode_head.conv_seg.{k}': np.zeros(s) for k, s in unused.items()}


def test_a_segformer_has_transformers_logits_under_all_its_names():
  of_old = read_safetensors(GOLDEN / 'segformer.safetensors')
  newer = weights_of('segformer.bin')
  assert 'segformer.stages.0.patch_embeddings.proj.weight' in newer
  for weights in (of_old, spellings.from_newer(newer)):
    found, want = logits(weights)
    np.testing.assert_allclose(found, want, atol=2e-6)
  nvlabs = renamed(of_old)
  assert spellings.is_nvlabs(nvlabs)
  back = spellings.from_nvlabs(nvlabs)
  assert back.keys() == of_old.keys()
  for name, value in of_old.items():
    np.testing.assert_array_equal(back[name], value)
  found, want = logits(back, norm_epsilon=1e-6, embed_epsilon=1e-5)
  np.testing.assert_allclose(found, want, atol=1e-3)
  assert np.abs(found - want).max() > 1e-7


def widths_of(head, variant='b2'):
  """Shapes of a B2 whose head is `head` wide, in no memory."""
  from car_jax.nn.segformer import VARIANTS

  of = VARIANTS[variant]
  names = {'decode_head.fusion_conv.conv.weight': (head, 4 * head, 1, 1)}
  names['decode_head.conv_seg.weight'] = (19, head, 1, 1)
  for k, (width, depth) in enumerate(zip(of.widths, of.depths, strict=True)):
    names[f'backbone.layers.{k}.0.projection.weight'] = (width, 3, 3, 3)
    names[f'backbone.layers.{k}.1.{depth - 1}.norm1.weight'] = (width,)
  return {n: np.broadcast_to(np.float32(0), s) for n, s in names.items()}


@pytest.mark.parametrize('head', [256, 768])
def test_the_head_is_as_wide_as_the_file_says(head, monkeypatch):
  """mmsegmentation's is 256 wide in every variant, the paper's 768 from B2 on."""
  from car_jax import config as configs

  config = configs.load('configs/segformer_cityscapes.py:b2')
  monkeypatch.setattr(mmseg, 'supervised_state', lambda *args: args)
  _, config, classes, *_ = mmseg.Checkpoint('x', widths_of(head), {}).state(config)
  assert (config.method.model.features, classes) == (head, 19)
  net = registry.net(config.method.model.to_dict(), num_classes=19)
  assert net.sizes.features == head
