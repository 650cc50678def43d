"""What U-Nets are made of that see how far a diffusion or a flow has come.

Those of Stable Diffusion (generate/unet.py) and of guided diffusion (guided_unet.py) share these;
submodules are called as in the state dicts of the diffusers library, with `_0` for `.0`. Letters:
B images, h x w places of a feature map, C channels, T width of the embedded time.
"""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from car_jax.errors import UserError
from car_jax.nn.dropout import Dropout
from car_jax.nn.init import torch_uniform
from car_jax.nn.layers import GroupNorm, conv
from car_jax.typing import Array

ZEROS = nn.initializers.zeros


def kernel_init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
  """U(-1/sqrt(fan_in), 1/sqrt(fan_in)), as torch starts kernels; biases start at zero here."""
  return torch_uniform(math.prod(shape[:-1]))(key, shape, dtype)


def convolved(
  features: int, name: str, dtype: Any, *, size: int = 3, stride: int = 1, **kw: Any
) -> nn.Conv:
  """A convolution padded by zeros to keep the size, or halve it with stride 2."""
  kw = {'kernel_init': kernel_init} | kw
  return conv(features, size, stride, size // 2, dtype=dtype, name=name, **kw)


def dense(features: int, name: str, dtype: Any, **kw: Any) -> nn.Dense:
  kw = {'kernel_init': kernel_init} | kw
  return nn.Dense(features, dtype=dtype, name=name, **kw)


def angles(time: Array, rates: np.ndarray) -> Array:
  """time [B], whole numbers too, and rates [F] in radians -> [B, F], at least float32."""
  kind = jnp.promote_types(time.dtype, jnp.float32)
  return time.astype(kind)[:, None] * rates.astype(kind)


def sinusoid(time: Array, width: int) -> Array:
  """time [B] -> [B, width], at least float32: cosines, then sines, of periods to 10,000 * 2 pi."""
  half = width // 2
  turned = angles(time, np.exp(-np.log(10_000) * np.arange(half) / half))
  return jnp.concatenate([jnp.cos(turned), jnp.sin(turned)], -1)


def check_sinusoid(width: int, options: str) -> None:
  """Raises UserError for a width without a sine and a cosine; options: what sets it."""
  if width < 2:
    raise UserError(f'{options} is {width}: time has a sine and a cosine\n  give 2 or more')


class TimeEmbedding(nn.Module):
  """The sinusoid [B, C] -> [B, features]. It is cast first: float32 would spread from here."""

  features: int
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    x = x if self.dtype is None else x.astype(self.dtype)
    x = nn.silu(dense(self.features, 'linear_1', self.dtype)(x))
    return dense(self.features, 'linear_2', self.dtype)(x)


class ResBlock(nn.Module):
  """x [B, h, w, C] -> [B, h, w, features]; `time` [B, T] shifts the channels in between, or with
  `scale_shift` scales and shifts them behind the second norm.

  Starts as its shortcut, which is a 1 x 1 convolution only where the width changes.
  """

  features: int
  groups: int
  epsilon: float
  dtype: Any = None
  scale_shift: bool = False
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x: Array, time: Array | None = None, *, train: bool = False) -> Array:
    norm = lambda k: GroupNorm(self.groups, self.epsilon, self.dtype, name=f'norm{k}')
    y = convolved(self.features, 'conv1', self.dtype)(nn.silu(norm(1)(x)))
    if time is None:
      y = norm(2)(y)
    else:
      width = self.features * (2 if self.scale_shift else 1)
      seen = dense(width, 'time_emb_proj', self.dtype)(nn.silu(time))[:, None, None]
      if self.scale_shift:
        scale, shift = jnp.split(seen, 2, -1)
        y = norm(2)(y) * (1 + scale) + shift
      else:
        y = norm(2)(y + seen)
    y = nn.silu(y)
    if self.dropout:
      y = Dropout(self.dropout, deterministic=not train)(y)
    y = convolved(self.features, 'conv2', self.dtype, kernel_init=ZEROS)(y)
    if x.shape[-1] != self.features:
      x = convolved(self.features, 'conv_shortcut', self.dtype, size=1)(x)
    return x + y


class Downsample(nn.Module):
  """[B, h, w, C] -> [B, h/2, w/2, C]; `one_sided` pads at the right and at the bottom only."""

  dtype: Any = None
  one_sided: bool = False

  @nn.compact
  def __call__(self, x: Array) -> Array:
    if self.one_sided:
      kw = dict(dtype=self.dtype, kernel_init=kernel_init, name='conv')
      return nn.Conv(x.shape[-1], (3, 3), 2, ((0, 1), (0, 1)), **kw)(x)
    return convolved(x.shape[-1], 'conv', self.dtype, stride=2)(x)


def enlarged(x: Array) -> Array:
  """[B, h, w, C] -> [B, 2h, 2w, C]: each place four times."""
  return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


class Upsample(nn.Module):
  """`enlarged`, then a convolution."""

  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    return convolved(x.shape[-1], 'conv', self.dtype)(enlarged(x))
