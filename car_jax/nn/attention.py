"""Softmax attention, in blocks of queries where it is large."""

import jax
import jax.numpy as jnp
from jax.export import is_symbolic_dim

from car_jax.typing import Array

MAX_SCORES = 2**25  # of an image: 128 MiB in float32


def attention(query: Array, key: Array, value: Array, *, max_scores: int = MAX_SCORES) -> Array:
  """[B, M, heads, D], twice [B, N, heads, D] -> [B, M, heads, D]: what queries find in values.

  The softmax is float32 at least. No more than `max_scores` of an image, of its M N for each head,
  exist at a time: queries come in blocks, and the backward pass computes the scores of each again
  (Rabe and Staats, arXiv 2112.05682). An image of 1024 x 2048 has 9e9 in Stable Diffusion's first
  level.
  """
  b, m, heads, d = query.shape
  n = key.shape[1]
  if any(map(is_symbolic_dim, (m, n))) or heads * m * n <= max_scores:
    return _unblocked(query, key, value)
  size = max(1, max_scores // (heads * n))
  count = -(-m // size)
  size = -(-m // count)  # blocks of one size with the least of padding
  padded = jnp.pad(query, ((0, 0), (0, count * size - m), (0, 0), (0, 0)))
  blocks = jnp.moveaxis(padded.reshape(b, count, size, heads, d), 1, 0)
  outputs = jax.lax.map(jax.checkpoint(lambda block: _unblocked(block, key, value)), blocks)
  return jnp.moveaxis(outputs, 0, 1).reshape(b, count * size, heads, d)[:, :m]


def _unblocked(query: Array, key: Array, value: Array) -> Array:
  if query.dtype != jnp.float64:
    return jax.nn.dot_product_attention(query, key, value)
  affinity = jnp.einsum('bmhd,bnhd->bhmn', query * query.shape[-1] ** -0.5, key)  # jax's: float32
  return jnp.einsum('bhmn,bnhd->bmhd', jax.nn.softmax(affinity), value)
