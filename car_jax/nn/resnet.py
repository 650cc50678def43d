"""ResNets, dilated instead of strided where dense features are wanted.

Source: arXiv 1512.03385, with a bottleneck's stride on its 3 x 3 convolution, as torchvision has
it, unless `stride_first`. The deep stem, three 3 x 3 convolutions, is ResNet-C of arXiv 1812.01187.
"""

import itertools
from typing import Any, Literal

import flax.linen as nn

from car_jax.errors import UserError, nearest
from car_jax.nn import init
from car_jax.nn.composed import Backbone
from car_jax.nn.layers import BatchNorm, conv, max_pool3, own_array, through
from car_jax.nn.net import Segmenter
from car_jax.options import Count, Depth, Width
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


class ResNet(Backbone):
  """[B, H, W, channels] -> features of the four stages, [B, H/4, W/4, 4 width] to 32 width.

  Below a depth of 50 the blocks are basic ones and the features width to 8 width. Without `strides`
  and `dilations` a stage that would go beyond `output_stride` (8, 16 or 32) is dilated instead of
  strided. A stage's first block has half of its dilation, unless `dilate_first`.

  Three fields give the ResNet of DeepLabv2, with (H + 1) // s + 1 rows of features: `stride_first`
  in bottlenecks, `ceil_pool` (a stem's even output gets one more window), and `dilate_first`.
  """

  INIT = ((r'/kernel$', init.kaiming_fan_out),)

  depth: int = 101
  """Layers: 18, 34, 50, 101 or 152."""
  output_stride: Literal[8, 16, 32] = 32
  """Pixels between two places of the last stage."""
  stem_channels: Width = 64
  """Channels of the stem."""
  blocks: tuple[Depth, ...] = ()
  """Blocks of each stage; empty for the depth's."""
  width: Count = 0
  """Channels of the first stage's 3 x 3 convolutions; 0 for those of the stem."""
  deep_stem: bool = False
  """Three 3 x 3 convolutions as the stem, instead of one of 7 x 7."""
  strides: tuple[Width, ...] = ()
  """Stride of each stage; empty for those that lead to `output_stride`."""
  dilations: tuple[Width, ...] = ()
  """Dilation of each stage; empty for those that belong to `output_stride`."""
  multi_grid: tuple[Width, ...] = ()
  """Dilation of each block of the last stage; empty for the stage's."""
  stride_first: bool = False
  """A bottleneck's stride on its first 1 x 1 convolution instead of the 3 x 3."""
  ceil_pool: bool = False
  """One more window of the stem's pooling where its input is even."""
  dilate_first: bool = False
  """A stage's first block as dilated as the others."""

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

  def entering(self, stage: int, x: Array) -> Array:
    """What a stage sees of the map before it; a derived net may change it."""
    return x

  def plan(self) -> list[tuple[int, list[int]]]:
    """Of each stage its stride and the dilations of its blocks. Raises UserError."""
    counts = self.blocks or BLOCKS.get(self.depth)
    if counts is None:
      raise UserError(f'ResNet of depth {self.depth}\n{nearest(str(self.depth), map(str, BLOCKS))}')
    strided = [min(s, self.output_stride // 4) for s in (1, 2, 4, 8)]  # up to the stage's end
    strides = self.strides or [b // a for a, b in itertools.pairwise([1, *strided])]
    dilations = self.dilations or [2**k // s for k, s in enumerate(strided)]
    grids: list[tuple[int, ...]] = [()] * (len(counts) - 1) + [self.multi_grid]
    if not len(counts) == len(strides) == len(dilations):
      raise UserError(
        f'ResNet has {len(counts)} stages, {len(strides)} strides and {len(dilations)} dilations\n'
        '  give one of each per stage'
      )
    if self.multi_grid and len(self.multi_grid) != counts[-1]:
      raise UserError(
        f'ResNet has {len(self.multi_grid)} dilations in multi_grid and {counts[-1]} blocks in its '
        'last stage\n  give one per block'
      )
    plan = []
    for count, stride, dilation, grid in zip(counts, strides, dilations, grids, strict=True):
      first = dilation if self.dilate_first else max(dilation // 2, 1)
      plan.append((stride, [*(grid or (first, *[dilation] * (count - 1)))][:count]))
    return plan

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> tuple[Array, ...]:
    width, kind = self.width or self.stem_channels, BasicBlock if self.depth < 50 else Bottleneck
    kw: dict[str, Any] = {'stride_first': True} if self.stride_first and kind is Bottleneck else {}
    x = max_pool3(self.stem(x, train), ceil=self.ceil_pool)
    self.sow('intermediates', 'stem', x)
    stages = []
    for k, (stride, dilations) in enumerate(self.plan(), 1):
      x, features = self.entering(k, x), width * 2 ** (k - 1)
      for i, dilation in enumerate(dilations):
        shape = features, stride if i == 0 else 1, dilation, self.dtype
        x = own_array(through(kind(*shape, name=f'stage{k}_block{i}', **kw), x, train=train))
      self.sow('intermediates', f'stage{k}', x)
      stages.append(x)
    return tuple(stages)


class ResNetSegmenter(Segmenter):
  """A net whose backbone is a ResNet."""

  HAS_FEATURES = True

  depth: int = 101
  """Layers of the ResNet: 18, 34, 50 or 101."""
  stem_channels: Width = 64
  """Channels of the first convolution."""
  blocks: tuple[Depth, ...] = ()
  """Blocks of each stage; empty for the depth's."""

  @nn.nowrap
  def resnet(self, **kw: Any) -> ResNet:
    """Its backbone, with an output stride of 8."""
    sizes: dict[str, Any] = {'stem_channels': self.stem_channels, 'blocks': self.blocks}
    kw = {'output_stride': 8, 'dtype': self.dtype, 'name': 'backbone'} | kw
    return ResNet(self.depth, **sizes, **kw)
