"""config.json of a diffusers folder <-> our networks, and scheduler_config.json -> samplers.

A table says of each class which keys are honoured, with what a file that leaves them out means;
which others may have one value only, that of Stable Diffusion 1.x; and which change no number.
Whatever else a file says is refused by name: a net that ignores it would give other pictures.
"""

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn

from car_jax.errors import UserError, nearest
from car_jax.generate.blocks import PLAIN, Compute
from car_jax.generate.clip_text import ClipText
from car_jax.generate.samplers import NoiseSchedule, Spacing
from car_jax.generate.unet import ControlNet, UNet
from car_jax.generate.vae import VAE
from car_jax.nn.layers import check_divides

MOST, MOST_LAYERS = 2**20, 64  # of any size: a net is not made on the word of a damaged file
DOWN = {True: 'CrossAttnDownBlock2D', False: 'DownBlock2D'}
UP = {True: 'CrossAttnUpBlock2D', False: 'UpBlock2D'}
OURS = {'attention_head_dim': 'num_heads', 'down_block_types': 'attention_levels'}
"""Keys whose field here has another name. attention_head_dim is the number of heads in SD 1.x."""
READ = 'Stable Diffusion 1.x is read: 1.4, 1.5, its inpainting model and their ControlNets'


class Table(NamedTuple):
  """What is known of a class's config.

  honoured: key -> its default. fixed: key -> the values that work, the default first. A list may
  stand for a value that all its entries have.
  """

  class_name: str
  honoured: dict[str, Any]
  fixed: dict[str, tuple[Any, ...]]
  ignored: tuple[str, ...] = ()


_SIZES: dict[str, Any] = dict(
  in_channels=4, block_out_channels=(320, 640, 1280, 1280), layers_per_block=2
)
_SIZES |= dict(cross_attention_dim=1280, attention_head_dim=8, norm_num_groups=32, norm_eps=1e-5)
_SIZES |= dict(down_block_types=(DOWN[True],) * 3 + (DOWN[False],))
_NO, _NONE, _ONE = (False,), (None,), (1,)
_SILU = ('silu', 'swish')
_NET: dict[str, tuple[Any, ...]] = dict(
  use_linear_projection=_NO, class_embed_type=_NONE, addition_embed_type=_NONE
)
_NET |= dict(num_class_embeds=_NONE, projection_class_embeddings_input_dim=_NONE, act_fn=_SILU)
_NET |= dict(transformer_layers_per_block=_ONE, num_attention_heads=_NONE, only_cross_attention=_NO)
_NET |= dict(encoder_hid_dim=_NONE, encoder_hid_dim_type=_NONE, flip_sin_to_cos=(True,))
_NET |= dict(freq_shift=(0,), downsample_padding=_ONE, mid_block_scale_factor=_ONE)
_NET |= dict(mid_block_type=('UNetMidBlock2DCrossAttn',), resnet_time_scale_shift=('default',))
_NET |= dict(addition_time_embed_dim=_NONE)
_UNET: dict[str, tuple[Any, ...]] = dict(
  center_input_sample=_NO, dual_cross_attention=_NO, resnet_skip_time_act=_NO
)
_UNET |= dict(resnet_out_scale_factor=_ONE, time_embedding_type=('positional',))
_UNET |= dict(time_embedding_dim=_NONE, time_embedding_act_fn=_NONE, timestep_post_act=_NONE)
_UNET |= dict(time_cond_proj_dim=_NONE, conv_in_kernel=(3,), conv_out_kernel=(3,))
_UNET |= dict(attention_type=('default',), class_embeddings_concat=_NO, cross_attention_norm=_NONE)
_UNET |= dict(mid_block_only_cross_attention=_NONE, reverse_transformer_layers_per_block=_NONE)
# upcast_attention asks for a softmax in float32, which it always is here.
_UNREAD = ('sample_size', 'dropout', 'upcast_attention', 'addition_embed_type_num_heads')
_VAE: dict[str, Any] = dict(
  in_channels=3, out_channels=3, latent_channels=4, block_out_channels=(64,)
)
_VAE |= dict(layers_per_block=1, norm_num_groups=32, scaling_factor=0.18215)
_CLIP: dict[str, Any] = dict(
  vocab_size=49_408, hidden_size=512, intermediate_size=2_048, num_hidden_layers=12
)
_CLIP |= dict(num_attention_heads=8, max_position_embeddings=77, layer_norm_eps=1e-5)

TABLES = {
  'unet': Table(
    'UNet2DConditionModel',
    _SIZES | dict(out_channels=4, up_block_types=(UP[False],) + (UP[True],) * 3),
    _NET | _UNET,
    _UNREAD,
  ),
  'controlnet': Table(
    'ControlNetModel',
    _SIZES | dict(conditioning_channels=3, conditioning_embedding_out_channels=(16, 32, 96, 256)),
    _NET | dict(controlnet_conditioning_channel_order=('rgb',), global_pool_conditions=_NO),
    _UNREAD,
  ),
  'vae': Table(
    'AutoencoderKL',
    _VAE,
    dict(
      down_block_types=('DownEncoderBlock2D',),
      up_block_types=('UpDecoderBlock2D',),
      act_fn=_SILU,
      shift_factor=_NONE,
      latents_mean=_NONE,
      latents_std=_NONE,
      use_quant_conv=(True,),
      use_post_quant_conv=(True,),
      mid_block_add_attention=(True,),
    ),
    ('sample_size', 'force_upcast'),
  ),
  'text_encoder': Table(
    'CLIPTextModel',
    _CLIP,
    dict(hidden_act=('quick_gelu',), model_type=('clip_text_model',)),
    ('*',),  # transformers writes whatever any of its models may have
  ),
}
MODULES: dict[str, type[nn.Module]] = dict(
  unet=UNet, controlnet=ControlNet, vae=VAE, text_encoder=ClipText
)

_NOISE: dict[str, Any] = dict(
  num_train_timesteps=1_000, beta_start=1e-4, beta_end=0.02, beta_schedule='linear'
)
_NOISE |= dict(steps_offset=0, set_alpha_to_one=False, timestep_spacing='leading')
_EPSILON: dict[str, tuple[Any, ...]] = dict(
  prediction_type=('epsilon',), trained_betas=_NONE, thresholding=_NO
)
_EPSILON |= dict(rescale_betas_zero_snr=_NO)
_SOLVER: dict[str, tuple[Any, ...]] = dict(
  algorithm_type=('dpmsolver++',), solver_order=(2,), solver_type=('midpoint',)
)
_SOLVER |= dict(lower_order_final=(True,), final_sigmas_type=('zero',), euler_at_final=_NO)
_SOLVER |= dict(use_karras_sigmas=_NO, use_exponential_sigmas=_NO, use_beta_sigmas=_NO)
_SOLVER |= dict(use_lu_lambdas=_NO, use_flow_sigmas=_NO, lambda_min_clipped=(-math.inf,))
_SOLVER |= dict(variance_type=_NONE)
# Where a file leaves these out, its class does what is not done here.
_ABSENT = dict(clip_sample=True, skip_prk_steps=False)
# Of other samplers, or of what is refused; files keep the keys of the sampler they were made from.
_LEFT = (*_SOLVER, 'clip_sample', 'skip_prk_steps', 'clip_sample_range', 'sample_max_value')
_LEFT += ('dynamic_thresholding_ratio', 'flow_shift', 'time_shift_type', 'use_dynamic_shifting')
_DDIM = _EPSILON | dict(clip_sample=_NO)
_PNDM = _EPSILON | dict(skip_prk_steps=(True,))
_DPM = _NOISE | dict(timestep_spacing='linspace')
SCHEDULERS = {
  'ddim': Table('DDIMScheduler', _NOISE | dict(set_alpha_to_one=True), _DDIM, _LEFT),
  'pndm': Table('PNDMScheduler', _NOISE, _PNDM, _LEFT),
  'dpmpp_2m': Table('DPMSolverMultistepScheduler', _DPM, _EPSILON | _SOLVER, _LEFT),
}


def settings(table: Table, config: Mapping[str, Any], path: Any) -> dict[str, Any]:
  """The honoured keys' values. Raises UserError for all that cannot be honoured, by name."""
  name = config.get('_class_name', table.class_name)
  if name != table.class_name:
    raise UserError(f'{path} is of a {name}, not a {table.class_name}\n  {READ}')
  wrong = []
  for key, accepted in table.fixed.items():
    value = config.get(key, _ABSENT.get(key, accepted[0]))
    each = value if isinstance(value, list) and value else [value]
    if not all(v in accepted for v in each):
      wrong.append(f'{key} = {value!r:.60}')
  known = {*table.honoured, *table.fixed, *table.ignored}
  if '*' not in table.ignored:
    strange = [k for k in config if not k.startswith('_') and k not in known]
    wrong += [f'{k} = {config[k]!r:.60}' for k in strange if config[k] not in (None, False)]
  if wrong:
    what = f'{path}: not honoured: {", ".join(wrong)}'
    raise UserError(f'{what}\n  {_family(config)}{READ}')
  checked = {}
  for key, default in table.honoured.items():
    checked[key] = _checked(key, config.get(key, default), default, path)
  return checked


def _family(config: Mapping[str, Any]) -> str:
  """What a config is of, where it says so by its sizes."""
  width = config.get('cross_attention_dim')
  if config.get('addition_embed_type') or width == 2_048:
    return 'these are the sizes of Stable Diffusion XL; '
  return 'these are the sizes of Stable Diffusion 2.x; ' if width == 1_024 else ''


def _checked(key: str, value: Any, default: Any, path: Any) -> Any:
  """The value, as the type its default has; a list of equal numbers for one. Raises UserError."""
  if isinstance(value, list) and not isinstance(default, tuple) and len({*map(str, value)}) == 1:
    value = value[0]
  if isinstance(default, tuple):
    if isinstance(value, (list, tuple)) and 0 < len(value) <= MOST_LAYERS:
      return tuple(_checked(key, v, default[0], path) for v in value)
    raise UserError(f'{path}: {key} is {value!r:.60}, no list')
  if isinstance(default, float) and type(value) is int:
    value = float(value)
  good = type(value) is type(default)
  if isinstance(default, (int, float)) and good:
    least = 0 if isinstance(default, bool) or key == 'steps_offset' else 1e-12
    most = MOST_LAYERS if 'layers' in key else MOST
    good = math.isfinite(value) and least <= value <= most
  if not good:
    raise UserError(f'{path}: {key} is {value!r:.60}\n  such as {default!r} is expected; {READ}')
  return value


def module(kind: str, config: Mapping[str, Any], path: Any, compute: Compute = PLAIN) -> Any:
  """The network of one of `TABLES`, of a parsed config.json. Raises UserError."""
  fields = settings(TABLES[kind], config, path)
  if kind in ('unet', 'controlnet'):
    levels, widths = fields['down_block_types'], fields['block_out_channels']
    fields['down_block_types'] = _levels(levels, DOWN, path)
    if len(levels) != len(widths):
      raise UserError(f'{path}: {len(levels)} down_block_types, {len(widths)} block_out_channels')
    up = fields.pop('up_block_types', None)
    if up and _levels(up, UP, path) != fields['down_block_types'][::-1]:
      raise UserError(f'{path}: up_block_types mirror down_block_types; here {", ".join(up)}')
  net = MODULES[kind](**{OURS.get(k, k): v for k, v in fields.items()}, compute=compute)
  _check_divisible(net, path)
  return net


def _levels(names: tuple[str, ...], table: dict[bool, str], path: Any) -> tuple[bool, ...]:
  """Which levels have transformers."""
  if unknown := [n for n in names if n not in table.values()]:
    near = nearest(unknown[0], table.values())
    raise UserError(f'{path}: no block {unknown[0]!r:.60} here\n{near}\n  {READ}')
  return tuple(name == table[True] for name in names)


def _check_divisible(net: nn.Module, path: Any) -> None:
  if isinstance(net, ClipText):
    widths, parts = (net.hidden_size,), [(net.num_attention_heads, 'num_attention_heads')]
  else:
    widths = net.block_out_channels
    parts = [(net.norm_num_groups, 'norm_num_groups')]
    if isinstance(net, (UNet, ControlNet)):
      parts += [(net.num_heads, 'attention_head_dim (the number of heads)'), (2, 'cosine and sine')]
  for width in widths:
    for count, what in parts:
      check_divides(count, width, f'{path}: a width, of {what}')


def of_module(kind: str, net: nn.Module) -> dict[str, Any]:
  """The config.json with which the diffusers library, or transformers, makes this network."""
  table = TABLES[kind]
  entries: dict[str, Any] = {}
  for key in table.honoured:
    if key == 'up_block_types':
      entries[key] = [UP[level] for level in net.attention_levels[::-1]]
    elif key == 'down_block_types':
      entries[key] = [DOWN[level] for level in net.attention_levels]
    else:
      entries[key] = getattr(net, OURS.get(key, key))
  if kind == 'vae':
    levels = len(net.block_out_channels)
    entries['down_block_types'] = ['DownEncoderBlock2D'] * levels
    entries['up_block_types'] = ['UpDecoderBlock2D'] * levels
  entries |= {k: v[0] for k, v in table.fixed.items() if k not in entries and v[0] is not None}
  if kind == 'text_encoder':
    return {'architectures': [table.class_name], **entries}
  return {'_class_name': table.class_name, **entries}


def schedule(
  config: Mapping[str, Any], path: Any, sampler: str | None = None
) -> tuple[NoiseSchedule, str]:
  """A parsed scheduler_config.json -> the noise schedule and the sampler's name in SAMPLERS.

  sampler: a name to take another than the file's, with the file's noise schedule. Raises UserError
  for what cannot be honoured, above all another prediction than that of the noise.
  """
  by_class = {table.class_name: kind for kind, table in SCHEDULERS.items()}
  name = str(config.get('_class_name'))
  kind = sampler or by_class.get(name)
  if kind not in SCHEDULERS:
    known = ', '.join(SCHEDULERS)
    what = f'no sampler {sampler!r}' if sampler else f'{path}: no {name} here'
    raise UserError(f'{what}\n  choose one of: {known}')
  table = SCHEDULERS[kind]
  if by_class.get(name) != kind:  # of another class: what is said of the noise only
    config = {k: v for k, v in config.items() if k in {*_NOISE, *_EPSILON}}
    table = Table(table.class_name, table.honoured, _EPSILON)
  entries = settings(table, config, path)
  for key, choices in (
    ('beta_schedule', ('scaled_linear', 'linear')),
    ('timestep_spacing', typing.get_args(Spacing)),
  ):
    if entries[key] not in choices:
      raise UserError(f'{path}: {key} is {entries[key]!r:.60}\n{nearest(entries[key], choices)}')
  return NoiseSchedule(spacing=entries.pop('timestep_spacing'), **entries), kind


def of_schedule(schedule: NoiseSchedule) -> dict[str, Any]:
  """The scheduler_config.json with which the diffusers library samples by DDIM as we do."""
  entries = dataclasses.asdict(schedule)
  entries['timestep_spacing'], clip = entries.pop('spacing'), entries.pop('clip')
  fixed: dict[str, Any] = {k: v[0] for k, v in SCHEDULERS['ddim'].fixed.items()}
  fixed |= dict(clip_sample=True, clip_sample_range=clip) if clip else {}
  return {'_class_name': SCHEDULERS['ddim'].class_name, **entries, **fixed}
