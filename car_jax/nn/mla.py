"""SETR's multi-level feature aggregation (arXiv 2012.15840), laid out as mmsegmentation trains it.

It departs from the paper in a layer norm of each map, for want of one after the transformer.
"""

import itertools
import operator
from collections.abc import Sequence

import flax.linen as nn

from car_jax.nn import init
from car_jax.nn.composed import Neck
from car_jax.nn.layers import NormedConv, layer_norm
from car_jax.options import Share, Width
from car_jax.typing import Array


class MLANeck(Neck):
  """Maps of one size, from shallow to deep -> as many, from deep to shallow.

  Each is the sum of its map and all deeper ones at one width, and then a 3 x 3 convolution.
  """

  INIT = ((r'/kernel$', init.kaiming_fan_out),)

  features: Width = 256
  """Channels of each map that it gives."""
  epsilon: Share = 1e-6
  """Epsilon of the layer norms of the maps that come in."""

  @nn.compact
  def __call__(self, maps: Sequence[Array], *, train: bool) -> tuple[Array, ...]:
    def unit(x, size, name):
      return NormedConv(self.features, size, dtype=self.dtype, name=name)(x, train=train)

    norm = lambda i: layer_norm(f'norm{i}', self.epsilon, self.dtype)
    narrow = [unit(norm(i)(x), 1, f'project{i}') for i, x in enumerate(maps)]
    sums = itertools.accumulate(reversed(narrow), operator.add)
    return tuple(unit(x, 3, f'extract{i}') for i, x in enumerate(sums))
