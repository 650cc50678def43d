"""UPerNet's head (arXiv 1807.10221): a pyramid pooling module on top of a feature pyramid.

As mmsegmentation lays it out: every level is brought to the finest one's size and all are joined.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from car_jax.nn.composed import Head
from car_jax.nn.layers import NormedConv
from car_jax.nn.pooling import PyramidPooling
from car_jax.nn.resize import resize_bilinear
from car_jax.options import Width
from car_jax.typing import Array


class UPerHead(Head):
  """Maps from fine to coarse -> logits at the finest one's size."""

  scales: tuple[Width, ...] = (1, 2, 3, 6)
  """Bins on each side of the pyramid pooling module."""
  index: tuple[int, ...] = ()
  """Which maps are read, from fine to coarse; empty for all."""

  @nn.compact
  def __call__(self, maps: Sequence[Array], *, train: bool) -> Array:
    def unit(x, name, size=1):
      return NormedConv(self.features, size, dtype=self.dtype, name=name)(x, train=train)

    resized = lambda x, size: resize_bilinear(x, size, align_corners=self.align_corners)
    *finer, last = self.chosen(maps, self.index) if self.index else maps
    shape = self.features, self.scales, self.align_corners, self.dtype
    pooled = PyramidPooling(*shape, name='pool')(last, train=train)
    levels = [unit(jnp.concatenate([last, *pooled], -1), 'bottleneck', 3)]
    for i, x in reversed([*enumerate(finer)]):
      x = unit(x, f'lateral{i}')
      levels.insert(0, x + resized(levels[0], x.shape[1:3]))
    smooth = [unit(x, f'smooth{i}', 3) for i, x in enumerate(levels[:-1])]
    maps = [*smooth, levels[-1]]
    joined = jnp.concatenate([resized(x, maps[0].shape[1:3]) for x in maps], -1)
    return self.classified(unit(joined, 'fuse', 3), train=train)
