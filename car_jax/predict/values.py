"""What the values of arrays and files are to a model: images in [-1, 1], as its training saw them.

Letters: B images, H x W pixels.
"""

from typing import Any

import numpy as np

from car_jax import spans
from car_jax.data import transforms
from car_jax.data.sources import DataInfo
from car_jax.errors import UserError

HOUNSFIELD = ' HU'
SHAPES = '[H, W], [H, W, 3] or a batch [B, H, W, 3]'


def span_of(given: str, info: DataInfo, *, volume: bool = False) -> spans.Span:
  """Which values become black and white: as `given`, 'LOW,HIGH' or 'P1%,P99%', else as in training.

  A range of Hounsfield units says something of a `volume` only, another one of pictures only, and
  percentiles of both. Empty where nothing is known. Raises UserError.
  """
  if given:
    return spans.parse(given)
  known = spans.parse(info.range.removesuffix(HOUNSFIELD))
  return known if known.percent or info.range.endswith(HOUNSFIELD) == volume else spans.Span()


def images(
  array: Any, span: spans.Span, what: str = 'the image', *, given: bool = False
) -> list[np.ndarray]:
  """An array's images: uint8 [H, W, 1 or 3], or float32 in [-1, 1].

  Bytes are taken as they are, and True is white. Floats from 0 to 1 have 0 black and 1 white; with
  negative ones, from -1 to 1, -1 is black; a span that was `given` they obey instead. All others
  need a span: values are then brought to 8 bits, as `car-jax prepare` does it. Raises UserError.
  """
  array = checked(array, what)
  if array.dtype == bool:
    return [*(np.uint8(255) * array)]
  if array.dtype == np.uint8:
    return [*array]
  if array.dtype.kind == 'f' and not given:
    low, high = float(array.min()), float(array.max())  # nan where there is any
    if low >= 0 and high <= 1:
      return [*(array * 2 - 1).astype(np.float32)]
    if low >= -1 and high <= 1:
      return [*array.astype(np.float32)]
  if span.low is not None:
    return [spans.to_bytes(what, x, span) for x in array]
  if array.dtype.kind == 'f' and (lost := int((~np.isfinite(array)).sum())):
    raise UserError(f'{what}: {lost:,} of its values are not finite')
  raise UserError(
    f'{what}: {array.dtype} from {array.min():g} to {array.max():g}, which of them are black and '
    f'white?\n  {spans.MEND}'
  )


def checked(array: Any, what: str = 'the image') -> np.ndarray:
  """An array as [B, H, W, 1 or 3]. Raises UserError for another shape or type."""
  array = np.asarray(array)
  if array.dtype.kind not in 'biuf':
    raise UserError(f'{what} is of type {array.dtype}; expected whole numbers or floats')
  batch = array[..., None] if array.ndim == 2 else array
  batch = batch[None] if batch.ndim == 3 else batch
  if batch.ndim != 4 or batch.shape[-1] not in (1, 3) or not batch.size:
    raise UserError(f'{what} has the shape {array.shape}; expected {SHAPES}{_hint(array.shape)}')
  return batch


def _hint(shape: tuple[int, ...]) -> str:
  """What may be meant by another shape."""
  if len(shape) in (3, 4) and shape[-1] == 4:
    return '\n  leave transparency out: image[..., :3]'
  if len(shape) in (3, 4) and shape[-3] in (1, 3):
    return '\n  channels come last: np.moveaxis(image, -3, -1)'
  return '\n  a batch of grey images is [B, H, W, 1]: images[..., None]' if len(shape) == 3 else ''


def seen(image: np.ndarray) -> np.ndarray:
  """One of `images` -> what a model takes, float32 [H, W, 3] in [-1, 1]."""
  if image.dtype == np.uint8:
    return transforms.model_image(image)
  return np.broadcast_to(image, (*image.shape[:2], 3))


def as_bytes(image: np.ndarray) -> np.ndarray:
  """One of `images` as uint8 [H, W, 3], to be looked at."""
  if image.dtype != np.uint8:
    image = np.rint((np.clip(image, -1, 1) + 1) * 127.5).astype(np.uint8)
  return np.broadcast_to(image, (*image.shape[:2], 3))
