"""VGG with batch norm, its last poolings left out and dilated instead where that is wanted.

Source: arXiv 1409.1556, as torchvision lays out vgg16_bn and vgg19_bn. Letters: B images, H x W
pixels.
"""

from typing import Any

import flax.linen as nn

from car_jax.nn import init
from car_jax.nn.layers import NormedConv, max_pool2, through
from car_jax.nn.net import Segmenter
from car_jax.options import Depth, Width
from car_jax.typing import Array

DEPTHS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (64, 128, 256, 512, 512)
# Rules of nn/init.py for nets with a VGG named `backbone`.
INIT = (
  (r'/backbone/.*/conv/kernel$', init.kaiming_fan_out),
  (r'/backbone/.*/conv/bias$', init.zeros),
)


class VGG(nn.Module):
  """[B, H, W, 3] -> the features of every stage, after its pooling where it has one.

  Stage k has `depths[k]` convolutions of `widths[k]` features and `dilations[k]`. The first
  `poolings` stages end with one, which drops an odd row or column as torch does.
  """

  depths: tuple[int, ...] = DEPTHS[16]
  widths: tuple[int, ...] = WIDTHS
  dilations: tuple[int, ...] = (1, 1, 1, 1, 1)
  poolings: int = 5
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> tuple[Array, ...]:
    stages = []
    sizes = zip(self.depths, self.widths, self.dilations, strict=True)
    for k, (depth, width, dilation) in enumerate(sizes, 1):
      kw = {'dilation': dilation, 'dtype': self.dtype, 'use_bias': True}
      for i in range(1, depth + 1):
        x = through(NormedConv(width, 3, name=f'stage{k}_conv{i}', **kw), x, train=train)
      if k <= self.poolings:
        h, w = (side // 2 * 2 for side in x.shape[1:3])
        x = max_pool2(x[:, :h, :w])
      self.sow('intermediates', f'stage{k}', x)
      stages.append(x)
    return tuple(stages)


class VGGSegmenter(Segmenter):
  """A net whose backbone is a VGG, which sees images on ImageNet's scale unless told otherwise."""

  HAS_FEATURES = True

  widths: tuple[Width, ...] = WIDTHS
  """Channels of each stage."""
  depths: tuple[Depth, ...] = DEPTHS[16]
  """Layers or blocks of each stage."""
  normalise: bool = True
  """Bring images to ImageNet's mean and deviation first."""
