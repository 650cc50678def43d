"""The text encoder of CLIP (Radford et al., arXiv 2103.00020).

Letters: B texts, L tokens (77), D width.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from car_jax.generate.blocks import Compute
from car_jax.nn.layers import at_least_float32, layer_norm
from car_jax.typing import Array

NARROW = nn.initializers.normal(0.02)


def quick_gelu(x: Array) -> Array:
  return x * nn.sigmoid(1.702 * x)


class Embeddings(nn.Module):
  """Ids [B, L] -> [B, L, D]: the token's, and its position's."""

  vocab_size: int
  positions: int
  width: int
  compute: Compute

  @nn.compact
  def __call__(self, ids: Array) -> Array:
    table = lambda rows, name: nn.Embed(
      rows, self.width, self.compute.dtype, embedding_init=NARROW, name=name
    )
    tokens = table(self.vocab_size, 'token_embedding')(ids)
    return tokens + table(self.positions, 'position_embedding')(jnp.arange(ids.shape[1]))


class SelfAttention(nn.Module):
  """x [B, L, D] -> the same; no token sees those after it."""

  heads: int
  compute: Compute

  @nn.compact
  def __call__(self, x: Array) -> Array:
    b, n, d = x.shape
    dense = lambda name: nn.Dense(d, dtype=self.compute.dtype, kernel_init=NARROW, name=name)
    projected = lambda name: dense(name)(x).reshape(b, n, self.heads, d // self.heads)
    query, key, value = (projected(f'{part}_proj') for part in 'qkv')
    y = jax.nn.dot_product_attention(query, key, value, is_causal=True)
    return dense('out_proj')(y.reshape(b, n, d))


class MLP(nn.Module):
  features: int
  compute: Compute

  @nn.compact
  def __call__(self, x: Array) -> Array:
    kw = dict(dtype=self.compute.dtype, kernel_init=NARROW)
    y = quick_gelu(nn.Dense(self.features, name='fc1', **kw)(x))
    return nn.Dense(x.shape[-1], name='fc2', **kw)(y)


class Layer(nn.Module):
  heads: int
  features: int
  epsilon: float
  compute: Compute

  @nn.compact
  def __call__(self, x: Array) -> Array:
    norm = lambda k: layer_norm(f'layer_norm{k}', self.epsilon, self.compute.dtype)(x)
    x = x + SelfAttention(self.heads, self.compute, name='self_attn')(norm(1))
    return x + MLP(self.features, self.compute, name='mlp')(norm(2))


class Layers(nn.Module):
  count: int
  heads: int
  features: int
  epsilon: float
  compute: Compute

  @nn.compact
  def __call__(self, x: Array) -> Array:
    for i in range(self.count):
      size = self.heads, self.features, self.epsilon
      x = Layer(*size, self.compute, name=f'layers_{i}')(x)
    return x


class ClipText(nn.Module):
  """Token ids [B, L] -> the last layer's normed features [B, L, D] float32, padding included.

  Defaults are those of CLIP ViT-L/14, Stable Diffusion 1.5's. The published names of its weights
  begin with `text_model.`, which has no module here.
  """

  vocab_size: int = 49_408
  max_position_embeddings: int = 77
  hidden_size: int = 768
  intermediate_size: int = 3_072
  num_hidden_layers: int = 12
  num_attention_heads: int = 12
  layer_norm_eps: float = 1e-5
  compute: Compute = Compute()

  def smallest(self) -> tuple[Array, ...]:
    """The ids of one text, zeros."""
    return (jnp.zeros((1, self.max_position_embeddings), jnp.int32),)

  @nn.compact
  def __call__(self, ids: Array) -> Array:
    tables = self.vocab_size, self.max_position_embeddings, self.hidden_size
    x = Embeddings(*tables, self.compute, name='embeddings')(ids)
    size = self.num_hidden_layers, self.num_attention_heads, self.intermediate_size
    x = Layers(*size, self.layer_norm_eps, self.compute, name='encoder')(x)
    x = layer_norm('final_layer_norm', self.layer_norm_eps, self.compute.dtype)(x)
    return at_least_float32(x)
