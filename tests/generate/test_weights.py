"""Folders of weights in every layout, and reports of what does not fit."""

import json
import pathlib
import shutil

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from car_jax.errors import UserError
from car_jax.generate import weights
from car_jax.generate.clip_text import ClipText
from car_jax.generate.vae import VAE
from tests.importers import torch_writer

PIPELINE = pathlib.Path('tests/golden/diffusers/pipeline')
TEXT = ClipText(20, 7, 4, 8, 1, 2)
AUTOENCODER = VAE(block_out_channels=(2, 4), layers_per_block=1, norm_num_groups=2)


def random(net):
  rng = np.random.default_rng(0)
  draw = lambda a: rng.standard_normal(a.shape).astype(np.float32)
  return jax.tree.map(draw, weights.template(net))


@pytest.fixture
def folder(tmp_path):
  """A text encoder as we save it."""
  weights.save('text_encoder', tmp_path / 'text', TEXT, random(TEXT))
  return tmp_path / 'text'


def state_of(folder):
  return safetensors.numpy.load_file(folder / 'model.safetensors')


def rewrite(folder, change):
  """The folder's state dict, changed."""
  state = change(state_of(folder))
  safetensors.numpy.save_file(state, folder / 'model.safetensors')
  return state


def same(one, other):
  return jax.tree.all(jax.tree.map(np.array_equal, one, other))


@pytest.mark.parametrize(('kind', 'net'), [('text_encoder', TEXT), ('vae', AUTOENCODER)])
def test_saved_and_loaded_a_net_is_the_same(kind, net, tmp_path):
  params = random(net)
  weights.save(kind, tmp_path / 'net', net, params)
  found, again = weights.load(kind, tmp_path / 'net')
  assert found == net
  assert same(params, again)


def test_layouts_are_torchs(folder):
  params, state = random(TEXT), state_of(folder)
  layer = params['encoder']['layers_0']
  np.testing.assert_array_equal(
    state['text_model.encoder.layers.0.mlp.fc1.weight'], layer['mlp']['fc1']['kernel'].T
  )
  table = params['embeddings']['token_embedding']['embedding']
  np.testing.assert_array_equal(state['text_model.embeddings.token_embedding.weight'], table)
  state = weights.to_torch(random(AUTOENCODER))
  kernel = random(AUTOENCODER)['encoder']['conv_in']['kernel']
  np.testing.assert_array_equal(state['encoder.conv_in.weight'], kernel.transpose(3, 2, 0, 1))


@pytest.mark.parametrize('prefix', ['', 'text_model.'])
def test_clip_with_and_without_prefix_and_positions(folder, prefix):
  positions = {f'{prefix}embeddings.position_ids': np.arange(7)[None]}
  new = lambda name: name.replace('text_model.', prefix)
  rewrite(folder, lambda state: {new(n): a for n, a in state.items()} | positions)
  assert same(weights.load('text_encoder', folder)[1], random(TEXT))


@pytest.mark.parametrize('axes', [2, 4])
def test_the_autoencoders_attention_by_its_old_names(tmp_path, axes):
  params = random(AUTOENCODER)
  weights.save('vae', tmp_path / 'vae', AUTOENCODER, params)
  path = tmp_path / 'vae' / 'diffusion_pytorch_model.safetensors'
  old = {'to_q': 'query', 'to_k': 'key', 'to_v': 'value', 'to_out.0': 'proj_attn'}
  state = {}
  for name, a in safetensors.numpy.load_file(path).items():
    for new, before in old.items():
      if f'attentions.0.{new}.' in name:
        name = name.replace(new, before)
        a = a[:, :, None, None] if axes == 4 and a.ndim == 2 else a
    state[name] = a
  assert sum('proj_attn' in name for name in state) == 4
  safetensors.numpy.save_file(state, path)
  assert same(weights.load('vae', tmp_path / 'vae')[1], params)


def test_half_precision_becomes_what_is_asked_for(folder):
  half = {n: a.astype(np.float16) for n, a in state_of(folder).items()}
  (folder / 'model.safetensors').unlink()
  safetensors.numpy.save_file(half, folder / 'model.fp16.safetensors')
  for dtype in (np.float32, ml_dtypes.bfloat16):
    _, params = weights.load('text_encoder', folder, dtype=dtype)
    wanted = jax.tree.map(lambda a, t=dtype: a.astype(np.float16).astype(t), random(TEXT))
    assert {a.dtype for a in jax.tree.leaves(params)} == {np.dtype(dtype)}
    assert same(params, wanted)
  _, params = weights.load('text_encoder', folder, dtype=None)
  assert {a.dtype for a in jax.tree.leaves(params)} == {np.dtype(np.float16)}


def sharded(folder, **places):
  """Two files and their index; `places`: names that the index puts elsewhere."""
  state = state_of(folder)
  names = sorted(state)
  (folder / 'model.safetensors').unlink()
  table = {n: f'model-0000{1 + (i % 2)}-of-00002.safetensors' for i, n in enumerate(names)}
  for file in {*table.values()}:
    part = {n: state[n] for n, f in table.items() if f == file}
    safetensors.numpy.save_file(part, folder / file)
  index = {'metadata': {}, 'weight_map': table | places}
  (folder / 'model.safetensors.index.json').write_text(json.dumps(index))


def test_several_files_with_an_index(folder):
  sharded(folder)
  assert same(weights.load('text_encoder', folder)[1], random(TEXT))


FIRST = 'model-00001-of-00002.safetensors'


@pytest.mark.parametrize(
  ('places', 'message'),
  [
    ({'more': FIRST}, f'{FIRST} has no more, which .* says it has'),
    ({'more': '../text/model.safetensors'}, "names '../text/model.safetensors', which is no file"),
    ({'more': 'gone.safetensors'}, 'no file .*gone.safetensors'),
    ({'more': 3}, 'its weight_map does not say'),
  ],
)
def test_an_index_that_is_wrong(folder, places, message):
  sharded(folder, **places)
  with pytest.raises(UserError, match=message):
    weights.load('text_encoder', folder)


def test_torchs_own_files_are_read_without_torch(folder):
  state = state_of(folder)
  (folder / 'model.safetensors').unlink()
  path = folder / 'pytorch_model.bin'
  torch_writer.write_zip(path, torch_writer.state_dict(state))
  assert same(weights.load('text_encoder', folder)[1], random(TEXT))


def test_leftovers_on_either_side_are_listed(folder):
  name = 'encoder.layers.0.mlp.fc1.bias'

  def change(state):
    state['text_model.final_layer_norm.bias'] = np.zeros(5, np.float32)
    state['text_projection.weight'] = np.zeros((2, 2), np.float32)
    del state[f'text_model.{name}']
    return state

  rewrite(folder, change)
  with pytest.raises(UserError) as caught:
    weights.load('text_encoder', folder)
  first, *rest = str(caught.value).split('\n')
  assert first == f'{folder / "model.safetensors"}: 3 weights do not fit:'
  assert sorted(line.strip() for line in rest) == [
    f'{name} (8,): not in the file',
    'final_layer_norm.bias: (5,) in the file, (4,) in the network',
    'text_projection.weight (2, 2): not in the network',
  ]


@pytest.mark.parametrize('share', [0.0, 0.3, 0.9, 0.999])
def test_a_file_that_is_cut_short(folder, share):
  path = folder / 'model.safetensors'
  raw = path.read_bytes()
  path.write_bytes(raw[: int(share * len(raw))])
  with pytest.raises(UserError, match='model.safetensors cannot be read as a safetensors file'):
    weights.load('text_encoder', folder)


def test_what_is_missing_is_named(folder, tmp_path):
  with pytest.raises(UserError, match='no folder .*vae, where vae is expected'):
    weights.load('vae', tmp_path / 'vae')
  (folder / 'model.safetensors').rename(folder / 'weights.safetensors')
  with pytest.raises(
    UserError,
    match=r'has no weights; it has car_jax.json, config.json, weights.*\n  model.safetensors, ',
  ):
    weights.load('text_encoder', folder)
  (folder / 'config.json').unlink()
  with pytest.raises(UserError, match='no file .*config.json'):
    weights.load('text_encoder', folder)


@pytest.fixture
def pipeline(tmp_path):
  shutil.copytree(PIPELINE, tmp_path / 'pipeline')
  return tmp_path / 'pipeline'


def edit(path, **changed):
  path.write_text(json.dumps(json.loads(path.read_text()) | changed))


@pytest.mark.parametrize(
  ('file', 'changed', 'message'),
  [
    ('model_index.json', {'_class_name': 'StableDiffusionXLPipeline'}, 'XLPipeline\n(.|\n)*1.x is'),
    ('unet/config.json', {'use_linear_projection': True}, 'use_linear_projection = True'),
    ('unet/config.json', {'in_channels': 8}, 'UNet of 8 input and 4 output'),
    ('text_encoder/config.json', {'hidden_size': 8}, "text encoder's width is 8, .* takes 4"),
    ('text_encoder/config.json', {'vocab_size': 99}, 'more tokens than the text encoder knows'),
    ('tokenizer/tokenizer_config.json', {'model_max_length': 70}, 'length is 70, .* takes 77'),
    (
      'scheduler/scheduler_config.json',
      {'prediction_type': 'sample'},
      "prediction_type = 'sample'",
    ),
  ],
)
def test_a_pipeline_that_does_not_fit_is_refused_before_weights_are_read(
  pipeline, file, changed, message, monkeypatch
):
  edit(pipeline / file, **changed)
  monkeypatch.setattr(weights, 'load', None)
  with pytest.raises(UserError, match=message):
    weights.load_pipeline(pipeline)


def test_a_missing_part_of_a_pipeline_is_named_first(pipeline, monkeypatch):
  shutil.rmtree(pipeline / 'vae')
  monkeypatch.setattr(weights, 'load', None)
  with pytest.raises(UserError, match='no file .*vae/config.json'):
    weights.load_pipeline(pipeline)


def test_names_of_nested_numbers():
  name = weights.torch_name('down_blocks_0/attentions_1/transformer_blocks_0/ff/net_0/proj/kernel')
  assert name == 'down_blocks.0.attentions.1.transformer_blocks.0.ff.net.0.proj.weight'
  assert weights.torch_name('time_embedding/linear_2/bias') == 'time_embedding.linear_2.bias'
  assert weights.torch_name('a/norm1/scale') == 'a.norm1.weight'
