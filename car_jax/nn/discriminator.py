"""CAR's discriminator (arXiv 2006.13144, supplement). Letters: B, H, W; C channels of the pair."""

import flax.linen as nn
import jax.numpy as jnp

from car_jax.clamp import clamp
from car_jax.errors import UserError
from car_jax.nn import init
from car_jax.nn.dropout import Dropout
from car_jax.nn.layers import at_least_float32, conv, part, reflect_pad
from car_jax.options import Dtype, Share, Width
from car_jax.typing import Array


class PixelDiscriminator(nn.Module):
  """Image and segmentation [B, H, W, C] -> the probability [B] that the segmentation is real.

  The score is clamped to at least 1e-7. H and W of at least 24, with a remainder by 8 of at most 5:
  the stack of 4 x 4 convolutions does not meet otherwise (the published code crashes there).
  The last, linear layer depends on the image size.
  """

  hidden: Width = 64
  """Channels of the first layer."""
  dropout: Share = 0.0
  """Share of what is dropped in training."""
  dtype: Dtype = None
  """Of activations; parameters stay float32."""

  INIT = init.TORCH

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    for side in x.shape[1:3]:
      if side < 24 or side % 8 > 5:
        near = (
          24
          if side < 24
          else min(
            (s for s in (side - side % 8 + 5, -(-side // 8) * 8)), key=lambda s: abs(s - side)
          )
        )
        raise UserError(f'PixelDiscriminator cannot take an image side of {side}; nearest {near}')
    h = self.hidden

    def layer(x, name, width, size, stride=1, padding=0, bias=True):
      kw = {'use_bias': bias, 'dtype': self.dtype, 'name': name}
      activated = lambda net, x: nn.leaky_relu(conv(width, size, stride, padding, **kw)(x), 0.2)
      return part(activated, self, x)

    def drop(x):
      return Dropout(self.dropout, deterministic=not train)(x)

    for k in range(3):
      x = layer(x, f'pixel{k + 1}', h, 3, padding='REFLECT')
    x = drop(layer(reflect_pad(x), 'down1', h, 4, 2, 1))
    x = drop(layer(x, 'down2', 2 * h, 4, 2, 1, bias=False))
    x = drop(layer(x, 'down3', 4 * h, 4, 2, 1, bias=False))
    x = drop(layer(x, 'wide1', 8 * h, 4, 1, 1, bias=False))
    x = drop(layer(x, 'wide2', h, 4, 1, 1))
    self.sow('intermediates', 'features', x)
    flat = at_least_float32(jnp.moveaxis(x, -1, 1).reshape(len(x), -1))  # channels first
    score = nn.sigmoid(drop(nn.Dense(1, name='score')(flat)))
    return clamp(score[:, 0], 1e-7)
