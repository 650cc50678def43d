"""ImageNet's weights as torchvision publishes them: starts of encoders, see encoders.py."""

import pathlib
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from car_jax.errors import UserError
from car_jax.importers import encoders, families, sac, tables, torch_file
from car_jax.importers.rules import Rule, Weights, resnet
from car_jax.nn.segnet import SegNetCalNet
from car_jax.nn.vgg import DEPTHS

FEATURES = r'features\.'  # what ConvNeXt, Swin and VGG are made of
HEADS = (r'fc\..*', r'(classifier|heads?)\..*')  # ImageNet's thousand classes


def _vgg(net: Any, weights: Weights) -> list[Rule]:
  convolutions = sum(w.ndim == 4 for name, w in weights.items() if name.startswith('features.'))
  depths = next((d for d in DEPTHS.values() if sum(d) == convolutions), None)
  if depths is None or 'features.1.running_mean' not in weights:
    raise UserError('of the VGGs of torchvision, vgg16_bn and vgg19_bn are read')
  if isinstance(net, SegNetCalNet):
    return sac.vgg(FEATURES, depths, path='enc{0}_conv{1}/{2}', parts=('layer', 'norm'))
  return sac.vgg(FEATURES, depths)


def _convnext(backbone: Any, weights: Weights) -> list[Rule]:
  return families.convnext(
    backbone,
    {
      'depthwise': r'block\.0',
      'norm': r'block\.2',
      'expand': r'block\.3',
      'contract': r'block\.5',
      'scale': 'layer_scale',
    },
    embed=lambda k: rf'{FEATURES}{2 * k}\.{min(k, 1)}',
    embed_norm=lambda k: rf'{FEATURES}{2 * k}\.{1 - min(k, 1)}',
    block=lambda k: rf'{FEATURES}{2 * k + 1}\.(\d+)',
    factors=np.ravel,  # [D, 1, 1] there
  )


def _swin(backbone: Any, weights: Weights) -> list[Rule]:
  return families.swin(
    backbone,
    {
      'norm1': 'norm1',
      'norm2': 'norm2',
      'out': r'attn\.proj',
      **{name: rf'attn\.{name}' for name in ('query', 'key', 'value')},
      'expand': r'mlp\.0',
      'contract': r'mlp\.3',
      'position_bias': r'attn\.relative_position_bias_table',
    },
    patches=rf'{FEATURES}0\.0',
    patches_norm=rf'{FEATURES}0\.2',
    block=lambda k: rf'{FEATURES}{2 * k + 1}\.(\d+)',
    merge=lambda k: rf'{FEATURES}{2 * k + 2}',
  )


def _vit(backbone: Any, weights: Weights) -> list[Rule]:
  return families.vit(
    backbone,
    {
      'norm1': 'ln_1',
      'norm2': 'ln_2',
      'out': r'self_attention\.out_proj',
      **{name: rf'self_attention\.{name}' for name in ('query', 'key', 'value')},
      'expand': r'mlp\.(?:0|linear_1)',
      'contract': r'mlp\.(?:3|linear_2)',
    },
    patches='conv_proj',
    class_token='class_token',
    positions=r'encoder\.pos_embedding',
    last_norm=r'encoder\.ln',
    block=r'encoder\.layers\.encoder_layer_(\d+)',
  )


# The last norm of ConvNeXt and Swin is none of a map's; what ViT has as one, not every net reads.
NAMES = (
  encoders.Names('resnet', r'layer1\.0\.conv1\.weight', lambda *_: resnet(), HEADS),
  encoders.Names('convnext', r'features\.1\.0\.layer_scale', _convnext, HEADS),
  encoders.Names(
    'swin',
    r'features\.1\.0\.attn\.relative_position_bias_table',
    _swin,
    (*HEADS, r'norm\..*', r'.*\.relative_position_index'),
  ),
  encoders.Names('vit', r'conv_proj\.weight', _vit, (*HEADS, r'encoder\.ln\..*')),
  encoders.Names('vgg', r'features\.2\.(weight|bias)|features\.3\.weight', _vgg, HEADS),
)


def opened(path: str | pathlib.Path) -> encoders.Encoder:
  """Raises UserError for what is no file of an encoder of torchvision."""
  content = torch_file.read_saved(path, 'state_dict', 'weights')
  weights = tables.find(path, content, 'file of torchvision')
  return encoders.opened(path, weights, NAMES, 'torchvision')


def to_state(path: str | pathlib.Path, config: ConfigDict) -> tuple[Any, dict[str, Any]]:
  """The config's first state with the file's encoder; see encoders.Encoder.state."""
  return opened(path).state(config)
