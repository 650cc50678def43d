"""The head of CCNet (arXiv 1811.11721), as mmsegmentation trains it.

Letters: B images, h x w places of a feature map, D channels.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from car_jax.nn import init
from car_jax.nn.fcn_head import FCNHead
from car_jax.nn.layers import at_least_float32, conv
from car_jax.options import Width
from car_jax.typing import Array


class CrissCrossAttention(nn.Module):
  """[B, h, w, D] -> x and a share of what each place finds in its own column and row.

  Its own place, where the two cross, counts once. The share `gamma` is learnt from 0.
  """

  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    d, h = x.shape[-1], x.shape[1]
    inner = max(d // 8, 1)
    project = lambda width, name: conv(width, 1, padding=0, dtype=self.dtype, name=name)(x)
    query, key, value = project(inner, 'query'), project(inner, 'key'), project(d, 'value')
    in_column = jnp.einsum('bhwd,biwd->bhwi', query, key)
    in_column = jnp.where(jnp.eye(h, dtype=bool)[:, None], -jnp.inf, in_column)
    in_row = jnp.einsum('bhwd,bhjd->bhwj', query, key)
    energy = at_least_float32(jnp.concatenate([in_column, in_row], -1))
    column, row = jnp.split(jax.nn.softmax(energy).astype(value.dtype), [h], -1)
    context = jnp.einsum('bhwi,biwd->bhwd', column, value)
    context += jnp.einsum('bhwj,bhjd->bhwd', row, value)
    gamma = self.param('gamma', nn.initializers.zeros, ())
    return gamma.astype(x.dtype) * context + x


class CCHead(FCNHead):
  """FCN's head with criss-cross attention after the first convolution.

  Two passes with the same weights carry something from every place to every other.
  """

  INIT = ((r'/(query|key|value)/kernel$', init.torch_default), *FCNHead.INIT)
  UNREAD = (*FCNHead.UNREAD, 'num_convs')  # attention lies between the two

  passes: Width = 2
  """How often attention is applied."""

  def related(self, x: Array, *, train: bool) -> Array:
    attend = CrissCrossAttention(self.dtype, name='attention')
    for _ in range(self.passes):
      x = attend(x)
    return x
