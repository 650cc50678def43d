"""What every net says of the images it takes, and how images of any size are brought to it.

Letters: B images, H x W pixels, h x w places of a net's coarse features.
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.export import is_symbolic_dim

from car_jax.nn.layers import at_least_float32
from car_jax.options import Dtype
from car_jax.typing import Array


class Net(nn.Module):
  """A net of the registry. Prediction brings images to the sides it takes; training does not.

  One that sows its backbone's last stage as 'backbone_features' says so by HAS_FEATURES.
  """

  HAS_FEATURES: ClassVar[bool] = False

  @property
  def multiple(self) -> int:
    """H and W are multiples of it."""
    return 1

  @property
  def least(self) -> int:
    """H and W are at least this."""
    return 1

  @property
  def auxiliary_weights(self) -> dict[str, float]:
    """Of the losses of heads that training alone has, whose logits are sown as 'auxiliary'."""
    return {}

  @property
  def align_corners(self) -> bool:
    """Whether images and logits are resized with the centres of corner pixels on each other."""
    return False


class Segmenter(Net):
  """A net that gives logits of `num_classes`."""

  num_classes: int
  dtype: Dtype = dataclasses.field(default=None, kw_only=True)
  """Of activations; parameters stay float32."""


def taken(net: Net, size: tuple[int, ...]) -> tuple[int, ...]:
  """The smallest (H, W) that `net` takes and that holds `size`."""
  return tuple(-(-max(n, net.least) // net.multiple) * net.multiple for n in size)


def mirrored(net: Net, x: Array) -> Array:
  """x [B, H, W, channels], mirrored at its right and lower edge up to `taken`; else as it is."""
  for axis, (size, full) in enumerate(zip(x.shape[1:3], taken(net, x.shape[1:3]), strict=True), 1):
    if size != full:
      xp = jnp if is_symbolic_dim(size) else np
      place = xp.arange(full) % (2 * size)
      x = jnp.take(x, xp.minimum(place, 2 * size - 1 - place), axis)
  return x


def padded(net: Net, apply: Callable[[Array], Array], x: Array) -> Array:
  """apply(x) for x [B, H, W, channels] of any size: `mirrored`, and [..., H, W, C] cut back."""
  height, width = x.shape[1:3]
  return apply(mirrored(net, x))[..., :height, :width, :]


def shares(net: Net, size: tuple[int, ...], places: tuple[int, ...]) -> Array | None:
  """[h, w, 1]: how much of each place of a padded image's features lies in the image of `size`.

  places: (h, w) of the padded image's features. None where nothing is padded.
  """
  full = taken(net, size)
  if full == tuple(size):
    return None
  xp = jnp if any(map(is_symbolic_dim, (*size, *places))) else np
  rows, columns = (
    xp.clip((n * k - m * xp.arange(k)) / m, 0, 1)
    for n, k, m in zip(size, places, full, strict=True)
  )
  return (rows[:, None, None] * columns[:, None]).astype(np.float32)


def mean(features: Array, share: Array | None) -> Array:
  """features [B, h, w, D] -> their mean [B, D], at least float32, by the places' shares (None: all
  alike)."""
  features = at_least_float32(features)
  if share is None:
    return features.mean((1, 2))
  return (features * share).sum((1, 2)) / share.sum()
