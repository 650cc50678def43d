"""FCN-8s on VGG-16 (arXiv 1411.4038), with batch norm, as DA-SAC trains it (arXiv 2105.00097).

Letters: B images, H x W pixels, C classes.
"""

from typing import ClassVar

import flax.linen as nn

from car_jax.nn import init, vgg
from car_jax.nn.composed import normalised
from car_jax.nn.deeplabv2 import Table, groups, upsampled
from car_jax.nn.dropout import Dropout
from car_jax.nn.init import small_normal
from car_jax.nn.layers import BatchNorm, check_multiple, conv
from car_jax.nn.resize import resize_bilinear
from car_jax.options import Share, Width
from car_jax.typing import Array


class FCN8sVGG(vgg.VGGSegmenter):
  """[B, H, W, 3] in [-1, 1] -> logits (at 1/8 [B, H/8, W/8, C], upsampled [B, H, W, C]), float32.

  H and W must be multiples of 32. Dropout drops whole channels. The upsampling between the scales
  is bilinear and not learnt. `normalise` and `norm_train` as in DeepLabV2ResNet; dropout follows
  `train`.
  """

  features: Width = 4096
  """Channels of the head."""
  dropout: Share = 0.1
  """Share of what is dropped in training."""

  INIT = (*vgg.INIT, (r'/score[34]/kernel$', small_normal), *init.TORCH)
  GROUPS: ClassVar[Table] = groups('head|score')

  @property
  def multiple(self) -> int:
    return 32

  @nn.compact
  def __call__(
    self, x: Array, *, train: bool, norm_train: bool | None = None
  ) -> tuple[Array, Array]:
    check_multiple(x.shape, self.multiple, 'FCN8sVGG')
    size, norm_train = x.shape[1:3], train if norm_train is None else norm_train
    x = normalised(x) if self.normalise else x
    backbone = vgg.VGG(self.depths, self.widths, dtype=self.dtype, name='backbone')
    *_, pool3, pool4, x = backbone(x, train=norm_train)
    self.sow('intermediates', 'backbone_features', x)
    for i, kernel in ((1, 7), (2, 1)):
      x = conv(self.features, kernel, 1, kernel // 2, dtype=self.dtype, name=f'head_conv{i}')(x)
      x = nn.relu(BatchNorm(name=f'head_norm{i}')(x, train=norm_train))
      x = Dropout(self.dropout, broadcast_dims=(1, 2), deterministic=not train)(x)
    x = self._score(x, 'head')
    for name, skip in (('score4', pool4), ('score3', pool3)):
      x = resize_bilinear(x, skip.shape[1:3], align_corners=True) + self._score(skip, name)
    return upsampled(x, size)

  def _score(self, x: Array, name: str) -> Array:
    """Class scores of each pixel alone."""
    x = conv(self.num_classes, 1, padding=0, dtype=self.dtype, name=name)(x)
    self.sow('intermediates', f'{name}_out', x)
    return x
