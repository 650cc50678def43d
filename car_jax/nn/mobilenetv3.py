"""MobileNetV3 (arXiv 1905.02244), dilated where it would go beyond 1/8, as mmsegmentation has it.

Strided convolutions pad as TensorFlow does, which the published weights were trained with.
"""

from functools import partial
from typing import Any, Literal, NamedTuple

import flax.linen as nn

from car_jax.nn import init
from car_jax.nn.composed import Backbone
from car_jax.nn.layers import NormedConv, conv, through
from car_jax.options import Depth, Share, Width
from car_jax.typing import Array


class Sizes(NamedTuple):
  """Of a block. squeezed: channels are weighed. hard: hard swish instead of ReLU."""

  kernel: int
  inner: int
  features: int
  squeezed: bool
  hard: bool
  stride: int


LARGE = (
  Sizes(3, 16, 16, False, False, 1),
  Sizes(3, 64, 24, False, False, 2),
  Sizes(3, 72, 24, False, False, 1),
  Sizes(5, 72, 40, True, False, 2),
  *(Sizes(5, 120, 40, True, False, 1),) * 2,
  Sizes(3, 240, 80, False, True, 2),
  Sizes(3, 200, 80, False, True, 1),
  *(Sizes(3, 184, 80, False, True, 1),) * 2,
  Sizes(3, 480, 112, True, True, 1),
  Sizes(3, 672, 112, True, True, 1),
  Sizes(5, 672, 160, True, True, 2),
  *(Sizes(5, 960, 160, True, True, 1),) * 2,
)
SMALL = (
  Sizes(3, 16, 16, True, False, 2),
  Sizes(3, 72, 24, False, False, 2),
  Sizes(3, 88, 24, False, False, 1),
  Sizes(5, 96, 40, True, True, 2),
  *(Sizes(5, 240, 40, True, True, 1),) * 2,
  Sizes(5, 120, 48, True, True, 1),
  Sizes(5, 144, 48, True, True, 1),
  Sizes(5, 288, 96, True, True, 2),
  *(Sizes(5, 576, 96, True, True, 1),) * 2,
)
VARIANTS = {'large': LARGE, 'small': SMALL}


class Squeeze(nn.Module):
  """[B, h, w, D] -> each channel weighed by what a small net makes of the means."""

  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    d = x.shape[-1]
    weigh = x.mean((1, 2), keepdims=True)
    for width, name, activation in (
      (squeezed(d), 'contract', nn.relu),
      (d, 'expand', nn.hard_sigmoid),
    ):
      weigh = activation(conv(width, 1, padding=0, dtype=self.dtype, name=name)(weigh))
    return x * weigh


def squeezed(width: int) -> int:
  """A quarter to the nearest multiple of eight, or the next where that takes over a tenth away."""
  quarter = width // 4
  near = max(8, (quarter + 4) // 8 * 8)
  return near + 8 if near < 0.9 * quarter else near


class Block(nn.Module):
  """An inverted residual: expanded, filtered channel by channel, contracted without activation.

  `sizes.stride` 2 has no skip, dilated or not.
  """

  sizes: Sizes
  dilation: int
  dilated: bool  # instead of strided
  epsilon: float
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    of, d = self.sizes, x.shape[-1]
    unit = partial(NormedConv, dtype=self.dtype, epsilon=self.epsilon)
    active = partial(unit, activation=nn.hard_swish if of.hard else nn.relu)
    y = x if of.inner == d else active(of.inner, name='expand')(x, train=train)
    stride = 1 if self.dilated else of.stride
    depthwise = partial(active, depthwise=True, stride=stride, same=True, name='depthwise')
    y = depthwise(of.inner, of.kernel, self.dilation)(y, train=train)
    y = Squeeze(self.dtype, name='squeeze')(y) if of.squeezed else y
    y = unit(of.features, activation=None, name='contract')(y, train=train)
    return x + y if of.stride == 1 and of.features == d else y


class MobileNetV3(Backbone):
  """[B, H, W, 3] -> the maps of some layers: 0 is the stem, then the blocks, then a 1 x 1."""

  INIT = (
    (r'depthwise/conv/kernel$', init.kaiming_fan_in),  # each output sees one channel only
    (r'/kernel$', init.kaiming_fan_out),
    (r'(contract|expand)/bias$', init.zeros),
  )

  variant: Literal['large', 'small'] = 'large'
  """The published size: 17 layers, or 13."""
  outputs: tuple[Depth, ...] = (1, 3, 16)
  """The layers whose maps it gives, from fine to coarse."""
  reduction: Width = 1
  """How many times fewer channels the blocks have that would be at 1/32."""
  epsilon: Share = 1e-3
  """Epsilon of batch norms."""

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> tuple[Array, ...]:
    unit = partial(NormedConv, activation=nn.hard_swish, epsilon=self.epsilon, dtype=self.dtype)
    maps = [unit(16, 3, stride=2, same=True, name='stem')(x, train=train)]
    reached, dilation, blocks = 2, 1, VARIANTS[self.variant]
    for k, of in enumerate(blocks, 1):
      dilated = of.stride == 2 and reached == 8
      reached, dilation = (reached, 2 * dilation) if dilated else (reached * of.stride, dilation)
      if dilation == 4:
        smaller = of.inner // self.reduction, of.features // self.reduction
        of = of._replace(inner=smaller[0], features=smaller[1])
      block = Block(of, dilation, dilated, self.epsilon, self.dtype, name=f'block{k}')
      maps.append(through(block, maps[-1], train=train))
    maps.append(unit(6 * blocks[-1].features, name='last')(maps[-1], train=train))
    return self.chosen(maps, sorted({*self.outputs}))
