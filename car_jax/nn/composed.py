"""Segmenters put together from parts: a backbone, a neck where there is one, and a head.

Letters: B images, H x W pixels, h x w places of a feature map, D channels, C classes.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import flax.core
import flax.linen as nn
import jax.numpy as jnp

from car_jax import options, registry
from car_jax.errors import UserError
from car_jax.nn import init
from car_jax.nn.dropout import Dropout
from car_jax.nn.layers import at_least_float32, conv
from car_jax.nn.net import Segmenter
from car_jax.nn.resize import resize_bilinear
from car_jax.options import Dtype, Share, Weight, Width
from car_jax.typing import Array

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of ImageNet's RGB, 0 to 255
Triple = tuple[float, float, float]


class Part(nn.Module, kw_only=True):
  """A part of a segmenter. What all its parts share it takes from there: see UNREAD.

  INIT says how its leaves start, as a net's does; see nn/init.py.
  """

  INIT: ClassVar[init.Table] = ()
  UNREAD: ClassVar[tuple[str, ...]] = ('dtype', 'align_corners')

  dtype: Dtype = None
  align_corners: bool = False

  @property
  def least(self) -> int:
    """The smallest H and W of an image that the part can work with."""
    return 1

  def chosen(self, maps: Sequence[Array], which: Sequence[int]) -> tuple[Array, ...]:
    """Some of the maps. Raises UserError for one that is not there."""
    if wrong := [i for i in which if not -len(maps) <= i < len(maps)]:
      raise UserError(
        f'{type(self).__name__} has no map {wrong[0]}\n  they are 0 to {len(maps) - 1}'
      )
    return tuple(maps[i] for i in which)


class Backbone(Part):
  """Images [B, H, W, 3] -> feature maps [B, h, w, D], from fine to coarse."""


class Neck(Part):
  """Feature maps -> feature maps."""


class Head(Part):
  """Feature maps -> logits [B, h, w, C] float32 at a size of its own.

  Dropout drops whole channels. A head that reads one map reads the one of `index`. One of FULL_SIZE
  is called with the image's `size`, and its logits are of that size.
  """

  FULL_SIZE: ClassVar[bool] = False

  INIT: ClassVar[init.Table] = (
    (r'/head/kernel$', init.small_normal),
    (r'/head/bias$', init.zeros),
    (r'depthwise/conv/kernel$', init.kaiming_fan_in),  # each output sees nine inputs only
    (r'/kernel$', init.kaiming_fan_out),
    *init.TORCH,
  )

  num_classes: int
  features: Width = 512
  """Channels inside the head."""
  dropout: Share = 0.1
  """Share of what is dropped in training."""

  def classified(self, x: Array, *, train: bool) -> Array:
    """[B, h, w, D] -> [B, h, w, C] float32, by the head's last layer."""
    x = Dropout(self.dropout, broadcast_dims=(1, 2), deterministic=not train)(x)
    x = conv(self.num_classes, 1, padding=0, dtype=self.dtype, name='head')(x)
    return at_least_float32(x)


@dataclasses.dataclass(frozen=True)
class Auxiliary(options.Group):
  """A head that training alone has, on the maps that the other one sees."""

  head: Annotated[Mapping[str, Any], options.Part('head')]
  """What classifies the maps."""
  weight: Weight = 0.4
  """Of its loss, beside that of the net's own head."""


class Composition(Segmenter, kw_only=True):
  """[B, H, W, 3] in [-1, 1] -> logits [B, H, W, C] float32, at the input's size.

  The head's parameters lie beside `backbone` and `neck`, not under a name of their own.
  """

  HAS_FEATURES = True

  mean: Triple = MEAN
  """Taken from the RGB image, 0 to 255, before the backbone sees it."""
  std: Triple = STD
  """What the image is divided by then."""

  @nn.nowrap
  def parts(self) -> tuple[Backbone, Neck | None, Head]:
    """New ones; the backbone is called 'backbone' and the neck 'neck'."""
    raise NotImplementedError

  @nn.nowrap
  def auxiliary_heads(self) -> dict[str, Head]:
    """New ones, by names of the config's."""
    return {}

  @property
  def least(self) -> int:
    return max(part.least for part in self.parts() if part is not None)

  @property
  def INIT(self) -> init.Table:
    """Those of the parts."""
    backbone, neck, head = self.parts()
    named = {'backbone': backbone, 'neck': neck}
    inner = [
      (f'^params/{name}.*{pattern}', rule)
      for name, part in named.items()
      for pattern, rule in (part.INIT if part is not None else ())
    ]
    return (*inner, *head.INIT)

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    size = x.shape[1:3]
    backbone, neck, head = self.parts()
    maps = backbone(normalised(x, self.mean, self.std), train=train)
    self.sow('intermediates', 'backbone_features', maps[-1])
    if neck is not None:
      maps = neck(maps, train=train)
    self.sow('intermediates', 'feature_maps', maps)
    if train or self.is_initializing():
      for name, auxiliary in self.auxiliary_heads().items():
        self.sow('auxiliary', name, auxiliary(maps, train=train))
    nn.share_scope(self, head)
    kw = {'size': size} if head.FULL_SIZE else {}
    logits = head(maps, train=train, **kw)
    self.sow('intermediates', 'coarse_logits', logits)
    return resize_bilinear(logits, size, align_corners=self.align_corners)


class Composed(Composition, kw_only=True):
  """A segmenter of any parts that a config names."""

  backbone: Annotated[Mapping[str, Any], options.Part('backbone')]
  """What finds features in the image."""
  head: Annotated[Mapping[str, Any], options.Part('head')]
  """What classifies them."""
  neck: Annotated[Mapping[str, Any], options.Part('neck')] | None = None
  """What changes features between backbone and head."""
  align_corners: bool = False
  """Whether resizing keeps the corner pixels in place, as the weights were trained."""
  auxiliary: dict[str, Auxiliary] = dataclasses.field(default_factory=dict)
  """Heads of training alone, by names of your own."""

  def __post_init__(self) -> None:
    for name in ('backbone', 'head', 'neck', 'auxiliary'):
      if getattr(self, name) is not None:  # entries as a key of a cache of programs
        object.__setattr__(self, name, flax.core.freeze(getattr(self, name)))
    super().__post_init__()

  @nn.nowrap
  def parts(self) -> tuple[Backbone, Neck | None, Head]:
    shared: dict[str, Any] = {'dtype': self.dtype, 'align_corners': self.align_corners}
    backbone = registry.build('backbone', self.backbone, **shared | {'name': 'backbone'})
    neck = None
    if self.neck is not None:
      neck = registry.build('neck', self.neck, **shared | {'name': 'neck'})
    head = registry.build('head', self.head, num_classes=self.num_classes, **shared)
    return backbone, neck, head

  @nn.nowrap
  def auxiliary_heads(self) -> dict[str, Head]:
    kw: dict[str, Any] = {'dtype': self.dtype, 'align_corners': self.align_corners}
    kw['num_classes'] = self.num_classes
    entries: Any = self.auxiliary  # dicts, as a config has them
    made = lambda k, v: registry.build('head', v['head'], **kw, name=f'auxiliary_{k}')
    return {name: made(name, entry) for name, entry in entries.items()}

  @property
  def auxiliary_weights(self) -> dict[str, float]:
    entries: Any = self.auxiliary
    return {name: entry['weight'] for name, entry in entries.items()}


def normalised(x: Array, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> Array:
  """[-1, 1] RGB -> the scale that a backbone's weights were trained on."""
  return ((x + 1) * 127.5 - jnp.array(mean)) / jnp.array(std)
