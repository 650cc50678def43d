"""Adaptive pooling, and the pyramid pooling module that several heads share.

Letters: B images, h x w places of a feature map, D channels.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from car_jax.nn.layers import NormedConv
from car_jax.nn.resize import resize_bilinear
from car_jax.typing import Array


def adaptive_mean(x: Array, size: Sequence[int]) -> Array:
  """[B, h, w, D] -> [B, *size, D]: means over bins as torch's adaptive pooling lays them.

  Bin i of n over h rows has rows floor(i h / n) to ceil((i + 1) h / n), so that bins overlap where
  n does not divide h.
  """
  for axis, count in zip((1, 2), size, strict=True):
    x = jnp.moveaxis(
      jnp.tensordot(x, _bins(x.shape[axis], count, x.dtype), ((axis,), (0,))), -1, axis
    )
  return x


def _bins(side: int, count: int, dtype: Any) -> Array:
  """[side, count]: the share of each place in each bin."""
  i, place = np.arange(count), np.arange(side)[:, None]
  inside = (place >= i * side // count) & (place < -(-(i + 1) * side // count))
  return jnp.asarray(inside / inside.sum(0), dtype)


class PyramidPooling(nn.Module):
  """The pyramid pooling module of PSPNet (arXiv 1612.01105): [B, h, w, D] -> a map per scale.

  Means over scale x scale bins, a 1 x 1 convolution, norm and ReLU, then back at h x w.
  """

  features: int
  scales: tuple[int, ...]
  align_corners: bool
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> list[Array]:
    maps, size = [], x.shape[1:3]
    for i, scale in enumerate(self.scales):
      pooled = adaptive_mean(x, (scale, scale))
      pooled = NormedConv(self.features, dtype=self.dtype, name=f'scale{i}')(pooled, train=train)
      maps.append(resize_bilinear(pooled, size, align_corners=self.align_corners))
    return maps
