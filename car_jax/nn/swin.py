"""Swin transformer (arXiv 2103.14030): attention within windows that every other block shifts.

As in dense prediction, a map of any size is padded at its lower and right border to whole windows,
and what a stage gives is normalised. Letters: B images, H x W pixels, h x w places of a map, D
channels, S the side of a window, V windows of an image.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from car_jax.errors import UserError
from car_jax.nn import init
from car_jax.nn.composed import Backbone
from car_jax.nn.dropout import Dropout
from car_jax.nn.layers import at_least_float32, check_divides, conv, layer_norm, through
from car_jax.options import Count, Depth, Factor, Share, Weight, Width
from car_jax.typing import Array

APART = -100.0  # added between places that lie side by side by the cyclic shift alone


def padded(x: Array, multiple: int) -> Array:
  """[B, h, w, D] with zeros below and to the right, to sides that are multiples."""
  h, w = x.shape[1:3]
  return jnp.pad(x, ((0, 0), (0, -h % multiple), (0, -w % multiple), (0, 0)))


def windows(x: Any, side: int) -> Any:
  """[B, h, w, D] -> [B, V, S * S, D]."""
  b, h, w, d = x.shape
  x = x.reshape(b, h // side, side, w // side, side, d)
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(b, -1, side * side, d)


def joined(x: Array, side: int, h: int, w: int) -> Array:
  """[B, V, S * S, D] -> [B, h, w, D]: `windows` undone."""
  x = x.reshape(x.shape[0], h // side, w // side, side, side, -1)
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(x.shape[0], h, w, -1)


def offsets(side: int) -> np.ndarray:
  """[S * S, S * S]: the row of the table of position biases for a query and a key."""
  y, x = np.divmod(np.arange(side * side), side)
  apart = lambda at: at[:, None] - at + side - 1
  return apart(y) * (2 * side - 1) + apart(x)


def regions(h: int, w: int, side: int, shift: int) -> np.ndarray:
  """[V, S * S]: a number for each place of a shifted map; attention stays within equal ones.

  Only the last windows hold several: what the shift brought there from the opposite border.
  """
  of = lambda n: (np.arange(n) >= n - side).astype(int) + (np.arange(n) >= n - shift)
  numbers = 3 * of(h)[:, None] + of(w)
  return windows(numbers[None, :, :, None], side)[0, :, :, 0]


class WindowAttention(nn.Module):
  """Self-attention within windows of S x S, whose borders lie `shift` lower and further right."""

  heads: int
  side: int
  shift: int
  qkv_bias: bool = True
  scale: float = 0.0  # of the products of queries and keys; 0 for 1 / sqrt(channels of a head)
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    h, w, d = x.shape[1:]
    x = padded(x, self.side)
    _, tall, wide, _ = x.shape
    if self.shift:
      x = jnp.roll(x, (-self.shift, -self.shift), (1, 2))
    x = windows(x, self.side)

    def project(name):
      y = nn.Dense(d, self.qkv_bias, dtype=self.dtype, name=name)(x)
      return y.reshape(*x.shape[:3], self.heads, -1)

    query, key, value = map(project, ('query', 'key', 'value'))
    query = query * (self.scale or (d // self.heads) ** -0.5)
    affinity = at_least_float32(jnp.einsum('bvqhd,bvkhd->bvhqk', query, key))
    shape = (2 * self.side - 1) ** 2, self.heads
    bias = self.param('position_bias', init.RULED, shape)[offsets(self.side)]
    affinity = affinity + bias.transpose(2, 0, 1)
    if self.shift:
      region = jnp.asarray(regions(tall, wide, self.side, self.shift))
      same = region[:, :, None] == region[:, None]
      affinity = affinity + jnp.where(same, 0, APART)[:, None]
    share = jax.nn.softmax(affinity).astype(value.dtype)
    y = jnp.einsum('bvhqk,bvkhd->bvqhd', share, value).reshape(x.shape)
    y = joined(nn.Dense(d, dtype=self.dtype, name='out')(y), self.side, tall, wide)
    if self.shift:
      y = jnp.roll(y, (self.shift, self.shift), (1, 2))
    return y[:, :h, :w]


class Block(nn.Module):
  """Attention within windows, then a feed-forward net."""

  heads: int
  side: int
  shift: int
  qkv_bias: bool
  scale: float
  width: int  # channels inside the feed-forward net
  drop_path: float  # chance that an image skips a branch
  epsilon: float
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    kw: dict[str, Any] = {'broadcast_dims': (1, 2, 3), 'deterministic': not train}
    drop = lambda y: Dropout(self.drop_path, **kw)(y)
    shape = self.heads, self.side, self.shift, self.qkv_bias, self.scale, self.dtype
    y = layer_norm('norm1', self.epsilon, self.dtype)(x)
    x = x + drop(WindowAttention(*shape, name='attention')(y))
    y = layer_norm('norm2', self.epsilon, self.dtype)(x)
    y = nn.gelu(nn.Dense(self.width, dtype=self.dtype, name='expand')(y), approximate=False)
    return x + drop(nn.Dense(x.shape[-1], dtype=self.dtype, name='contract')(y))


def merged(x: Array, *, by_channel: bool) -> Array:
  """[B, h, w, D] -> [B, h/2, w/2, 4 D], sides rounded up: each 2 x 2 places as one.

  The channels come place by place, and down the columns, as the published code concatenates them;
  or `by_channel`, the four places of each along the rows, as torch's unfold gives them.
  """
  x = padded(x, 2)
  b, h, w, d = x.shape
  x = x.reshape(b, h // 2, 2, w // 2, 2, d)
  x = x.transpose(0, 1, 3, 5, 2, 4) if by_channel else x.transpose(0, 1, 3, 4, 2, 5)
  return x.reshape(b, h // 2, w // 2, 4 * d)


class SwinTransformer(Backbone):
  """[B, H, W, channels] -> maps of the stages, [B, H/4, W/4, width] to [B, H/32, W/32, 8 width].

  Sides are rounded up.
  """

  INIT = (
    (r'/position_bias$', init.normal(0.02)),
    (r'(query|key|value|out|expand|contract|merge)/kernel$', init.normal(0.02)),
    (r'/embed/(kernel|bias)$', init.torch_default),
    (r'/bias$', init.zeros),
  )

  width: Width = 96
  """Channels of the first stage; each one after has twice as many as the one before."""
  depths: tuple[Depth, ...] = (2, 2, 6, 2)
  """Blocks of each stage."""
  heads: tuple[Width, ...] = (3, 6, 12, 24)
  """Attention heads of each stage."""
  window: Width = 7
  """Side of the windows, in places."""
  patch: Width = 4
  """Side of the patches, in pixels, that the first stage's places are."""
  expansion: Factor = 4.0
  """How many times as wide the feed-forward nets are inside."""
  qkv_bias: bool = True
  """Whether queries, keys and values have a bias."""
  scale: Weight = 0.0
  """Factor of the products of queries and keys; 0 for 1 / sqrt(channels of a head)."""
  patch_norm: bool = True
  """Layer norms after the patches and where places are merged."""
  merge_by_channel: bool = False
  """Merged channels in mmsegmentation's order, each one's four places together."""
  outputs: tuple[Count, ...] = ()
  """Stages, counted from 0, whose maps are given; empty for all."""
  drop_path: Share = 0.1
  """How often an image skips a branch of the last block in training; less before."""
  epsilon: Share = 1e-5
  """Epsilon of layer norms."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if len(self.depths) != len(self.heads):
      raise UserError(
        f'Swin has {len(self.depths)} depths and {len(self.heads)} heads\n  give one per stage'
      )
    for k, heads in enumerate(self.heads):
      check_divides(heads, self.width * 2**k, f"channels of Swin's heads in stage {k}")
    if wrong := [k for k in self.outputs if k >= len(self.depths)]:
      raise UserError(f'Swin has no stage {wrong[0]}; the last is {len(self.depths) - 1}')

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> tuple[Array, ...]:
    norm = lambda name: layer_norm(name, self.epsilon, self.dtype)
    side, maps = self.patch, []
    x = conv(self.width, side, side, 0, dtype=self.dtype, name='embed')(padded(x, side))
    if self.patch_norm:
      x = norm('embed_norm')(x)
    chances = iter(np.linspace(0, self.drop_path, sum(self.depths)))
    for k, (depth, heads) in enumerate(zip(self.depths, self.heads, strict=True)):
      width, name = self.width * 2**k, f'stage{k + 1}'
      if k:
        x = merged(x, by_channel=self.merge_by_channel)
        x = norm(f'{name}_merge_norm')(x) if self.patch_norm else x
        x = nn.Dense(width, use_bias=False, dtype=self.dtype, name=f'{name}_merge')(x)
      for i in range(depth):
        shape = heads, self.window, i % 2 * (self.window // 2), self.qkv_bias, self.scale
        inner = int(self.expansion * width), float(next(chances)), self.epsilon, self.dtype
        x = through(Block(*shape, *inner, name=f'{name}_block{i}'), x, train=train)
      if not self.outputs or k in self.outputs:
        maps.append(norm(f'{name}_norm')(x))
    return tuple(maps)
