"""How a method's net looks at the images it predicts: windows, scales, mirrored copies.

Letters as in methods/base.py.
"""

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp

from car_jax.methods.base import Batch
from car_jax.methods.train_state import full_size
from car_jax.nn import multiscale, windows
from car_jax.nn import net as nets
from car_jax.options import Count, Factor, Size
from car_jax.typing import Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inference:
  """Options that change no weights, so that a checkpoint may be asked with others.

  With a `crop`, prediction averages the logits of windows of that size, `stride` apart; 0 sees the
  whole image at once. With several `scales`, or with `mirror` (left and right), it averages the
  probabilities of copies of the image, each by windows; see nn/multiscale.py. What the net does not
  take as it is, is padded and the prediction cut back; see nn/net.py.
  """

  crop: Count | Size = 0
  """Side of the windows that a prediction averages, in pixels, or height and width; 0 for the
  whole image at once."""
  stride: Count | Size = 0
  """From one window to the next, in pixels; with `crop`."""
  scales: tuple[Factor, ...] = (1.0,)
  """Copies of the image that a prediction averages, by their scale."""
  mirror: bool = False
  """Average the prediction of the mirrored image in."""

  prediction_options: ClassVar[tuple[str, ...]] = ('crop', 'stride', 'scales', 'mirror')

  def __post_init__(self) -> None:
    windows.check(self.crop, self.stride)
    multiscale.check(self.scales)

  @property
  def has_windows(self) -> bool:
    return bool(self.crop)

  def without_windows(self) -> Any:
    return dataclasses.replace(self, crop=0, stride=0)

  def predicted(self, net: Any, variables: Any, batch: Batch) -> Array:
    """Logits [B, H, W, C] float32 at the labels' size, which data.fit makes another than the
    image's; at the image's where there are none."""
    image = jnp.asarray(batch['image'])
    size = batch.get('labels', image[..., 0]).shape[-2:]
    align, known = net.align_corners, lambda x: full_size(net.apply(variables, x, train=False))
    apply = lambda image: nets.padded(net, known, image)
    windowed = dict(crop=self.crop, stride=self.stride, align_corners=align)
    predict = lambda image: windows.predicted(apply, image, size, **windowed)
    scaled = dict(multiple=net.multiple, align_corners=align)
    return multiscale.averaged(predict, image, self.scales, self.mirror, **scaled)
