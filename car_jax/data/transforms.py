"""Paired operations on an example: (example, rng) -> example.

An example holds image [H, W, channels] and labels [M, H, W]; `rng` is a numpy Generator that
belongs to this example in this epoch. Every operation treats the image and all readers' labels
alike.
"""

import dataclasses
from typing import Annotated, Any, Protocol

import numpy as np
from PIL import Image
from scipy import ndimage

from car_jax import registry
from car_jax.data import options as data_options
from car_jax.errors import UserError
from car_jax.options import Factor, Positive, Range

Example = dict[str, Any]
Factors = tuple[Factor, ...]


class Transform(Protocol):
  """A frozen dataclass: its fields are options, and a call changes an example by its draws alone.

  The image stays uint8 [H, W, channels], the labels [M, H, W] stay on its pixels, if not in size.
  """

  def __call__(self, example: Example, rng: np.random.Generator) -> Example: ...


@dataclasses.dataclass(frozen=True)
class CentreCrop:
  """The central size x size pixels. Raises UserError for a smaller image, by its id."""

  size: Positive
  """Side in pixels."""
  key: str = 'size'

  UNREAD = ('key',)  # the one of config.data that says the size, for messages

  def __call__(self, example: Example, rng: np.random.Generator | None = None) -> Example:
    (h, w), size = example['image'].shape[:2], self.size
    if h < size or w < size:
      raise UserError(
        f'image {example["id"]} is {w}x{h}, smaller than config.data.{self.key} {size}\n'
        f'  use --config.data.{self.key}={min(h, w)} or less, or set data.pad=True in the config'
      )
    return _crop(example, (h - size) // 2, (w - size) // 2, size)


@dataclasses.dataclass(frozen=True)
class RandomCrop:
  """Any size x size window, uniformly."""

  size: Positive
  """Side in pixels."""

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    (h, w), size = example['image'].shape[:2], self.size
    if h < size or w < size:
      return CentreCrop(size)(example)
    return _crop(example, rng.integers(h - size + 1), rng.integers(w - size + 1), size)


def _crop(example: Example, top: int, left: int, size: int) -> Example:
  rows, columns = slice(top, top + size), slice(left, left + size)
  image, labels = example['image'][rows, columns], example['labels'][:, rows, columns]
  return example | {'image': image, 'labels': labels}


@dataclasses.dataclass(frozen=True)
class Mirror:
  """Left to right, half of the time."""

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    return _perhaps_flipped(example, rng, 1)


@dataclasses.dataclass(frozen=True)
class Rot90:
  """A quarter turn 0 to 3 times. For square images."""

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    k = int(rng.integers(4))
    image, labels = example['image'], example['labels']
    return example | {'image': np.rot90(image, k), 'labels': np.rot90(labels, k, axes=(1, 2))}


def rotated(x: np.ndarray, degrees: float, *, nearest: bool, fill: float = 0) -> np.ndarray:
  """x [H, W, channels] turned counter-clockwise about (W/2, H/2), at its size; `fill` outside.

  Bilinear, or the nearest pixel; as OpenCV 5 does, which no longer rounds coordinates to 1/32.
  """
  a, b = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
  turn, centre = np.array([[a, b], [-b, a]]), np.array(x.shape[:2]) / 2
  kw = dict(offset=centre - turn @ centre, order=0 if nearest else 1, cval=fill)
  planes = np.moveaxis(x if nearest else x.astype(np.float64), -1, 0)
  turned = [ndimage.affine_transform(p, turn, mode='grid-constant', **kw) for p in planes]
  return np.stack(turned, -1)


@dataclasses.dataclass(frozen=True)
class Rotate:
  """By up to so many degrees either way, half of the time; the image's mean fills the corners.

  The labels there are `ignore_label`; class 0 where a data set has none, as in MoSE's training on
  LIDC.
  """

  degrees: Annotated[float, Range(0.0, 360.0)] = 10.0
  """The most that an image is turned."""
  ignore_label: int | None = None

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    if rng.random() < 0.5:
      return example
    outside = 0 if self.ignore_label is None else self.ignore_label
    angle = rng.uniform(-self.degrees, self.degrees)
    image, labels = example['image'], np.moveaxis(example['labels'], 0, -1)
    turned = rotated(image, angle, nearest=False, fill=image.mean())
    labels = np.moveaxis(rotated(labels, angle, nearest=True, fill=outside), -1, 0)
    return example | {'image': np.uint8(np.round(turned)), 'labels': labels}


@dataclasses.dataclass(frozen=True)
class MirrorRows:
  """Upside down, half of the time."""

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    return _perhaps_flipped(example, rng, 0)


def _perhaps_flipped(example: Example, rng: np.random.Generator, axis: int) -> Example:
  """Half of the time along an axis of the image."""
  if rng.random() < 0.5:
    return example
  image, labels = np.flip(example['image'], axis), np.flip(example['labels'], axis + 1)
  return example | {'image': image, 'labels': labels}


def nearest_indices(source: int, target: int, scale: float | None = None) -> np.ndarray:
  """Which source row each of `target` rows shows, as OpenCV's nearest neighbour chooses.

  With a scale factor it is floor(i / scale), with a target size alone floor(i * source / target),
  rounded as OpenCV does: by the reciprocal of target / source.
  """
  step = 1 / (target / source if scale is None else scale)
  return np.minimum(np.floor(np.arange(target) * step).astype(np.int64), source - 1)


def nearest_resized(
  x: np.ndarray, height: int, width: int, scale: float | None = None, axis: int = 0
) -> np.ndarray:
  """[.., H, W, ..] -> [.., height, width, ..], rows along `axis`; see `nearest_indices`."""
  h, w = x.shape[axis : axis + 2]
  rows, columns = nearest_indices(h, height, scale), nearest_indices(w, width, scale)
  return x[(slice(None),) * axis + (rows[:, None], columns)]


def resize_nearest(
  example: Example, height: int, width: int, scale: float | None = None
) -> Example:
  """Image and labels at height x width, both by nearest neighbour."""
  labels = nearest_resized(example['labels'], height, width, scale, axis=1)
  return example | {
    'image': nearest_resized(example['image'], height, width, scale),
    'labels': labels,
  }


def _one_of(scales: Factors, rng: np.random.Generator) -> float:
  return float(scales[int(rng.integers(len(scales)))])


@dataclasses.dataclass(frozen=True)
class RandomRescale:
  """By one of the scales, uniformly, by nearest neighbour."""

  scales: Factors
  """Factors to draw from."""

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    scale = _one_of(self.scales, rng)
    h, w = example['image'].shape[:2]
    return resize_nearest(example, round(h * scale), round(w * scale), scale)


@dataclasses.dataclass(frozen=True)
class Pad:
  """At least size x size: mirrored at the right and lower edge.

  The labels there are `ignore_label`, or mirrored as the image where a data set has none.
  """

  size: Positive
  """Side in pixels."""
  ignore_label: int | None = None

  def __call__(self, example: Example, rng: np.random.Generator | None = None) -> Example:
    h, w = example['image'].shape[:2]
    more = ((0, max(0, self.size - h)), (0, max(0, self.size - w)))
    image = np.pad(example['image'], (*more, (0, 0)), mode='symmetric')
    how: dict[str, Any] = dict(mode='symmetric')
    if self.ignore_label is not None:
      how = dict(mode='constant', constant_values=self.ignore_label)
    return example | {'image': image, 'labels': np.pad(example['labels'], ((0, 0), *more), **how)}


def area_resized(x: np.ndarray, size: int) -> np.ndarray:
  """x [H, W, channels] -> float64 [size, size, channels], each the mean over its share of area."""

  def shares(source):
    low = np.arange(size)[:, None] * source / size
    high, pixel = low + source / size, np.arange(source)
    return np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None) * size / source

  rows, columns = (shares(n) for n in x.shape[:2])
  return np.einsum('ih,hwc,jw->ijc', rows, x.astype(np.float64), columns, optimize=True)


@dataclasses.dataclass(frozen=True)
class ResizedCrop:
  """A square of one of `scales` times the shorter side, anywhere, brought to size x size.

  The image by area, labels by nearest neighbour, as MoSE trains on Cityscapes (there the last row
  and column of windows is never drawn).
  """

  size: Positive
  """Side in pixels."""
  scales: Factors
  """Shares of the shorter side to draw from."""

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    side = int(min(example['image'].shape[:2]) * _one_of(self.scales, rng))
    window = RandomCrop(side)(example, rng)
    labels = nearest_resized(window['labels'], self.size, self.size, axis=1)
    image = np.uint8(np.round(area_resized(window['image'], self.size)))
    return window | {'image': image, 'labels': labels}


@dataclasses.dataclass(frozen=True)
class RescaledCrop:
  """CAR's training crops of Cityscapes: a square of 85 % of the height, rescaled by one of
  `scales`, and a size x size window of that; nearest neighbour throughout."""

  size: Positive
  """Side in pixels."""
  scales: Factors
  """Factors to draw from."""

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    window = RandomCrop(int(0.85 * min(example['image'].shape[:2])))(example, rng)
    return RandomCrop(self.size)(RandomRescale(self.scales)(window, rng), rng)


def fitted_size(height: int, width: int, long: int, short: int) -> tuple[int, int]:
  """(height, width) scaled to the largest that fits into long x short, either way round."""
  scale = min(long / max(height, width), short / min(height, width))
  return int(height * scale + 0.5), int(width * scale + 0.5)


def rounded_size(height: int, width: int, long: int, short: int, multiple: int) -> tuple[int, int]:
  """As `fitted_size`, each side rounded up to a multiple of a number.

  As transformers does it, which rounds the shorter side before, and the longer one down, in this
  order of operations; where the shorter side is to stay, both do.
  """
  low, high = sorted((height, width))
  edge = long * low / high if high / low * short > long else short
  if round(edge) != low:
    new = {high: int(edge * high / low), low: round(edge)}
    height, width = new[height], new[width]
  return -(-height // multiple) * multiple, -(-width // multiple) * multiple


def antialiased(image: np.ndarray, height: int, width: int) -> np.ndarray:
  """uint8 [H, W, 1 or 3] -> [height, width, 1 or 3], bilinear as Pillow has it, where each pixel of
  a smaller image sees all that it covers."""
  if (height, width) == image.shape[:2]:
    return image
  picture = Image.fromarray(image if image.shape[-1] > 1 else image[..., 0])
  resized = picture.resize((width, height), Image.Resampling.BILINEAR)
  return np.asarray(resized).reshape(height, width, -1)


def bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
  """uint8 [H, W, channels] -> [height, width, channels], as OpenCV has it, without antialiasing."""
  if (height, width) == image.shape[:2]:
    return image
  import cv2

  resized = cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=cv2.INTER_LINEAR)
  return resized.reshape(height, width, -1)  # OpenCV drops an only channel


@dataclasses.dataclass(frozen=True)
class Fit:
  """The image alone at `fitted_size`, `bilinear`; labels keep their size.

  For nets that are scored at the size they were trained on (RELIS, arXiv 2303.11298). With a
  `multiple`, 1 included, at `rounded_size`, `antialiased`, as transformers has it.
  """

  long: int
  short: int
  multiple: int = 0

  def __call__(self, example: Example, rng: np.random.Generator | None = None) -> Example:
    image = example['image']
    height, width = image.shape[:2]
    if not self.multiple:
      h, w = fitted_size(height, width, self.long, self.short)
      return example | {'image': bilinear(image, h, w)}
    h, w = rounded_size(height, width, self.long, self.short, self.multiple)
    return example | {'image': antialiased(image, h, w)}


@dataclasses.dataclass(frozen=True)
class Resize:
  """The image alone at one size whatever its shape, `antialiased`; labels keep their size."""

  height: int
  width: int

  def __call__(self, example: Example, rng: np.random.Generator | None = None) -> Example:
    return example | {'image': antialiased(example['image'], self.height, self.width)}


PLAIN_CROPS: dict[str, Any] = {'centre': CentreCrop, 'random': RandomCrop}
SCALED_CROPS: dict[str, Any] = {
  'resized': ResizedCrop,
  'rescaled': RescaledCrop,
}  # they take scales


def from_config(data: Any, train: bool, ignore_label: int | None = None) -> list[Transform]:
  """config.data's `pad`; in training its `size`, `crop` (with `scales`), `mirror`, `mirror_rows`,
  `rot90`, `rotate` and `transforms`; in evaluation its `eval_size` (images stay whole without) and
  `fit` or `resize`.

  Raises UserError for a crop without its size or scales, and for two sizes of the whole image.
  """
  data = data_options.of(data)
  size, scaled = data.size, data.crop in SCALED_CROPS
  if not size and (data.pad or data.crop != 'centre'):
    raise UserError('config.data.crop and config.data.pad need config.data.size, the size to cut')
  if scaled != bool(data.scales):
    raise UserError(
      f'config.data.crop {data.crop!r} with config.data.scales {data.scales}\n'
      "  scales, such as (0.6, 0.8, 1.0), belong to crop 'resized' or 'rescaled'"
    )
  chain: list[Transform] = []
  if not train:
    if data.eval_size:
      chain += [Pad(data.eval_size, ignore_label)] if data.pad else []
      chain += [CentreCrop(data.eval_size, 'eval_size')]
    if data.fit and data.resize:
      raise UserError(
        f'config.data.fit {data.fit} and config.data.resize {data.resize} both size the image\n'
        "  leave one out: --config.data.resize='()'"
      )
    chain += [Fit(max(data.fit), min(data.fit), data.fit_multiple)] if data.fit else []
    return chain + ([Resize(*data.resize)] if data.resize else [])
  if size:
    chain += [Pad(size, ignore_label)] if data.pad else []
    kind = data.crop
    crop: Transform = SCALED_CROPS[kind](size, data.scales) if scaled else PLAIN_CROPS[kind](size)
    chain += [crop]
  turns: tuple[tuple[bool, Transform], ...] = (
    (data.mirror, Mirror()),
    (data.mirror_rows, MirrorRows()),
    (data.rot90, Rot90()),
  )
  chain += [transform for wanted, transform in turns if wanted]
  chain += [Rotate(data.rotate, ignore_label)] if data.rotate else []
  return chain + [own(entry, ignore_label) for entry in data.transforms]


def own(entry: Any, ignore_label: int | None) -> Transform:
  """An entry of config.data.transforms: a name, or a dict with it. Raises UserError."""
  spec = {'name': entry} if isinstance(entry, str) else entry
  return registry.build('transform', spec, ignore_label=ignore_label)


SCALED = (np.arange(256) / 255 * 2 - 1).astype(np.float32)  # rounded once, as published


def model_image(image: np.ndarray) -> np.ndarray:
  """uint8 [H, W, 1 or 3] -> float32 [H, W, 3] in [-1, 1]."""
  return np.broadcast_to(SCALED[image], (*image.shape[:2], 3))
