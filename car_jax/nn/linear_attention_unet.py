"""The U-Net of ATFM (flow matching from a segmentation network's draw): linear attention, time.

Letters: B images, H x W pixels, h x w places of a map, P = h w, F channels, T the time's features,
A heads of D numbers, C channels of what flows.

Departs from the release, whose weight standardisation multiplies kernels by their deviation where
it should divide: `multiplied_kernels` does as it does, which its weights need.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from car_jax.nn import init
from car_jax.nn.attention import attention
from car_jax.nn.denoising import angles, check_sinusoid, enlarged
from car_jax.nn.layers import (
  GroupNorm,
  at_least_float32,
  check_multiple,
  conv,
  dense,
  through,
)
from car_jax.nn.net import Segmenter
from car_jax.nn.standardised import StandardisedConv
from car_jax.options import Width
from car_jax.typing import Array

HEADS, HEAD_WIDTH = 4, 32


def embedded(t: Array, width: int) -> Array:
  """Times [B] -> sines, then cosines, of `width` / 2 frequencies from 1 to 1 / 10,000: [B, width].

  The last frequency is 1 / 10,000 itself, unlike in most nets of diffusion.
  """
  half = width // 2
  turned = angles(t, 10_000.0 ** -(np.arange(half) / max(half - 1, 1)))
  return jnp.concatenate([jnp.sin(turned), jnp.cos(turned)], -1)


def norm(name: str, dtype: Any) -> GroupNorm:
  """Over all of an image's channels and places."""
  return GroupNorm(1, 1e-5, dtype, name=name)


class ResidualBlock(nn.Module):
  """Two normed convolutions, the first scaled and shifted by the time: x [B, h, w, F], time [B, T]
  -> [B, h, w, features]."""

  features: int
  multiplied: bool = False
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, time: Array) -> Array:
    kw: dict[str, Any] = dict(use_bias=True, epsilon=1e-5, multiplied=self.multiplied)
    convolved = lambda y, k: norm(f'norm{k}', self.dtype)(
      StandardisedConv(self.features, 3, dtype=self.dtype, name=f'conv{k}', **kw)(y)
    )
    of_time = dense(2 * self.features, dtype=self.dtype, name='time')(nn.silu(time))
    scale, shift = jnp.split(of_time[:, None, None], 2, -1)
    y = nn.silu(convolved(x, 1) * (scale + 1) + shift)
    y = nn.silu(convolved(y, 2))
    if x.shape[-1] != self.features:
      x = conv(self.features, 1, padding=0, dtype=self.dtype, name='skip')(x)
    return x + y


class Attention(nn.Module):
  """x [B, h, w, F] and what its places find in each other, the same shape.

  `linear`: queries are shares of D features, each the mean of values over places that its keys
  weigh (Shen et al., arXiv 1812.01243): P D numbers, where attention has P P.
  """

  linear: bool
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    b, h, w, f = x.shape
    normed = norm('norm', self.dtype)(x).reshape(b, h * w, f)
    joint = dense(3 * HEADS * HEAD_WIDTH, use_bias=False, dtype=self.dtype, name='joint')(normed)
    query, key, value = jnp.moveaxis(joint.reshape(b, h * w, 3, HEADS, HEAD_WIDTH), 2, 0)
    if self.linear:
      query = jax.nn.softmax(at_least_float32(query)).astype(x.dtype) * HEAD_WIDTH**-0.5
      key = jax.nn.softmax(at_least_float32(key), 1).astype(x.dtype)
      context = jnp.einsum('bpad,bpae->bade', key, value)
      y = jnp.einsum('bpad,bade->bpae', query, context)
    else:
      y = attention(query, key, value)
    y = y.reshape(b, h, w, HEADS * HEAD_WIDTH)
    y = conv(f, 1, padding=0, dtype=self.dtype, name='out')(y)
    return x + (norm('out_norm', self.dtype)(y) if self.linear else y)


class LinearAttentionUNet(Segmenter):
  """A velocity of each pixel from what flows, the image and the time; sides multiples of 2 **
  (levels - 1). Its defaults are ATFM's."""

  width: Width = 128
  """Channels of the first convolution, 2 or more; the time has four times as many."""
  multipliers: tuple[Width, ...] = (1, 2, 4)
  """Channels of each level, in multiples of `width`."""
  multiplied_kernels: bool = False
  """Standardised kernels times their deviation, as weights of ATFM's release have learnt."""

  INIT = init.TORCH

  @property
  def multiple(self) -> int:
    return 2 ** (len(self.multipliers) - 1)

  @nn.compact
  def __call__(self, x: Array, image: Array, t: Array, *, train: bool) -> Array:
    """x [B, H, W, C], image [B, H, W, channels], t [B] in [0, 1] -> [B, H, W, C] float32."""
    levels, first, d = len(self.multipliers), self.width, self.dtype
    check_multiple(x.shape, self.multiple, f'a U-Net with {levels} levels')
    check_sinusoid(first, 'method.model.width')
    widths = [first, *(first * m for m in self.multipliers)]

    def block(features: int, name: str, *parts: Array) -> Array:
      joined = jnp.concatenate(parts, -1) if len(parts) > 1 else parts[0]
      return through(ResidualBlock(features, self.multiplied_kernels, d, name=name), joined, time)

    attended = lambda name, x, linear=True: through(Attention(linear, d, name=name), x)
    time = nn.gelu(dense(4 * first, dtype=d, name='time1')(embedded(t, first)), approximate=False)
    time = dense(4 * first, dtype=d, name='time2')(time)
    x = stem = conv(first, 1, padding=0, dtype=d, name='stem')(jnp.concatenate([image, x], -1))
    skips = []
    for k in range(levels):
      skips.append(block(widths[k], f'down{k}_block1', x))
      x = block(widths[k], f'down{k}_block2', skips[-1])
      skips.append(attended(f'down{k}_attention', x))
      shape = (3, 1, 1) if k == levels - 1 else (2, 2, 0)
      x = conv(widths[k + 1], *shape, dtype=d, name=f'down{k}_conv')(skips[-1])
    x = block(widths[-1], 'middle_block1', x)
    x = attended('middle_attention', x, linear=False)
    x = block(widths[-1], 'middle_block2', x)
    for k in reversed(range(levels)):
      x = block(widths[k + 1], f'up{k}_block1', x, skips.pop())
      x = block(widths[k + 1], f'up{k}_block2', x, skips.pop())
      x = attended(f'up{k}_attention', x)
      x = conv(widths[k], dtype=d, name=f'up{k}_conv')(enlarged(x) if k else x)
    x = block(first, 'last_block', x, stem)
    return at_least_float32(conv(self.num_classes, 1, padding=0, dtype=d, name='out')(x))
