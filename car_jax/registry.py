"""Names in configs -> classes, imported when asked for. No decorators, no side effects."""

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

from car_jax.errors import UserError, nearest

METHODS = {
  'abn': 'car_jax.methods.abn:ABN',
  'car': 'car_jax.methods.car:CAR',
  'car_toy': 'car_jax.methods.car_toy:CARToy',
  'lts': 'car_jax.methods.lts:LTS',
  'mose': 'car_jax.methods.mose:MoSE',
  'sac': 'car_jax.methods.sac:SAC',
  'supervised': 'car_jax.methods.supervised:Supervised',
}
NETS = {
  'segnet': 'car_jax.nn.segnet:SegNetCalNet',
  'toy_calnet': 'car_jax.nn.toy_calnet:ToyCalNet',
  'deeplabv3': 'car_jax.nn.deeplab:DeepLabV3CalNet',
  'deeplabv3plus': 'car_jax.nn.deeplabv3plus:DeepLabV3Plus',
  'deeplabv2_resnet': 'car_jax.nn.deeplabv2:DeepLabV2ResNet',
  'deeplabv2_vgg': 'car_jax.nn.deeplabv2:DeepLabV2VGG',
  'fcn8s_vgg': 'car_jax.nn.fcn:FCN8sVGG',
  'segformer': 'car_jax.nn.segformer:SegFormer',
  'unet_generator': 'car_jax.nn.unet:UNetGenerator',
  'unet_vae_generator': 'car_jax.nn.unet:UNetVAEGenerator',
  'mose': 'car_jax.nn.mose:MoSENet',
  'local_temperature': 'car_jax.nn.local_temperature:LocalTemperature',
  'pixel_discriminator': 'car_jax.nn.discriminator:PixelDiscriminator',
}


def build(kind: str, table: Mapping[str, str], spec: Mapping[str, Any], **context: Any) -> Any:
  """An instance of the class that spec['name'] names, from spec's other keys.

  `context` holds what the surroundings know (class count, steps per epoch); a class that has no
  such field does not get it. Raises UserError for an unknown name, or a key that is no field.
  """
  spec = dict(spec)
  name = spec.pop('name', '(none)')
  if name not in table:
    raise UserError(f'no {kind} {name!r}\n{nearest(name, table)}')
  module, _, attribute = table[name].partition(':')
  cls = getattr(importlib.import_module(module), attribute)
  fields = {f.name for f in dataclasses.fields(cls) if f.init and f.name not in ('parent', 'name')}
  if unknown := sorted(spec.keys() - fields):
    raise UserError(f'{kind} {name!r} has no option {unknown[0]!r}\n{nearest(unknown[0], fields)}')
  given = {k: v for k, v in context.items() if k in fields} | spec
  empty = dataclasses.MISSING
  needed = [
    f.name
    for f in dataclasses.fields(cls)
    if f.name in fields and f.default is empty and f.default_factory is empty
  ]
  if missing := [k for k in needed if k not in given]:
    raise UserError(f'{kind} {name!r} needs the option {missing[0]!r}')
  return cls(**given)


def net(spec: Mapping[str, Any], **context: Any) -> Any:
  return build('net', NETS, spec, **context)


def method(spec: Mapping[str, Any], **context: Any) -> Any:
  return build('method', METHODS, spec, **context)
