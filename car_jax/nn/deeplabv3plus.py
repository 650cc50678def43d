"""DeepLabV3+ on a dilated ResNet-C (arXiv 1802.02611), laid out as mmsegmentation trains it.

Letters: B images, H x W pixels, C classes.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from car_jax.nn import init
from car_jax.nn.layers import NormedConv, at_least_float32, conv, resize_bilinear
from car_jax.nn.resnet import ResNet, ResNetSegmenter, imagenet_normalised
from car_jax.options import Share, Width
from car_jax.typing import Array


class SeparableUnit(nn.Module):
  """A 3 x 3 unit for each channel, then a 1 x 1 unit; both have their norm and ReLU."""

  features: int
  dilation: int = 1
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    kw = {'depthwise': True, 'dtype': self.dtype, 'name': 'depthwise'}
    x = NormedConv(x.shape[-1], 3, self.dilation, **kw)(x, train=train)
    return NormedConv(self.features, dtype=self.dtype, name='point')(x, train=train)


class SeparableASPP(nn.Module):
  """Image mean, 1 x 1, dilated separable 3 x 3s, in this order; then a plain 3 x 3."""

  features: int
  rates: tuple[int, ...]
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    unit = lambda name, size=1: NormedConv(self.features, size, dtype=self.dtype, name=name)
    pooled = unit('pool')(x.mean((1, 2), keepdims=True), train=train)
    branches = [jnp.broadcast_to(pooled, (*x.shape[:3], self.features))]
    branches.append(unit('point')(x, train=train))
    for i, rate in enumerate(self.rates, 1):
      dilated = SeparableUnit(self.features, rate, self.dtype, name=f'rate{i}')
      branches.append(dilated(x, train=train))
    return unit('project', 3)(jnp.concatenate(branches, -1), train=train)


class DeepLabV3Plus(ResNetSegmenter):
  """[B, H, W, 3] in [-1, 1] -> logits [B, H, W, C] float32, at the input's size.

  The published nets of depth 50 and 101 keep the defaults; that of depth 18 has 128 `features` and
  12 `low_features`. `blocks` overrides the depth's, for small nets. Training leaves out the
  published auxiliary head. Dropout drops whole channels.
  """

  features: Width = 512
  """Channels of the head."""
  low_features: Width = 48
  """Channels that the head keeps of the first stage."""
  rates: tuple[Width, ...] = (12, 24, 36)
  """Dilations of the head."""
  align_corners: bool = True
  """Whether resizing keeps the corner pixels in place, as the weights were trained."""
  dropout: Share = 0.1
  """Share of what is dropped in training."""

  INIT = (
    (r'/head/kernel$', init.small_normal),
    (r'/head/bias$', init.zeros),
    (r'depthwise/conv/kernel$', init.kaiming_fan_in),  # each output sees nine inputs only
    (r'/kernel$', init.kaiming_fan_out),
    *init.TORCH,
  )

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    size = x.shape[1:3]
    kw: dict[str, Any] = {'deep_stem': True, 'low_level': True, 'name': 'backbone'}
    backbone = ResNet(self.depth, 8, self.stem_channels, self.blocks, self.dtype, **kw)
    low, x = backbone(imagenet_normalised(x), train=train)
    self.sow('intermediates', 'backbone_features', x)
    x = SeparableASPP(self.features, self.rates, self.dtype, name='aspp')(x, train=train)
    low = NormedConv(self.low_features, dtype=self.dtype, name='low_level')(low, train=train)
    x = resize_bilinear(x, low.shape[1:3], align_corners=self.align_corners)
    x = jnp.concatenate([x, low], -1)
    for i in (1, 2):
      x = SeparableUnit(self.features, dtype=self.dtype, name=f'decode{i}')(x, train=train)
    x = nn.Dropout(self.dropout, broadcast_dims=(1, 2), deterministic=not train)(x)
    x = conv(self.num_classes, 1, padding=0, dtype=self.dtype, name='head')(x)
    return resize_bilinear(at_least_float32(x), size, align_corners=self.align_corners)
