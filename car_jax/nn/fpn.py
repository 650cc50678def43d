"""Feature pyramid network (arXiv 1612.03144): coarse maps are added to finer ones, from the top.

As the paper has it, its convolutions have neither norm nor activation.
"""

from collections.abc import Sequence

import flax.linen as nn

from car_jax.nn import init
from car_jax.nn.composed import Neck
from car_jax.nn.layers import conv
from car_jax.nn.resize import resize_nearest
from car_jax.options import Count, Width
from car_jax.typing import Array


class FPN(Neck):
  """Maps of any widths -> maps of the same sizes, all of one width."""

  INIT = ((r'/kernel$', init.xavier_uniform), (r'/bias$', init.zeros))

  features: Width = 256
  """Channels of all maps."""
  first: Count = 0
  """The finest map that is read."""
  outputs: Count = 0
  """How many maps it gives; more than it reads are coarser by two each; 0 for as many."""

  @nn.compact
  def __call__(self, maps: Sequence[Array], *, train: bool) -> tuple[Array, ...]:
    merged: list[Array] = []
    for k, x in reversed(list(enumerate(maps[self.first :]))):
      x = conv(self.features, 1, padding=0, dtype=self.dtype, name=f'lateral{k}')(x)
      merged.insert(0, x + resize_nearest(merged[0], x.shape[1:3]) if merged else x)
    smooth = lambda k: conv(self.features, dtype=self.dtype, name=f'smooth{k}')
    pyramid = [smooth(k)(x) for k, x in enumerate(merged)]
    while len(pyramid) < self.outputs:
      pyramid.append(pyramid[-1][:, ::2, ::2])
    return tuple(pyramid)
