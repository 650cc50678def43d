"""PSPNet's head (arXiv 1612.01105), laid out as mmsegmentation trains it."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from car_jax.nn.composed import Head
from car_jax.nn.layers import NormedConv
from car_jax.nn.pooling import PyramidPooling
from car_jax.options import Index, Width
from car_jax.typing import Array


class PSPHead(Head):
  """A map beside its means at several scales, joined by a 3 x 3 convolution."""

  scales: tuple[Width, ...] = (1, 2, 3, 6)
  """Bins on each side."""
  index: Index = -1
  """Which map is read."""

  @nn.compact
  def __call__(self, maps: Sequence[Array], *, train: bool) -> Array:
    (x,) = self.chosen(maps, [self.index])
    shape = self.features, self.scales, self.align_corners, self.dtype
    pooled = PyramidPooling(*shape, name='pool')(x, train=train)
    x = jnp.concatenate([x, *pooled], -1)
    x = NormedConv(self.features, 3, dtype=self.dtype, name='bottleneck')(x, train=train)
    return self.classified(x, train=train)
