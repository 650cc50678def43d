"""The head of the adaptive pyramid context network (He et al., CVPR 2019, pages 7519 to 7528).

Laid out as mmsegmentation trains it. Letters: B images, h x w places of a feature map, D channels,
S x S bins of a scale.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from car_jax.nn import init
from car_jax.nn.composed import Head
from car_jax.nn.layers import NormedConv, conv
from car_jax.nn.pooling import adaptive_mean
from car_jax.options import Index, Width
from car_jax.typing import Array


class AdaptiveContext(nn.Module):
  """[B, h, w, D] -> [B, h, w, features]: to each place what bins hold, by its affinity to each.

  The affinity is a sigmoid of what the place and the whole map look like: no bin takes any from
  another.
  """

  features: int
  scale: int
  fusion: bool
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    def unit(y, name):
      return NormedConv(self.features, dtype=self.dtype, name=name)(y, train=train)

    bins = unit(adaptive_mean(x, (self.scale, self.scale)), 'pooled')
    bins = bins.reshape(len(x), -1, self.features)
    x = unit(x, 'reduce')
    seen = x + unit(x.mean((1, 2), keepdims=True), 'whole')
    affinity = conv(self.scale**2, 1, padding=0, dtype=self.dtype, name='affinity')(seen)
    y = jnp.einsum('bhws,bsd->bhwd', nn.sigmoid(affinity), bins)
    y = nn.relu(unit(y, 'residual') + x)
    return unit(y, 'fuse') if self.fusion else y


class APCHead(Head):
  """A map beside its adaptive context at several scales, joined by a 3 x 3 convolution."""

  INIT = ((r'/affinity/kernel$', init.torch_default), *Head.INIT)

  scales: tuple[Width, ...] = (1, 2, 3, 6)
  """Bins on each side."""
  fusion: bool = True
  """Whether each scale's context passes another 1 x 1 convolution."""
  index: Index = -1
  """Which map is read."""

  @nn.compact
  def __call__(self, maps: Sequence[Array], *, train: bool) -> Array:
    (x,) = self.chosen(maps, [self.index])
    contexts = []
    for i, scale in enumerate(self.scales):
      shape = self.features, scale, self.fusion, self.dtype
      contexts.append(AdaptiveContext(*shape, name=f'scale{i}')(x, train=train))
    x = jnp.concatenate([x, *contexts], -1)
    x = NormedConv(self.features, 3, dtype=self.dtype, name='bottleneck')(x, train=train)
    return self.classified(x, train=train)
