"""ICNet (arXiv 1704.08545) as mmsegmentation lays it out: an image at three sizes, cascaded.

It departs from the published code: the pyramid's means are joined to the map instead of added to
it, and what is fused has its ReLU before the sum. The heads that guide training are not here.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from car_jax.nn import init
from car_jax.nn.composed import Neck
from car_jax.nn.layers import NormedConv
from car_jax.nn.pooling import PyramidPooling
from car_jax.nn.resize import resize_bilinear
from car_jax.nn.resnet import ResNet
from car_jax.options import Width
from car_jax.typing import Array


class ICNet(ResNet):
  """[B, H, W, 3] -> maps at 1/8, 1/16 and 1/32 of three branches.

  The first branch sees the image, the second half of it by a ResNet's first stages; what those give
  is halved again for the other stages and pyramid pooling.
  """

  depth: int = 50
  """Layers: 18, 34, 50, 101 or 152."""
  output_stride: Literal[8, 16, 32] = 8
  """Pixels of the ResNet's image between two places of its last stage, were it not halved."""
  deep_stem: bool = True
  """Three 3 x 3 convolutions as the stem, instead of one of 7 x 7."""
  ceil_pool: bool = True
  """One more window of the stem's pooling where its input is even."""
  light_features: Width = 32
  """Channels inside the branch that sees the whole image."""
  pyramid_features: Width = 512
  """Channels of pyramid pooling."""
  features: tuple[Width, Width, Width] = (64, 256, 256)
  """Channels of each branch's map."""
  scales: tuple[Width, ...] = (1, 2, 3, 6)
  """Bins on each side of pyramid pooling."""
  corners: bool | None = None
  """Whether resizing inside keeps corner pixels in place; None: as for logits."""

  @property
  def least(self) -> int:
    """The second stage of half an image has two places to halve."""
    return 14

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> tuple[Array, ...]:
    def unit(name, width, size=1, stride=1):
      return NormedConv(width, size, stride=stride, dtype=self.dtype, name=name)

    fine = x
    for i, width in enumerate((self.light_features, self.light_features, self.features[0]), 1):
      fine = unit(f'light{i}', width, 3, 2)(fine, train=train)
    _, middle, _, x = super().__call__(self._halved(x), train=train)
    shape = self.pyramid_features, self.scales, self._corners, self.dtype
    pooled = PyramidPooling(*shape, name='pool')(x, train=train)
    x = jnp.concatenate([*pooled, x], -1)
    x = unit('bottleneck', self.pyramid_features, 3)(x, train=train)
    middle = unit('project_middle', self.features[1])(middle, train=train)
    return fine, middle, unit('project_coarse', self.features[2])(x, train=train)

  @property
  def _corners(self) -> bool:
    return self.align_corners if self.corners is None else self.corners

  def entering(self, stage: int, x: Array) -> Array:
    return self._halved(x) if stage == 3 else x

  def _halved(self, x: Array) -> Array:
    """Without aligned corners the mean of each 2 x 2; an odd side's last place is dropped."""
    h, w = (side // 2 for side in x.shape[1:3])
    x = x if self._corners else x[:, : 2 * h, : 2 * w]
    return resize_bilinear(x, (h, w), align_corners=self._corners)


class CascadeFusion(nn.Module):
  """coarse, fine [B, h, w, D] -> their sum at the fine one's size, and the coarse one's share."""

  features: int
  align_corners: bool
  dtype: Any = None

  @nn.compact
  def __call__(self, coarse: Array, fine: Array, *, train: bool) -> tuple[Array, Array]:
    unit = partial(NormedConv, self.features, dtype=self.dtype)
    coarse = resize_bilinear(coarse, fine.shape[1:3], align_corners=self.align_corners)
    coarse = unit(3, 2, name='coarse')(coarse, train=train)
    return coarse + unit(name='fine')(fine, train=train), coarse  # no ReLU: neither is negative


class ICNeck(Neck):
  """The maps of the three branches -> two maps for guidance in training, then the fused one."""

  INIT = ((r'/kernel$', init.kaiming_fan_out),)

  features: Width = 128
  """Channels of all maps."""
  corners: bool | None = None
  """Whether resizing inside keeps corner pixels in place; None: as for logits."""

  @nn.compact
  def __call__(self, maps: Sequence[Array], *, train: bool) -> tuple[Array, ...]:
    corners = self.align_corners if self.corners is None else self.corners
    fuse = lambda name: CascadeFusion(self.features, corners, self.dtype, name=name)
    fine, middle, coarse = maps
    middle, guided_coarse = fuse('fuse_middle')(coarse, middle, train=train)
    fused, guided_middle = fuse('fuse_fine')(middle, fine, train=train)
    return guided_coarse, guided_middle, fused
