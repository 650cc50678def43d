"""Vision transformer (arXiv 2010.11929): an image as a sequence of patches, all of which see all.

Laid out as mmsegmentation has it. It departs from the paper in three things: images of any size
are taken, filled up with zeros at their right and lower edge, for which position codes are resized;
feature maps of several depths are given, without the class token; and the last norm is optional.

Letters: B images, H x W pixels, P x P pixels of a patch, h x w patches, N tokens, D channels.
"""

from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from car_jax.errors import UserError
from car_jax.nn import init
from car_jax.nn.attention import attention
from car_jax.nn.composed import Backbone
from car_jax.nn.dropout import Dropout
from car_jax.nn.layers import check_divides, conv, layer_norm, through
from car_jax.nn.resize import resize_bicubic, resize_bilinear
from car_jax.options import Depth, Positive, Share, Size, Width
from car_jax.typing import Array


class Attention(nn.Module):
  """Self-attention: [B, N, D] -> [B, N, D]. Raises UserError where `heads` do not divide D."""

  heads: int
  use_bias: bool = True
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    b, n, d = x.shape
    check_divides(self.heads, d, "channels of attention's heads")
    dense = lambda name: nn.Dense(d, self.use_bias, self.dtype, name=name)
    split = lambda name: dense(name)(x).reshape(b, n, self.heads, d // self.heads)
    y = attention(split('query'), split('key'), split('value'))
    return dense('out')(y.reshape(b, n, d))


class Block(nn.Module):
  """Attention, then a feed-forward net, each normed before and added after: [B, N, D] -> same."""

  heads: int
  expansion: int = 4  # of the feed-forward net's inner width
  dropout: float = 0.0
  drop_path: float = 0.0  # chance that an image skips a branch
  epsilon: float = 1e-6
  use_bias: bool = True  # of attention's projections
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    d = x.shape[-1]
    norm = lambda name: layer_norm(name, self.epsilon, self.dtype)
    dense = lambda width, name: nn.Dense(width, dtype=self.dtype, name=name)
    drop = lambda y: Dropout(self.dropout, deterministic=not train)(y)
    skip = lambda y: Dropout(self.drop_path, (1, 2), not train)(y)
    attend = Attention(self.heads, self.use_bias, self.dtype, name='attention')
    x = x + skip(drop(attend(norm('norm1')(x))))
    y = nn.gelu(dense(self.expansion * d, 'expand')(norm('norm2')(x)), approximate=False)
    return x + skip(drop(dense(d, 'contract')(drop(y))))


def blocks(depth: int, drop_path: float, **kw: Any) -> list[Block]:
  """block0, block1, ..; the chance that a branch is skipped grows from 0 to `drop_path`."""
  chances = np.linspace(0, drop_path, depth)
  return [Block(drop_path=float(c), name=f'block{i}', **kw) for i, c in enumerate(chances)]


class VisionTransformer(Backbone):
  """[B, H, W, channels] -> maps [B, ceil(H / P), ceil(W / P), D], all of one size.

  The defaults are those of ViT-B/16.
  """

  INIT = (
    (r'/embed/kernel$', init.kaiming_fan_in),
    (r'/(expand|contract)/bias$', init.normal(1e-6)),
    (r'/(kernel|class_token|positions)$', init.normal(0.02)),
    (r'/bias$', init.zeros),
  )

  image_size: Size = (224, 224)
  """Height and width of the images that there are position codes for; others resize them."""
  patch: Width = 16
  """Pixels on each side of a patch."""
  width: Width = 768
  """Channels of a token."""
  depth: Positive = 12
  """Blocks."""
  heads: Width = 12
  """Attention heads of each block."""
  expansion: Width = 4
  """How many times as wide the feed-forward nets are inside."""
  outputs: tuple[Depth, ...] = ()
  """Blocks, counted from 0, whose results are given; empty for the last."""
  keep_class_token: bool = True
  """Whether the class token takes part in attention; weights have one in any case."""
  embed_bias: bool = True
  """A bias in the embedding of patches."""
  embed_norm: bool = False
  """A norm after the embedding of patches."""
  final_norm: bool = False
  """A norm after the last block."""
  interpolation: Literal['bilinear', 'bicubic'] = 'bicubic'
  """How position codes are resized."""
  attention_bias: bool = True
  """A bias in the projections of attention."""
  dropout: Share = 0.0
  """Share of what is dropped in training, after codes are added and in each branch."""
  drop_path: Share = 0.0
  """How often an image skips a branch of the last block in training; less before."""
  epsilon: Share = 1e-6
  """Epsilon of layer norms."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if wrong := [i for i in self.outputs if i >= self.depth]:
      raise UserError(
        f'ViT of depth {self.depth} has no block {wrong[0]}\n  the last one is {self.depth - 1}'
      )

  def codes(self, size: tuple[int, ...]) -> Array:
    """Position codes [1, 1 + h w, D] of the class token and of patches in rows.

    As published, they are resized where the number of patches differs, not their shape: 2 x 8
    patches have the codes of 4 x 4 as they are.
    """
    h, w = (side // self.patch for side in self.image_size)
    codes = self.param('positions', init.RULED, (1, 1 + h * w, self.width))
    if size[0] * size[1] == h * w:
      return codes
    grid = codes[:, 1:].reshape(1, h, w, self.width)
    if self.interpolation == 'bilinear':
      grid = resize_bilinear(grid, size, align_corners=False)
    else:
      grid = resize_bicubic(grid, size)
    return jnp.concatenate([codes[:, :1], grid.reshape(1, -1, self.width)], 1)

  def tokens(self, x: Array) -> Array:
    """[B, h, w, D] -> [B, 1 + h w, D]: the class token, then patches, with their codes."""
    token = self.param('class_token', init.RULED, (1, 1, self.width)).astype(x.dtype)
    token = jnp.broadcast_to(token, (x.shape[0], 1, self.width))
    codes = self.codes(x.shape[1:3]).astype(x.dtype)
    return jnp.concatenate([token, x.reshape(x.shape[0], -1, self.width)], 1) + codes

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> tuple[Array, ...]:
    more = [(0, -side % self.patch) for side in x.shape[1:3]]
    x = jnp.pad(x, ((0, 0), *more, (0, 0)))
    shape: Any = self.width, self.patch, self.patch, 0
    x = conv(*shape, use_bias=self.embed_bias, dtype=self.dtype, name='embed')(x)
    if self.embed_norm:
      x = layer_norm('embed_norm', self.epsilon, self.dtype)(x)
    shape, maps, last = x.shape, [], self.depth - 1
    x = Dropout(self.dropout, deterministic=not train)(self.tokens(x))
    extra = int(self.keep_class_token)  # tokens before those of patches
    x = x[:, 1 - extra :]
    kw: dict[str, Any] = {'heads': self.heads, 'expansion': self.expansion, 'dropout': self.dropout}
    kw |= {'epsilon': self.epsilon, 'use_bias': self.attention_bias, 'dtype': self.dtype}
    for i, block in enumerate(blocks(self.depth, self.drop_path, **kw)):
      x = through(block, x, train=train)
      if i == last and self.final_norm:
        x = layer_norm('norm', self.epsilon, self.dtype)(x)
      if i in (self.outputs or (last,)):
        maps.append(x[:, extra:].reshape(shape))
    return tuple(maps)
