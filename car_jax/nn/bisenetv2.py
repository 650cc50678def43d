"""BiSeNetV2 (arXiv 2004.02147) as mmsegmentation lays it out: detail and semantic branches, fused.

It departs from the paper: a gather-and-expansion layer has a ReLU after its expanding depthwise
convolution, and the context embedding ends with a norm and a ReLU. The booster heads of training
are not here.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from car_jax.errors import UserError
from car_jax.nn import init
from car_jax.nn.composed import Backbone
from car_jax.nn.layers import BatchNorm, NormedConv, conv, max_pool3, through
from car_jax.nn.resize import resize_bilinear
from car_jax.options import Depth, Width
from car_jax.typing import Array


class Stem(nn.Module):
  """[B, H, W, 3] -> [B, H/4, W/4, features]: halved by convolutions and by pooling, joined."""

  features: int
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    d, unit = self.features, partial(NormedConv, dtype=self.dtype)
    x = unit(d, 3, stride=2, name='first')(x, train=train)
    y = unit(d // 2, name='narrow')(x, train=train)
    y = unit(d, 3, stride=2, name='halve')(y, train=train)
    x = jnp.concatenate([y, max_pool3(x)], -1)
    return unit(d, 3, name='fuse')(x, train=train)


class GatherExpansion(nn.Module):
  """A 3 x 3 convolution, `expansion` depthwise filters of each channel, and back, beside x.

  A strided one has a second depthwise convolution, and a separable one beside it.
  """

  features: int
  expansion: int
  stride: int = 1
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    d = x.shape[-1]
    unit = partial(NormedConv, dtype=self.dtype)
    linear = partial(unit, activation=None)
    depthwise = partial(linear, size=3, depthwise=True)
    y = unit(d, 3, name='gather')(x, train=train)
    if self.stride == 1:
      y = nn.relu(depthwise(d * self.expansion, name='depthwise1')(y, train=train))
    else:
      shape = {'stride': self.stride, 'name': 'depthwise1'}
      y = depthwise(d * self.expansion, **shape)(y, train=train)
      y = nn.relu(depthwise(y.shape[-1], name='depthwise2')(y, train=train))
      x = depthwise(d, stride=self.stride, name='skip_depthwise')(x, train=train)
      x = linear(self.features, name='skip_pointwise')(x, train=train)
    return nn.relu(x + linear(self.features, name='contract')(y, train=train))


class ContextEmbedding(nn.Module):
  """The map's mean, normalised and projected, is added to each place; then a 3 x 3 convolution."""

  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    unit = partial(NormedConv, x.shape[-1], dtype=self.dtype)
    mean = BatchNorm(name='norm')(x.mean((1, 2), keepdims=True), train=train)
    return unit(3, name='fuse')(x + unit(name='project')(mean, train=train), train=train)


class GuidedAggregation(nn.Module):
  """detail [B, h, w, D], semantic [B, h/4, w/4, D] -> [B, h, w, D]: each gates the other."""

  align_corners: bool
  dtype: Any = None

  @nn.compact
  def __call__(self, detail: Array, semantic: Array, *, train: bool) -> Array:
    d, size = detail.shape[-1], detail.shape[1:3]
    linear = partial(NormedConv, d, 3, dtype=self.dtype, activation=None)
    enlarged = lambda x: resize_bilinear(x, size, align_corners=self.align_corners)

    def separable(x, name):
      x = linear(depthwise=True, name=f'{name}_depthwise')(x, train=train)
      return conv(d, 1, padding=0, dtype=self.dtype, name=f'{name}_point')(x)

    fine = separable(detail, 'detail')
    fine = fine * nn.sigmoid(enlarged(linear(name='semantic_gate')(semantic, train=train)))
    coarse = linear(stride=2, name='detail_down')(detail, train=train)
    coarse = nn.avg_pool(coarse, (3, 3), (2, 2), ((1, 1), (1, 1)))  # padding counts as zeros
    coarse = coarse * nn.sigmoid(separable(semantic, 'semantic'))
    return NormedConv(d, 3, dtype=self.dtype, name='fuse')(fine + enlarged(coarse), train=train)


class BiSeNetV2(Backbone):
  """[B, H, W, 3] -> maps at 1/8, 1/4, 1/8, 1/16, 1/32: the fused one, then the semantic stages.

  The last widths of both branches are the same.
  """

  INIT = (
    (r'depthwise\d?/conv/kernel$', init.kaiming_fan_in),  # each output sees nine inputs only
    (r'/kernel$', init.kaiming_fan_out),
    (r'_point/bias$', init.zeros),
  )

  detail_features: tuple[Width, Width, Width] = (64, 64, 128)
  """Channels of the detail branch's stages."""
  semantic_features: tuple[Width, Width, Width, Width] = (16, 32, 64, 128)
  """Channels of the semantic branch's stages."""
  expansion: Width = 6
  """How many times as many channels gather-and-expansion layers have inside."""
  outputs: tuple[Depth, ...] = (0, 1, 2, 3, 4)
  """Which of the maps it gives, in this order."""
  corners: bool | None = None
  """Whether resizing inside keeps corner pixels in place; None: as for logits."""

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> tuple[Array, ...]:
    ends = self.detail_features[-1], self.semantic_features[-1]
    if ends[0] != ends[1]:
      raise UserError(
        f"BiSeNetV2's branches end with {ends[0]} and {ends[1]} channels\n  give both the same"
      )
    stages = self._semantic(x, train)
    context = ContextEmbedding(self.dtype, name='context')(stages[-1], train=train)
    corners = self.align_corners if self.corners is None else self.corners
    fuse = GuidedAggregation(corners, self.dtype, name='aggregation')
    maps = fuse(self._detail(x, train), context, train=train), *stages
    return self.chosen(maps, self.outputs)

  def _detail(self, x: Array, train: bool) -> Array:
    unit = partial(NormedConv, size=3, dtype=self.dtype)
    for k, width in enumerate(self.detail_features, 1):
      x = unit(width, stride=2, name=f'detail{k}_conv0')(x, train=train)
      for i in (1,) if k == 1 else (1, 2):
        x = unit(width, name=f'detail{k}_conv{i}')(x, train=train)
    return x

  def _semantic(self, x: Array, train: bool) -> list[Array]:
    first, *widths = self.semantic_features
    stages = [Stem(first, self.dtype, name='stem')(x, train=train)]
    for k, width in enumerate(widths, 2):
      x = stages[-1]
      for i in range(4 if k == 4 else 2):
        shape = width, self.expansion, 2 if i == 0 else 1, self.dtype
        x = through(GatherExpansion(*shape, name=f'stage{k}_block{i}'), x, train=train)
      stages.append(x)
    return stages
