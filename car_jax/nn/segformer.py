"""SegFormer (arXiv 2105.15203): a hierarchical transformer without position codes, an MLP head.

Letters: B images, H x W pixels, D channels, C classes. Stages count from 1; stage k works at
1/2^(k+1) of the image's size.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from car_jax.errors import UserError, nearest
from car_jax.nn import init
from car_jax.nn.attention import attention
from car_jax.nn.composed import Backbone, Composition, Head
from car_jax.nn.dropout import Dropout
from car_jax.nn.layers import NormedConv, check_divides, conv, layer_norm, through
from car_jax.nn.resize import resize_bilinear
from car_jax.options import Count, Depth, Share, Width
from car_jax.typing import Array


class Sizes(NamedTuple):
  """Of an encoder's four stages, and the width of the head."""

  widths: tuple[int, ...]
  depths: tuple[int, ...]
  features: int


INIT = (
  (r'(query|key|value|out|expand|contract|project\d)/kernel$', init.normal(0.02)),
  (r'/depthwise/kernel$', init.kaiming_fan_in),  # each output sees nine inputs only
  (r'/kernel$', init.kaiming_fan_out),
  (r'/bias$', init.zeros),
)
WIDE = (64, 128, 320, 512)
VARIANTS = {
  'b0': Sizes((32, 64, 160, 256), (2, 2, 2, 2), 256),
  'b1': Sizes(WIDE, (2, 2, 2, 2), 256),
  'b2': Sizes(WIDE, (3, 4, 6, 3), 768),
  'b3': Sizes(WIDE, (3, 4, 18, 3), 768),
  'b4': Sizes(WIDE, (3, 8, 27, 3), 768),
  'b5': Sizes(WIDE, (3, 6, 40, 3), 768),
}


class Attention(nn.Module):
  """Self-attention whose keys and values come from x shrunk by `reduction` on each side."""

  heads: int
  reduction: int
  epsilon: float  # of the norm of what is shrunk
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    b, h, w, d = x.shape
    seen = x
    if self.reduction > 1:
      kw = {'padding': 0, 'dtype': self.dtype, 'name': 'reduce'}
      seen = conv(d, self.reduction, self.reduction, **kw)(x)
      seen = layer_norm('reduce_norm', self.epsilon, self.dtype)(seen)

    def project(y, name):
      y = nn.Dense(d, dtype=self.dtype, name=name)(y)
      return y.reshape(b, -1, self.heads, d // self.heads)

    key, value = project(seen, 'key'), project(seen, 'value')
    y = attention(project(x, 'query'), key, value)
    return nn.Dense(d, dtype=self.dtype, name='out')(y.reshape(b, h, w, d))


class Block(nn.Module):
  """Attention, then a feed-forward net with a depthwise 3 x 3, which tells positions apart."""

  heads: int
  reduction: int
  drop_path: float  # chance that an image skips a branch
  epsilon: float
  embed_epsilon: float
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    d, width = x.shape[-1], 4 * x.shape[-1]
    norm = lambda name: layer_norm(name, self.epsilon, self.dtype)
    kw: dict[str, Any] = {'broadcast_dims': (1, 2, 3), 'deterministic': not train}
    drop = lambda y: Dropout(self.drop_path, **kw)(y)
    inner = self.heads, self.reduction, self.embed_epsilon, self.dtype
    attend = Attention(*inner, name='attention')
    x = x + drop(attend(norm('norm1')(x)))
    y = nn.Dense(width, dtype=self.dtype, name='expand')(norm('norm2')(x))
    y = conv(width, feature_group_count=width, dtype=self.dtype, name='depthwise')(y)
    y = nn.gelu(y, approximate=False)
    return x + drop(nn.Dense(d, dtype=self.dtype, name='contract')(y))


class MixTransformer(Backbone):
  """[B, H, W, channels] -> the features of all stages, [B, H/4, W/4, D1] to [B, H/32, W/32, D4]."""

  INIT = INIT

  widths: tuple[Width, ...] = (32, 64, 160, 256)
  """Channels of each stage."""
  depths: tuple[Depth, ...] = (2, 2, 2, 2)
  """Blocks of each stage."""
  heads: tuple[Width, ...] = (1, 2, 5, 8)
  """Attention heads of each stage."""
  reductions: tuple[Width, ...] = (8, 4, 2, 1)
  """How much keys and values of each stage are shrunk on each side."""
  drop_path: Share = 0.1
  """How often an image skips a branch of the last block in training; less before."""
  epsilon: Share = 1e-6
  """Epsilon of layer norms."""
  embed_epsilon: Share = 1e-6
  """Epsilon of the norms after patches, and where keys shrink."""

  def __post_init__(self) -> None:
    super().__post_init__()
    shapes = self.widths, self.depths, self.heads, self.reductions
    if len({*map(len, shapes)}) > 1:
      w, d, h, r = map(len, shapes)
      raise UserError(
        f'SegFormer has {w} widths, {d} depths, {h} heads and {r} reductions\n'
        '  give one of each per stage'
      )
    for width, heads in zip(self.widths, self.heads, strict=True):
      check_divides(heads, width, "widths, channels of SegFormer's heads")

  @property
  def least(self) -> int:
    """Each stage has a place for keys and values, shrunk by its reduction."""
    return max(4 * 2**k * (r - 1) + 1 for k, r in enumerate(self.reductions))

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> tuple[Array, ...]:
    features, chances = [], iter(np.linspace(0, self.drop_path, sum(self.depths)))
    for k, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True), 1):
      size, stride = (7, 4) if k == 1 else (3, 2)
      kw = {'dtype': self.dtype, 'name': f'stage{k}_embed'}
      x = conv(width, size, stride, size // 2, **kw)(x)
      x = layer_norm(f'stage{k}_embed_norm', self.embed_epsilon, self.dtype)(x)
      shape = self.heads[k - 1], self.reductions[k - 1]
      for i in range(depth):
        chance = float(next(chances))
        epsilons = self.epsilon, self.embed_epsilon
        block = Block(*shape, chance, *epsilons, self.dtype, name=f'stage{k}_block{i}')
        x = through(block, x, train=train)
      x = layer_norm(f'stage{k}_norm', self.epsilon, self.dtype)(x)
      features.append(x)
    return tuple(features)


class SegFormerHead(Head):
  """All maps at one width and at the first one's size, joined."""

  INIT = INIT

  normed_projections: bool = True
  """A convolution, norm and ReLU bring each map to the head's width; without, a linear layer."""

  @nn.compact
  def __call__(self, maps: Sequence[Array], *, train: bool) -> Array:
    projected = []
    for k, x in enumerate(maps, 1):
      if self.normed_projections:
        x = NormedConv(self.features, dtype=self.dtype, name=f'normed{k}')(x, train=train)
      else:
        x = nn.Dense(self.features, dtype=self.dtype, name=f'project{k}')(x)
      size = maps[0].shape[1:3]
      projected.append(resize_bilinear(x, size, align_corners=self.align_corners))
    x = jnp.concatenate(projected, -1)
    x = NormedConv(self.features, dtype=self.dtype, name='fuse')(x, train=train)
    return self.classified(x, train=train)


class SegFormer(Composition):
  """With `normed_projections` the head brings each stage to its width by convolution, norm, ReLU,
  as mmsegmentation's weights need it; without, by the paper's linear layer. `norm_epsilon` is 1e-6
  in mmsegmentation, 1e-5 in Hugging Face; the paper's code has 1e-6, but 1e-5 as `embed_epsilon`
  (0: the same) after patches and where keys shrink. Dropout drops whole channels.
  """

  variant: Literal['b0', 'b1', 'b2', 'b3', 'b4', 'b5'] = 'b0'
  """The published size; widths, depths and features that are given count instead."""
  widths: tuple[Width, ...] = ()
  """Channels of each stage."""
  depths: tuple[Depth, ...] = ()
  """Layers or blocks of each stage."""
  heads: tuple[Width, ...] = (1, 2, 5, 8)
  """Attention heads of each stage."""
  reductions: tuple[Width, ...] = (8, 4, 2, 1)
  """How much keys and values of each stage are shrunk on each side."""
  features: Count = 0
  """Channels of the head; 0 for the variant's."""
  normed_projections: bool = True
  """Batch norm after each projection of the head's, as mmsegmentation has it."""
  norm_epsilon: Share = 1e-6
  """Epsilon of layer norms."""
  embed_epsilon: Share = 0.0
  """Epsilon of the patch embeddings' norms; 0 for 1e-5."""
  dropout: Share = 0.1
  """Share of what is dropped in training."""
  drop_path: Share = 0.1
  """How often an image skips a branch of the last block in training; less before."""

  @property
  def sizes(self) -> Sizes:
    """Raises UserError for an unknown variant, and for widths that the heads do not divide."""
    if self.variant not in VARIANTS:
      raise UserError(f'no SegFormer {self.variant!r}\n{nearest(self.variant, VARIANTS)}')
    of = VARIANTS[self.variant]
    widths, depths = tuple(self.widths or of.widths), tuple(self.depths or of.depths)
    return Sizes(widths, depths, self.features or of.features)

  @nn.nowrap
  def parts(self) -> tuple[MixTransformer, None, SegFormerHead]:
    shared: dict[str, Any] = {'dtype': self.dtype, 'align_corners': self.align_corners}
    widths, depths, features = self.sizes
    epsilons = self.norm_epsilon, self.embed_epsilon or self.norm_epsilon
    shape = widths, depths, self.heads, self.reductions, self.drop_path, *epsilons
    backbone = MixTransformer(*shape, name='backbone', **shared)
    head = self.num_classes, features, self.dropout, self.normed_projections
    return backbone, None, SegFormerHead(*head, **shared)
