"""DeepLabV3 on a dilated ResNet (arXiv 1706.05587), as CAR's third calibration net."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from car_jax.nn import init
from car_jax.nn.composed import normalised
from car_jax.nn.dropout import Dropout
from car_jax.nn.layers import BatchNorm, at_least_float32, conv
from car_jax.nn.resnet import ResNetSegmenter
from car_jax.options import Share, Width
from car_jax.typing import Array


class ASPP(nn.Module):
  """Atrous spatial pyramid pooling: 1 x 1, dilated 3 x 3s, image mean; then a 1 x 1."""

  features: int = 256
  rates: tuple[int, ...] = (12, 24, 36)
  dropout: float = 0.5
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    def unit(y, name, size=1, rate=1):
      pad = rate if size == 3 else 0
      kw = {'use_bias': False, 'kernel_dilation': rate, 'dtype': self.dtype}
      y = conv(self.features, size, 1, pad, name=f'{name}_conv', **kw)(y)
      return nn.relu(BatchNorm(name=f'{name}_norm')(y, train=train))

    branches = [unit(x, 'point')]
    branches += [unit(x, f'rate{i}', 3, r) for i, r in enumerate(self.rates, 1)]
    pooled = unit(x.mean((1, 2), keepdims=True), 'pool')
    branches.append(jnp.broadcast_to(pooled, branches[0].shape))
    y = unit(jnp.concatenate(branches, -1), 'project')
    return Dropout(self.dropout, deterministic=not train)(y)


class DeepLabV3CalNet(ResNetSegmenter):
  """[B, H, W, channels] in [-1, 1] -> logits [B, H, W, C] float32, at the input's size.

  Three channels are an RGB image, brought to ImageNet's scale first.
  """

  features: Width = 256
  """Channels of the head."""
  dropout: Share = 0.5
  """Share of what is dropped in training."""

  INIT = init.TORCH

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    size = x.shape[1:3]
    x = normalised(x) if x.shape[-1] == 3 else x
    *_, x = self.resnet()(x, train=train)
    self.sow('intermediates', 'backbone_features', x)
    aspp = ASPP(self.features, dropout=self.dropout, dtype=self.dtype, name='aspp')
    x = aspp(x, train=train)
    x = conv(self.features, use_bias=False, dtype=self.dtype, name='head_conv')(x)
    x = nn.relu(BatchNorm(name='head_norm')(x, train=train))
    x = conv(self.num_classes, 1, padding=0, dtype=self.dtype, name='head')(x)
    shape = (len(x), *size, self.num_classes)
    return jax.image.resize(at_least_float32(x), shape, 'bilinear', antialias=False)
