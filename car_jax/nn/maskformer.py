"""MaskFormer's head (arXiv 2107.06278): a feature pyramid gives pixels, DETR's decoder gives masks.

The decoder reads the backbone's last map as it is: the published models for semantic segmentation
have no transformer encoder. Queries begin as zeros beside their learned codes.

Letters: B images, h x w places of a map, D channels of a query, M of a pixel, Q queries.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from car_jax.nn.layers import conv, layer_norm
from car_jax.nn.mask_classification import (
  EPSILON,
  DecoderLayer,
  GroupedConv,
  MaskEmbedder,
  MaskHead,
  flat,
  mask_logits,
  sine_codes,
)
from car_jax.nn.resize import resize_nearest
from car_jax.options import Share, Width
from car_jax.typing import Array


class FeaturePyramid(nn.Module):
  """Maps from fine to coarse -> embeddings of the finest one's places, [B, h, w, M].

  From the coarsest map down, each is added to the enlarged one before it.
  """

  features: int
  mask_features: int
  dtype: Any = None

  @nn.compact
  def __call__(self, maps: Sequence[Array]) -> Array:
    unit = lambda name, size: GroupedConv(self.features, size, dtype=self.dtype, name=name)
    x = nn.relu(unit(f'smooth{len(maps)}', 3)(maps[-1]))
    for k in range(len(maps) - 1, 0, -1):
      lateral = unit(f'lateral{k}', 1)(maps[k - 1])
      x = lateral + resize_nearest(x, lateral.shape[1:3])
      x = nn.relu(unit(f'smooth{k}', 3)(x))
    return conv(self.mask_features, dtype=self.dtype, name='project')(x)


class MaskFormerHead(MaskHead):
  """Maps of the backbone -> classes' scores; see MaskHead."""

  width: Width = 256
  """Channels of queries; a multiple of 4 and of `heads`."""
  inner_dropout: Share = dataclasses.field(default=0.0, kw_only=True)
  """Share of attention, and of feed-forward nets' inner channels, that is dropped in training."""

  @nn.compact
  def __call__(self, maps: Sequence[Array], *, size: tuple[int, ...], train: bool) -> Array:
    self.check(self.width)
    image = maps[-1]
    if image.shape[-1] != self.width:
      image = nn.Dense(self.width, dtype=self.dtype, name='project')(image)
    keys = flat(image + sine_codes(image.shape[1:3], self.width, image.dtype))
    codes = self.learned('query_codes', self.queries, self.width)
    x = jnp.zeros((image.shape[0], *codes.shape), image.dtype)
    codes = codes.astype(image.dtype)
    shape = self.heads, self.expansion, self.dropout, self.inner_dropout
    for i in range(self.depth):
      layer = DecoderLayer(*shape, dtype=self.dtype, name=f'layer{i}')
      x = layer(x, codes, keys, flat(image), train=train)
    x = layer_norm('norm', EPSILON, self.dtype)(x)
    pyramid = FeaturePyramid(self.features, self.mask_features, self.dtype, name='pixels')
    embed = MaskEmbedder(self.mask_features, self.dtype, name='mask_embed')
    return self.scores(x, mask_logits(embed(x), pyramid(maps)), size)
