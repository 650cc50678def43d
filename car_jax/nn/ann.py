"""The head of the asymmetric non-local network (arXiv 1908.07678), as mmsegmentation trains it.

Each place attends to means over a pyramid of bins instead of all places: first a fine map's, then
its own map's. Letters: B images, h x w places of a feature map, D channels, N bins of all scales.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from car_jax.nn import init
from car_jax.nn.attention import attention
from car_jax.nn.composed import Head
from car_jax.nn.dropout import Dropout
from car_jax.nn.layers import BatchNorm, NormedConv, conv
from car_jax.nn.pooling import adaptive_mean
from car_jax.options import Width
from car_jax.typing import Array


def sampled(x: Array, scales: Sequence[int]) -> Array:
  """[B, h, w, D] -> its means over scale x scale bins, [B, N, D]."""
  pooled = [adaptive_mean(x, (scale, scale)) for scale in scales]
  return jnp.concatenate([y.reshape(x.shape[0], -1, x.shape[-1]) for y in pooled], 1)


class PyramidAttention(nn.Module):
  """What places of x find in the bins of another map: -> [B, h, w, D] as x.

  With `shared`, queries and keys are projected alike.
  """

  inner: int  # channels of queries, keys and values
  scales: tuple[int, ...]
  shared: bool
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, other: Array, *, train: bool) -> Array:
    b, h, w, d = x.shape
    query = NormedConv(self.inner, dtype=self.dtype, name='query')
    key = query if self.shared else NormedConv(self.inner, dtype=self.dtype, name='key')
    value = conv(self.inner, 1, padding=0, dtype=self.dtype, name='value')
    queries = query(x, train=train).reshape(b, h * w, 1, self.inner)  # of one attention head
    keys, values = key(other, train=train), value(other)
    keys, values = (sampled(y, self.scales)[:, :, None] for y in (keys, values))
    y = attention(queries, keys, values).reshape(b, h, w, self.inner)
    return conv(d, 1, padding=0, dtype=self.dtype, name='out')(y)


class NonLocalBlock(nn.Module):
  """What attentions find, summed, beside x; a 1 x 1 convolution and norm join them."""

  inner: int
  scales: tuple[int, ...]
  attentions: int
  shared: bool
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, other: Array, *, train: bool) -> Array:
    context = jnp.zeros_like(x)
    for i in range(1, self.attentions + 1):
      shape = self.inner, self.scales, self.shared, self.dtype
      context += PyramidAttention(*shape, name=f'attention{i}')(x, other, train=train)
    y = jnp.concatenate([context, x], -1)
    kw = {'padding': 0, 'use_bias': False, 'dtype': self.dtype}
    y = conv(x.shape[-1], 1, name='join', **kw)(y)
    return BatchNorm(name='join_norm')(y, train=train)


class ANNHead(Head):
  """The coarse map attends to a finer one, without a ReLU after; then its features to themselves.

  Attention starts silent: the last projection's weights are zero.
  """

  INIT = (
    (r'/out/(kernel|bias)$', init.zeros),
    (r'/value/kernel$', init.torch_default),
    *Head.INIT,
  )

  inner: Width = 256
  """Channels of queries, keys and values."""
  scales: tuple[Width, ...] = (1, 3, 6, 8)
  """Bins on each side that are attended to."""
  attentions: Width = 1
  """Attentions side by side in each block."""
  indices: tuple[int, int] = (2, 3)
  """Which maps are read, the finer one first."""

  @nn.compact
  def __call__(self, maps: Sequence[Array], *, train: bool) -> Array:
    shape = self.inner, self.scales, self.attentions
    fine, x = self.chosen(maps, self.indices)
    x = NonLocalBlock(*shape, False, self.dtype, name='fusion')(x, fine, train=train)
    x = Dropout(self.dropout, broadcast_dims=(1, 2), deterministic=not train)(x)
    x = NormedConv(self.features, 3, dtype=self.dtype, name='bottleneck')(x, train=train)
    x = NonLocalBlock(*shape, True, self.dtype, name='context')(x, x, train=train)
    return self.classified(nn.relu(x), train=train)
