"""Convolutions whose kernels are standardised (Qiao et al., arXiv 1903.10520)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from car_jax.nn import init
from car_jax.nn.convolution import convolve
from car_jax.typing import Array


class StandardisedConv(nn.Module):
  """A convolution, each output's kernel of mean 0 and variance 1.

  `multiplied` is what ATFM's release does: kernels less their mean *times* their deviation.
  """

  features: int
  size: int = 1
  stride: int = 1
  dilation: int = 1
  dtype: Any = None
  epsilon: float = 1e-8
  use_bias: bool = False
  multiplied: bool = False

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = self.size, self.size, x.shape[-1], self.features
    kernel = self.param('kernel', init.RULED, shape)
    bias = self.param('bias', init.RULED, (self.features,)) if self.use_bias else None
    kernel = kernel - jnp.mean(kernel, (0, 1, 2))
    variance = jnp.mean(kernel**2, (0, 1, 2)) + self.epsilon
    kernel = kernel * (jnp.sqrt(variance) if self.multiplied else jax.lax.rsqrt(variance))
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
    pad = self.dilation * (self.size // 2)
    y = convolve(
      x,
      kernel,
      (self.stride,) * 2,
      ((pad, pad),) * 2,
      rhs_dilation=(self.dilation,) * 2,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    return y if bias is None else y + bias
