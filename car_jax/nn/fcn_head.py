"""The head of a fully convolutional network (arXiv 1411.4038), as mmsegmentation lays it out.

It departs from the paper, whose skips from finer maps nn/fcn.py has: 3 x 3 convolutions on one map,
and beside their result the map itself again. CCNet's and GCNet's heads are made of it.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from car_jax.nn.composed import Head
from car_jax.nn.layers import NormedConv
from car_jax.options import Depth, Width
from car_jax.typing import Array


class FCNHead(Head):
  """Convolutions on one map, then the map beside what they gave, joined by another."""

  num_convs: Depth = 2
  """Convolutions before the joining one."""
  kernel_size: Width = 3
  """Side of the kernels of all of them."""
  dilation: Width = 1
  """Dilation of all but the joining one."""
  concat_input: bool = True
  """Whether the map itself is joined to the result."""
  index: int = -1
  """Which map is read; -1 for the last."""

  def related(self, x: Array, *, train: bool) -> Array:
    """What a derived head does with the first convolution's result, [B, h, w, D] -> the same."""
    return x

  @nn.compact
  def __call__(self, maps: Sequence[Array], *, train: bool) -> Array:
    (x,) = (y,) = self.chosen(maps, [self.index])
    shape = self.features, self.kernel_size
    for i in range(1, self.num_convs + 1):
      unit = NormedConv(*shape, self.dilation, dtype=self.dtype, name=f'conv{i}')
      y = unit(y, train=train)
      y = self.related(y, train=train) if i == 1 else y
    if self.concat_input:
      y = jnp.concatenate([x, y], -1)
      y = NormedConv(*shape, dtype=self.dtype, name='join')(y, train=train)
    return self.classified(y, train=train)
