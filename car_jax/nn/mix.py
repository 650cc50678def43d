"""How a latent enters features, in CAR's generators and in MoSE's head."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from car_jax.nn.init import torch_uniform
from car_jax.typing import Array


class Mix(nn.Module):
  """Dense((features + shift) * scale) with the sample's scale folded into the kernel.

  features [B, N, H, W, F], or with N = 1 the same for all samples; shift and scale [B, N, F]
  -> [B, N, H, W, width]. No array of samples by pixels is made for it but the result.
  """

  width: int
  dtype: Any = None

  @nn.compact
  def __call__(self, features: Array, shift: Array, scale: Array) -> Array:
    shape = (features.shape[-1], self.width)
    kernel = self.param('kernel', torch_uniform(shape[0]), shape)
    bias = self.param('bias', torch_uniform(shape[0]), shape[1:])
    features, shift, scale, kernel, bias = nn.dtypes.promote_dtype(
      features, shift, scale, kernel, bias, dtype=self.dtype
    )
    kernels = scale[..., None] * kernel  # [B, N, F, width]
    offset = jnp.einsum('bnf,bnfg->bng', shift, kernels) + bias
    if features.shape[1] == 1:  # one product for all samples of an image
      mixed = jnp.einsum('bhwf,bfng->bhwng', features[:, 0], kernels.swapaxes(1, 2))
      mixed = jnp.moveaxis(mixed, 3, 1)
    else:
      mixed = jnp.einsum('bnhwf,bnfg->bnhwg', features, kernels)
    return mixed + offset[:, :, None, None]
