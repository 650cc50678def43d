"""ConvNeXt (arXiv 2201.03545): depthwise 7 x 7 convolutions within blocks shaped as transformers'.

As in dense prediction, what each stage gives is normalised. Letters: B images, H x W pixels, h x w
places of a map, D channels.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from car_jax.errors import UserError
from car_jax.nn import init
from car_jax.nn.composed import Backbone
from car_jax.nn.dropout import Dropout
from car_jax.nn.layers import conv, layer_norm, through
from car_jax.options import Count, Depth, Share, Width
from car_jax.typing import Array


class Block(nn.Module):
  """A depthwise convolution and a feed-forward net in one branch: [B, h, w, D] -> the same."""

  layer_scale: float  # where the branch's factors start; 0 for none
  drop_path: float  # chance that an image skips the branch
  epsilon: float
  dtype: Any = None

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    d = x.shape[-1]
    kw: dict[str, Any] = {'feature_group_count': d, 'dtype': self.dtype, 'name': 'depthwise'}
    y = layer_norm('norm', self.epsilon, self.dtype)(conv(d, 7, 1, 3, **kw)(x))
    y = nn.gelu(nn.Dense(4 * d, dtype=self.dtype, name='expand')(y), approximate=False)
    y = nn.Dense(d, dtype=self.dtype, name='contract')(y)
    if self.layer_scale:
      scale = self.param('scale', nn.initializers.constant(self.layer_scale), (d,))
      y = y * jnp.asarray(scale, y.dtype)
    return x + Dropout(self.drop_path, broadcast_dims=(1, 2, 3), deterministic=not train)(y)


class ConvNeXt(Backbone):
  """[B, H, W, channels] -> maps of the stages, [B, H/4, W/4, D1] to [B, H/32, W/32, D4].

  Sides are rounded down.
  """

  INIT = (
    (r'(embed|depthwise|expand|contract)/kernel$', init.normal(0.02)),
    (r'/bias$', init.zeros),
  )

  widths: tuple[Width, ...] = (96, 192, 384, 768)
  """Channels of each stage."""
  depths: tuple[Depth, ...] = (3, 3, 9, 3)
  """Blocks of each stage."""
  patch: Width = 4
  """Side of the patches, in pixels, that the first stage's places are."""
  layer_scale: Share = 1e-6
  """Where the factors of the blocks' branches start; 0 for no such factors."""
  outputs: tuple[Count, ...] = ()
  """Stages, counted from 0, whose maps are given; empty for all."""
  drop_path: Share = 0.1
  """How often an image skips a branch of the last block in training; less before."""
  epsilon: Share = 1e-6
  """Epsilon of layer norms."""
  shrink_epsilon: Share = 1e-6
  """Epsilon of those before a map shrinks between two stages."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if len(self.widths) != len(self.depths):
      raise UserError(
        f'ConvNeXt has {len(self.widths)} widths and {len(self.depths)} depths\n'
        '  give one of each per stage'
      )
    if wrong := [k for k in self.outputs if k >= len(self.depths)]:
      raise UserError(f'ConvNeXt has no stage {wrong[0]}; the last is {len(self.depths) - 1}')

  @property
  def least(self) -> int:
    """The last stage has a place."""
    return self.patch * 2 ** (len(self.depths) - 1)

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> tuple[Array, ...]:
    maps, chances = [], iter(np.linspace(0, self.drop_path, sum(self.depths)))
    for k, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True)):
      name, side = f'stage{k + 1}', 2 if k else self.patch
      if k:
        x = layer_norm(f'{name}_embed_norm', self.shrink_epsilon, self.dtype)(x)
      x = conv(width, side, side, 0, dtype=self.dtype, name=f'{name}_embed')(x)
      if not k:
        x = layer_norm(f'{name}_embed_norm', self.epsilon, self.dtype)(x)
      for i in range(depth):
        shape = self.layer_scale, float(next(chances)), self.epsilon, self.dtype
        x = through(Block(*shape, name=f'{name}_block{i}'), x, train=train)
      if not self.outputs or k in self.outputs:
        maps.append(layer_norm(f'{name}_norm', self.epsilon, self.dtype)(x))
    return tuple(maps)
