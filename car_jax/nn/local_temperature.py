"""Local temperature scaling: a temperature for each pixel (Ding et al., arXiv 2008.05105), in the
form that RELIS (arXiv 2303.11298) trains for segmenters of street scenes.

Letters: B images, H x W pixels, C classes, D channels.
"""

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from car_jax.nn.layers import reflect_pad
from car_jax.options import Dtype
from car_jax.typing import Array

Inputs = Literal['logits+image', 'logits', 'image']
# what the image's convolution sees, and what the other eight see
INPUTS = {
  'logits+image': ('image', 'logits'),
  'logits': ('logits', 'logits'),
  'image': ('image', 'image'),
}
CONVOLUTIONS = tuple(f'conv{k}' for k in range(1, 5))
GATES = tuple(f'gate{k}' for k in range(1, 4))
LEAST = 1e-8


class LocalTemperature(nn.Module):
  """logits [B, H, W, C], image [B, H, W, 3] in [-1, 1] -> temperatures [B, H, W, 1].

  All weights start at zero, and then T is 2, not 1. Four convolutions mixed by three gates would
  seem to make a rich map, but from zeros the four stay equal for ever and the gates stay at zero:
  T = relu(2 + s u(logits) + (1 - s) v(image)) with one convolution u, one v and one gate s.
  """

  inputs: Inputs = 'logits+image'
  """What the temperature is made of."""
  dtype: Dtype = None
  """Of products; parameters and temperatures stay float32."""

  @nn.compact
  def __call__(self, logits: Array, image: Array) -> Array:
    shown = {'logits': logits, 'image': (image + 1) / 2}
    by_image, by_rest = (reflect_pad(shown[kind], 4) for kind in INPUTS[self.inputs])
    seen = lambda name, x: DilatedConv(self.dtype, name=name)(x)
    t = [seen(name, by_rest) + 1 for name in CONVOLUTIONS]
    s = [nn.sigmoid(seen(name, by_rest)) for name in GATES]
    by_logits = mix(mix(t[0], t[1], s[0]), mix(t[2], t[3], s[1]), s[2])
    gate = nn.sigmoid(seen('gate_image', by_rest))
    mixed = mix(by_logits, seen('conv_image', by_image) + 1, gate)
    return nn.relu(mixed + 1) + LEAST


class DilatedConv(nn.Module):
  """x [B, H + 8, W + 8, D] -> [B, H, W, 1], kernel 5 x 5, dilation 2.

  One matrix product gives a map for each of the 25 weights; they are shifted and added. Written
  this way equal weights have equal results to the last digit, which one convolution of nine
  channels does not promise, and it is thirty times as fast on a CPU as nine convolutions.
  """

  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    kernel = self.param('kernel', nn.initializers.zeros, (5, 5, x.shape[-1], 1))
    bias = self.param('bias', nn.initializers.zeros, (1,))
    h, w = x.shape[1] - 8, x.shape[2] - 8
    x, kernel = nn.dtypes.promote_dtype(x, kernel, dtype=self.dtype)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    maps = jnp.einsum('bhwd,yxd->yxbhw', x, kernel[..., 0], preferred_element_type=wide)
    rows: Any = sum(maps[k, :, :, 2 * k : 2 * k + h] for k in range(5))
    out: Any = sum(rows[k, :, :, 2 * k : 2 * k + w] for k in range(5))
    return bias + out[..., None]


def mix(a: Array, b: Array, s: Array) -> Array:
  """s a + (1 - s) b, exactly a where both are equal.

  The other form rounds: gates that have no gradient would get one of 1e-8, of which Adam makes a
  full step.
  """
  return b + s * (a - b)
