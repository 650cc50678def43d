"""Segmenter's mask transformer (arXiv 2105.05633), laid out as mmsegmentation trains it.

As in its authors' code, patches and classes are compared by their cosine, and the layer norm over
classes comes before the softmax, which is left to the loss.

Letters: B images, h x w patches, D channels, C classes.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from car_jax.nn import init
from car_jax.nn.composed import Head
from car_jax.nn.layers import at_least_float32, layer_norm
from car_jax.nn.vit import blocks
from car_jax.options import Depth, Index, Share, Width
from car_jax.typing import Array


class MaskTransformerHead(Head):
  """A token for each class attends to patches with them; a class's mask is how alike it is to each.

  There is no last convolution: dropout is that of the blocks.
  """

  INIT = (
    (r'/(kernel|class_tokens)$', init.normal(0.02)),
    (r'/bias$', init.zeros),
  )

  features: Width = 768
  """Channels of a token."""
  dropout: Share = 0.0
  """Share of what is dropped in training, in each branch of a block."""
  depth: Depth = 2
  """Blocks."""
  heads: Width = 12
  """Attention heads of each block."""
  expansion: Width = 4
  """How many times as wide the feed-forward nets are inside."""
  attention_bias: bool = True
  """A bias in the projections of attention."""
  drop_path: Share = 0.1
  """How often an image skips a branch of the last block in training; less before."""
  epsilon: Share = 1e-5
  """Epsilon of layer norms."""
  index: Index = -1
  """Which map is read."""

  @nn.compact
  def __call__(self, maps: Sequence[Array], *, train: bool) -> Array:
    (x,) = self.chosen(maps, [self.index])
    b, h, w, d = x.shape
    project = lambda x, name: nn.Dense(self.features, False, self.dtype, name=name)(x)
    x = nn.Dense(self.features, dtype=self.dtype, name='project')(x.reshape(b, h * w, d))
    shape = (1, self.num_classes, self.features)
    classes = self.param('class_tokens', init.RULED, shape).astype(x.dtype)
    x = jnp.concatenate([x, jnp.broadcast_to(classes, (b, *shape[1:]))], 1)
    kw: dict[str, Any] = {'heads': self.heads, 'expansion': self.expansion, 'dtype': self.dtype}
    kw |= {'dropout': self.dropout, 'epsilon': self.epsilon, 'use_bias': self.attention_bias}
    for block in blocks(self.depth, self.drop_path, **kw):
      x = block(x, train=train)
    x = layer_norm('norm', self.epsilon, self.dtype)(x)
    patches = unit_length(project(x[:, : h * w], 'project_patches'))
    classes = unit_length(project(x[:, h * w :], 'project_classes'))
    alike = jnp.einsum('bnd,bcd->bnc', patches, classes)
    return layer_norm('mask_norm', self.epsilon, None)(alike).reshape(b, h, w, -1)


def unit_length(x: Array) -> Array:
  """[..., D] -> [..., D] float32: without a way out for vectors of zeros, as published."""
  x = at_least_float32(x)
  return x / jnp.linalg.norm(x, axis=-1, keepdims=True)
