"""DeepLabv2 on a dilated ResNet or VGG (arXiv 1606.00915), as domain adaptation uses it.

The head is the sum of dilated convolutions straight to classes and one image scale is seen, as in
DA-SAC (arXiv 2105.00097). Letters: B images, H x W pixels, h x w places of the features, C classes.
"""

import itertools
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from car_jax.nn import init, vgg
from car_jax.nn.composed import normalised
from car_jax.nn.init import small_normal
from car_jax.nn.layers import at_least_float32, conv
from car_jax.nn.resize import resize_bilinear
from car_jax.nn.resnet import ResNetSegmenter
from car_jax.options import Width
from car_jax.typing import Array

Table = tuple[tuple[str, str], ...]


def groups(new: str) -> Table:
  """A table for optim.sgd_groups: `new` matches the start of the paths that no weight file fills.

  A norm's scale counts as a weight, its offset as a bias.
  """
  return (
    (rf'^({new}).*/bias$', 'new_biases'),
    (rf'^({new})', 'new_weights'),
    (r'/bias$', 'old_biases'),
    (r'', 'old_weights'),
  )


class Branch(nn.Module):
  """The parameters of a 3 x 3 convolution: a kernel [3, 3, channels, features] and a bias."""

  features: int

  @nn.compact
  def __call__(self, channels: int) -> tuple[Array, Array]:
    shape = (3, 3, channels, self.features)
    kernel = self.param('kernel', nn.initializers.normal(0.01), shape)
    return kernel, self.param('bias', init.torch_uniform(9 * shape[2]), (self.features,))


class AtrousHead(nn.Module):
  """[B, h, w, channels] -> [B, h, w, C] float32: the sum of 3 x 3 convolutions dilated by `rates`.

  One matrix product gives every place's share in the places around it, which are then shifted and
  added: the shares that would fall outside cost nothing, and they are most of a wide dilation's.
  """

  features: int
  rates: tuple[int, ...]
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    h, w, channels = x.shape[1:]
    taps: dict[tuple[int, int], Array] = {}
    total = jnp.zeros(self.features)
    for i, rate in enumerate(self.rates):
      kernel, bias = Branch(self.features, name=f'branch{i}')(channels)
      total = total + bias
      for row, column in itertools.product(range(3), repeat=2):
        down, right = rate * (row - 1), rate * (column - 1)
        if abs(down) < h and abs(right) < w:
          taps[down, right] = taps.get((down, right), 0) + kernel[row, column]
    x, kernels = nn.dtypes.promote_dtype(x, jnp.stack([*taps.values()], 1), dtype=self.dtype)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    shares = jnp.einsum('bhwi,iko->bhwko', x, kernels, preferred_element_type=wide)
    for k, (down, right) in enumerate(taps):
      total = total + _moved(_moved(shares[:, :, :, k], down, 1), right, 2)
    return total


def _moved(x: Array, by: int, axis: int) -> Array:
  """Element i + by of x's axis at place i, zeros from outside."""
  side = x.shape[axis]
  x = jax.lax.slice_in_dim(x, max(by, 0), side + min(by, 0), axis=axis)
  return jnp.pad(x, [(max(-by, 0), max(by, 0)) if a == axis else (0, 0) for a in range(x.ndim)])


def upsampled(low: Array, size: tuple[int, ...]) -> tuple[Array, Array]:
  """Logits [B, h, w, C] -> float32 (themselves, at `size` with corner pixels aligned)."""
  low = at_least_float32(low)
  return low, resize_bilinear(low, size, align_corners=True)


class DeepLabV2ResNet(ResNetSegmenter):
  """[B, H, W, 3] in [-1, 1] -> logits (at 1/8 [B, h, w, C], upsampled [B, H, W, C]), float32.

  h is (H + 1) // 8 + 1. Images are brought to ImageNet's scale unless `normalise` is off.
  `norm_train=False` has batch norm use and keep its running statistics in training; scales and
  offsets still learn.
  """

  rates: tuple[Width, ...] = (6, 12, 18, 24)
  """Dilations of the head."""
  normalise: bool = True
  """Bring images to ImageNet's mean and deviation first."""

  INIT = ((r'/kernel$', small_normal), *init.TORCH)
  GROUPS: ClassVar[Table] = groups('head')

  @nn.compact
  def __call__(
    self, x: Array, *, train: bool, norm_train: bool | None = None
  ) -> tuple[Array, Array]:
    size, norm_train = x.shape[1:3], train if norm_train is None else norm_train
    x = normalised(x) if self.normalise else x
    resnet = self.resnet(stride_first=True, ceil_pool=True, dilate_first=True)
    *_, x = resnet(x, train=norm_train)
    self.sow('intermediates', 'backbone_features', x)
    head = AtrousHead(self.num_classes, self.rates, self.dtype, name='head')
    return upsampled(head(x), size)


class DeepLabV2VGG(vgg.VGGSegmenter):
  """[B, H, W, 3] in [-1, 1] -> logits (at 1/8 [B, h, w, C], upsampled [B, H, W, C]), float32.

  h is H // 8: VGG's last two poolings are left out, and what follows is dilated. Two dilated
  convolutions without norm stand for its fully connected layers, without the dropout of theirs.
  `normalise` and `norm_train` as in DeepLabV2ResNet.
  """

  features: Width = 1024
  """Channels of the head."""
  rates: tuple[Width, ...] = (6, 12, 18, 24)
  """Dilations of the head."""

  INIT = (*vgg.INIT, (r'/head/.*/kernel$', small_normal), *init.TORCH)
  GROUPS: ClassVar[Table] = groups('head|fc[67]')

  @property
  def least(self) -> int:
    return 8

  @nn.compact
  def __call__(
    self, x: Array, *, train: bool, norm_train: bool | None = None
  ) -> tuple[Array, Array]:
    size, norm_train = x.shape[1:3], train if norm_train is None else norm_train
    x = normalised(x) if self.normalise else x
    kw: dict[str, Any] = {
      'dilations': (1, 1, 1, 1, 2),
      'poolings': 3,
      'dtype': self.dtype,
      'name': 'backbone',
    }
    *_, x = vgg.VGG(self.depths, self.widths, **kw)(x, train=norm_train)
    self.sow('intermediates', 'backbone_features', x)
    for name in ('fc6', 'fc7'):
      kw = {'kernel_dilation': 4, 'dtype': self.dtype, 'name': name}
      x = nn.relu(conv(self.features, 3, 1, 4, **kw)(x))
    self.sow('intermediates', 'hidden', x)
    head = AtrousHead(self.num_classes, self.rates, self.dtype, name='head')
    return upsampled(head(x), size)
