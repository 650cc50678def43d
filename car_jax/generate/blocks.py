"""What the networks of Stable Diffusion 1.x are made of (Rombach et al., arXiv 2112.10752).

Submodules are called as in the state dicts of the diffusers library, with `_0` for `.0`, so that
names of weights map mechanically (weights.py). Letters: B images, h x w places of a feature map,
C channels, N queries, M keys, A heads, L text tokens, D their width.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from car_jax.nn.attention import attention
from car_jax.nn.denoising import ZEROS, convolved, dense
from car_jax.nn.layers import GroupNorm, layer_norm
from car_jax.typing import Array


@dataclasses.dataclass(frozen=True)
class Compute:
  """How a network is computed, whatever its weights; norms and softmax are float32 always."""

  dtype: Any = None
  """Of activations; None for what parameters and inputs have."""
  remat: bool = False
  """Recomputes residual and transformer blocks in the backward pass instead of keeping them."""


PLAIN = Compute()


def kept(module: type[nn.Module], compute: Compute) -> type[nn.Module]:
  """The module's class, or that which recomputes its insides in the backward pass."""
  return nn.remat(module) if compute.remat else module


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
      y = dense(c, name, self.compute.dtype, use_bias=self.use_bias)(y)
      return y.reshape(b, -1, self.heads, c // self.heads)

    seen = x if context is None else context
    query, key, value = projected(x, 'to_q'), projected(seen, 'to_k'), projected(seen, 'to_v')
    if focus is not None:
      scores = jnp.einsum('bnac,blac->banl', query, key, preferred_element_type=jnp.float32)
      weights = nn.softmax(scores * (c // self.heads) ** -0.5)
      seen = jnp.einsum('banl,bl->bn', weights, focus) / self.heads
      self.sow('intermediates', 'attention', seen.reshape(x.shape[:-1]))
    # Shapes are known without: the first parameters come in a third less time.
    y = query if self.is_initializing() else attention(query, key, value)
    return dense(c, 'to_out_0', self.compute.dtype)(y.reshape(x.shape))


class GatedGELU(nn.Module):
  """[..., C] -> [..., features]: a * gelu(b) of two projections, GELU by the error function."""

  features: int
  compute: Compute

  @nn.compact
  def __call__(self, x: Array) -> Array:
    a, b = jnp.split(dense(2 * self.features, 'proj', self.compute.dtype)(x), 2, axis=-1)
    return a * nn.gelu(b, approximate=False)


class FeedForward(nn.Module):
  compute: Compute

  @nn.compact
  def __call__(self, x: Array) -> Array:
    c = x.shape[-1]
    y = GatedGELU(4 * c, self.compute, name='net_0')(x)
    return dense(c, 'net_2', self.compute.dtype)(y)


class TransformerBlock(nn.Module):
  """Attention to itself, to the text, and a feed-forward net, each after a norm and added."""

  heads: int
  compute: Compute

  @nn.compact
  def __call__(self, x: Array, context: Array, focus: Array | None = None) -> Array:
    norm = lambda k: layer_norm(f'norm{k}', 1e-5, self.compute.dtype)(x)
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
    y = GroupNorm(self.groups, 1e-6, self.compute.dtype, name='norm')(x)
    y = convolved(c, 'proj_in', self.compute.dtype, size=1)(y)
    y = TransformerBlock(self.heads, self.compute, name='transformer_blocks_0')(y, context, focus)
    return x + convolved(c, 'proj_out', self.compute.dtype, size=1, kernel_init=ZEROS)(y)
