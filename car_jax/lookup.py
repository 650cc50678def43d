"""Names in configs -> classes, imported when asked for. No decorators, no side effects.

A name is one of a table, or `package.module:Class` for a part of the user's own, which is looked
for where Python looks and in the current folder.
"""

import dataclasses
import importlib
import re
import sys
import traceback
from collections.abc import Mapping
from typing import Any

from car_jax.errors import UserError, nearest, reason

METHODS = {
  'abn': 'car_jax.methods.abn:ABN',
  'car': 'car_jax.methods.car:CAR',
  'car_toy': 'car_jax.methods.car_toy:CARToy',
  'ccdm': 'car_jax.methods.ccdm:CCDM',
  'controlnet': 'car_jax.methods.controlnet:ControlNetTraining',
  'diffusion': 'car_jax.methods.diffusion:Diffusion',
  'flow_matching': 'car_jax.methods.flow_matching:FlowMatching',
  'lts': 'car_jax.methods.lts:LTS',
  'mose': 'car_jax.methods.mose:MoSE',
  'phiseg': 'car_jax.methods.phiseg:PHiSeg',
  'prob_unet': 'car_jax.methods.prob_unet:ProbabilisticUNet',
  'sac': 'car_jax.methods.sac:SAC',
  'ssn': 'car_jax.methods.ssn:SSN',
  'supervised': 'car_jax.methods.supervised:Supervised',
}
NETS = {
  'segnet': 'car_jax.nn.segnet:SegNetCalNet',
  'toy_calnet': 'car_jax.nn.toy_calnet:ToyCalNet',
  'composed': 'car_jax.nn.composed:Composed',
  'deeplabv3': 'car_jax.nn.deeplab:DeepLabV3CalNet',
  'deeplabv3plus': 'car_jax.nn.deeplabv3plus:DeepLabV3Plus',
  'deeplabv2_resnet': 'car_jax.nn.deeplabv2:DeepLabV2ResNet',
  'deeplabv2_vgg': 'car_jax.nn.deeplabv2:DeepLabV2VGG',
  'fcn8s_vgg': 'car_jax.nn.fcn:FCN8sVGG',
  'segformer': 'car_jax.nn.segformer:SegFormer',
  'unet_generator': 'car_jax.nn.unet:UNetGenerator',
  'unet_vae_generator': 'car_jax.nn.unet:UNetVAEGenerator',
  'linear_attention_unet': 'car_jax.nn.linear_attention_unet:LinearAttentionUNet',
  'mose': 'car_jax.nn.mose:MoSENet',
  'guided_unet': 'car_jax.nn.guided_unet:GuidedUNet',
  'phiseg': 'car_jax.nn.phiseg:PHiSegNet',
  'prob_unet': 'car_jax.nn.prob_unet:ProbUNet',
  'unet': 'car_jax.nn.three_conv_unet:UNet',
  'local_temperature': 'car_jax.nn.local_temperature:LocalTemperature',
  'pixel_discriminator': 'car_jax.nn.discriminator:PixelDiscriminator',
}
BACKBONES = {
  'bisenetv1': 'car_jax.nn.bisenetv1:BiSeNetV1',
  'bisenetv2': 'car_jax.nn.bisenetv2:BiSeNetV2',
  'convnext': 'car_jax.nn.convnext:ConvNeXt',
  'icnet': 'car_jax.nn.icnet:ICNet',
  'mit': 'car_jax.nn.segformer:MixTransformer',
  'mobilenetv3': 'car_jax.nn.mobilenetv3:MobileNetV3',
  'resnet': 'car_jax.nn.resnet:ResNet',
  'resnetv2': 'car_jax.nn.resnetv2:ResNetV2',
  'swin': 'car_jax.nn.swin:SwinTransformer',
  'vit': 'car_jax.nn.vit:VisionTransformer',
}
NECKS = {
  'fpn': 'car_jax.nn.fpn:FPN',
  'icnet': 'car_jax.nn.icnet:ICNeck',
  'mla': 'car_jax.nn.mla:MLANeck',
}
HEADS = {
  'ann': 'car_jax.nn.ann:ANNHead',
  'apc': 'car_jax.nn.apc:APCHead',
  'cc': 'car_jax.nn.cc:CCHead',
  'deeplabv3plus': 'car_jax.nn.deeplabv3plus:DeepLabV3PlusHead',
  'fcn': 'car_jax.nn.fcn_head:FCNHead',
  'gc': 'car_jax.nn.gc:GCHead',
  'lraspp': 'car_jax.nn.lraspp:LRASPPHead',
  'mask2former': 'car_jax.nn.mask2former:Mask2FormerHead',
  'maskformer': 'car_jax.nn.maskformer:MaskFormerHead',
  'psp': 'car_jax.nn.psp:PSPHead',
  'segformer': 'car_jax.nn.segformer:SegFormerHead',
  'segmenter': 'car_jax.nn.segmenter:MaskTransformerHead',
  'semfpn': 'car_jax.nn.semfpn:FPNHead',
  'setr_mla': 'car_jax.nn.setr:SETRMLAHead',
  'setr_up': 'car_jax.nn.setr:SETRUpHead',
  'upernet': 'car_jax.nn.uper:UPerHead',
}
DATASETS = {
  'captioned': 'car_jax.generate.captioned:Captioned',
  'fake': 'car_jax.data.fake:Fake',
  'toy_regression': 'car_jax.data.toy_regression:ToyRegression',
}
PREPARED = 'car_jax.data.prepared:Prepared'  # what a data set of any other name is
OPTIMIZERS = {
  'adam': 'car_jax.optim:Adam',
  'adamw': 'car_jax.optim:AdamW',
  'sgd': 'car_jax.optim:SGD',
  'optax': 'car_jax.optim:Optax',
}
TRANSFORMS = {
  'pad': 'car_jax.data.transforms:Pad',
  'centre_crop': 'car_jax.data.transforms:CentreCrop',
  'random_crop': 'car_jax.data.transforms:RandomCrop',
  'resized_crop': 'car_jax.data.transforms:ResizedCrop',
  'rescaled_crop': 'car_jax.data.transforms:RescaledCrop',
  'rescale': 'car_jax.data.transforms:RandomRescale',
  'mirror': 'car_jax.data.transforms:Mirror',
  'mirror_rows': 'car_jax.data.transforms:MirrorRows',
  'rot90': 'car_jax.data.transforms:Rot90',
  'rotate': 'car_jax.data.transforms:Rotate',
}
TABLES = {
  'method': METHODS,
  'net': NETS,
  'backbone': BACKBONES,
  'neck': NECKS,
  'head': HEADS,
  'data set': DATASETS,
  'optimizer': OPTIMIZERS,
  'transform': TRANSFORMS,
  'metric': {},  # metrics/catalogue.py knows ours
}
# What a class of the user's must have, and what is told of one that has not.
PROTOCOLS = {
  'method': (('init', 'step', 'predictors'), 'car_jax.methods.base.Method'),
  'net': (('init', 'apply', 'multiple'), 'car_jax.nn.net.Net, of which it is made'),
  'backbone': (('init', 'apply', 'least'), 'car_jax.nn.composed.Backbone, of which it is made'),
  'neck': (('init', 'apply', 'least'), 'car_jax.nn.composed.Neck, of which it is made'),
  'head': (('init', 'apply', 'least'), 'car_jax.nn.composed.Head, of which it is made'),
  'data set': (('records', 'batch'), 'car_jax.data.options.Data, of which it is made'),
  'optimizer': (('init', 'update'), 'car_jax.optim.Adam'),
  'transform': (('__call__',), 'car_jax.data.transforms.Transform'),
  'metric': (('about', 'state', 'compute'), 'car_jax.metrics.base.Metric, of which it is made'),
}


def find(kind: str, name: str) -> type:
  """The class that a config names. Raises UserError for a name of nothing, with the nearest."""
  table = TABLES[kind]
  if name in table:
    return _imported(table[name])
  if ':' in name:
    return _own(kind, name)
  if kind == 'data set':
    return _imported(PREPARED)
  raise UserError(f'no {kind} {name!r}\n{nearest(name, table)}')


def _imported(place: str) -> type:
  module, _, attribute = place.partition(':')
  return getattr(importlib.import_module(module), attribute)


def _own(kind: str, name: str) -> type:
  """A class of the user's. Raises UserError where there is none, or it is no such part."""
  cls = own(kind, name)
  if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
    raise UserError(f'{kind} {name!r} is no dataclass: its fields would be the options')
  needed, protocol = PROTOCOLS[kind]
  if missing := [n for n in needed if not hasattr(cls, n)]:
    raise UserError(f'{kind} {name!r} has no {missing[0]!r}\n  see {protocol}')
  return cls


def own(kind: str, name: str) -> Any:
  """What `package.module:name` is. Raises UserError where it is not there."""
  module, _, attribute = name.partition(':')
  if '' not in sys.path and '.' not in sys.path:
    sys.path.append('.')  # a script's own folder stands there instead
  try:
    imported = importlib.import_module(module)
  except ModuleNotFoundError as e:
    if e.name not in (module, module.partition('.')[0]):
      raise UserError(f'{kind} {name!r}: {module} needs a module {e.name!r}, not found') from e
    where = f'  it is looked for in the current folder and on PYTHONPATH, as {module}.py'
    raise UserError(f'{kind} {name!r}: no module {module!r}\n{where}') from None
  except Exception as e:  # of the user's own code
    at = traceback.extract_tb(e.__traceback__)[-1]
    where = f'\n  {at.filename}, line {at.lineno}' if '<frozen' not in at.filename else ''
    raise UserError(f'{kind} {name!r}: {module} cannot be imported ({reason(e)}){where}') from e
  if not hasattr(imported, attribute):
    raise UserError(f'{module} has no {attribute!r}\n{nearest(attribute, dir(imported))}')
  return getattr(imported, attribute)


def check_known(config: Any) -> None:
  """Raises UserError where a file names parts of a module that the user has not imported.

  What a file says runs nothing: a config that was read as code has imported its modules.
  """
  if strange := [m for m in own_modules(config) if m not in sys.modules]:
    raise UserError(
      f"it names parts of {strange[0]!r}, a module of its author's that would run here\n"
      f'  if you trust it: --own {strange[0]}'
    )


def own_modules(config: Any) -> list[str]:
  """Modules of the user's that a config names parts of, at any depth."""
  if isinstance(config, Mapping):
    modules = [m for v in config.values() for m in own_modules(v)]
  elif isinstance(config, (list, tuple)):
    modules = [m for v in config for m in own_modules(v)]
  else:
    named = isinstance(config, str) and re.fullmatch(r'([A-Za-z_][\w.]*):[A-Za-z_]\w*', config)
    modules = [named[1]] if named else []
  return sorted({*modules})
