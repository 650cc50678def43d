"""What nets of ambiguous segmentation see of a batch: the standardised image, a black box's labels.

Letters as in methods/base.py.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from car_jax.errors import UserError
from car_jax.methods.base import Batch, Method
from car_jax.options import Factor
from car_jax.typing import Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Observed(Method):
  """Options of what a net is given, for methods of one net to be made of."""

  channels: Literal[1, 3] = 1
  """Channels of the image: 1 for grey, 3 for colour."""
  pixel_mean: tuple[float, ...] = ()
  """Mean of each channel from 0 to 1; without, each image gets mean 0."""
  pixel_std: tuple[Factor, ...] = ()
  """Deviation of each channel from 0 to 1; without, each image gets deviation 1."""
  stretched: bool = False
  """Of each image the least number becomes 0 and the largest 1, before pixel_mean is taken off."""
  black_box: Literal['', 'number', 'one_hot'] = ''
  """How another model's prediction is given to the net: its class numbers in one channel (0 for
  unlabelled), as released, or a channel per class; empty for none."""

  def __post_init__(self) -> None:
    for key, given in dict(pixel_mean=self.pixel_mean, pixel_std=self.pixel_std).items():
      if len(given) != len(self.pixel_std) or len(given) not in (0, self.channels):
        raise UserError(
          f'method.{key} is {given}\n  give pixel_mean and pixel_std {self.channels} number(s)'
        )
    if self.stretched and not self.pixel_mean:
      raise UserError(
        'method.stretched changes nothing in images that get mean 0 and deviation 1\n'
        f'  give pixel_mean={(0.0,) * self.channels} and pixel_std={(1.0,) * self.channels} too'
      )

  @property
  def reads_black_box(self) -> bool:
    return bool(self.black_box)

  def blank(self, batch: Batch) -> np.ndarray:
    """Zeros of the shape of `observed`. Raises UserError where the batch lacks the black box."""
    if self.black_box and 'black_box' not in batch:
      raise UserError(
        "method.black_box: the data set holds no black-box predictions; use method.black_box=''"
      )
    extra = {'': 0, 'number': 1, 'one_hot': self.num_classes}[self.black_box]
    return np.zeros((*batch['image'].shape[:3], self.channels + extra), np.float32)

  def observed(self, batch: Batch) -> Array:
    """What the net sees [B, H, W, channels]: the standardised image, the black-box prediction."""
    x = batch['image'][..., : self.channels]
    if self.stretched:
      low, high = (f(x, (1, 2, 3), keepdims=True) for f in (jnp.min, jnp.max))
      x = 2 * (x - low) / jnp.maximum(high - low, 1e-8) - 1
    if self.pixel_mean:
      x = ((x + 1) / 2 - jnp.asarray(self.pixel_mean)) / jnp.asarray(self.pixel_std)
    else:
      x = x - x[:, :1, :1, :1]  # a uniform image is exactly 0, where its mean is rounded
      x = x - x.mean((1, 2, 3), keepdims=True)
      x = x / (jnp.sqrt(jnp.square(x).mean((1, 2, 3), keepdims=True)) + 1e-8)
    if not self.black_box:
      return x
    prediction = batch['black_box']
    if self.black_box == 'one_hot':
      prediction = jax.nn.one_hot(prediction, self.num_classes)
    else:  # the released numbers: unlabelled, our last class, is 0
      prediction = ((prediction + 1) % self.num_classes)[..., None].astype(x.dtype)
    return jnp.concatenate([x, prediction], -1)
