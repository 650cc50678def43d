"""DeepLabV3+ on a dilated ResNet-C (arXiv 1802.02611), laid out as mmsegmentation trains it.

Letters: B images, H x W pixels, C classes.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from car_jax.nn.composed import Composition, Head
from car_jax.nn.layers import NormedConv
from car_jax.nn.resize import resize_bilinear
from car_jax.nn.resnet import ResNet, ResNetSegmenter
from car_jax.options import Index, Share, Width
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


class DeepLabV3PlusHead(Head):
  """Reads one map, and the first one for detail; logits of the first one's size."""

  low_features: Width = 48
  """Channels that are kept of the first map."""
  rates: tuple[Width, ...] = (12, 24, 36)
  """Dilations of the pyramid's 3 x 3 convolutions."""
  index: Index = -1
  """Which map is read."""

  @nn.compact
  def __call__(self, maps: Sequence[Array], *, train: bool) -> Array:
    aspp = SeparableASPP(self.features, self.rates, self.dtype, name='aspp')
    x, fine = self.chosen(maps, [self.index, 0])
    x = aspp(x, train=train)
    low = NormedConv(self.low_features, dtype=self.dtype, name='low_level')(fine, train=train)
    x = resize_bilinear(x, low.shape[1:3], align_corners=self.align_corners)
    x = jnp.concatenate([x, low], -1)
    for i in (1, 2):
      x = SeparableUnit(self.features, dtype=self.dtype, name=f'decode{i}')(x, train=train)
    return self.classified(x, train=train)


class DeepLabV3Plus(ResNetSegmenter, Composition):
  """The published nets of depth 50 and 101 keep the defaults; that of depth 18 has 128 `features`
  and 12 `low_features`."""

  features: Width = 512
  """Channels of the head."""
  low_features: Width = 48
  """Channels that the head keeps of the first stage."""
  rates: tuple[Width, ...] = (12, 24, 36)
  """Dilations of the head."""
  align_corners: bool = True
  """Whether resizing keeps the corner pixels in place, as the weights were trained."""
  dropout: Share = 0.1
  """Share of what is dropped in training, whole channels at a time."""

  @nn.nowrap
  def parts(self) -> tuple[ResNet, None, DeepLabV3PlusHead]:
    shared: dict[str, Any] = {'dtype': self.dtype, 'align_corners': self.align_corners}
    backbone = self.resnet(deep_stem=True, align_corners=self.align_corners)
    head = self.num_classes, self.features, self.dropout, self.low_features, self.rates
    return backbone, None, DeepLabV3PlusHead(*head, **shared)
