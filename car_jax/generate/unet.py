"""The denoising UNet of Stable Diffusion 1.x, and ControlNet (Zhang et al., arXiv 2302.05543).

Letters as in blocks.py; H x W pixels, h = H/8 and w = W/8 of the latents.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from car_jax.errors import UserError
from car_jax.generate.blocks import Compute, Transformer, kept
from car_jax.nn.denoising import (
  ZEROS,
  Downsample,
  ResBlock,
  TimeEmbedding,
  Upsample,
  convolved,
  sinusoid,
)
from car_jax.nn.init import initialize, torch_uniform
from car_jax.nn.layers import GroupNorm, at_least_float32
from car_jax.typing import Array

PARTS_COPIED = ('conv_in', 'time_embedding', 'down_blocks_', 'mid_block')  # UNet -> ControlNet


class Stage(nn.Module):
  """What the levels of the way down, the middle and the way up share."""

  features: int
  layers: int
  heads: int  # of the transformers; 0 for none
  groups: int
  epsilon: float
  compute: Compute
  resampled: bool = True  # has a down- or upsampler at its end

  def residual(self, j: int, x: Array, time: Array) -> Array:
    size = self.features, self.groups, self.epsilon
    block = kept(ResBlock, self.compute)
    return block(*size, self.compute.dtype, name=f'resnets_{j}')(x, time)

  def attention(self, j: int, x: Array, context: Array, focus: Array | None) -> Array:
    if not self.heads:
      return x
    block = kept(Transformer, self.compute)
    name = f'attentions_{j}'
    return block(self.heads, self.groups, self.compute, name=name)(x, context, focus)


class Down(Stage):
  """-> the features of half the size, and those of each layer for the way up."""

  @nn.compact
  def __call__(
    self, x: Array, time: Array, context: Array, focus: Array | None
  ) -> tuple[Array, list[Array]]:
    skips = []
    for j in range(self.layers):
      x = self.attention(j, self.residual(j, x, time), context, focus)
      skips.append(x)
    if self.resampled:
      x = Downsample(self.compute.dtype, name='downsamplers_0')(x)
      skips.append(x)
    return x, skips


class Middle(Stage):
  @nn.compact
  def __call__(self, x: Array, time: Array, context: Array, focus: Array | None) -> Array:
    x = self.attention(0, self.residual(0, x, time), context, focus)
    return self.residual(1, x, time)


class Up(Stage):
  """Takes one of `skips` for each layer, the last first."""

  @nn.compact
  def __call__(
    self, x: Array, skips: list[Array], time: Array, context: Array, focus: Array | None
  ) -> Array:
    for j in range(self.layers):
      x = self.residual(j, jnp.concatenate([x, skips[-1 - j]], -1), time)
      x = self.attention(j, x, context, focus)
    return Upsample(self.compute.dtype, name='upsamplers_0')(x) if self.resampled else x


class Encoder(nn.Module):
  """The half that UNet and ControlNet share. Defaults are those of Stable Diffusion 1.5."""

  in_channels: int = 4
  """Of what it takes: 4 of noisy latents; 9 for inpainting, with a mask and a masked image's 4."""
  block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
  """Channels of each level."""
  attention_levels: tuple[bool, ...] = (True, True, True, False)
  """Whether a level has transformers; the middle always has."""
  layers_per_block: int = 2
  """Residual blocks of each level on the way down; on the way up one more."""
  cross_attention_dim: int = 768
  """Width of the text's tokens."""
  num_heads: int = 8
  """Attention heads, of every level."""
  norm_num_groups: int = 32
  norm_eps: float = 1e-5
  """Of the residual blocks and the output; transformers have 1e-6."""
  compute: Compute = Compute()

  def smallest(self) -> tuple[Array, ...]:
    """The smallest inputs that the net takes, zeros."""
    side = 2 ** (len(self.block_out_channels) - 1)
    text = jnp.zeros((1, 1, self.cross_attention_dim))
    return jnp.zeros((1, side, side, self.in_channels)), jnp.zeros(1), text

  def stage(self, level: int) -> dict[str, Any]:
    """Fields of a Stage."""
    return dict(
      features=self.block_out_channels[level],
      layers=self.layers_per_block,
      heads=self.num_heads if self.attention_levels[level] else 0,
      groups=self.norm_num_groups,
      epsilon=self.norm_eps,
      compute=self.compute,
    )

  def encoded(
    self,
    sample: Array,
    timesteps: Array,
    context: Array,
    hint: Array | None = None,
    focus: Array | None = None,
  ) -> tuple[Array, list[Array], Array]:
    """-> the middle's features, those for the way up, and the embedded time [B, 4 C].

    hint [B, h, w, C] is added after the first convolution.
    """
    self._check(sample, context)
    widths = self.block_out_channels
    embedding = TimeEmbedding(4 * widths[0], self.compute.dtype, name='time_embedding')
    time = embedding(sinusoid(jnp.broadcast_to(timesteps, len(sample)), widths[0]))
    x = convolved(widths[0], 'conv_in', self.compute.dtype)(sample)
    x = x if hint is None else x + hint
    skips = [x]
    for level in range(len(widths)):
      last = level == len(widths) - 1
      down = Down(**self.stage(level), resampled=not last, name=f'down_blocks_{level}')
      x, more = down(x, time, context, focus)
      skips += more
    middle = Middle(**self.stage(-1) | {'heads': self.num_heads}, name='mid_block')
    return middle(x, time, context, focus), skips, time

  def _check(self, sample: Array, context: Array) -> None:
    """Raises ValueError for other channels than the net has, and for sides it cannot halve."""
    _, h, w, channels = sample.shape
    multiple = 2 ** (len(self.block_out_channels) - 1)
    if channels != self.in_channels or context.shape[-1] != self.cross_attention_dim:
      raise ValueError(
        f'the net takes {self.in_channels} channels and text of width {self.cross_attention_dim}, '
        f'not {channels} and {context.shape[-1]}'
      )
    if h % multiple or w % multiple:
      raise ValueError(f'latents of {h}x{w}: both must be multiples of {multiple}')


class UNet(Encoder):
  """The noise in noisy latents.

  sample [B, h, w, in_channels], timesteps [B] or one, context [B, L, D] -> [B, h, w, 4] float32.
  `control` is what ControlNet gives. `focus` [B, L], weights of text tokens, makes every
  cross-attention sow how much each place attends to them, see `mean_attention`.
  """

  out_channels: int = 4

  @nn.compact
  def __call__(
    self,
    sample: Array,
    timesteps: Array,
    context: Array,
    control: Sequence[Array] | None = None,
    focus: Array | None = None,
  ) -> Array:
    x, skips, time = self.encoded(sample, timesteps, context, focus=focus)
    if control is not None:
      *added, middle = control
      x = x + middle.astype(x.dtype)
      skips = [skip + a.astype(skip.dtype) for skip, a in zip(skips, added, strict=True)]
    levels = len(self.block_out_channels)
    for i, level in enumerate(reversed(range(levels))):
      fields = self.stage(level) | {'layers': self.layers_per_block + 1, 'resampled': level > 0}
      count = fields['layers']
      x = Up(**fields, name=f'up_blocks_{i}')(x, skips[-count:], time, context, focus)
      skips = skips[:-count]
    x = GroupNorm(self.norm_num_groups, self.norm_eps, self.compute.dtype, name='conv_norm_out')(x)
    x = convolved(self.out_channels, 'conv_out', self.compute.dtype, kernel_init=ZEROS)(nn.silu(x))
    return at_least_float32(x)


class HintEncoder(nn.Module):
  """hint [B, H, W, any] -> [B, H/8, W/8, features], zero at first.

  Its other kernels and biases start as U(-1/sqrt(fan_in), 1/sqrt(fan_in)).
  """

  channels: tuple[int, ...]
  features: int
  compute: Compute

  @nn.compact
  def __call__(self, hint: Array) -> Array:
    def step(x: Array, features: int, name: str, stride: int = 1) -> Array:
      start = torch_uniform(9 * x.shape[-1])
      kw = dict(stride=stride, kernel_init=start, bias_init=start)
      return nn.silu(convolved(features, name, self.compute.dtype, **kw)(x))

    x = step(hint, self.channels[0], 'conv_in')
    for i, width in enumerate(self.channels[1:]):
      x = step(x, x.shape[-1], f'blocks_{2 * i}')
      x = step(x, width, f'blocks_{2 * i + 1}', stride=2)
    return convolved(self.features, 'conv_out', self.compute.dtype, kernel_init=ZEROS)(x)


class ControlNet(Encoder):
  """What an image-like hint changes in a UNet's features; nothing, before it is trained.

  sample [B, h, w, 4], timesteps [B] or one, context [B, L, D], hint [B, H, W, K] -> a feature map
  for each of the UNet's that go to the way up, then one for its middle, times `strength`.
  """

  conditioning_channels: int = 3
  """Channels K of the hint."""
  conditioning_embedding_out_channels: tuple[int, ...] = (16, 32, 96, 256)
  """Channels of the hint's encoder."""

  def smallest(self) -> tuple[Array, ...]:
    sample, *others = super().smallest()
    side = sample.shape[1] * 2 ** (len(self.conditioning_embedding_out_channels) - 1)
    return sample, *others, jnp.zeros((1, side, side, self.conditioning_channels))

  @nn.compact
  def __call__(
    self,
    sample: Array,
    timesteps: Array,
    context: Array,
    hint: Array,
    strength: float | Array = 1.0,
  ) -> list[Array]:
    if hint.shape[-1] != self.conditioning_channels:
      raise ValueError(f'hints of {hint.shape[-1]} channels, not {self.conditioning_channels}')
    widths = self.conditioning_embedding_out_channels, self.block_out_channels[0]
    seen = HintEncoder(*widths, self.compute, name='controlnet_cond_embedding')(hint)
    middle, skips, _ = self.encoded(sample, timesteps, context, hint=seen)
    names = [*(f'controlnet_down_blocks_{i}' for i in range(len(skips))), 'controlnet_mid_block']
    zero: dict[str, Any] = dict(size=1, kernel_init=ZEROS)
    return [
      convolved(x.shape[-1], name, self.compute.dtype, **zero)(x) * jnp.asarray(strength, x.dtype)
      for name, x in zip(names, [*skips, middle], strict=True)
    ]


def controlnet_from_unet(
  controlnet: ControlNet, unet_params: dict[str, Any], seed: int = 0
) -> dict[str, Any]:
  """First parameters of a ControlNet: the UNet's encoder and middle, the rest as they start.

  Raises UserError where the two nets differ in size; a UNet for inpainting has another input.
  """
  params = initialize(controlnet, seed, *controlnet.smallest())['params']
  copied = {name: p for name, p in unet_params.items() if name.startswith(PARTS_COPIED)}
  shapes = lambda tree: jax.tree.map(np.shape, tree)
  for name, part in copied.items():
    if shapes(part) != shapes(params.get(name)):
      raise UserError(
        f"the UNet's {name} does not fit into the ControlNet: another architecture\n"
        '  start from the UNet of Stable Diffusion 1.5 for text to image, with 4 input channels'
      )
  return params | jax.tree.map(np.array, copied)


def mean_attention(intermediates: Any, size: tuple[int, int]) -> Array:
  """What cross-attentions have sown, resized to `size` and averaged over levels: [B, *size]."""
  maps = [
    jax.image.resize(m, (len(m), *size), 'bilinear', antialias=False)
    for path, m in jax.tree_util.tree_leaves_with_path(intermediates)
    if any(getattr(key, 'key', None) == 'attention' for key in path)
  ]
  return jnp.mean(jnp.stack(maps), 0)
