"""Mask2Former's head (arXiv 2112.01527): queries attend to the image where their masks lie.

Layer by layer a decoder reads the pixel decoder's three coarser maps in turn, the coarsest first;
what a query sees there is where the mask of the layer before is likelier than not.

Letters: B images, h x w places of a map, D channels, M of a pixel, Q queries.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from car_jax.errors import UserError
from car_jax.nn.deformable_attention import DeformableAttention
from car_jax.nn.layers import layer_norm
from car_jax.nn.mask2former_pixels import LEVELS, PixelDecoder
from car_jax.nn.mask_classification import (
  EPSILON,
  DecoderLayer,
  MaskEmbedder,
  MaskHead,
  flat,
  mask_logits,
  sine_codes,
)
from car_jax.nn.resize import resize_bilinear
from car_jax.options import Depth, Share, Width
from car_jax.typing import Array


def seen(masks: Array) -> Array:
  """Masks' logits [B, h, w, Q] -> where queries attend, [B, Q, h * w]: everywhere if nowhere."""
  inside = flat(masks).swapaxes(1, 2) >= 0
  return inside | ~inside.any(-1, keepdims=True)


class Mask2FormerHead(MaskHead):
  """Four maps of the backbone -> classes' scores; see MaskHead. Queries have `features` channels.

  Where `dropout` is not 0, as it is published, transformers skips whole layers in training too.
  """

  INIT = (*DeformableAttention.INIT, *MaskHead.INIT)

  depth: Depth = 9
  """Layers of the transformer decoder."""
  pixel_depth: Depth = 6
  """Layers of the pixel decoder's transformer."""
  pixel_expansion: Width = 1024
  """Channels inside the feed-forward nets of the pixel decoder's transformer."""
  norm_first: bool = False
  """Layer norms of the decoder at the start of each branch, not after it is added."""
  dropout: Share = dataclasses.field(default=0.0, kw_only=True)
  """Share that is dropped in training, of branches, attention and feed-forward nets inside."""

  def views(self, pixels: Array, coarse: Sequence[Array]) -> list[tuple[Array, Array, Array]]:
    """Of each coarse map its keys and values [B, h * w, D], and embeddings [B, h, w, M] there.

    Masks are linear in the embeddings, so that resizing these resizes the masks, with less work.
    """
    levels = self.learned('level_codes', LEVELS, self.features)
    views = []
    for image, level in zip(coarse, levels.astype(pixels.dtype), strict=True):
      size = image.shape[1:3]
      values = flat(image + level)
      keys = values + flat(sine_codes(size, self.features, image.dtype))
      there = resize_bilinear(pixels, size, align_corners=self.align_corners)
      views.append((keys, values, there))
    return views

  @nn.compact
  def __call__(self, maps: Sequence[Array], *, size: tuple[int, ...], train: bool) -> Array:
    self.check(self.features)
    if len(maps) != LEVELS + 1:
      raise UserError(f'Mask2Former reads {LEVELS + 1} maps of a backbone, not {len(maps)}')
    kw: dict[str, Any] = {'features': self.features, 'mask_features': self.mask_features}
    kw |= {'depth': self.pixel_depth, 'heads': self.heads, 'expansion': self.pixel_expansion}
    kw |= {'dropout': self.dropout, 'align_corners': self.align_corners, 'dtype': self.dtype}
    pixels, coarse = PixelDecoder(**kw, name='pixels')(maps, train=train)
    embed = MaskEmbedder(self.mask_features, self.dtype, name='mask_embed')
    norm = layer_norm('norm', EPSILON, self.dtype)
    x, codes = (
      self.learned(name, self.queries, self.features).astype(pixels.dtype)
      for name in ('query', 'query_codes')
    )
    x = jnp.broadcast_to(x, (pixels.shape[0], *x.shape))
    views = self.views(pixels, coarse)
    inner = self.heads, self.expansion, self.dropout, self.dropout, True, self.norm_first
    for i in range(self.depth):
      keys, values, there = views[i % LEVELS]
      attended = seen(mask_logits(embed(norm(x)), there))
      layer = DecoderLayer(*inner, self.dtype, name=f'layer{i}')
      x = layer(x, codes, keys, values, attended, train=train)
    x = norm(x)
    return self.scores(x, mask_logits(embed(x), pixels), size)
