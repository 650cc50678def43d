"""Maps at another size, as torch's `interpolate` makes them.

Letters: B images, H x W pixels, C channels.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.export import is_symbolic_dim

from car_jax.typing import Array


def resize_bilinear(x: Array, size: tuple[int, ...], *, align_corners: bool) -> Array:
  """[..., H, W, C] -> [..., *size, C] as torch's bilinear `interpolate`, which never antialiases.

  `align_corners` puts the centres of the corner pixels on each other; otherwise their outer edges.
  """
  for axis, target in zip((-3, -2), size, strict=True):
    source = x.shape[axis]
    if source == target:
      continue
    low, high, beyond = _taps(source, target, align_corners)
    share = jnp.asarray(beyond.reshape(-1, *(1,) * (-1 - axis)), x.dtype)
    below = jnp.take(x, low, axis)
    x = below + (jnp.take(x, high, axis) - below) * share
  return x


def resize_bicubic(x: Array, size: tuple[int, ...]) -> Array:
  """[..., H, W, C] -> [..., *size, C] as torch's bicubic `interpolate`, outer edges on each other.

  Cubic convolution with a = -0.75 (Keys 1981 has -0.5), border pixels repeated outside, never
  antialiased.
  """
  for axis, target in zip((-3, -2), size, strict=True):
    source = x.shape[axis]
    if source == target:
      continue
    at = (np.arange(target) + 0.5) * (source / target) - 0.5
    low = np.floor(at).astype(np.int32)
    parts = []
    for i in (-1, 0, 1, 2):
      share = _cubic(at - (low + i)).reshape(-1, *(1,) * (-1 - axis))
      taken = jnp.take(x, np.clip(low + i, 0, source - 1), axis)
      parts.append(taken * jnp.asarray(share, x.dtype))
    x = sum(parts[1:], parts[0])
  return x


def _cubic(distance: np.ndarray, a: float = -0.75) -> np.ndarray:
  """The kernel of cubic convolution at distances of less than two pixels."""
  d = np.abs(distance)
  near = (a + 2) * d**3 - (a + 3) * d**2 + 1
  return np.where(d <= 1, near, a * (d**3 - 5 * d**2 + 8 * d - 4))


def _taps(source: int, target: int, align_corners: bool) -> tuple[Array, Array, Array]:
  """For each of `target` places, the source pixels before and after it and how far it lies beyond
  the first: in whole numbers, so that a program for any size computes what one for a size does."""
  xp: Any = jnp if is_symbolic_dim(source) or is_symbolic_dim(target) else np
  place = xp.arange(target)
  if align_corners:
    top, bottom = place * (source - 1), xp.maximum(target - 1, 1)
  else:
    top, bottom = xp.maximum((2 * place + 1) * source - target, 0), 2 * target
  low = xp.minimum(top // bottom, source - 1)
  return low, xp.minimum(low + 1, source - 1), (top - low * bottom) / bottom


def align_corners_weights(source: int, target: int, dtype: Any) -> Array:
  """[target, source]: resize_bilinear with `align_corners` along one axis, as a matrix.

  On a CPU the gradient of its product is several times as fast as that of reading places.
  """
  low, high, beyond = _taps(source, target, True)
  place = jnp.arange(source)
  share = jnp.asarray(beyond, dtype)[:, None]
  return (1 - share) * (low[:, None] == place) + share * (high[:, None] == place)


def resize_nearest(x: Array, size: Sequence[int]) -> Array:
  """[B, H, W, C] -> [B, *size, C] as torch's nearest `interpolate`: place i is that of i H / h."""
  for axis, target in zip((1, 2), size, strict=True):
    xp: Any = jnp if is_symbolic_dim(x.shape[axis]) or is_symbolic_dim(target) else np
    x = jnp.take(x, xp.arange(target) * x.shape[axis] // target, axis)
  return x
