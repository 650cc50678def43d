"""MobileNetV3's segmentation head, lite R-ASPP (arXiv 1905.02244), as mmsegmentation lays it out.

It departs from the paper: two finer maps are joined to the last one's, instead of one that is added
to its logits.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from car_jax.errors import UserError
from car_jax.nn.composed import Head
from car_jax.nn.layers import NormedConv, at_least_float32, conv
from car_jax.nn.resize import resize_bilinear
from car_jax.options import Share, Width
from car_jax.typing import Array

WINDOW, STRIDES = 49, (16, 20)


class LRASPPHead(Head):
  """The last map, gated by its means, then joined to finer ones; logits of the finest's size."""

  features: Width = 128
  """Channels inside the head."""
  branches: tuple[Width, ...] = (32, 64)
  """Channels that are kept of each finer map, the finest first."""
  index: tuple[int, ...] = ()
  """The maps that are read, the finest first; empty for all."""
  epsilon: Share = 1e-3
  """Epsilon of batch norms."""

  @property
  def least(self) -> int:
    """The last map, at 1/8, holds a window."""
    return 8 * (WINDOW - 1) + 1

  @nn.compact
  def __call__(self, maps: Sequence[Array], *, train: bool) -> Array:
    def plain(width, name, use_bias=False):
      return conv(width, 1, padding=0, use_bias=use_bias, dtype=self.dtype, name=name)

    def unit(name, x):
      kw = {'epsilon': self.epsilon, 'dtype': self.dtype, 'name': name}
      return NormedConv(self.features, **kw)(x, train=train)

    resized = lambda x, to: resize_bilinear(x, to.shape[1:3], align_corners=self.align_corners)
    *finer, x = self.chosen(maps, self.index) if self.index else maps
    if len(finer) != len(self.branches):
      raise UserError(
        f'LRASPPHead has {len(self.branches)} branches for {len(finer)} maps and the last one\n'
        '  give one per map but the last'
      )
    means = nn.avg_pool(at_least_float32(x), (WINDOW, WINDOW), STRIDES)  # sums of 2401 values
    gate = plain(self.features, 'gate')(means.astype(x.dtype))
    x = unit('project', x) * resized(nn.sigmoid(gate), x)
    x = plain(self.features, 'mix', use_bias=True)(x)
    for i, fine in reversed(list(enumerate(finer))):
      x = jnp.concatenate([resized(x, fine), plain(self.branches[i], f'branch{i}')(fine)], -1)
      x = unit(f'join{i}', x)
    return self.classified(x, train=train)
