"""ResNets, dilated instead of strided where dense features are wanted.

Source: arXiv 1512.03385, with a bottleneck's stride on its 3 x 3 convolution, as torchvision has
it, unless `stride_first`. The deep stem, three 3 x 3 convolutions, is ResNet-C of arXiv 1812.01187.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from car_jax.nn.layers import BatchNorm, conv, max_pool3
from car_jax.nn.net import Segmenter
from car_jax.options import Depth, Width
from car_jax.typing import Array

BLOCKS = {
  18: (2, 2, 2, 2),
  34: (3, 4, 6, 3),
  50: (3, 4, 6, 3),
  101: (3, 4, 23, 3),
  152: (3, 8, 36, 3),
}


class Bottleneck(nn.Module):
  features: int  # of the 3 x 3 convolution; the output has four times as many
  stride: int = 1
  dilation: int = 1
  dtype: Any = None
  stride_first: bool = False  # on the first 1 x 1 convolution instead of the 3 x 3

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    def unit(y, name, width, size=1, stride=1, dilation=1):
      pad = dilation if size == 3 else 0
      kw = {'use_bias': False, 'kernel_dilation': dilation, 'dtype': self.dtype}
      y = conv(width, size, stride, pad, name=f'conv{name}', **kw)(y)
      return BatchNorm(name=f'norm{name}')(y, train=train)

    first, second = (self.stride, 1) if self.stride_first else (1, self.stride)
    y = nn.relu(unit(x, '1', self.features, 1, first))
    y = nn.relu(unit(y, '2', self.features, 3, second, self.dilation))
    y = unit(y, '3', 4 * self.features)
    if x.shape != y.shape:
      x = unit(x, '_skip', 4 * self.features, 1, self.stride)
    return nn.relu(x + y)


class BasicBlock(nn.Module):
  """Two 3 x 3 convolutions, of which the first alone is strided and dilated."""

  features: int
  stride: int = 1
  dilation: int = 1
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    def unit(y, name, size=3, stride=1, dilation=1):
      pad = dilation if size == 3 else 0
      kw = {'use_bias': False, 'kernel_dilation': dilation, 'dtype': self.dtype}
      y = conv(self.features, size, stride, pad, name=f'conv{name}', **kw)(y)
      return BatchNorm(name=f'norm{name}')(y, train=train)

    y = nn.relu(unit(x, '1', 3, self.stride, self.dilation))
    y = unit(y, '2')
    if x.shape != y.shape:
      x = unit(x, '_skip', 1, self.stride)
    return nn.relu(x + y)


class ResNet(nn.Module):
  """[B, H, W, channels] -> features [B, H/s, W/s, 32 width], s the output stride (8, 16 or 32).

  Below a depth of 50 the blocks are basic ones and the features 8 width. `blocks` overrides the
  depth's, for small nets. `stem_channels`, the stem's width, is also that of the first stage.
  `low_level` returns (the first stage's features [B, H/4, W/4, 4 or 1 width], the last's).

  Three fields give the ResNet of DeepLabv2, with (H + 1) // s + 1 rows of features: `stride_first`
  in bottlenecks, `ceil_pool` (a stem's even output gets one more window), and `dilate_first` (a
  stage's first block is dilated as the others).
  """

  depth: int = 101
  output_stride: int = 32
  stem_channels: int = 64
  blocks: tuple[int, ...] = ()
  dtype: Any = None
  deep_stem: bool = False
  low_level: bool = False
  stride_first: bool = False
  ceil_pool: bool = False
  dilate_first: bool = False

  def stem(self, x: Array, train: bool) -> Array:
    def unit(x, name, width, size, stride):
      kw = {'use_bias': False, 'dtype': self.dtype}
      x = conv(width, size, stride, size // 2, name=f'stem_conv{name}', **kw)(x)
      return nn.relu(BatchNorm(name=f'stem_norm{name}')(x, train=train))

    width = self.stem_channels
    if not self.deep_stem:
      return unit(x, '', width, 7, 2)
    x = unit(x, '1', width // 2, 3, 2)
    return unit(unit(x, '2', width // 2, 3, 1), '3', width, 3, 1)

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Any:
    width, kind = self.stem_channels, BasicBlock if self.depth < 50 else Bottleneck
    kw: dict[str, Any] = {}
    if self.stride_first and kind is Bottleneck:
      kw = {'stride_first': True}
    x = max_pool3(self.stem(x, train), ceil=self.ceil_pool)
    self.sow('intermediates', 'stem', x)
    low_level, stride_so_far, dilation = x, 4, 1
    for stage, count in enumerate(self.blocks or BLOCKS[self.depth], 1):
      stride = 1 if stage == 1 else 2
      first = dilation  # a stage's first block keeps the dilation of the stage before
      if stride == 2 and stride_so_far == self.output_stride:
        stride, dilation = 1, 2 * dilation
      stride_so_far *= stride
      first = dilation if self.dilate_first else first
      for i in range(count):
        block = kind(
          width * 2 ** (stage - 1),
          stride if i == 0 else 1,
          first if i == 0 else dilation,
          self.dtype,
          name=f'stage{stage}_block{i}',
          **kw,
        )
        x = block(x, train=train)
      self.sow('intermediates', f'stage{stage}', x)
      low_level = x if stage == 1 else low_level
    return (low_level, x) if self.low_level else x


class ResNetSegmenter(Segmenter):
  """A net whose backbone is a ResNet."""

  HAS_FEATURES = True

  depth: int = 101
  """Layers of the ResNet: 18, 34, 50 or 101."""
  stem_channels: Width = 64
  """Channels of the first convolution."""
  blocks: tuple[Depth, ...] = ()
  """Blocks of each stage; empty for the depth's."""


def imagenet_normalised(x: Array) -> Array:
  """[-1, 1] RGB -> the scale that ImageNet's weights were trained on."""
  mean, std = jnp.array([0.485, 0.456, 0.406]), jnp.array([0.229, 0.224, 0.225])
  return ((x + 1) / 2 - mean) / std
