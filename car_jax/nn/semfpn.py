"""The head of semantic FPN (arXiv 1901.02446): all maps of a pyramid brought to the finest, added.

The paper normalises groups of channels; mmsegmentation, as here, batches.
"""

from collections.abc import Sequence

import flax.linen as nn

from car_jax.errors import UserError
from car_jax.nn.composed import Head
from car_jax.nn.layers import NormedConv
from car_jax.nn.resize import resize_bilinear
from car_jax.options import Width
from car_jax.typing import Array


class FPNHead(Head):
  """Each map through 3 x 3 convolutions, twice as large after each, until it has the first's size.

  Logits have that size too.
  """

  features: Width = 128
  """Channels inside the head."""
  strides: tuple[Width, ...] = (4, 8, 16, 32)
  """Pixels between two places of each map that is read, the finest first."""
  index: tuple[int, ...] = ()
  """The maps that are read; empty for all."""

  @nn.compact
  def __call__(self, maps: Sequence[Array], *, train: bool) -> Array:
    read = self.chosen(maps, self.index) if self.index else maps
    if len(read) != len(self.strides):
      raise UserError(
        f'FPNHead has {len(self.strides)} strides for {len(read)} maps\n  give one per map'
      )
    brought, size = [], read[0].shape[1:3]
    for k, (x, stride) in enumerate(zip(read, self.strides, strict=True)):
      doublings = (stride // self.strides[0]).bit_length() - 1
      for i in range(max(doublings, 1)):
        name = f'map{k}_conv{i}'
        x = NormedConv(self.features, 3, dtype=self.dtype, name=name)(x, train=train)
        if stride != self.strides[0]:
          h, w = x.shape[1:3]
          x = resize_bilinear(x, (2 * h, 2 * w), align_corners=self.align_corners)
      brought.append(resize_bilinear(x, size, align_corners=self.align_corners))
    return self.classified(sum(brought[1:], brought[0]), train=train)
