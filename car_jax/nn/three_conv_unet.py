"""The U-Net under MoSE, the Probabilistic U-Net, PHiSeg and SSN: three convolutions a block.

As in the released code of Gao et al. (ICLR 2023), which has it from ports of Kohl et al. (NeurIPS
2018) and Baumgartner et al. (MICCAI 2019): these differ in batch norm, levels and in how maps are
enlarged, which options say here. Letters: B images, H x W pixels, F channels, C classes.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from car_jax.nn import init
from car_jax.nn.layers import BatchNorm, at_least_float32, check_multiple, conv, dense, through
from car_jax.nn.net import Segmenter
from car_jax.nn.resize import align_corners_weights
from car_jax.options import Share, Width
from car_jax.typing import Array

NORM_EPSILON = 1e-3
WIDTHS = (32, 64, 128, 192, 192, 192, 192)
# How their convolutions start: of the blocks here, and of nets all of whose layers start so.
KAIMING: init.Table = ((r'/kernel', init.kaiming_fan_in), (r'/bias', init.tiny_truncated_normal))
CONVOLUTIONS: init.Table = (
  (r'/conv\d/kernel', init.kaiming_fan_in),
  (r'/conv\d/bias', init.tiny_truncated_normal),
)


class Block(nn.Module):
  """`depth` times convolution, batch norm if `norm`, ReLU."""

  features: int
  momentum: float  # of batch norm, see ThreeConvNet
  dtype: Any = None
  norm: bool = True
  depth: int = 3

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    for k in range(1, self.depth + 1):
      x = conv(self.features, dtype=self.dtype, name=f'conv{k}')(x)
      if self.norm:
        x = BatchNorm(NORM_EPSILON, self.momentum, name=f'norm{k}')(x, train=train)
      x = nn.relu(x)
    return x


def contracted(blocks: Sequence[Block], x: Array, train: bool) -> list[Array]:
  """x [B, H, W, channels] -> each block's output, fine to coarse, each half as large."""
  maps: list[Array] = []
  for block in blocks:
    x = through(block, nn.avg_pool(x, (2, 2), (2, 2)) if maps else x, train=train)
    maps.append(x)
  return maps


def expanded(
  blocks: Sequence[Block], maps: Sequence[Array], train: bool, align_corners: bool
) -> Array:
  """`contracted` maps and a block for each but the coarsest -> features [B, H, W, F]."""
  x = maps[-1]
  for block, skip in reversed([*zip(blocks, maps[:-1], strict=True)]):
    x = through(block, jnp.concatenate([doubled(x, align_corners), skip], -1), train=train)
  return x


def doubled(x: Array, align_corners: bool) -> Array:
  """[B, h, w, F] -> [B, 2h, 2w, F], bilinear; see resize.resize_bilinear."""
  b, h, w, f = x.shape
  if not align_corners:
    return jax.image.resize(x, (b, 2 * h, 2 * w, f), 'bilinear')
  rows, columns = (align_corners_weights(n, 2 * n, x.dtype) for n in (h, w))
  return jnp.einsum('bhwf,gh,vw->bgvf', x, rows, columns, precision=jax.lax.Precision.HIGHEST)


class ThreeConvNet(Segmenter):
  """A net of such blocks; H and W are multiples of 2 ** (levels - 1)."""

  widths: tuple[Width, ...] = WIDTHS
  """Channels of each level, fine to coarse."""
  norm_momentum: Share = 0.01
  """Share of a batch in the running statistics of batch norm, which predictions use. As published
  these lag behind the weights by 100 steps; a training of a thousand steps needs 0.1."""

  @property
  def multiple(self) -> int:
    return 2 ** (len(self.widths) - 1)

  def block(self, features: int, name: str, norm: bool = True) -> Block:
    return Block(features, self.norm_momentum, self.dtype, norm, name=name)


class UNet(ThreeConvNet):
  """[B, H, W, channels] -> logits [B, H, W, C] float32."""

  norm: bool = True
  """Batch norm after each convolution."""
  align_corners: bool = False
  """Whether maps are enlarged with the centres of corner pixels on each other."""
  torch_start: bool = False
  """All layers start as PyTorch's do, as in the first stage of ATFM; without, convolutions of three
  by three as in MoSE."""

  @property
  def INIT(self) -> init.Table:
    return init.TORCH if self.torch_start else (*CONVOLUTIONS, *init.TORCH)

  def setup(self) -> None:
    self.downs = [self.block(f, f'down{k}', self.norm) for k, f in enumerate(self.widths)]
    self.ups = [self.block(f, f'up{k}', self.norm) for k, f in enumerate(self.widths[:-1])]
    self.out = dense(self.num_classes, dtype=self.dtype, name='out')

  def features(self, x: Array, *, train: bool) -> Array:
    """[B, H, W, channels] -> [B, H, W, F], F the first width."""
    check_multiple(x.shape, self.multiple, f'a U-Net with {len(self.widths)} levels')
    return expanded(self.ups, contracted(self.downs, x, train), train, self.align_corners)

  def __call__(self, x: Array, *, train: bool) -> Array:
    return at_least_float32(self.out(self.features(x, train=train)))
