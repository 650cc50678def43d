"""What MaskFormer and Mask2Former share: they classify masks instead of pixels.

Each of Q queries gets a mask and a class, or none. Sources: arXiv 2107.06278 and 2112.01527; the
decoder's layers and position codes are those of DETR (arXiv 2005.12872).

Letters: B images, H x W pixels, h x w places of a map, N places, D channels of a query, M of a
pixel's embedding, Q queries, C classes.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from car_jax.nn import init
from car_jax.nn.composed import Head
from car_jax.nn.dropout import Dropout
from car_jax.nn.layers import GroupNorm, at_least_float32, check_divides, conv, layer_norm
from car_jax.nn.resize import resize_bilinear
from car_jax.options import Depth, Share, Width
from car_jax.typing import Array

EPSILON = 1e-5  # of layer norms
GROUPS = 32  # of group norms


def sine_codes(size: Sequence[int], width: int, dtype: Any = None) -> Array:
  """[*size, width]: sines and cosines of the row, then of the column, counted up to 2 pi."""

  def along(side):
    place = np.arange(1, side + 1) * (2 * np.pi / (side + 1e-6))
    wave = place[:, None] / 10000 ** (np.arange(0, width // 2, 2) / (width // 2))
    return jnp.asarray(np.stack([np.sin(wave), np.cos(wave)], -1).reshape(side, -1), dtype)

  shape = *size, width // 2
  rows, columns = along(size[0])[:, None], along(size[1])
  return jnp.concatenate([jnp.broadcast_to(rows, shape), jnp.broadcast_to(columns, shape)], -1)


def flat(x: Array) -> Array:
  """[..., h, w, D] -> [..., h * w, D]"""
  return x.reshape(*x.shape[:-3], -1, x.shape[-1])


class Attention(nn.Module):
  """Attention of several heads: query [B, Q, D], key and value [B, N, D] -> [B, Q, D].

  `seen` [B, Q, N] says which keys a query attends to, at least one.
  """

  heads: int
  dropout: float = 0.0  # share of attention that is dropped in training
  dtype: Any = None

  @nn.compact
  def __call__(
    self, query: Array, key: Array, value: Array, seen: Array | None = None, *, train: bool
  ) -> Array:
    d = query.shape[-1]

    def project(x, name):
      x = nn.Dense(d, dtype=self.dtype, name=name)(x)
      return x.reshape(*x.shape[:-1], self.heads, d // self.heads)

    q, k, v = project(query, 'query'), project(key, 'key'), project(value, 'value')
    affinity = at_least_float32(jnp.einsum('bqhd,bnhd->bhqn', q * (d // self.heads) ** -0.5, k))
    if seen is not None:
      affinity = jnp.where(seen[:, None], affinity, -jnp.inf)
    share = jax.nn.softmax(affinity).astype(v.dtype)
    share = Dropout(self.dropout, deterministic=not train)(share)
    y = jnp.einsum('bhqn,bnhd->bqhd', share, v).reshape(query.shape)
    return nn.Dense(d, dtype=self.dtype, name='out')(y)


class FeedForward(nn.Module):
  """[..., D] -> the same shape, with a ReLU at `expansion` channels."""

  expansion: int
  dropout: float = 0.0  # share of the inner channels that is dropped in training
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    y = nn.relu(nn.Dense(self.expansion, dtype=self.dtype, name='expand')(x))
    y = Dropout(self.dropout, deterministic=not train)(y)
    return nn.Dense(x.shape[-1], dtype=self.dtype, name='contract')(y)


class Residual(nn.Module):
  """x -> norm(x + branch(x)), or with `norm_first` x + branch(norm(x))."""

  dropout: float
  norm_first: bool = False
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, branch: Callable[[Array], Array], *, train: bool) -> Array:
    norm = layer_norm('norm', EPSILON, self.dtype)
    drop = Dropout(self.dropout, deterministic=not train)
    if self.norm_first:
      return x + drop(branch(norm(x)))
    return norm(x + drop(branch(x)))


class DecoderLayer(nn.Module):
  """Queries [B, Q, D] attend to each other and to an image, and pass a feed-forward net.

  `codes` [Q, D] tells queries apart; keys and values [B, N, D] are the image's. The paper's order
  is DETR's, each other first; Mask2Former has `image_first`.
  """

  heads: int
  expansion: int
  dropout: float
  inner_dropout: float
  image_first: bool = False
  norm_first: bool = False
  dtype: Any = None

  @nn.compact
  def __call__(
    self,
    x: Array,
    codes: Array,
    keys: Array,
    values: Array,
    seen: Array | None = None,
    *,
    train: bool,
  ) -> Array:
    attention = lambda name: Attention(self.heads, self.inner_dropout, self.dtype, name=name)
    among, across = attention('self_attention'), attention('image_attention')
    forward = FeedForward(self.expansion, self.inner_dropout, self.dtype, name='feed_forward')
    branches = {
      'self': lambda y: among(y + codes, y + codes, y, train=train),
      'image': lambda y: across(y + codes, keys, values, seen, train=train),
      'forward': lambda y: forward(y, train=train),
    }
    order = ('image', 'self') if self.image_first else ('self', 'image')
    for name in (*order, 'forward'):
      residual = Residual(self.dropout, self.norm_first, self.dtype, name=f'{name}_residual')
      x = residual(x, branches[name], train=train)
    return x


class MaskEmbedder(nn.Module):
  """Queries [B, Q, D] -> what their masks look for in pixels, [B, Q, M], by three layers."""

  features: int
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    width = x.shape[-1]
    for i, features in enumerate((width, width, self.features)):
      x = nn.Dense(features, dtype=self.dtype, name=f'layer{i}')(nn.relu(x) if i else x)
    return x


class GroupedConv(nn.Module):
  """A convolution and a group norm: [B, h, w, D] -> [B, h, w, features]."""

  features: int
  size: int = 1
  use_bias: bool = False
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    kw = {'use_bias': self.use_bias, 'dtype': self.dtype, 'name': 'conv'}
    x = conv(self.features, self.size, 1, self.size // 2, **kw)(x)
    return GroupNorm(GROUPS, dtype=self.dtype, name='norm')(x)


class MaskHead(Head):
  """Feature maps -> logarithms of the classes' scores [B, H, W, C] float32, of the image's size.

  A class' score is the sum over queries of the class' probability times the mask's: not of sum 1
  over classes, as a query may be of no class, and a pixel of several masks or of none. softmax of
  the logarithms is the scores divided by their sum. Masks are resized before their sigmoid, as in
  the published code.
  """

  FULL_SIZE = True
  INIT: ClassVar[init.Table] = (
    (r'/(classify|mask_embed/layer\d)/', init.torch_default),
    (r'attention/\w+/bias$', init.zeros),
    (r'/kernel$', init.xavier_uniform),
    (r'(/query|_codes)$', init.normal(1.0)),
    (r'(expand|contract)/bias$', init.torch_default),
    (r'/bias$', init.zeros),
  )

  features: Width = 256
  """Channels of the pixel decoder; a multiple of 32."""
  mask_features: Width = 256
  """Channels of the pixels' embeddings."""
  queries: Width = 100
  """Masks of an image."""
  depth: Depth = 6
  """Layers of the transformer decoder."""
  heads: Width = 8
  """Attention heads."""
  expansion: Width = 2048
  """Channels inside the decoder's feed-forward nets."""
  dropout: Share = dataclasses.field(default=0.1, kw_only=True)
  """Share of each branch of the transformer that is dropped in training."""

  def check(self, width: int) -> None:
    """Raises UserError unless channels can be grouped as norms, heads and codes need it."""
    name = type(self).__name__
    check_divides(GROUPS, self.features, f'{name}.features in groups')
    check_divides(self.heads, width, f'channels of {name}.heads')
    check_divides(4, width, f'channels of position codes in {name}')

  def learned(self, name: str, count: int, width: int) -> Array:
    """[count, width]: a vector for each query or level."""
    return self.param(name, init.RULED, (count, width))

  def scores(self, queries: Array, masks: Array, size: tuple[int, ...]) -> Array:
    """Queries [B, Q, D] and their masks' logits [B, h, w, Q] -> what the head gives."""
    classes = nn.Dense(self.num_classes + 1, dtype=self.dtype, name='classify')(queries)
    classes, masks = at_least_float32(classes), at_least_float32(masks)
    self.sow('intermediates', 'class_logits', classes)
    self.sow('intermediates', 'mask_logits', masks)
    return log_scores(classes, masks, size, align_corners=self.align_corners)


def mask_logits(embedded: Array, pixels: Array) -> Array:
  """Embeddings of queries [B, Q, M] and of pixels [B, h, w, M] -> masks [B, h, w, Q]."""
  return jnp.einsum('bqm,bhwm->bhwq', embedded, pixels)


def log_scores(
  classes: Array, masks: Array, size: tuple[int, ...], *, align_corners: bool
) -> Array:
  """Logits [B, Q, C + 1], the last of no class, and [B, h, w, Q] -> log of scores [B, H, W, C]."""
  shares = jax.nn.softmax(classes)[..., :-1]
  inside = jax.nn.sigmoid(resize_bilinear(masks, size, align_corners=align_corners))
  scores = jnp.einsum('bhwq,bqc->bhwc', inside, shares)
  return jnp.log(jnp.maximum(scores, jnp.finfo(scores.dtype).tiny))
