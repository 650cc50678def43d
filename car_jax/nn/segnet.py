"""CAR's calibration net for LIDC: an encoder-decoder on VGG19-BN (arXiv 2006.13144, supplement).

Letters: B images, H x W pixels, C classes.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from car_jax.nn import init
from car_jax.nn.dropout import Dropout
from car_jax.nn.layers import (
  BatchNorm,
  ConvTranspose2x2,
  at_least_float32,
  check_multiple,
  conv,
  max_pool2,
  through,
)
from car_jax.nn.net import Segmenter
from car_jax.options import Depth, Share, Width
from car_jax.typing import Array


class SegNetCalNet(Segmenter):
  """[B, H, W, channels] -> logits [B, H, W, C] float32; H and W multiples of 32.

  The published decoder repeats some layers by list multiplication, so that their weights are
  shared: dec5's convolution and norm are used four times, dec4's and dec3's middle ones twice. A
  shared norm normalises each use by that use's batch and updates its running statistics once per
  use; at inference all uses read the same ones. Released weights need this. Dropout follows every
  ReLU.
  """

  widths: tuple[Width, ...] = (64, 128, 256, 512, 512)
  """Channels of each stage."""
  depths: tuple[Depth, ...] = (2, 2, 4, 4, 4)
  """Layers or blocks of each stage."""
  dropout: Share = 0.1
  """Share of what is dropped in training."""

  INIT = (
    (r'enc\d_conv\d/layer/kernel', init.kaiming_fan_out),
    (r'(_(first|middle|last)/layer|head)/kernel', init.kaiming_fan_in),
    (r'(/layer|head)/bias', init.zeros),
    *init.TORCH,
  )

  @property
  def multiple(self) -> int:
    return 2 ** len(self.widths)

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    w = self.widths
    check_multiple(x.shape, self.multiple, 'SegNetCalNet')
    skips = []
    for k, (width, depth) in enumerate(zip(w, self.depths, strict=True), 1):
      for i in range(depth):
        x = through(self._unit(width, f'enc{k}_conv{i + 1}'), x, train=train)
      x = max_pool2(x)
      self.sow('intermediates', f'enc{k}', x)
      skips.append(x)
    x = self._decode(len(w), skips.pop(), w[-1], w[-1], uses=(0, 4, 0), train=train)
    for k in range(len(w) - 1, 0, -1):
      x = jnp.concatenate([skips.pop(), x], -1)
      out = w[k - 2] if k > 1 else self.num_classes
      # k counts stages from the input; the two nearest to it have no middle layers
      x = self._decode(k, x, x.shape[-1] // 2, out, uses=(1, 2 if k > 2 else 0, 1), train=train)
    head = conv(self.num_classes, padding='REFLECT', dtype=self.dtype, name='head')
    return at_least_float32(head(x))

  def _decode(
    self, k: int, x: Array, middle: int, out: int, uses: tuple[int, int, int], train: bool
  ) -> Array:
    """Doubles the resolution, then applies the first, middle and last unit `uses` times each."""
    x = ConvTranspose2x2(x.shape[-1], dtype=self.dtype, name=f'dec{k}_up')(x)
    for name, width, times in zip(
      ('first', 'middle', 'last'), (middle, middle, out), uses, strict=True
    ):
      if times:
        unit = self._unit(width, f'dec{k}_{name}')
        for _ in range(times):
          x = through(unit, x, train=train)
    self.sow('intermediates', f'dec{k}', x)
    return x

  def _unit(self, width: int, name: str) -> nn.Module:
    return ConvNormReLU(width, self.dropout, self.dtype, name=name)


class ConvNormReLU(nn.Module):
  """3 x 3 convolution, batch norm, ReLU, dropout. May be called several times."""

  features: int
  dropout: float
  dtype: Any = None

  def setup(self) -> None:
    self.layer = conv(self.features, dtype=self.dtype)
    self.norm = BatchNorm()
    self.drop = Dropout(self.dropout)

  def __call__(self, x: Array, *, train: bool) -> Array:
    x = nn.relu(self.norm(self.layer(x), train=train))
    return self.drop(x, deterministic=not train)
