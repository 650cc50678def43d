"""The autoencoder between pictures and latents (arXiv 2112.10752), and what stands for it where
diffusion is in pixels.

Letters: B images, H x W pixels in [-1, 1], h = H/8 and w = W/8 latents of 4 channels.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from car_jax.generate.blocks import Attention, Compute, kept
from car_jax.nn.denoising import Downsample, ResBlock, Upsample, convolved
from car_jax.nn.layers import GroupNorm, at_least_float32
from car_jax.typing import Array

EPSILON = 1e-6  # of every norm here
PIXEL_SCALE = 8.0  # of pixels from -1 to 1


class MiddleAttention(nn.Module):
  """One head over all places, added: x [B, h, w, C] -> the same."""

  groups: int
  compute: Compute

  @nn.compact
  def __call__(self, x: Array) -> Array:
    y = GroupNorm(self.groups, EPSILON, self.compute.dtype, name='group_norm')(x)
    # The weights lie beside the norm's, so the attention shares this module's scope.
    attention = Attention(1, self.compute, use_bias=True)
    nn.share_scope(self, attention)
    return x + attention(y)


class Middle(nn.Module):
  groups: int
  compute: Compute

  @nn.compact
  def __call__(self, x: Array) -> Array:
    size = x.shape[-1], self.groups, EPSILON, self.compute.dtype
    block = kept(ResBlock, self.compute)
    x = block(*size, name='resnets_0')(x)
    x = kept(MiddleAttention, self.compute)(self.groups, self.compute, name='attentions_0')(x)
    return block(*size, name='resnets_1')(x)


class Level(nn.Module):
  """Residual blocks, then half the size ('down'), twice the size ('up'), or the same ('')."""

  features: int
  layers: int
  groups: int
  compute: Compute
  resampled: str

  @nn.compact
  def __call__(self, x: Array) -> Array:
    block = kept(ResBlock, self.compute)
    for j in range(self.layers):
      size = self.features, self.groups, EPSILON
      x = block(*size, self.compute.dtype, name=f'resnets_{j}')(x)
    if self.resampled == 'down':
      return Downsample(self.compute.dtype, one_sided=True, name='downsamplers_0')(x)
    return Upsample(self.compute.dtype, name='upsamplers_0')(x) if self.resampled == 'up' else x


class Half(nn.Module):
  """What encoder and decoder share; `widths` in the order of the encoder's levels."""

  out_channels: int
  widths: tuple[int, ...]
  layers: int
  groups: int
  compute: Compute

  def level(self, prefix: str, i: int, width: int, layers: int, resampled: str) -> Level:
    last = i == len(self.widths) - 1
    size = width, layers, self.groups, self.compute, '' if last else resampled
    return Level(*size, name=f'{prefix}_{i}')

  def output(self, x: Array) -> Array:
    x = nn.silu(GroupNorm(self.groups, EPSILON, self.compute.dtype, name='conv_norm_out')(x))
    return convolved(self.out_channels, 'conv_out', self.compute.dtype)(x)


class Encoder(Half):
  @nn.compact
  def __call__(self, x: Array) -> Array:
    x = convolved(self.widths[0], 'conv_in', self.compute.dtype)(x)
    for i, width in enumerate(self.widths):
      x = self.level('down_blocks', i, width, self.layers, 'down')(x)
    return self.output(Middle(self.groups, self.compute, name='mid_block')(x))


class Decoder(Half):
  @nn.compact
  def __call__(self, x: Array) -> Array:
    x = convolved(self.widths[-1], 'conv_in', self.compute.dtype)(x)
    x = Middle(self.groups, self.compute, name='mid_block')(x)
    for i, width in enumerate(reversed(self.widths)):
      x = self.level('up_blocks', i, width, self.layers + 1, 'up')(x)
    return self.output(x)


class VAE(nn.Module):
  """Pictures to latents and back. Defaults are those of Stable Diffusion 1.5.

  Latents are scaled by `scaling_factor`, as the UNet has them: `encode`, `decode`.
  """

  in_channels: int = 3
  out_channels: int = 3
  latent_channels: int = 4
  block_out_channels: tuple[int, ...] = (128, 256, 512, 512)
  """Channels of each level."""
  layers_per_block: int = 2
  """Residual blocks of each level of the encoder; of the decoder one more."""
  norm_num_groups: int = 32
  scaling_factor: float = 0.18215
  """By which the published latents have a variance of one."""
  compute: Compute = Compute()

  def setup(self) -> None:
    size = self.block_out_channels, self.layers_per_block, self.norm_num_groups, self.compute
    kw: dict[str, Any] = dict(name=None, dtype=self.compute.dtype, size=1)
    self.encoder = Encoder(2 * self.latent_channels, *size)
    self.decoder = Decoder(self.out_channels, *size)
    self.quant_conv = convolved(2 * self.latent_channels, **kw)
    self.post_quant_conv = convolved(self.latent_channels, **kw)

  @property
  def factor(self) -> int:
    """Pixels on a side of one latent."""
    return 2 ** (len(self.block_out_channels) - 1)

  def smallest(self) -> tuple[Array, ...]:
    """The smallest input, zeros."""
    return (jnp.zeros((1, self.factor, self.factor, self.in_channels)),)

  def posterior(self, image: Array) -> tuple[Array, Array]:
    """image [B, H, W, 3] -> mean and log-variance [B, h, w, 4] float32, not scaled."""
    if any(side % self.factor for side in image.shape[1:3]):
      raise ValueError(f'a picture of {image.shape[1:3]}: sides are multiples of {self.factor}')
    moments = at_least_float32(self.quant_conv(self.encoder(image)))
    mean, logvar = jnp.split(moments, 2, axis=-1)
    return mean, jnp.clip(logvar, -30.0, 20.0)

  def encode(self, image: Array, noise: Array | None = None) -> Array:
    """image [B, H, W, 3] -> scaled latents [B, h, w, 4]: a draw of the posterior by `noise`, or
    its mean without."""
    mean, logvar = self.posterior(image)
    drawn = mean if noise is None else mean + jnp.exp(logvar / 2) * noise
    return self.scaling_factor * drawn

  def decode(self, latents: Array) -> Array:
    """Scaled latents [B, h, w, 4] -> pictures [B, H, W, 3] float32, about in [-1, 1]."""
    return at_least_float32(self.decoder(self.post_quant_conv(latents / self.scaling_factor)))

  def __call__(self, image: Array) -> Array:
    """There and back, by the mean."""
    return self.decode(self.encode(image))


class Pixels(nn.Module):
  """No autoencoder: latents are the pixels, factor x factor of them side by side as channels.

  They are scaled by PIXEL_SCALE, to a deviation of about 2: Stable Diffusion's noise is meant for
  latents of many pixels each, and would hide single ones in all but the last steps.
  """

  factor: int = 1

  @property
  def latent_channels(self) -> int:
    return 3 * self.factor**2

  def posterior(self, image: Array) -> tuple[Array, Array]:
    """image [B, H, W, 3] -> [B, h, w, 3 factor^2] and the least log-variance there is."""
    b, h, w, c = image.shape
    f = self.factor
    if h % f or w % f:
      raise ValueError(f'a picture of {h}x{w}: sides are multiples of {f}')
    blocks = image.reshape(b, h // f, f, w // f, f, c).transpose(0, 1, 3, 2, 4, 5)
    mean = blocks.reshape(b, h // f, w // f, f * f * c)
    return mean, jnp.full_like(mean, -30.0)

  def encode(self, image: Array, noise: Array | None = None) -> Array:
    """image [B, H, W, 3] -> [B, h, w, 3 factor^2], without noise."""
    return PIXEL_SCALE * self.posterior(image)[0]

  def decode(self, latents: Array) -> Array:
    """The inverse."""
    b, h, w, _ = latents.shape
    f = self.factor
    blocks = (
      at_least_float32(latents / PIXEL_SCALE).reshape(b, h, w, f, f, 3).transpose(0, 1, 3, 2, 4, 5)
    )
    return blocks.reshape(b, h * f, w * f, 3)

  def __call__(self, image: Array) -> Array:
    return self.decode(self.encode(image))
