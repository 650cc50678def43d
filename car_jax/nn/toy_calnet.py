"""CAR's calibration net for Cityscapes: five full-resolution layers (arXiv 2006.13144)."""

import functools
from typing import Any

import flax.linen as nn

from car_jax.nn import init
from car_jax.nn.dropout import Dropout
from car_jax.nn.layers import BatchNorm, at_least_float32, conv, part
from car_jax.nn.net import Segmenter
from car_jax.options import Share, Width
from car_jax.typing import Array


class ToyCalNet(Segmenter):
  """[B, H, W, channels] -> logits [B, H, W, C] float32.

  Dropout comes before the norm, and once more on the logits, as published.
  """

  hidden: Width = 64
  """Channels of the first layer."""
  dropout: Share = 0.2
  """Share of what is dropped in training."""

  INIT = init.TORCH

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    drop = Dropout(self.dropout, deterministic=not train)

    def layer(net: Any, x: Array, k: int) -> Array:
      x = conv(self.hidden, padding='REFLECT', dtype=self.dtype, name=f'conv{k}')(x)
      x = Dropout(self.dropout, deterministic=not train)(x)
      return nn.leaky_relu(BatchNorm(name=f'norm{k}')(x, train=train), 0.2)

    for k in range(1, 5):
      x = part(functools.partial(layer, k=k), self, x)
    head = conv(self.num_classes, padding='REFLECT', dtype=self.dtype, name='head')
    return drop(at_least_float32(head(x)))
