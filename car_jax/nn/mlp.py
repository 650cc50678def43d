"""A plain stack of linear layers, for data without pixels."""

from typing import Any

import flax.linen as nn

from car_jax.nn import init
from car_jax.nn.layers import at_least_float32
from car_jax.typing import Array


class MLP(nn.Module):
  """inputs [..., I] -> [..., widths[-1]] float32, a leaky ReLU of `slope` between the layers."""

  widths: tuple[int, ...] = (64, 64, 64, 64, 1)
  slope: float = 0.0
  dtype: Any = None

  INIT = init.TORCH

  @nn.compact
  def __call__(self, x: Array) -> Array:
    for k, width in enumerate(self.widths):
      layer = nn.Dense(width, dtype=self.dtype, name=f'layer{k}')
      x = layer(x if k == 0 else nn.leaky_relu(x, self.slope))
    return at_least_float32(x)
