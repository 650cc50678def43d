"""A plain stack of linear layers, for data without pixels."""

import flax.linen as nn

from car_jax.nn import init
from car_jax.typing import Array


class MLP(nn.Module):
  """inputs [..., I] -> [..., widths[-1]], a leaky ReLU of `slope` between the layers."""

  widths: tuple[int, ...] = (64, 64, 64, 64, 1)
  slope: float = 0.0

  INIT = init.TORCH

  @nn.compact
  def __call__(self, x: Array) -> Array:
    for k, width in enumerate(self.widths):
      x = nn.Dense(width, name=f'layer{k}')(x if k == 0 else nn.leaky_relu(x, self.slope))
    return x
