"""The views of data/views.py on an accelerator: jitted, one key per image.

Given the same draws they are Pillow's but for a level here and there, and the label halfway between
two pixels may be the other one's. Shapes are static, so each pixel of a window looks up the pixels
that Pillow would have weighted for it. Noise is in data/device_photometric.py. Letters: B images, T
views, H x W pixels of a view, h x w of the image. Functions without B in their shapes are of one
image, to be mapped.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from car_jax.data import photometric
from car_jax.data.device_photometric import noise, noisy, source_noise, uniform
from car_jax.data.photometric import Noise
from car_jax.data.views import PADDED, Window, Zooms, affine, inverse, parameters, statistics

Array = jax.Array
BITS = 22  # of Pillow's fixed point, which decides what is halfway between two levels
ONE = 2**BITS


def window(rng: Array, image: Sequence[int], size: Sequence[int], *, scale, flip: bool) -> Window:
  """As views.window draws it."""
  scaling, cutting, flipping = jax.random.split(rng, 3)
  scaled = jnp.floor(uniform(scaling, scale) * jnp.array(image)).astype(jnp.int32)
  room = jnp.maximum(0, scaled - jnp.array(size))
  corner = jax.random.randint(cutting, (2,), 0, room + 1)
  return Window(scaled, corner, flip & jax.random.bernoulli(flipping))


def zooms(rng: Array, size: Sequence[int], *, views: int, zoom, flip_views: bool) -> Zooms:
  """As views.zooms draws them."""
  flipping, scaling, cutting = jax.random.split(rng, 3)
  flips = flip_views & jax.random.bernoulli(flipping, shape=(views,))
  scales = uniform(scaling, zoom, (views,)).at[0].set(1) if zoom else jnp.ones(views)
  sizes = jnp.floor(scales[:, None] * jnp.array(size)).astype(jnp.int32)
  room = jnp.array(size) - sizes
  low, high = jnp.minimum(room, 0), jnp.maximum(room, 0)
  return Zooms(flips, scales, sizes, jax.random.randint(cutting, room.shape, low, high + 1))


class Line(NamedTuple):
  """What each of n pixels along one side of a result shows of the n_in along that of an image."""

  index: Array
  """[taps, n] of the pixels that are averaged"""
  weight: Array
  """[taps, n] in fixed point, summing to ONE but where some taps are of a frame of zeros"""
  nearest: Array
  """[n] the one that a label is taken from, PADDED outside"""


def fixed_point(weight: Array) -> Array:
  """Whole numbers [taps, n] -> their shares of the sum, of which ONE is all, rounded."""
  total = jnp.maximum(1, jnp.sum(weight, 0))
  high, rest = jnp.divmod(weight * 2**11, total)  # in two steps, to stay within 32 bits
  return high * 2**11 + (rest * 2**11 + total // 2) // total


def line(
  n_in: int,
  n: int,
  *,
  length: Any,
  shrink: float = 1.0,
  start: Any = 0,
  extent: Any = None,
  offset: Any = 0,
  flip: Any = False,
) -> Line:
  """`extent` pixels from `offset` on (all n_in if None) become `length`, of which n from `start`.

  As Pillow resizes bilinearly: with a triangle that widens where it shrinks, by up to `shrink`,
  which sets how many taps there are. With `flip`, pixel n - 1 comes first.
  """
  extent = n_in if extent is None else extent
  place = jnp.arange(n)
  place = start + jnp.where(flip, n - 1 - place, place)
  # In whole numbers of 1 / (2 length) pixels: rounded weights would decide ties another way.
  centre, half = (2 * place + 1) * extent, 2 * jnp.maximum(extent, length)
  first = (centre - half - length) // (2 * length) + 1
  at = first + jnp.arange(math.ceil(2 * max(1.0, shrink)))[:, None]
  weight = jnp.maximum(0, half - jnp.abs((2 * at + 1) * length - centre))
  weight = fixed_point(weight * ((at >= 0) & (at < extent)))
  index, shown = at + offset, (place >= 0) & (place < length)
  weight = weight * (shown & (index >= 0) & (index < n_in))
  nearest = centre // (2 * length) + offset
  nearest = jnp.where(shown & (nearest >= 0) & (nearest < n_in), nearest, PADDED)
  return Line(jnp.clip(index, 0, n_in - 1), weight, nearest)


def averaged(image: Array, along: Line, axis: int) -> Array:
  """uint8 [h, w, 3] -> uint8, one of its sides resampled."""
  shape = [1, 1, 1]
  shape[axis] = -1
  taps = zip(along.index, along.weight, strict=True)
  total = sum(jnp.take(image, at, axis) * by.reshape(shape) for at, by in taps)
  return ((total + ONE // 2) >> BITS).astype(jnp.uint8)


def resampled(image: Array, label: Array, rows: Line, columns: Line) -> tuple[Array, Array]:
  """Image [h, w, 3] and label [h, w] by a line for each side, the columns first.

  So does Pillow where both sides change alike; else it may begin with the rows, and round between
  them to another level.
  """
  image = averaged(averaged(image, columns, 1), rows, 0)
  y, x = rows.nearest[:, None], columns.nearest
  return image, jnp.where((y == PADDED) | (x == PADDED), PADDED, label[y, x])


def windowed(
  image: Array,
  label: Array,
  drawn: Window,
  *,
  size: Sequence[int],
  least: float,
  flip_first: bool = False,
) -> tuple[Array, Array]:
  """The window [H, W] of an image [h, w] scaled as drawn, not below `least`; see Pair.windowed.

  Target images are flipped after the cut, source images before it.
  """
  lines = []
  for axis in (0, 1):
    n_in, n, scaled = image.shape[axis], size[axis], drawn.size[axis]
    start = drawn.corner[axis] - jnp.maximum(0, n - scaled) // 2
    flip = drawn.flip if axis else False
    if flip_first:
      start = jnp.where(flip, scaled - n - start, start)
    kind = dict(length=scaled, shrink=n_in / int(least * n_in), start=start, flip=flip)
    lines.append(line(n_in, n, **kind))
  return resampled(image, label, *lines)


def viewed(
  image: Array, label: Array, base: Window, drawn: Zooms, *, size: Sequence[int], scale, zoom
) -> tuple[Array, Array]:
  """uint8 [h, w, 3], [h, w] -> the T views uint8 [T, H, W, 3], int32 [T, H, W]; see views.viewed.

  `scale` and `zoom` are the ranges that the draws are from.
  """
  if image.shape[:2] != tuple(size):
    whole = [line(a, n, length=n, shrink=a / n) for a, n in zip(image.shape, size, strict=False)]
    image, label = resampled(image, label, *whole)
  frame = windowed(image, label, base, size=size, least=min(1.0, scale[0]))
  shrink = max([1.0, *zoom])

  def one(flip: Array, part: Array, corner: Array) -> tuple[Array, Array]:
    rows, columns = (
      line(n, n, length=n, shrink=shrink, extent=part[axis], offset=corner[axis])
      for axis, n in enumerate(size)
    )
    index, nearest = columns.index, columns.nearest
    mirrored = jnp.where(nearest == PADDED, PADDED, size[1] - 1 - nearest)
    columns = columns._replace(
      index=jnp.where(flip, size[1] - 1 - index, index), nearest=jnp.where(flip, mirrored, nearest)
    )
    return resampled(*frame, rows, columns)

  return jax.vmap(one)(drawn.flips, drawn.sizes, drawn.corners)


def normalised(images: Array, label: Array, *, renormalise: bool = False) -> Array:
  """As views.normalised"""
  mean, std = (jnp.asarray(s, jnp.float32) for s in statistics(renormalise))
  return jnp.where((label == PADDED)[..., None], 0, (images / jnp.float32(255) - mean) / std)


GROUP = ('size', 'views', 'scale', 'flip', 'flip_views', 'zoom', 'blur', 'jitter', 'greyscale')


@functools.partial(jax.jit, static_argnames=(*GROUP, 'ignore_label'))
def group(
  image: Array,
  label: Array | None,
  rng: Array,
  *,
  size: Sequence[int],
  views: int = 4,
  scale: Sequence[float] = (1.0, 1.1),
  flip: bool = True,
  flip_views: bool = True,
  zoom: Sequence[float] = (0.5, 1.0),
  blur: Sequence[float] = (0.1, 2.0),
  jitter: float = 0.4,
  greyscale: float = 0.2,
  ignore_label: int = 255,
) -> dict[str, Array]:
  """Images uint8 [B, h, w, 3], labels [B, h, w] or None, keys [B] -> what views.group gives.

  The views of all images follow each other, [B * T, ...]; options are tuples, not lists.
  """
  if label is None:
    label = jnp.full(image.shape[:3], ignore_label, jnp.int32)
  kind = dict(blur=blur, jitter=jitter, greyscale=greyscale)

  def one(image: Array, label: Array, rng: Array) -> dict[str, Array]:
    framing, zooming, adding = jax.random.split(rng, 3)
    base = window(framing, size, size, scale=scale, flip=flip)
    drawn = zooms(zooming, size, views=views, zoom=zoom, flip_views=flip_views)
    label = label.astype(jnp.int32)
    clean, labels = viewed(image, label, base, drawn, size=size, scale=scale, zoom=zoom)
    noises = jax.vmap(lambda key: noise(key, **kind))(jax.random.split(adding, views))
    may = dict(blur=blur[1] if blur else 0.0, jitter=jitter > 0, greyscale=greyscale > 0)
    student = jax.vmap(lambda view, drawn: noisy(view, drawn, **may))(clean, noises)
    of = parameters(drawn, size)
    matrix = affine(of, size)
    return {
      'target': normalised(clean, labels),
      'student': normalised(student, labels),
      'affine': matrix,
      'affine_inv': inverse(matrix, of, size),
      'target_label': labels,
    }

  return {k: v.reshape(-1, *v.shape[2:]) for k, v in jax.vmap(one)(image, label, rng).items()}


def scaled(image: Array, label: Array, drawn: Window, *, scale) -> tuple[Array, Array]:
  """The whole image scaled and flipped as drawn, in an array for the largest of `scale`."""
  lines = []
  for axis, n_in in enumerate(label.shape):
    n, length = int(scale[1] * n_in), drawn.size[axis]
    flip = drawn.flip if axis else False
    start, shrink = jnp.where(flip, length - n, 0), n_in / int(min(1.0, scale[0]) * n_in)
    lines.append(line(n_in, n, length=length, shrink=shrink, start=start, flip=flip))
  return resampled(image, label, *lines)


def source_window(
  image: Array, label: Array, drawn: Window, added: Noise, *, size, scale, jitter, blur
) -> tuple[Array, Array]:
  """See views.windowed. Without noise, nothing outside the window is computed."""
  if not (jitter or blur):
    return windowed(image, label, drawn, size=size, least=min(1.0, scale[0]), flip_first=True)
  image, label = scaled(image, label, drawn, scale=scale)
  most = photometric.SOURCE_BLUR if blur else 0.0
  kind = dict(blur=most, jitter=jitter > 0, greyscale=False)
  image = noisy(image, added, extent=drawn.size, **kind)
  start = drawn.corner - jnp.maximum(0, jnp.array(size) - drawn.size) // 2
  lines = [line(n, size[a], length=n, start=start[a]) for a, n in enumerate(label.shape)]
  return resampled(image, label, *lines)


SOURCE = ('size', 'scale', 'flip', 'jitter', 'blur', 'renormalise')


@functools.partial(jax.jit, static_argnames=(*SOURCE, 'ignore_label'))
def source(
  image: Array,
  label: Array | None,
  rng: Array,
  *,
  size: Sequence[int],
  scale: Sequence[float] = (0.5, 1.0),
  flip: bool = True,
  jitter: float = 0.0,
  blur: bool = False,
  renormalise: bool = True,
  ignore_label: int = 255,
) -> dict[str, Array]:
  """Images uint8 [B, h, w, 3], labels [B, h, w] or None, keys [B] -> what views.source gives."""
  if label is None:
    label = jnp.full(image.shape[:3], ignore_label, jnp.int32)

  def one(image: Array, label: Array, rng: Array) -> dict[str, Array]:
    framing, adding = jax.random.split(rng)
    drawn = window(framing, label.shape, size, scale=scale, flip=flip)
    added = source_noise(adding, jitter=jitter, blur=blur)
    kind = dict(size=size, scale=scale, jitter=jitter, blur=blur)
    pixels, labels = source_window(image, label.astype(jnp.int32), drawn, added, **kind)
    pixels = normalised(pixels, labels, renormalise=renormalise)
    return {'image': pixels, 'label': jnp.where(labels == PADDED, ignore_label, labels)}

  return jax.vmap(one)(image, label, rng)
