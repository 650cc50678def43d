"""ResNets with bottlenecks, dilated instead of strided where dense features are wanted.

Source: arXiv 1512.03385, with the stride on the 3 x 3 convolution, as torchvision has it.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from car_jax.nn.layers import BatchNorm, conv

Array = jax.Array
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class Bottleneck(nn.Module):
  features: int  # of the 3 x 3 convolution; the output has four times as many
  stride: int = 1
  dilation: int = 1
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    def unit(y, name, width, size=1, stride=1, dilation=1):
      pad = dilation if size == 3 else 0
      kw = {'use_bias': False, 'kernel_dilation': dilation, 'dtype': self.dtype}
      y = conv(width, size, stride, pad, name=f'conv{name}', **kw)(y)
      return BatchNorm(name=f'norm{name}')(y, train=train)

    y = nn.relu(unit(x, '1', self.features))
    y = nn.relu(unit(y, '2', self.features, 3, self.stride, self.dilation))
    y = unit(y, '3', 4 * self.features)
    if x.shape != y.shape:
      x = unit(x, '_skip', 4 * self.features, 1, self.stride)
    return nn.relu(x + y)


class ResNet(nn.Module):
  """[B, H, W, channels] -> features [B, H/s, W/s, 32 width], s the output stride (8, 16 or 32).

  `blocks` overrides the depth's, for small nets. `stem_channels`, the first convolution's width, is
  also the width of the first stage.
  """

  depth: int = 101
  output_stride: int = 32
  stem_channels: int = 64
  blocks: tuple[int, ...] = ()
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    width = self.stem_channels
    x = conv(width, 7, 2, 3, use_bias=False, dtype=self.dtype, name='stem_conv')(x)
    x = nn.relu(BatchNorm(name='stem_norm')(x, train=train))
    x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
    stride_so_far, dilation = 4, 1
    for stage, count in enumerate(self.blocks or BLOCKS[self.depth], 1):
      stride = 1 if stage == 1 else 2
      first = dilation  # a stage's first block keeps the dilation of the stage before
      if stride == 2 and stride_so_far == self.output_stride:
        stride, dilation = 1, 2 * dilation
      stride_so_far *= stride
      for i in range(count):
        block = Bottleneck(
          width * 2 ** (stage - 1),
          stride if i == 0 else 1,
          first if i == 0 else dilation,
          self.dtype,
          name=f'stage{stage}_block{i}',
        )
        x = block(x, train=train)
    return x


def imagenet_normalised(x: Array) -> Array:
  """[-1, 1] RGB -> the scale that ImageNet's weights were trained on."""
  mean, std = jnp.array([0.485, 0.456, 0.406]), jnp.array([0.229, 0.224, 0.225])
  return ((x + 1) / 2 - mean) / std
