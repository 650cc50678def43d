"""What the networks of Stable Diffusion 1.x are made of (Rombach et al., arXiv 2112.10752).

Submodules are called as in the state dicts of the diffusers library, with `_0` for `.0`, so that
names of weights map mechanically (weights.py). Letters: B images, h x w places of a feature map,
C channels, N queries, M keys, A heads, L text tokens, D their width.
"""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from car_jax.nn.init import torch_uniform
from car_jax.nn.layers import conv
from car_jax.typing import Array

ZEROS = nn.initializers.zeros


@dataclasses.dataclass(frozen=True)
class Compute:
  """How a network is computed, whatever its weights; norms and softmax are float32 always."""

  dtype: Any = None
  """Of activations; None for what parameters and inputs have."""
  remat: bool = False
  """Recomputes residual and transformer blocks in the backward pass instead of keeping them."""
  attention_limit: int = 8_192
  """Attention to this many keys, or more, takes its queries in blocks."""
  query_block: int = 1_024
  """How many queries a block has."""


PLAIN = Compute()


def kernel_init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
  """U(-1/sqrt(fan_in), 1/sqrt(fan_in)), as torch starts kernels; biases start at zero here."""
  return torch_uniform(math.prod(shape[:-1]))(key, shape, dtype)


def convolved(
  features: int, name: str, compute: Compute, *, size: int = 3, stride: int = 1, **kw: Any
) -> nn.Conv:
  """A convolution padded by zeros to keep the size, or halve it with stride 2."""
  kw = {'kernel_init': kernel_init} | kw
  return conv(features, size, stride, size // 2, dtype=compute.dtype, name=name, **kw)


def dense(features: int, name: str, compute: Compute, **kw: Any) -> nn.Dense:
  kw = {'kernel_init': kernel_init} | kw
  return nn.Dense(features, dtype=compute.dtype, name=name, **kw)


def group_norm(groups: int, epsilon: float, name: str, compute: Compute) -> nn.GroupNorm:
  return nn.GroupNorm(groups, None, epsilon, compute.dtype, use_fast_variance=False, name=name)


def layer_norm(name: str, compute: Compute, epsilon: float = 1e-5) -> nn.LayerNorm:
  return nn.LayerNorm(epsilon, compute.dtype, use_fast_variance=False, name=name)


def kept(module: type[nn.Module], compute: Compute) -> type[nn.Module]:
  """The module's class, or that which recomputes its insides in the backward pass."""
  return nn.remat(module) if compute.remat else module


def attended(query: Array, key: Array, value: Array, compute: Compute) -> Array:
  """query [B, N, A, C], key and value [B, M, A, C] -> [B, N, A, C], softmax in float32.

  From `attention_limit` keys on, the scores of one block of queries exist at a time, and the
  backward pass computes them again: a picture of 1024 x 2048 has N * M * A = 9e9 of them.
  """
  if key.shape[1] < compute.attention_limit:
    return jax.nn.dot_product_attention(query, key, value)
  b, n, *rest = query.shape
  size = min(compute.query_block, n)
  count = -(-n // size)
  blocks = jnp.pad(query, ((0, 0), (0, count * size - n), (0, 0), (0, 0)))
  blocks = jnp.moveaxis(blocks.reshape(b, count, size, *rest), 1, 0)
  of_block = jax.checkpoint(lambda q: jax.nn.dot_product_attention(q, key, value))
  joined = jnp.moveaxis(jax.lax.map(of_block, blocks), 0, 1)
  return joined.reshape(b, count * size, *rest)[:, :n]


class Attention(nn.Module):
  """x [B, ..., C] -> the same shape: to itself, or to `context` [B, L, D].

  With `focus` [B, L], weights of the text's tokens, each query's attention to them, averaged over
  heads, is sown as 'attention' [B, ...].
  """

  heads: int
  compute: Compute
  use_bias: bool = False

  @nn.compact
  def __call__(self, x: Array, context: Array | None = None, focus: Array | None = None) -> Array:
    b, *_, c = x.shape

    def projected(y: Array, name: str) -> Array:
      y = dense(c, name, self.compute, use_bias=self.use_bias)(y)
      return y.reshape(b, -1, self.heads, c // self.heads)

    seen = x if context is None else context
    query, key, value = projected(x, 'to_q'), projected(seen, 'to_k'), projected(seen, 'to_v')
    if focus is not None:
      scores = jnp.einsum('bnac,blac->banl', query, key, preferred_element_type=jnp.float32)
      weights = nn.softmax(scores * (c // self.heads) ** -0.5)
      seen = jnp.einsum('banl,bl->bn', weights, focus) / self.heads
      self.sow('intermediates', 'attention', seen.reshape(x.shape[:-1]))
    # Shapes are known without: the first parameters come in a third less time.
    y = query if self.is_initializing() else attended(query, key, value, self.compute)
    return dense(c, 'to_out_0', self.compute)(y.reshape(x.shape))


class GatedGELU(nn.Module):
  """[..., C] -> [..., features]: a * gelu(b) of two projections, GELU by the error function."""

  features: int
  compute: Compute

  @nn.compact
  def __call__(self, x: Array) -> Array:
    a, b = jnp.split(dense(2 * self.features, 'proj', self.compute)(x), 2, axis=-1)
    return a * nn.gelu(b, approximate=False)


class FeedForward(nn.Module):
  compute: Compute

  @nn.compact
  def __call__(self, x: Array) -> Array:
    c = x.shape[-1]
    y = GatedGELU(4 * c, self.compute, name='net_0')(x)
    return dense(c, 'net_2', self.compute)(y)


class TransformerBlock(nn.Module):
  """Attention to itself, to the text, and a feed-forward net, each after a norm and added."""

  heads: int
  compute: Compute

  @nn.compact
  def __call__(self, x: Array, context: Array, focus: Array | None = None) -> Array:
    norm = lambda k: layer_norm(f'norm{k}', self.compute)(x)
    x = x + Attention(self.heads, self.compute, name='attn1')(norm(1))
    x = x + Attention(self.heads, self.compute, name='attn2')(norm(2), context, focus)
    return x + FeedForward(self.compute, name='ff')(norm(3))


class Transformer(nn.Module):
  """x [B, h, w, C], context [B, L, D] -> [B, h, w, C]; starts as the identity."""

  heads: int
  groups: int
  compute: Compute

  @nn.compact
  def __call__(self, x: Array, context: Array, focus: Array | None = None) -> Array:
    c = x.shape[-1]
    y = group_norm(self.groups, 1e-6, 'norm', self.compute)(x)
    y = convolved(c, 'proj_in', self.compute, size=1)(y)
    y = TransformerBlock(self.heads, self.compute, name='transformer_blocks_0')(y, context, focus)
    return x + convolved(c, 'proj_out', self.compute, size=1, kernel_init=ZEROS)(y)


class ResBlock(nn.Module):
  """x [B, h, w, C] -> [B, h, w, features]; `time` [B, T] shifts the channels in between.

  Starts as its shortcut, which is a 1 x 1 convolution only where the width changes.
  """

  features: int
  groups: int
  epsilon: float
  compute: Compute

  @nn.compact
  def __call__(self, x: Array, time: Array | None = None) -> Array:
    norm = lambda k: group_norm(self.groups, self.epsilon, f'norm{k}', self.compute)
    y = convolved(self.features, 'conv1', self.compute)(nn.silu(norm(1)(x)))
    if time is not None:
      y = y + dense(self.features, 'time_emb_proj', self.compute)(nn.silu(time))[:, None, None]
    y = nn.silu(norm(2)(y))
    y = convolved(self.features, 'conv2', self.compute, kernel_init=ZEROS)(y)
    if x.shape[-1] != self.features:
      x = convolved(self.features, 'conv_shortcut', self.compute, size=1)(x)
    return x + y


class Downsample(nn.Module):
  """[B, h, w, C] -> [B, h/2, w/2, C]; `one_sided` pads at the right and at the bottom only."""

  compute: Compute
  one_sided: bool = False

  @nn.compact
  def __call__(self, x: Array) -> Array:
    if self.one_sided:
      kw = dict(dtype=self.compute.dtype, kernel_init=kernel_init, name='conv')
      return nn.Conv(x.shape[-1], (3, 3), 2, ((0, 1), (0, 1)), **kw)(x)
    return convolved(x.shape[-1], 'conv', self.compute, stride=2)(x)


class Upsample(nn.Module):
  """[B, h, w, C] -> [B, 2h, 2w, C]: each place four times, then a convolution."""

  compute: Compute

  @nn.compact
  def __call__(self, x: Array) -> Array:
    x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
    return convolved(x.shape[-1], 'conv', self.compute)(x)
