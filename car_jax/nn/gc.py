"""The head of GCNet (arXiv 1904.11492), as mmsegmentation trains it.

The paper has the block in the stages of the backbone; here one lies in the head. Letters: B images,
h x w places of a feature map, D channels.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from car_jax.nn import init
from car_jax.nn.fcn_head import FCNHead
from car_jax.nn.layers import at_least_float32, conv
from car_jax.options import Factor
from car_jax.typing import Array


class GlobalContext(nn.Module):
  """[B, h, w, D] -> the same, scaled or shifted or both by what the whole map holds."""

  ratio: float
  pooling: str
  scales: bool
  shifts: bool
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    context = self.pooled(x)
    if self.scales:
      x = x * nn.sigmoid(self.transformed(context, 'scale'))
    return x + self.transformed(context, 'shift') if self.shifts else x

  def pooled(self, x: Array) -> Array:
    """[B, 1, 1, D]: a mean of all places, weighted by how much each asks for attention."""
    if self.pooling == 'mean':
      return x.mean((1, 2), keepdims=True)
    affinity = at_least_float32(conv(1, 1, padding=0, dtype=self.dtype, name='mask')(x))
    weights = jax.nn.softmax(affinity, (1, 2)).astype(x.dtype)
    return jnp.einsum('bhwo,bhwd->bod', weights, x)[:, None]

  def transformed(self, context: Array, name: str) -> Array:
    """[B, 1, 1, D] -> the same, through fewer channels."""
    d = context.shape[-1]
    point = lambda width, which: conv(width, 1, padding=0, dtype=self.dtype, name=f'{name}_{which}')
    y = point(max(int(d * self.ratio), 1), 'contract')(context)
    kw = {'dtype': self.dtype, 'use_fast_variance': False, 'name': f'{name}_norm'}
    y = nn.relu(nn.LayerNorm(1e-5, **kw)(y))
    return point(d, 'expand')(y)


class GCHead(FCNHead):
  """FCN's head with a block of global context after the first convolution.

  The block starts silent where it shifts: its last weights are zero.
  """

  INIT = (
    (r'/mask/kernel$', init.kaiming_fan_in),
    (r'/mask/bias$', init.zeros),
    (r'/(scale|shift)_expand/(kernel|bias)$', init.zeros),
    (r'/(scale|shift)_contract/kernel$', init.torch_default),
    *FCNHead.INIT,
  )
  UNREAD = (*FCNHead.UNREAD, 'num_convs')  # the block lies between the two

  ratio: Factor = 0.25
  """Channels inside the block, as a share of the head's."""
  pooling: Literal['attention', 'mean'] = 'attention'
  """Whether places count by a learnt attention or all the same."""
  scales: bool = False
  """Whether the context scales channels, between 0 and 1."""
  shifts: bool = True
  """Whether it is added to them."""

  def related(self, x: Array, *, train: bool) -> Array:
    shape = self.ratio, self.pooling, self.scales, self.shifts, self.dtype
    return GlobalContext(*shape, name='context')(x)
