"""SETR's heads (arXiv 2012.15840) on a vision transformer, laid out as mmsegmentation trains them.

They depart from the paper in a layer norm before the naive and the progressive head, for want of
one after the transformer; and the naive head gives a quarter of the image's size, not all of it.
"""

from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from car_jax.nn.composed import Head
from car_jax.nn.layers import NormedConv, layer_norm
from car_jax.nn.resize import resize_bilinear
from car_jax.options import Depth, Index, Share, Width
from car_jax.typing import Array


class SETRUpHead(Head):
  """One map, normed, then convolutions of which each is followed by upsampling.

  Four of 3 x 3 that double the size are the progressive head, PUP; one of 1 x 1 and a `scale` of 4
  the naive one.
  """

  features: Width = 256
  """Channels inside the head."""
  convolutions: Depth = 4
  """How many convolutions, with norm and ReLU."""
  scale: Width = 2
  """How many times as large each of them makes the map."""
  kernel: Literal[1, 3] = 3
  """Pixels on each side of a convolution's kernel."""
  epsilon: Share = 1e-6
  """Epsilon of the layer norm."""
  index: Index = -1
  """Which map is read."""

  @nn.compact
  def __call__(self, maps: Sequence[Array], *, train: bool) -> Array:
    (x,) = self.chosen(maps, [self.index])
    x = layer_norm('norm', self.epsilon, self.dtype)(x)
    for i in range(self.convolutions):
      unit = NormedConv(self.features, self.kernel, dtype=self.dtype, name=f'up{i}')
      x = enlarged(unit(x, train=train), self.scale, self.align_corners)
    return self.classified(x, train=train)


class SETRMLAHead(Head):
  """Two convolutions for each map and upsampling; all are joined. Reads what a MLANeck gives."""

  features: Width = 128
  """Channels of each map inside the head."""
  scale: Width = 4
  """How many times as large maps become."""
  indices: tuple[Index, ...] = ()
  """Which maps are read; empty for all."""

  @nn.compact
  def __call__(self, maps: Sequence[Array], *, train: bool) -> Array:
    joined = []
    for i, x in enumerate(self.chosen(maps, self.indices) if self.indices else maps):
      for j in (0, 1):
        unit = NormedConv(self.features, 3, dtype=self.dtype, name=f'level{i}_conv{j}')
        x = unit(x, train=train)
      joined.append(enlarged(x, self.scale, self.align_corners))
    return self.classified(jnp.concatenate(joined, -1), train=train)


def enlarged(x: Array, scale: int, align_corners: bool) -> Array:
  """[B, h, w, D] -> [B, scale h, scale w, D]"""
  h, w = x.shape[1:3]
  return resize_bilinear(x, (scale * h, scale * w), align_corners=align_corners)
