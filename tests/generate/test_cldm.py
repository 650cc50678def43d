"""A checkpoint of ControlNet's training code: names by rules, read without torch."""

import json
import pathlib

import jax
import numpy as np
import pytest

from car_jax.errors import UserError
from car_jax.generate import cldm, weights
from car_jax.generate.clip_text import ClipText
from tests.importers import torch_writer

GOLDEN = pathlib.Path('tests/golden/genval')
TABLE = json.loads((GOLDEN / 'cldm_to_diffusers.json').read_text())
TEXT = ClipText(20, 7, 4, 8, 1, 2)


def test_every_name_has_the_recorded_place():
  assert {name: list(to) for name, to in cldm.translated(TABLE).items()} == TABLE


def test_buffers_are_left_and_strange_names_refused():
  buffers = ['betas', 'alphas_cumprod_prev', 'sqrt_one_minus_alphas_cumprod', 'logvar']
  buffers += ['posterior_mean_coef1', 'lvlb_weights', 'log_one_minus_alphas_cumprod']
  buffers += ['first_stage_model.loss.discriminator.main.0.weight', 'model_ema.decay']
  buffers += ['cond_stage_model.transformer.text_model.embeddings.position_ids', 'scale_factor']
  assert cldm.translated(buffers) == {}
  with pytest.raises(UserError, match='no part of a ControlNet: conditioner.a, refiner.b'):
    cldm.translated(['conditioner.a', 'refiner.b', 'betas'])


def written(path, state):
  around = {'epoch': 3, 'global_step': 9, 'state_dict': state, 'lr_schedulers': []}
  torch_writer.write_zip(path, around)


def text_state(params):
  prefix = 'cond_stage_model.transformer.text_model.'
  return {f'{prefix}{n}': torch_writer.Tensor(a) for n, a in weights.to_torch(params).items()}


def test_a_checkpoint_is_read_by_components(tmp_path):
  rng = np.random.default_rng(0)
  draw = lambda a: rng.standard_normal(a.shape).astype(np.float32)
  params = jax.tree.map(draw, weights.template(TEXT))
  hint = torch_writer.Tensor(draw(np.zeros((16, 1, 3, 3))))
  state = text_state(params) | {'betas': torch_writer.Tensor(np.zeros(3))}
  written(tmp_path / 'last.ckpt', state | {'control_model.input_hint_block.0.weight': hint})
  found = cldm.read(tmp_path / 'last.ckpt')
  assert {*found} == {'text_encoder', 'controlnet'}
  kernel = found['controlnet']['controlnet_cond_embedding.conv_in.weight']
  assert kernel.shape == (16, 1, 3, 3)
  written(tmp_path / 'text.ckpt', state)
  net, again = cldm.load(tmp_path / 'text.ckpt', {'text_encoder': TEXT})['text_encoder']
  assert net == TEXT
  assert jax.tree.all(jax.tree.map(np.array_equal, params, again))


def test_what_does_not_fit_is_said_of_the_component(tmp_path):
  state = text_state(jax.tree.map(lambda a: np.zeros(a.shape), weights.template(TEXT)))
  state.pop('cond_stage_model.transformer.text_model.final_layer_norm.bias')
  written(tmp_path / 'x.ckpt', state)
  with pytest.raises(UserError, match=r'x.ckpt, text_encoder: 1 weights.*\n.*norm.bias .*not in'):
    cldm.load(tmp_path / 'x.ckpt', {'text_encoder': TEXT})
  written(tmp_path / 'y.ckpt', {'other.weight': torch_writer.Tensor(np.zeros(3))})
  with pytest.raises(UserError, match='y.ckpt: weights of no part of a ControlNet: other.weight'):
    cldm.read(tmp_path / 'y.ckpt')
  written(tmp_path / 'z.ckpt', {'betas': torch_writer.Tensor(np.zeros(3))})
  with pytest.raises(UserError, match='z.ckpt has none of model.diffusion_model'):
    cldm.read(tmp_path / 'z.ckpt')
