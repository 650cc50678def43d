"""BiSeNet (arXiv 1808.00897) as mmsegmentation lays it out: a spatial and a context path, fused.

It departs from the paper: maps are projected before attention refines them, a 3 x 3 convolution
follows each sum of the context path, and the fusion's attention has one 1 x 1 convolution with a
batch norm instead of two without.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from car_jax.nn.layers import NormedConv
from car_jax.nn.resize import resize_nearest
from car_jax.nn.resnet import ResNet
from car_jax.options import Depth, Width
from car_jax.typing import Array


class AttentionRefinement(nn.Module):
  """[B, h, w, D] -> [B, h, w, features], each channel weighed by the map's mean."""

  features: int
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    unit = partial(NormedConv, self.features, dtype=self.dtype)
    x = unit(3, name='project')(x, train=train)
    weigh = unit(activation=nn.sigmoid, name='weigh')
    return x * weigh(x.mean((1, 2), keepdims=True), train=train)


class FeatureFusion(nn.Module):
  """Two maps of one size -> [B, h, w, features]: joined, and some channels counted up to twice."""

  features: int
  dtype: Any = None

  @nn.compact
  def __call__(self, *maps: Array, train: bool) -> Array:
    unit = partial(NormedConv, self.features, dtype=self.dtype)
    x = unit(name='join')(jnp.concatenate(maps, -1), train=train)
    return x + x * nn.sigmoid(unit(name='weigh')(x.mean((1, 2), keepdims=True), train=train))


class BiSeNetV1(ResNet):
  """A ResNet as context path, a spatial path beside it -> maps at 1/8, 1/8 and 1/16.

  They are: both paths fused; the context path at 1/8; the same at 1/16.
  """

  depth: int = 18
  """Layers of the context path's ResNet: 18, 34, 50, 101 or 152."""
  spatial_features: tuple[Width, Width, Width, Width] = (64, 64, 64, 128)
  """Channels of the spatial path's convolutions."""
  context_features: Width = 128
  """Channels of the context path's maps."""
  features: Width = 256
  """Channels of the fused map."""
  outputs: tuple[Depth, ...] = (0, 1, 2)
  """Which of the maps it gives, in this order."""

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> tuple[Array, ...]:
    spatial = self._spatial(x, train)
    context, coarse = self._context(super().__call__(x, train=train), train)
    fused = FeatureFusion(self.features, self.dtype, name='fusion')(spatial, context, train=train)
    return self.chosen((fused, context, coarse), self.outputs)

  def _spatial(self, x: Array, train: bool) -> Array:
    shapes = (7, 2), (3, 2), (3, 2), (1, 1)
    for i, (width, (size, stride)) in enumerate(zip(self.spatial_features, shapes, strict=True)):
      unit = NormedConv(width, size, stride=stride, dtype=self.dtype, name=f'spatial{i + 1}')
      x = unit(x, train=train)
    return x

  def _context(self, maps: tuple[Array, ...], train: bool) -> tuple[Array, Array]:
    """The ResNet's maps -> the last two refined, each added to what is coarser, twice as large."""
    width = self.context_features
    unit = partial(NormedConv, width, dtype=self.dtype)
    x = unit(name='global')(maps[-1].mean((1, 2), keepdims=True), train=train)
    sums = []
    for coarse, fine, at in ((maps[3], maps[2], 32), (maps[2], maps[1], 16)):
      refine = AttentionRefinement(width, self.dtype, name=f'refine{at}')
      x = resize_nearest(x + refine(coarse, train=train), fine.shape[1:3])
      x = unit(3, name=f'smooth{at}')(x, train=train)
      sums.append(x)
    return sums[1], sums[0]
