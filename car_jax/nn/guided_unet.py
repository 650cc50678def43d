"""The U-Net of guided diffusion (Dhariwal & Nichol, NeurIPS 2021), as CCDM and MedFM have it.

It sees a noisy segmentation, the image and the time. Letters: B images, H x W pixels, K channels of
what it gives, C channels of a map, h x w its places.
"""

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from car_jax.errors import UserError
from car_jax.nn import init
from car_jax.nn.attention import attention
from car_jax.nn.denoising import (
  Downsample,
  ResBlock,
  TimeEmbedding,
  Upsample,
  check_sinusoid,
  convolved,
  enlarged,
  sinusoid,
)
from car_jax.nn.layers import (
  GroupNorm,
  at_least_float32,
  check_divides,
  check_multiple,
  dense,
  through,
)
from car_jax.nn.net import Segmenter
from car_jax.options import Count, Positive, Share, Width
from car_jax.typing import Array

EPSILON = 1e-5


class PlacesAttention(nn.Module):
  """Attention of all places to all, added: x [B, h, w, C] -> the same; starts as the identity.

  The projection's columns are, head by head, those of queries, keys and values.
  """

  heads: int
  groups: int
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    b, h, w, c = x.shape
    y = GroupNorm(self.groups, EPSILON, self.dtype, name='norm')(x).reshape(b, h * w, c)
    y = dense(3 * c, dtype=self.dtype, name='qkv')(y)
    y = y.reshape(b, h * w, self.heads, 3, c // self.heads)
    y = attention(*(y[..., k, :] for k in range(3))).reshape(x.shape)
    return x + dense(c, dtype=self.dtype, name='proj_out')(y)


class GuidedUNet(Segmenter):
  """x [B, H, W, K], image [B, H, W, channels], time [B] -> [B, H, W, K] float32, K being
  `num_classes`.

  H and W are multiples of 2 ** (levels - 1). It starts with zeros as its output.
  """

  widths: tuple[Width, ...] = (32, 32, 64, 96, 128)
  """Channels of each level, multiples of `groups`."""
  blocks: Positive = 2
  """Residual blocks of each level on the way down; one more on the way up."""
  attention: tuple[Positive, ...] = (8, 16)
  """How many times smaller than the image maps with attention are; the smallest always has it."""
  head_width: Count = 32
  """Channels of an attention head; 0 for `heads` of them whatever their width."""
  heads: Positive = 1
  """Attention heads, where head_width is 0."""
  groups: Positive = 32
  """Groups of a norm."""
  dropout: Share = 0.0
  """Share of what is dropped in training, in every residual block."""
  scale_shift: bool = False
  """Time scales and shifts normed features, in place of being added before the norm."""
  resampling: Literal['convolution', 'pooling'] = 'convolution'
  """How maps are halved and doubled: by convolutions, or by means and copies of places alone."""
  time_width: Count = 0
  """Size of the sinusoid of time; 0 for the first of `widths`."""

  INIT = (
    (r'/conv2/(kernel|bias)', init.zeros),
    (r'/(proj_out|conv_out)/(kernel|bias)', init.zeros),
    *init.TORCH,
  )

  @property
  def multiple(self) -> int:
    return 2 ** (len(self.widths) - 1)

  def check(self, image: Array) -> None:
    """Raises UserError for sizes that do not fit each other."""
    check_multiple(image.shape, self.multiple, f'a U-Net with {len(self.widths)} levels')
    for width in self.widths:
      check_divides(self.groups, width, 'method.model.widths, of groups')
    check_sinusoid(
      self.time_width or self.widths[0], 'method.model.time_width, or the first of widths,'
    )
    levels = [2**k for k in range(len(self.widths))]
    if lost := [k for k in self.attention if k not in levels]:
      raise UserError(
        f'method.model.attention has {lost[0]}; with {len(levels)} widths, maps are '
        f'{", ".join(map(str, levels))} times smaller\n  leave it out, or add a width'
      )

  def residual(self, level: int, name: str) -> ResBlock:
    size = self.widths[level], self.groups, EPSILON
    return ResBlock(*size, self.dtype, self.scale_shift, self.dropout, name=name)

  def attending(self, level: int, name: str) -> PlacesAttention:
    width = self.widths[level]
    check_divides(self.head_width or self.heads, width, 'method.model.widths, of heads')
    heads = width // self.head_width if self.head_width else self.heads
    return PlacesAttention(heads, self.groups, self.dtype, name=name)

  @nn.compact
  def __call__(self, x: Array, image: Array, time: Array, *, train: bool) -> Array:
    self.check(image)
    last, pooled = len(self.widths) - 1, self.resampling == 'pooling'
    size = self.time_width or self.widths[0]
    seen = sinusoid(time.astype(at_least_float32(x).dtype), size)
    seen = TimeEmbedding(4 * size, self.dtype, name='time_embedding')(seen)

    def block(x: Array, level: int, name: str, *, attends: bool) -> Array:
      x = through(self.residual(level, name), x, seen, train=train)
      return through(self.attending(level, f'{name}_attention'), x) if attends else x

    x = convolved(self.widths[0], 'conv_in', self.dtype)(jnp.concatenate([x, image], -1))
    skips = [x]
    for level in range(last + 1):
      attends = 2**level in self.attention
      for j in range(self.blocks):
        x = block(x, level, f'down{level}_{j}', attends=attends)
        skips.append(x)
      if level < last:
        halved = Downsample(self.dtype, name=f'halved{level}')
        x = nn.avg_pool(x, (2, 2), (2, 2)) if pooled else halved(x)
        skips.append(x)
    x = block(x, last, 'middle0', attends=True)
    x = block(x, last, 'middle1', attends=False)
    for level in reversed(range(last + 1)):
      attends = 2**level in self.attention
      for j in range(self.blocks + 1):
        x = jnp.concatenate([x, skips.pop()], -1)
        x = block(x, level, f'up{level}_{j}', attends=attends)
      if level:
        x = enlarged(x) if pooled else Upsample(self.dtype, name=f'doubled{level}')(x)
    x = nn.silu(GroupNorm(self.groups, EPSILON, self.dtype, name='norm_out')(x))
    return at_least_float32(convolved(self.num_classes, 'conv_out', self.dtype)(x))
