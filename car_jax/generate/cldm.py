"""A checkpoint of ControlNet's own training code, which GenVal's is (arXiv 2312.09231).

One file holds UNet, ControlNet, autoencoder and text encoder under the names of that code. Rules
translate them into those of diffusers, from which `weights.fitted` goes on.
"""

import pathlib
import re
from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import numpy as np

from car_jax.errors import UserError, naming
from car_jax.generate import weights
from car_jax.generate.blocks import PLAIN, Compute
from car_jax.generate.clip_text import ClipText
from car_jax.generate.unet import ControlNet, UNet
from car_jax.generate.vae import VAE
from car_jax.importers import tables, torch_file
from car_jax.importers.safetensors_file import read_safetensors

PREFIXES = {
  'model.diffusion_model.': 'unet',
  'control_model.': 'controlnet',
  'first_stage_model.': 'vae',
  'cond_stage_model.transformer.': 'text_encoder',
}
# Tables of the noise schedule, the loss that trained the autoencoder, averages and positions.
IGNORED = re.compile(
  r'[a-z_]*(betas|alphas|cumprod|posterior|lvlb_weights|logvar|scale_factor)[a-z0-9_]*|'
  r'first_stage_model\.loss\..*|model_ema\..*|.*\.position_ids'
)
RESIDUAL = {
  'in_layers.0': 'norm1',
  'in_layers.2': 'conv1',
  'emb_layers.1': 'time_emb_proj',
  'out_layers.0': 'norm2',
  'out_layers.3': 'conv2',
  'skip_connection': 'conv_shortcut',
}
ENDS = {
  'time_embed.0': 'time_embedding.linear_1',
  'time_embed.2': 'time_embedding.linear_2',
  'input_blocks.0.0': 'conv_in',
  'out.0': 'conv_norm_out',
  'out.2': 'conv_out',
  'input_hint_block.0': 'controlnet_cond_embedding.conv_in',
  'input_hint_block.14': 'controlnet_cond_embedding.conv_out',
  'middle_block_out.0': 'controlnet_mid_block',
}
AUTOENCODER = (
  (r'\.norm_out\.', '.conv_norm_out.'),
  (r'\.mid\.block_1\.', '.mid_block.resnets.0.'),
  (r'\.mid\.block_2\.', '.mid_block.resnets.1.'),
  (r'\.mid\.attn_1\.norm\.', '.mid_block.attentions.0.group_norm.'),
  (r'\.mid\.attn_1\.([qkv])\.', r'.mid_block.attentions.0.to_\1.'),
  (r'\.mid\.attn_1\.proj_out\.', '.mid_block.attentions.0.to_out.0.'),
  (r'\.(down|up)\.(\d+)\.block\.', r'.\1_blocks.\2.resnets.'),
  (r'\.(down|up)\.(\d+)\.(?:down|up)sample\.', r'.\1_blocks.\2.\1samplers.0.'),
  (r'\.nin_shortcut\.', '.conv_shortcut.'),
)


def _level(kind: str, k: int, part: int, rest: str, layers: int) -> str:
  """Block k and its part of the way `kind`, of levels with `layers` layers, -> their new names."""
  level, j = divmod(k, layers + 1)
  place = f'{kind}_blocks.{level}'
  if kind == 'down' and j == layers:  # rest begins with op
    return f'{place}.downsamplers.0.conv.{rest.removeprefix("op.")}'
  if part == 0:
    return f'{place}.resnets.{j}.{_residual(rest)}'
  if rest.startswith('conv.'):
    return f'{place}.upsamplers.0.{rest}'
  return f'{place}.attentions.{j}.{rest}'


def _residual(rest: str) -> str:
  layer, _, leaf = rest.rpartition('.')
  return f'{RESIDUAL.get(layer, layer)}.{leaf}'


def _unet(name: str, layers: int) -> str:
  """A name in UNet or ControlNet; one that no rule knows stays as it is."""
  layer, _, leaf = name.rpartition('.')
  if layer in ENDS:
    return f'{ENDS[layer]}.{leaf}'
  if m := re.fullmatch(r'(input|output)_blocks\.(\d+)\.(\d)\.(.+)', name):
    kind, k = ('down', -1) if m[1] == 'input' else ('up', 0)
    return _level(kind, k + int(m[2]), int(m[3]), m[4], layers)
  if m := re.fullmatch(r'middle_block\.([02])\.(.+)', name):
    return f'mid_block.resnets.{int(m[1]) // 2}.{_residual(m[2])}'
  if m := re.fullmatch(r'middle_block\.1\.(.+)', name):
    return f'mid_block.attentions.0.{m[1]}'
  if m := re.fullmatch(r'zero_convs\.(\d+)\.0\.(\w+)', name):
    return f'controlnet_down_blocks.{m[1]}.{m[2]}'
  if m := re.fullmatch(r'input_hint_block\.(\d+)\.(\w+)', name):
    return f'controlnet_cond_embedding.blocks.{int(m[1]) // 2 - 1}.{m[2]}'
  return name


def _autoencoder(name: str, levels: int) -> str:
  """The decoder's levels are counted from the picture there, from the latents here."""
  for pattern, ours in AUTOENCODER:
    name = re.sub(pattern, ours, name)
  turned = lambda m: f'decoder.up_blocks.{levels - 1 - int(m[1])}.'
  return re.sub(r'^decoder\.up_blocks\.(\d+)\.', turned, name)


def translated(names: Iterable[str], layers: int = 2) -> dict[str, tuple[str, str]]:
  """Names of a checkpoint -> component and its name in diffusers, without what is `IGNORED`.

  layers: residual blocks of each level. Raises UserError for names of no component.
  """
  names = [name for name in names if not IGNORED.fullmatch(name)]
  ups = [re.match(r'first_stage_model\.decoder\.up\.(\d+)\.', name) for name in names]
  levels = 1 + max((int(m[1]) for m in ups if m), default=0)
  result, strange = {}, []
  for name in names:
    prefix = next((p for p in PREFIXES if name.startswith(p)), None)
    if prefix is None:
      strange.append(name)
      continue
    rest, kind = name.removeprefix(prefix), PREFIXES[prefix]
    if kind in ('unet', 'controlnet'):
      rest = _unet(rest, layers)
    elif kind == 'vae':
      rest = _autoencoder(rest, levels)
    result[name] = kind, rest
  if strange:
    shown = ', '.join(strange[:5]) + (f' and {len(strange) - 5} more' if strange[5:] else '')
    raise UserError(f'weights of no part of a ControlNet: {shown}')
  return result


def read(path: str | pathlib.Path) -> dict[str, dict[str, np.ndarray]]:
  """Component -> its state dict in the names of diffusers, from .ckpt, .pth or .safetensors.

  Nothing in the file is run. Raises UserError by path.
  """
  path = pathlib.Path(path)
  if path.suffix == '.safetensors':
    state = read_safetensors(path)
  else:
    content = torch_file.read_saved(path, 'state_dict', 'weights')
    state = tables.find(path, content, 'checkpoint of cldm')
  with naming(path):
    names = translated(state)
  states: dict[str, dict[str, np.ndarray]] = {}
  for name, (kind, theirs) in names.items():
    states.setdefault(kind, {})[theirs] = state[name]
  if not states:
    raise UserError(f'{path} has none of {", ".join(PREFIXES)}: it is no cldm checkpoint')
  return states


def load(
  path: str | pathlib.Path,
  nets: dict[str, nn.Module] | None = None,
  *,
  dtype: Any = np.float32,
  compute: Compute = PLAIN,
) -> dict[str, tuple[nn.Module, weights.Params]]:
  """Each component that the file has: its network and parameters.

  nets: networks of other sizes than Stable Diffusion 1.5's, by component. Raises UserError.
  """
  networks = {}
  for kind, state in read(path).items():
    net = (nets or {}).get(kind) or of_15(kind, state, compute)
    networks[kind] = net, weights.fitted(kind, net, state, f'{path}, {kind}', dtype)
  return networks


def of_15(kind: str, state: dict[str, np.ndarray], compute: Compute) -> nn.Module:
  """Stable Diffusion 1.5's network with as many input and hint channels as the file has."""
  channels = lambda name, usual: state[name].shape[1] if name in state else usual
  if kind == 'unet':
    return UNet(in_channels=channels('conv_in.weight', 4), compute=compute)
  if kind == 'controlnet':
    hint = channels('controlnet_cond_embedding.conv_in.weight', 1)
    return ControlNet(conditioning_channels=hint, compute=compute)
  return VAE(compute=compute) if kind == 'vae' else ClipText(compute=compute)
