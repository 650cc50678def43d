"""Big Transfer's ResNetV2 (BiT, arXiv 1912.11370), as timm has it.

Norm and ReLU come before each convolution (arXiv 1603.05027); norms are over groups of channels,
and kernels are standardised (arXiv 1903.10520), so that nothing depends on the batch.
"""

from typing import Any, Literal

import flax.linen as nn
import numpy as np

from car_jax.errors import UserError
from car_jax.nn import init
from car_jax.nn.composed import Backbone
from car_jax.nn.dropout import Dropout
from car_jax.nn.layers import GroupNorm, check_divides, max_pool3, through
from car_jax.nn.standardised import StandardisedConv
from car_jax.options import Depth, Share, Width
from car_jax.typing import Array

GROUPS = 32


class Block(nn.Module):
  """A bottleneck that starts with norm and ReLU; a stage's first one projects its skip."""

  features: int
  stride: int
  dilation: int
  projects: bool
  drop_path: float  # chance that an image skips the branch
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    def activated(x, name):
      return nn.relu(GroupNorm(GROUPS, dtype=self.dtype, name=name)(x))

    def convolved(x, name, features, size=1, stride=1, dilation=1):
      return StandardisedConv(features, size, stride, dilation, self.dtype, name=name)(x)

    inner = self.features // 4
    y = activated(x, 'norm1')
    if self.projects:
      x = convolved(y, 'conv_skip', self.features, 1, self.stride)
    y = convolved(y, 'conv1', inner)
    y = convolved(activated(y, 'norm2'), 'conv2', inner, 3, self.stride, self.dilation)
    y = convolved(activated(y, 'norm3'), 'conv3', self.features)
    return x + Dropout(self.drop_path, broadcast_dims=(1, 2, 3), deterministic=not train)(y)


class ResNetV2(Backbone):
  """[B, H, W, channels] -> the stem's convolution at H/2, then the stages' features from H/4 on.

  No norm comes after a stage: what is given is the sum of its branches. A stage that would go
  beyond `output_stride` is dilated instead of strided, its first block less than the others.
  """

  INIT = ((r'/kernel$', init.kaiming_fan_out),)

  blocks: tuple[Depth, ...] = (3, 4, 6, 3)
  """Blocks of each stage."""
  widths: tuple[Width, ...] = (256, 512, 1024, 2048)
  """Channels of each stage, multiples of 128."""
  stem_channels: Width = 64
  """Channels of the stem."""
  output_stride: Literal[8, 16, 32] = 32
  """Pixels between two places of the last stage."""
  drop_path: Share = 0.0
  """How often an image skips a branch of the last block in training; less before."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if len(self.blocks) != len(self.widths):
      raise UserError(
        f'ResNetV2 has {len(self.blocks)} numbers of blocks and {len(self.widths)} widths\n'
        '  give one of each per stage'
      )
    for width, multiple in ((self.stem_channels, GROUPS), *((w, 4 * GROUPS) for w in self.widths)):
      check_divides(multiple, width, f"channels of ResNetV2's {GROUPS} groups")

  def plan(self) -> list[tuple[int, list[int]]]:
    """Of each stage its stride and the dilations of its blocks."""
    plan, reached, dilation = [], 4, 1
    for k, count in enumerate(self.blocks):
      wanted = 2 if k else 1
      stride = wanted if reached < self.output_stride else 1
      dilation *= wanted // stride
      reached *= stride
      plan.append((stride, [1 if dilation < 4 else 2, *[dilation] * (count - 1)][:count]))
    return plan

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> tuple[Array, ...]:
    x = StandardisedConv(self.stem_channels, 7, 2, dtype=self.dtype, name='stem_conv')(x)
    maps = [x]
    x = max_pool3(x, border=0)  # beyond the map are zeros, though the convolution has no ReLU
    chances = iter(np.linspace(0, self.drop_path, sum(self.blocks)))
    for k, (width, (stride, dilations)) in enumerate(zip(self.widths, self.plan(), strict=True), 1):
      for i, dilation in enumerate(dilations):
        shape = width, 1 if i else stride, dilation, i == 0, float(next(chances)), self.dtype
        x = through(Block(*shape, name=f'stage{k}_block{i}'), x, train=train)
      maps.append(x)
    return tuple(maps)
