"""Multi-scale deformable attention of Deformable DETR (arXiv 2010.04159).

A query looks at a few places of each map only, which it chooses itself, around its own.

Letters: B images, N queries, L maps (levels), h x w places of a map, A heads, P points of a head on
each map, D channels of a head.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from car_jax.nn import init
from car_jax.typing import Array


def sampled(values: Array, at: Array, weights: Array) -> Array:
  """Sums over points of a map's values between its places: -> [B, N, A, D].

  values [B, h, w, A, D]; at [B, N, A, P, 2], as (x, y) with whole numbers in the middle of places;
  weights [B, N, A, P]. Bilinear; beyond the map lie zeros.
  """
  b, h, w, heads, d = values.shape
  places = values.reshape(b, h * w, heads, d).swapaxes(1, 2)
  at, weights = at.swapaxes(1, 2), weights.swapaxes(1, 2)
  low = jnp.floor(at)
  beyond = at - low

  def with_corner(total, corner):
    x, y = jnp.moveaxis(low + corner, -1, 0)
    near = jnp.prod(jnp.where(corner == 1, beyond, 1 - beyond), -1)
    inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
    index = (jnp.clip(y, 0, h - 1) * w + jnp.clip(x, 0, w - 1)).astype(np.int32)
    sampled = jax.vmap(jax.vmap(lambda values, index: values[index]))(places, index)
    share = jnp.where(inside, near * weights, 0).astype(values.dtype)
    return total + jnp.einsum('banpd,banp->band', sampled, share), None

  # What is sampled at a corner is P times as large as the result: one at a time is held, and
  # sampled anew for the gradient.
  corners = jnp.array(list(itertools.product((0, 1), repeat=2)), at.dtype)
  total = jnp.zeros((*at.shape[:3], d), values.dtype)
  total, _ = jax.lax.scan(jax.checkpoint(with_corner), total, corners)
  return total.swapaxes(1, 2)


def centres(h: int, w: int) -> np.ndarray:
  """[h * w, 2]: (x, y) of the middle of each place, where the map's sides have length 1."""
  x, y = np.meshgrid((np.arange(w) + 0.5) / w, (np.arange(h) + 0.5) / h)
  return np.stack([x, y], -1).reshape(-1, 2)


def ray_offsets(heads: int, levels: int, points: int) -> np.ndarray:
  """[A, L, P, 2]: where points begin: on a ray for each head, 1 to P places away along its longer
  axis.
  """
  angle = np.arange(heads) * (2 * np.pi / heads)
  ray = np.stack([np.cos(angle), np.sin(angle)], -1)
  ray = ray / np.abs(ray).max(-1, keepdims=True)
  steps = np.arange(1, points + 1)[:, None] * ray[:, None, None]
  return np.broadcast_to(steps, (heads, levels, points, 2))


class DeformableAttention(nn.Module):
  """x [B, N, D'] of all places of L maps, one after the other -> the same shape.

  `codes` tells places apart, [N, D']; sizes holds the (h, w) of each map. Offsets are counted in
  places of the map that is looked at.
  """

  INIT = (
    (r'/(offsets|weights)/kernel$', init.zeros),
    (r'/weights/bias$', init.zeros),
  )

  heads: int
  points: int = 4
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, codes: Array, sizes: Sequence[Sequence[int]]) -> Array:
    b, n, width = x.shape
    shape = self.heads, len(sizes), self.points
    dense = lambda count, name, **kw: nn.Dense(count, dtype=self.dtype, name=name, **kw)
    query = x + codes
    start = ray_offsets(*shape).reshape(-1)
    first = lambda key, shape, dtype=np.float32: jnp.asarray(start, dtype)
    offsets = dense(start.size, 'offsets', bias_init=first)(query)
    offsets = offsets.reshape(b, n, *shape, 2).astype(jnp.float32)
    weights = dense(math.prod(shape), 'weights')(query).reshape(b, n, self.heads, -1)
    weights = jax.nn.softmax(weights.astype(jnp.float32)).reshape(b, n, *shape)
    values = dense(width, 'value')(x)
    own = jnp.asarray(np.concatenate([centres(*size) for size in sizes]), jnp.float32)
    total = jnp.zeros((b, n, self.heads, width // self.heads), values.dtype)
    begin = 0
    for level, (h, w) in enumerate(sizes):
      here = values[:, begin : begin + h * w].reshape(b, h, w, self.heads, -1)
      at = own[:, None, None] * np.array([w, h], np.float32) - 0.5 + offsets[:, :, :, level]
      total = total + sampled(here, at, weights[:, :, :, level])
      begin += h * w
    return dense(width, 'out')(total.reshape(b, n, width))
