"""The smoke configs with nets of two layers, for tests of what surrounds a net."""

import pathlib

import flax.linen as nn
import jax
import numpy as np

from car_jax import config, loop
from car_jax.data import opening
from car_jax.evaluate import checkpointed
from car_jax.methods.train_state import for_evaluation
from car_jax.nn.deeplabv2 import groups, upsampled
from car_jax.nn.layers import BatchNorm, ConvTranspose2x2, conv
from car_jax.nn.net import Net
from car_jax.nn.unet import NoiseInjector
from car_jax.options import Count, Share, Width


def nothing(net):
  """0, of as many parameters as the net's ballast says."""
  if not net.ballast:
    return 0
  return 0 * net.param('ballast', nn.initializers.normal(), (net.ballast, 1000))[0, 0]


class SmallNet(Net):
  """[B, H, W, 3] in [-1, 1] -> logits (at 1/4 [B, H/4, W/4, C], upsampled [B, H, W, C])."""

  GROUPS = groups('head')

  num_classes: int
  width: Width = 8
  """Channels of the hidden layer."""
  ballast: Count = 0
  """Thousands of parameters that do nothing, for a state that takes long to write."""

  @property
  def multiple(self):
    return 4

  @nn.compact
  def __call__(self, x, *, train, norm_train=None):
    size = x.shape[1:3]
    x = conv(self.width, 4, 4, padding=0, name='stem')(x)
    x = nn.relu(BatchNorm(name='norm')(x, train=train if norm_train is None else norm_train))
    self.sow('intermediates', 'backbone_features', x)
    return upsampled(conv(self.num_classes, name='head')(x) + nothing(self), size)


class SmallBackbone(SmallNet):
  """One whose features are asked for."""

  HAS_FEATURES = True


class SmallGenerator(Net):
  """A generator of two layers: [B, H, W, channels], z [B, N, Z] -> logits [B, N, H, W, C]."""

  num_classes: int
  hidden: Width = 4
  """Channels of both layers."""
  latent: Width = 3
  """Size of the latent."""
  dropout: Share = 0.1
  """Share of what is dropped in training."""
  ballast: Count = 0
  """Thousands of parameters that do nothing."""

  @property
  def multiple(self):
    return 2

  @nn.compact
  def __call__(self, x, z, *, train):
    x = conv(self.hidden, stride=2, name='enc1_conv')(x)
    x = nn.leaky_relu(BatchNorm(name='enc1_norm')(x, train=train), 0.2)[:, None]
    x = ConvTranspose2x2(self.hidden, name='up')(x)
    x = nn.leaky_relu(BatchNorm(name='norm')(x, train=train, updates=z.shape[1]), 0.2)
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    return NoiseInjector(self.num_classes, name='head')(x, z) + nothing(self)


def get_config(variant='supervised'):
  """Of a variant of configs/smoke.py, or atfm: flows from draws of an SSN.

  VARIANT-heavy has a state of about 200 MB.
  """
  variant, _, heavy = variant.partition('-')
  start = config.read('configs/smoke.py:ssn').method if variant == 'atfm' else None
  variant = 'flow_matching' if start else variant
  c = config.read(f'configs/smoke.py:{variant}')
  if variant == 'car':
    c.method.calnet = dict(name='toy_calnet', hidden=4)
    c.method.generator = dict(name='tests.small:SmallGenerator')
  elif variant == 'mose':
    c.method.model.update(widths=(8, 8), experts=2)
  elif variant in ('ccdm', 'flow_matching'):
    c.method.model.update(widths=(4, 4), groups=2, attention=())
    c.method.optim.eps = 1e-5  # for the reason below
    if start:
      c.method.update(all_readers=True, one_channel=True, start=start)
      c.method.optim.eps = 1e-6  # of a mean, whose gradients are small
  elif variant in ('prob_unet', 'phiseg'):
    c.method.model.update(widths=(4, 4))
    c.method.optim.eps = 1e-5  # losses are sums of pixels: so is the rounding of zero gradients
  else:
    c.method.model = dict(
      name='tests.small:SmallBackbone' if variant == 'segformer' else 'tests.small:SmallNet'
    )
  if heavy and variant == 'mose':
    c.method.model.widths = (8, 8, 16, 768)
  elif heavy:
    c.method['generator' if variant == 'car' else 'model'].ballast = 30_000
  return c


def loaded(c) -> checkpointed.Loaded:
  """A model of a config as if it had been trained and read: no array is as it starts."""
  rng = np.random.default_rng(0)
  c = config.complete(c)
  info = opening.open_dataset(c.data).info
  method = loop.build_method(c, info, 8)
  batch = {'image': np.zeros((1, 32, 32, 3), np.float32)}
  if c.method.get('black_box'):
    batch['black_box'] = np.zeros((1, 32, 32), np.int32)
  state = for_evaluation(method.init(0, batch))
  moved = lambda x: x + np.float32(0.1) * rng.random(x.shape, np.float32)
  trained = jax.tree.map(lambda x: moved(x) if x.dtype == np.float32 else x, state)
  return checkpointed.Loaded(pathlib.Path('run'), 3, c, method, trained, info, (32, 32))
