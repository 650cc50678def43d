"""Mask2Former's pixel decoder (arXiv 2112.01527): a transformer over the three coarser maps.

Its self-attention is deformable; what it gives is joined to the finest map as in a feature pyramid.

Letters: B images, h x w places of a map, N places of three maps, D channels, M of a pixel.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from car_jax.nn import init
from car_jax.nn.deformable_attention import DeformableAttention
from car_jax.nn.layers import conv
from car_jax.nn.mask_classification import FeedForward, GroupedConv, Residual, flat, sine_codes
from car_jax.nn.resize import resize_bilinear
from car_jax.typing import Array

LEVELS = 3  # maps that transformers read


class EncoderLayer(nn.Module):
  """x [B, N, D] of all places -> the same shape."""

  heads: int
  expansion: int
  dropout: float
  dtype: Any = None

  @nn.compact
  def __call__(
    self, x: Array, codes: Array, sizes: Sequence[Sequence[int]], *, train: bool
  ) -> Array:
    attend = DeformableAttention(self.heads, dtype=self.dtype, name='attention')
    forward = FeedForward(self.expansion, self.dropout, self.dtype, name='feed_forward')
    residual = lambda name: Residual(self.dropout, dtype=self.dtype, name=f'{name}_residual')
    x = residual('self')(x, lambda y: attend(y, codes, sizes), train=train)
    return residual('forward')(x, lambda y: forward(y, train=train), train=train)


class PixelDecoder(nn.Module):
  """Four maps from fine to coarse -> embeddings of the finest one's places [B, h, w, M], and the
  three others [B, h, w, D] from coarse to fine.
  """

  features: int
  mask_features: int
  depth: int
  heads: int
  expansion: int
  dropout: float
  align_corners: bool
  dtype: Any = None

  @nn.compact
  def __call__(self, maps: Sequence[Array], *, train: bool) -> tuple[Array, list[Array]]:
    unit = lambda size, name, bias=False: GroupedConv(
      self.features, size, bias, self.dtype, name=name
    )
    coarse = [unit(1, f'project{k}', True)(maps[k - 1]) for k in range(len(maps), 1, -1)]
    sizes = [x.shape[1:3] for x in coarse]
    levels = self.param('level_codes', init.RULED, (len(coarse), self.features))
    x = jnp.concatenate([flat(x) for x in coarse], 1)
    codes = [flat(sine_codes(size, self.features)) + levels[k] for k, size in enumerate(sizes)]
    shared = jnp.concatenate(codes).astype(x.dtype)
    for i in range(self.depth):
      shape = self.heads, self.expansion, self.dropout, self.dtype
      x = EncoderLayer(*shape, name=f'layer{i}')(x, shared, sizes, train=train)
    ends = [sum(h * w for h, w in sizes[: k + 1]) for k in range(len(sizes))]
    coarse = [
      part.reshape(-1, *size, self.features)
      for part, size in zip(jnp.split(x, ends[:-1], 1), sizes, strict=True)
    ]
    fine = unit(1, 'lateral1')(maps[0])
    fine = fine + resize_bilinear(coarse[-1], fine.shape[1:3], align_corners=self.align_corners)
    fine = nn.relu(unit(3, 'smooth1')(fine))
    return conv(self.mask_features, 1, padding=0, dtype=self.dtype, name='project')(fine), coarse
