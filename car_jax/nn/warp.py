"""Affine warps of maps. Letters: B maps, H x W pixels, C channels."""

import jax
import jax.numpy as jnp

from car_jax.typing import Array


def sample(maps: Array, theta: Array) -> Array:
  """maps [B, H, W, C], theta [B, 2, 3] -> [B, H, W, C]: bilinear, zeros outside.

  theta takes the output's coordinates to the input's, both in [-1, 1] from outer edge to outer edge
  of the pixels (torch's align_corners=False). So a map that is larger than what is looked at fades
  over its last half pixel: it counts as surrounded by zeros.
  """
  b, h, w, c = maps.shape
  right, down = _from_middle(w), _from_middle(h)[:, None]
  t = theta[..., None, None].astype(jnp.promote_types(theta.dtype, jnp.float32))
  x = t[:, 0, 0] * right + t[:, 0, 1] * (w / h) * down + t[:, 0, 2] * (w / 2)
  y = t[:, 1, 0] * (h / w) * right + t[:, 1, 1] * down + t[:, 1, 2] * (h / 2)
  left, top = (jnp.floor(at + (n - 1) / 2) for at, n in ((x, w), (y, h)))
  flat = maps.reshape(b, h * w, c)

  def corner(column: Array, row: Array) -> Array:
    away = jnp.abs(x - (column - (w - 1) / 2)), jnp.abs(y - (row - (h - 1) / 2))
    share = jnp.maximum(1 - away[0], 0) * jnp.maximum(1 - away[1], 0)
    inside = (column >= 0) & (column < w) & (row >= 0) & (row < h)
    place = jnp.clip(row, 0, h - 1) * w + jnp.clip(column, 0, w - 1)
    place = place.reshape(b, h * w, 1).astype(jnp.int32)
    values = jnp.take_along_axis(flat, place, axis=1).reshape(b, h, w, c)
    return values * jnp.where(inside, share, 0).astype(maps.dtype)[..., None]

  upper = corner(left, top) + corner(left + 1, top)
  return upper + corner(left, top + 1) + corner(left + 1, top + 1)


def zoomed(maps: Array, theta: Array) -> Array:
  """`sample` of a theta without a turn: that zooms, shifts and mirrors, as data/views.py makes it.

  A TPU, which gathers slowly and multiplies fast, blends rows and then columns by products.
  """
  return jax.lax.platform_dependent(maps, theta, tpu=_by_products, default=sample)


def _by_products(maps: Array, theta: Array) -> Array:
  """By every pixel's share in every row of the output, and in every column."""
  _, h, w, _ = maps.shape
  rows = _shares(theta[:, 1, 1], theta[:, 1, 2], h).astype(maps.dtype)
  columns = _shares(theta[:, 0, 0], theta[:, 0, 2], w).astype(maps.dtype)
  product = lambda text, *of: jnp.einsum(text, *of, precision=jax.lax.Precision.HIGHEST)
  return product('bxj,byjc->byxc', columns, product('byi,bijc->byjc', rows, maps))


def _shares(scale: Array, shift: Array, n: int) -> Array:
  """[B] and [B] -> [B, n, n]: output pixel, input pixel."""
  scale, shift = (a.astype(jnp.promote_types(a.dtype, jnp.float32)) for a in (scale, shift))
  at = scale[:, None] * _from_middle(n) + shift[:, None] * (n / 2)
  return jnp.maximum(1 - jnp.abs(at[..., None] - _from_middle(n)), 0)


def _from_middle(n: int) -> Array:
  """Pixels of a side from its middle: small numbers, of which float32 tells the places between."""
  return jnp.arange(n) - (n - 1) / 2
