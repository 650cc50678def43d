"""Configs of diffusers' folders: what is honoured, and what is refused by name."""

import json
import pathlib

import pytest

from car_jax.errors import UserError
from car_jax.generate import configs
from car_jax.generate.clip_text import ClipText
from car_jax.generate.samplers import NoiseSchedule
from car_jax.generate.unet import ControlNet, UNet
from car_jax.generate.vae import VAE

NETS = {'unet': UNet(in_channels=9), 'controlnet': ControlNet(conditioning_channels=1)}
NETS |= {'vae': VAE(), 'text_encoder': ClipText()}
# As published with Stable Diffusion 1.5.
SD15 = dict(_class_name='UNet2DConditionModel', _diffusers_version='0.6.0', act_fn='silu')
SD15 |= dict(attention_head_dim=8, block_out_channels=[320, 640, 1280, 1280], in_channels=4)
SD15 |= dict(center_input_sample=False, cross_attention_dim=768, downsample_padding=1)
SD15 |= dict(down_block_types=['CrossAttnDownBlock2D'] * 3 + ['DownBlock2D'], flip_sin_to_cos=True)
SD15 |= dict(freq_shift=0, layers_per_block=2, mid_block_scale_factor=1, norm_eps=1e-5)
SD15 |= dict(norm_num_groups=32, out_channels=4, sample_size=64)
SD15 |= dict(up_block_types=['UpBlock2D'] + ['CrossAttnUpBlock2D'] * 3)
SCHEDULER = dict(_class_name='PNDMScheduler', _diffusers_version='0.6.0', beta_end=0.012)
SCHEDULER |= dict(beta_schedule='scaled_linear', beta_start=0.00085, num_train_timesteps=1000)
SCHEDULER |= dict(set_alpha_to_one=False, skip_prk_steps=True, steps_offset=1, trained_betas=None)
SCHEDULER |= dict(clip_sample=False)


def test_the_published_config_is_the_default():
  assert configs.module('unet', SD15, 'config.json') == UNet()


@pytest.mark.parametrize('kind', NETS)
def test_a_config_written_is_read_as_the_same_net(kind):
  written = json.loads(json.dumps(configs.of_module(kind, NETS[kind])))
  assert configs.module(kind, written, 'config.json') == NETS[kind]


def test_recorded_configs_give_their_sizes():
  found = json.loads(pathlib.Path('tests/golden/genval/configs.json').read_text())
  net = configs.module('controlnet', found['controlnet'], 'configs.json')
  assert net.conditioning_embedding_out_channels == (8, 12, 16, 24)
  assert net.attention_levels == (True, True, False)
  assert (net.num_heads, net.norm_num_groups, net.cross_attention_dim) == (4, 8, 32)
  assert configs.module('text_encoder', found['clip_text'], 'configs.json').num_hidden_layers == 3


SD2 = dict(use_linear_projection=True, cross_attention_dim=1024, attention_head_dim=[5, 10, 20, 20])
SDXL = dict(addition_embed_type='text_time', cross_attention_dim=2048)
SDXL |= dict(transformer_layers_per_block=[1, 2, 10], projection_class_embeddings_input_dim=2816)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (SD2, 'use_linear_projection = True\n.*Stable Diffusion 2.x'),
    (SDXL, r"addition_embed_type = 'text_time'.*transformer_layers.*\n.*Stable Diffusion XL"),
    (dict(class_embed_type='timestep'), "class_embed_type = 'timestep'\n.*1.x is read"),
    (dict(act_fn='gelu'), "act_fn = 'gelu'"),
    (dict(num_attention_heads=8), 'num_attention_heads = 8'),
    (dict(attention_type='gated', new_key=3), "attention_type = 'gated', new_key = 3"),
    (dict(attention_head_dim=[4, 8, 8, 8]), r'attention_head_dim is \[4, 8, 8, 8\]'),
    (
      dict(attention_head_dim=7),
      'a width, of attention_head_dim .*heads.: 320 is no multiple of 7',
    ),
    (dict(norm_num_groups=48), 'a width, of norm_num_groups: 320 is no multiple of 48'),
    (dict(block_out_channels=[32, 2**40]), 'block_out_channels is'),
    (dict(block_out_channels=[]), 'block_out_channels is .*no list'),
    (dict(block_out_channels=[64, 64]), '4 down_block_types, 2 block_out_channels'),
    (dict(layers_per_block='2'), "layers_per_block is '2'"),
    (dict(layers_per_block=10**6), 'layers_per_block is 1000000'),
    (dict(block_out_channels=[32] * 10**4), 'block_out_channels is'),
    (dict(down_block_types=['DownBlok2D'] * 4), "no block 'DownBlok2D' here\n.*: DownBlock2D"),
    (dict(up_block_types=['UpBlock2D'] * 4), 'up_block_types mirror down_block_types'),
    (dict(_class_name='SD3Transformer2DModel'), 'of a SD3Transformer2DModel, not a UNet2D'),
  ],
)
def test_what_cannot_be_honoured_is_refused_by_name(change, message):
  with pytest.raises(UserError, match=message):
    configs.module('unet', SD15 | change, 'unet/config.json')


def test_the_other_parts_refuse_too():
  with pytest.raises(UserError, match='shift_factor = 0.1'):
    configs.module('vae', {'shift_factor': 0.1}, 'config.json')
  with pytest.raises(UserError, match="hidden_act = 'gelu'"):
    configs.module('text_encoder', {'hidden_act': 'gelu', 'anything': 1}, 'config.json')
  wrong = {'controlnet_conditioning_channel_order': 'bgr'}
  with pytest.raises(UserError, match="channel_order = 'bgr'"):
    configs.module('controlnet', wrong, 'config.json')


def test_the_scheduler_of_a_folder():
  assert configs.schedule(SCHEDULER, 'x') == (NoiseSchedule(), 'pndm')
  ddim = SCHEDULER | dict(_class_name='DDIMScheduler', timestep_spacing='trailing')
  assert configs.schedule(ddim, 'x') == (NoiseSchedule(spacing='trailing'), 'ddim')
  assert configs.schedule(SCHEDULER, 'x', 'dpmpp_2m')[1] == 'dpmpp_2m'
  euler = SCHEDULER | dict(_class_name='EulerDiscreteScheduler', interpolation_type='linear')
  assert configs.schedule(euler, 'x', 'ddim') == (NoiseSchedule(), 'ddim')
  plain = dict(_class_name='DDIMScheduler', clip_sample=False)  # what the library takes for granted
  expected = NoiseSchedule(1_000, 1e-4, 0.02, 'linear', 0, True)
  assert configs.schedule(plain, 'x') == (expected, 'ddim')


@pytest.mark.parametrize(
  ('change', 'sampler', 'message'),
  [
    (dict(prediction_type='v_prediction'), None, "prediction_type = 'v_prediction'"),
    (dict(prediction_type='v_prediction'), 'ddim', "prediction_type = 'v_prediction'"),
    (dict(rescale_betas_zero_snr=True), None, 'rescale_betas_zero_snr = True'),
    (dict(skip_prk_steps=False), None, 'skip_prk_steps = False'),
    (dict(_class_name='DDIMScheduler', clip_sample=True), None, 'clip_sample = True'),
    (dict(_class_name='EulerDiscreteScheduler'), None, 'no EulerDiscrete.*\n.*ddim, pndm, dpmpp'),
    ({}, 'heun', "no sampler 'heun'\n.*ddim"),
    (dict(beta_schedule='squaredcos_cap_v2'), None, 'beta_schedule is'),
    (dict(timestep_spacing='leadin'), None, 'timestep_spacing is .leadin.\n.*mean: leading'),
    (dict(_class_name='DPMSolverMultistepScheduler', use_karras_sigmas=True), None, 'use_karras'),
  ],
)
def test_schedulers_that_are_refused(change, sampler, message):
  with pytest.raises(UserError, match=message):
    configs.schedule(SCHEDULER | change, 'scheduler_config.json', sampler)
