"""Paired operations on an example: (example, rng) -> example.

An example holds image [H, W, channels] and labels [M, H, W]; `rng` is a numpy Generator that
belongs to this example in this epoch. Every operation treats the image and all readers' labels
alike.
"""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, Protocol

import numpy as np
from scipy import ndimage

from car_jax import registry
from car_jax.data import options as data_options
from car_jax.errors import UserError
from car_jax.options import Range

Example = dict[str, Any]


class Transform(Protocol):
  """A frozen dataclass: its fields are options, and a call changes an example by its draws alone.

  The image stays uint8 [H, W, channels], the labels [M, H, W] stay on its pixels, if not in size.
  """

  def __call__(self, example: Example, rng: np.random.Generator) -> Example: ...


def centre_crop(size: int, key: str = 'size') -> Transform:
  """The central size x size pixels. Raises UserError for a smaller image, by its id.

  key: the one of config.data that says the size.
  """

  def apply(example: Example, rng: np.random.Generator) -> Example:
    h, w = example['image'].shape[:2]
    if h < size or w < size:
      raise UserError(
        f'image {example["id"]} is {w}x{h}, smaller than config.data.{key} {size}\n'
        f'  use --config.data.{key}={min(h, w)} or less, or set data.pad=True in the config'
      )
    return _crop(example, (h - size) // 2, (w - size) // 2, size)

  return apply


def random_crop(size: int) -> Transform:
  """Any size x size window, uniformly."""

  def apply(example: Example, rng: np.random.Generator) -> Example:
    h, w = example['image'].shape[:2]
    if h < size or w < size:
      return centre_crop(size)(example, rng)
    return _crop(example, rng.integers(h - size + 1), rng.integers(w - size + 1), size)

  return apply


def _crop(example: Example, top: int, left: int, size: int) -> Example:
  rows, columns = slice(top, top + size), slice(left, left + size)
  image, labels = example['image'][rows, columns], example['labels'][:, rows, columns]
  return example | {'image': image, 'labels': labels}


@dataclasses.dataclass(frozen=True)
class Mirror:
  """Left to right, half of the time."""

  def __call__(self, example: Example, rng: np.random.Generator) -> Example:
    if rng.random() < 0.5:
      return example
    return example | {'image': example['image'][:, ::-1], 'labels': example['labels'][:, :, ::-1]}


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
    if rng.random() < 0.5:
      return example
    return example | {'image': example['image'][::-1], 'labels': example['labels'][:, ::-1]}


def nearest_indices(source: int, target: int, scale: float | None = None) -> np.ndarray:
  """Which source row each of `target` rows shows, as OpenCV's nearest neighbour chooses.

  With a scale factor it is floor(i / scale), with a target size alone floor(i * source / target),
  rounded as OpenCV does: by the reciprocal of target / source.
  """
  step = 1 / (target / source if scale is None else scale)
  return np.minimum(np.floor(np.arange(target) * step).astype(np.int64), source - 1)


def resize_nearest(height: int, width: int, scale: float | None = None) -> Transform:
  """Image and labels to height x width, both by nearest neighbour."""

  def apply(example: Example, rng: np.random.Generator) -> Example:
    h, w = example['image'].shape[:2]
    rows = nearest_indices(h, height, scale)[:, None]
    columns = nearest_indices(w, width, scale)
    labels = example['labels'][:, rows, columns]
    return example | {'image': example['image'][rows, columns], 'labels': labels}

  return apply


def _one_of(scales: Sequence[float], rng: np.random.Generator) -> float:
  return float(scales[int(rng.integers(len(scales)))])


def random_rescale(scales: Sequence[float]) -> Transform:
  """By one of `scales`, uniformly, by nearest neighbour."""

  def apply(example: Example, rng: np.random.Generator) -> Example:
    scale = _one_of(scales, rng)
    h, w = example['image'].shape[:2]
    return resize_nearest(round(h * scale), round(w * scale), scale)(example, rng)

  return apply


def pad_to(size: int, ignore_label: int | None = None) -> Transform:
  """At least size x size: mirrored at the right and lower edge.

  The labels there are `ignore_label`, or mirrored as the image where a data set has none.
  """

  def apply(example: Example, rng: np.random.Generator) -> Example:
    h, w = example['image'].shape[:2]
    more = ((0, max(0, size - h)), (0, max(0, size - w)))
    image = np.pad(example['image'], (*more, (0, 0)), mode='symmetric')
    how: dict[str, Any] = dict(mode='symmetric')
    if ignore_label is not None:
      how = dict(mode='constant', constant_values=ignore_label)
    return example | {'image': image, 'labels': np.pad(example['labels'], ((0, 0), *more), **how)}

  return apply


def area_resized(x: np.ndarray, size: int) -> np.ndarray:
  """x [H, W, channels] -> float64 [size, size, channels], each the mean over its share of area."""

  def shares(source):
    low = np.arange(size)[:, None] * source / size
    high, pixel = low + source / size, np.arange(source)
    return np.clip(np.minimum(high, pixel + 1) - np.maximum(low, pixel), 0, None) * size / source

  rows, columns = (shares(n) for n in x.shape[:2])
  return np.einsum('ih,hwc,jw->ijc', rows, x.astype(np.float64), columns, optimize=True)


def resized_crop(size: int, scales: Sequence[float]) -> Transform:
  """A square of one of `scales` times the shorter side, anywhere, brought to size x size.

  The image by area, labels by nearest neighbour, as MoSE trains on Cityscapes (there the last row
  and column of windows is never drawn).
  """

  def apply(example: Example, rng: np.random.Generator) -> Example:
    side = int(min(example['image'].shape[:2]) * _one_of(scales, rng))
    window = random_crop(side)(example, rng)
    at = nearest_indices(side, size)
    labels = window['labels'][:, at[:, None], at]
    image = np.uint8(np.round(area_resized(window['image'], size)))
    return window | {'image': image, 'labels': labels}

  return apply


def rescaled_crop(size: int, scales: Sequence[float]) -> Transform:
  """CAR's training crops of Cityscapes: a square of 85 % of the height, rescaled by one of
  `scales`, and a size x size window of that; nearest neighbour throughout."""

  def apply(example: Example, rng: np.random.Generator) -> Example:
    window = random_crop(int(0.85 * min(example['image'].shape[:2])))(example, rng)
    return random_crop(size)(random_rescale(scales)(window, rng), rng)

  return apply


def fitted_size(height: int, width: int, long: int, short: int) -> tuple[int, int]:
  """(height, width) scaled to the largest that fits into long x short, either way round."""
  scale = min(long / max(height, width), short / min(height, width))
  return int(height * scale + 0.5), int(width * scale + 0.5)


def bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
  """uint8 [H, W, channels] -> [height, width, channels], as OpenCV has it, without antialiasing."""
  if (height, width) == image.shape[:2]:
    return image
  import cv2

  resized = cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=cv2.INTER_LINEAR)
  return resized.reshape(height, width, -1)  # OpenCV drops an only channel


def fit(long: int, short: int) -> Transform:
  """The image alone at `fitted_size`, `bilinear`; labels keep their size.

  For nets that are scored at the size they were trained on (RELIS, arXiv 2303.11298).
  """

  def apply(example: Example, rng: np.random.Generator) -> Example:
    image = example['image']
    h, w = fitted_size(image.shape[0], image.shape[1], long, short)
    return example | {'image': bilinear(image, h, w)}

  return apply


PLAIN_CROPS = {'centre': centre_crop, 'random': random_crop}
SCALED_CROPS = {'resized': resized_crop, 'rescaled': rescaled_crop}  # they take scales


def from_config(data: Any, train: bool, ignore_label: int | None = None) -> list[Transform]:
  """config.data's `pad`; in training its `size`, `crop` (with `scales`), `mirror`, `mirror_rows`,
  `rot90`, `rotate` and `transforms`; in evaluation its `eval_size` (images stay whole without) and
  `fit`.

  Raises UserError for a crop without its size or scales.
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
      chain += [pad_to(data.eval_size, ignore_label)] if data.pad else []
      chain += [centre_crop(data.eval_size, 'eval_size')]
    return chain + ([fit(max(data.fit), min(data.fit))] if data.fit else [])
  if size:
    chain += [pad_to(size, ignore_label)] if data.pad else []
    kind = data.crop
    chain += [SCALED_CROPS[kind](size, data.scales) if scaled else PLAIN_CROPS[kind](size)]
  turns = ((data.mirror, Mirror()), (data.mirror_rows, MirrorRows()), (data.rot90, Rot90()))
  chain += [transform for wanted, transform in turns if wanted]
  chain += [Rotate(data.rotate, ignore_label)] if data.rotate else []
  return chain + [own(entry, ignore_label) for entry in data.transforms]


def own(entry: Any, ignore_label: int | None) -> Transform:
  """An entry of config.data.transforms: a name, or a dict with it. Raises UserError."""
  spec = {'name': entry} if isinstance(entry, str) else entry
  return registry.build('transform', spec, ignore_label=ignore_label)


_SCALED = (np.arange(256) / 255 * 2 - 1).astype(np.float32)  # rounded once, as published


def model_image(image: np.ndarray) -> np.ndarray:
  """uint8 [H, W, 1 or 3] -> float32 [H, W, 3] in [-1, 1]."""
  return np.broadcast_to(_SCALED[image], (*image.shape[:2], 3))
