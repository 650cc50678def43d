"""SegFormer's files as Hugging Face writes them, made here byte by byte."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from car_jax import checkpoints
from car_jax import config as configs
from car_jax.errors import UserError
from car_jax.importers import __main__ as command
from car_jax.importers import huggingface
from car_jax.importers.safetensors_file import read_safetensors
from car_jax.importers.transformers import folder, mit
from tests.importers.test_mmseg import tiny_config  # noqa: F401 - a fixture
from tests.importers.torch_writer import state_dict, write_zip
from tests.replay.nets_torch import SPECS, manifest_of, weights_of

NAME = 'segformer_huggingface'
SPEC = SPECS[NAME] | dict(normed_projections=True, norm_epsilon=1e-6)  # as the configs have it
KINDS = {'float32': 'F32', 'bfloat16': 'BF16', 'float16': 'F16', 'bool': 'BOOL'}
KINDS |= {
  f'{sign}int{n}': f'{sign.upper() or "I"}{n}' for sign in ('', 'u') for n in (8, 16, 32, 64)
}


def write_safetensors(path, arrays):
  """An 8-byte length, a JSON header, the numbers of all arrays one after the other."""
  header, numbers = {'__metadata__': {'format': 'pt'}}, b''
  for name, a in arrays.items():
    begin, numbers = len(numbers), numbers + a.tobytes()
    place = [begin, len(numbers)]
    header[name] = dict(dtype=KINDS[a.dtype.name], shape=a.shape, data_offsets=place)
  text = json.dumps(header).encode()
  path.write_bytes(np.uint64(len(text)).tobytes() + text + numbers)
  return path


@pytest.mark.parametrize('kind', ['model.safetensors', 'pytorch_model.bin'])
def test_a_file_becomes_a_checkpoint(kind, tmp_path, tiny_config):  # noqa: F811
  weights = weights_of(NAME)
  if kind.endswith('.bin'):
    file = write_zip(tmp_path / kind, state_dict(weights))
  else:
    file = write_safetensors(tmp_path / kind, weights)
  arguments = ['huggingface', str(file), '--config', tiny_config(SPEC)]
  assert command.main([*arguments, '--out', str(tmp_path / 'run')]) == 0
  with checkpoints.Checkpoints(tmp_path / 'run' / 'checkpoints') as saved:
    state, meta = saved.restore(0, None)
  model = meta['config']['method']['model']
  assert (model['normed_projections'], model['norm_epsilon']) == (False, 1e-5)
  assert meta['data']['num_classes'] == 6
  want = mit.to_variables('segformer', weights)
  jax.tree.map(np.testing.assert_array_equal, state['net']['params'], want['params'])


def test_every_name_has_one_place():
  numbered = {n: np.full(s, i) for i, (n, s) in enumerate(manifest_of(NAME).items())}
  places = mit.to_variables('segformer', numbered)
  numbers = sorted(int(np.ravel(leaf)[0]) for leaf in jax.tree.leaves(places))
  assert numbers == list(range(len(numbered)))


def test_types_and_shapes_of_a_safetensors_file(tmp_path):
  arrays = {k: np.arange(6).reshape(2, 3).astype(jnp.dtype(k)) for k in KINDS}
  arrays |= {'one': np.float32(3).reshape(()), 'empty': np.zeros((0, 2), np.float32)}
  found = read_safetensors(write_safetensors(tmp_path / 'x', arrays))
  assert found.keys() == arrays.keys()
  for name, a in arrays.items():
    assert found[name].dtype == a.dtype
    np.testing.assert_array_equal(found[name], a)


@pytest.mark.parametrize('share', [0, 0.001, 0.2, 0.9])
def test_a_file_that_is_cut_short(share, tmp_path):
  whole = write_safetensors(tmp_path / 'x', weights_of(NAME)).read_bytes()
  (tmp_path / 'x.safetensors').write_bytes(whole[: int(share * len(whole))])
  with pytest.raises(UserError, match='cannot be read as a safetensors file'):
    folder.opened(tmp_path / 'x.safetensors')


def test_files_that_are_none(tmp_path):
  with pytest.raises(UserError, match=r'has no config\.json'):
    folder.opened(tmp_path)
  with pytest.raises(UserError, match='no file'):
    folder.opened(tmp_path / 'x.safetensors')


@pytest.mark.parametrize(
  ('entries', 'numbers', 'message'),
  [
    ({'a': ('F4', [2], [0, 1])}, 1, 'of the number type F4'),
    ({'a': ('F99', [1], [0, 1])}, 1, 'cannot be read'),
    ({'a': ('F32', [1], [-4, 0])}, 4, 'cannot be read'),
    ({'a': ('F32', [2], [0, 8]), 'b': ('F32', [2], [4, 12])}, 12, 'cannot be read'),
    ({'a': ('F32', [2**40], [0, 2**42])}, 8, 'cannot be read'),
    ({'a': ('F32', [2], [0, 4])}, 4, 'cannot be read'),
  ],
)
def test_places_and_types_that_cannot_be(entries, numbers, message, tmp_path):
  keys = ('dtype', 'shape', 'data_offsets')
  header = json.dumps({k: dict(zip(keys, e, strict=True)) for k, e in entries.items()}).encode()
  raw = np.uint64(len(header)).tobytes() + header + bytes(numbers)
  (tmp_path / 'x.safetensors').write_bytes(raw)
  with pytest.raises(UserError, match=message):
    folder.opened(tmp_path / 'x.safetensors')


@pytest.mark.parametrize(
  ('change', 'spec', 'message'),
  [
    (lambda w: w | {'odd': np.float32([1, 2])}, {}, 'odd (2,): no place for it'),
    (lambda w: w, dict(features=9), 'weights do not fit'),
    (lambda w: {'odd': np.float32([1])}, {}, 'is no SegFormer of transformers'),
    (lambda w: w, 'segnet', "the config trains 'segnet'\n  use --config configs/segf"),
  ],
)
def test_mistakes_leave_no_folder(change, spec, message, tmp_path, capsys, tiny_config):  # noqa: F811
  file = write_safetensors(tmp_path / 'x.safetensors', change(weights_of(NAME)))
  config = tiny_config(dict(name=spec) if isinstance(spec, str) else SPEC | spec)
  arguments = ['huggingface', str(file), '--config', config]
  assert command.main([*arguments, '--out', str(tmp_path / 'run')]) == 2
  assert message in capsys.readouterr().err
  assert not (tmp_path / 'run').exists()


def test_the_variant_is_recognised():
  names = {}
  for k, (width, depth) in enumerate(zip((32, 64, 160, 256), (2, 2, 2, 2), strict=True)):
    names[f'segformer.encoder.patch_embeddings.{k}.proj.weight'] = np.zeros((width, 1))
    names[f'segformer.encoder.block.{k}.{depth - 1}.layer_norm_1.weight'] = np.zeros(width)
  assert mit.variant_of(names) == 'b0'
  assert mit.variant_of({}) == ''


def newer(name):
  """A name on disk -> that of transformers' modules since version 5."""
  name = re.sub(r'encoder\.patch_embeddings\.(\d)', r'stages.\1.patch_embeddings', name)
  name = re.sub(r'encoder\.layer_norm\.(\d)', r'stages.\1.layer_norm', name)
  name = re.sub(r'encoder\.block\.(\d)\.(\d+)', r'stages.\1.blocks.\2', name)
  name = re.sub(r'attention\.self\.(q|k|v)(uery|ey|alue)', r'attention.\1_proj', name)
  name = name.replace('attention.output.dense', 'attention.o_proj')
  name = name.replace('self.sr', 'sequence_reduction.sequence_reduction')
  name = name.replace('self.layer_norm', 'sequence_reduction.layer_norm')
  name = name.replace('layer_norm_1', 'layernorm_before').replace('layer_norm_2', 'layernorm_after')
  name = name.replace('mlp.dense', 'mlp.fc')
  return name.replace('head.linear_c.', 'head.linear_projections.')


@pytest.mark.parametrize('prefix', ['', 'module.', 'model.'])
def test_names_of_newer_modules(prefix, tmp_path, tiny_config):  # noqa: F811
  weights = weights_of(NAME)
  named = {prefix + newer(n): w for n, w in weights.items()}
  assert f'{prefix}segformer.stages.0.blocks.0.attention.q_proj.weight' in named
  config = configs.load(tiny_config(SPEC | {'features': 0}))
  state, _ = huggingface.opened(write_zip(tmp_path / 'x.bin', state_dict(named))).state(config)
  want = mit.to_variables('segformer', weights)
  jax.tree.map(np.testing.assert_array_equal, state.net.variables, want)
  assert config.method.model.features == 12
