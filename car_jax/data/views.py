"""Several views of one target image, and windows of labelled source images, on the host.

DA-SAC (arXiv 2105.00097): a teacher labels an image from T views of it, brought back to one frame
by their known transforms; the student learns each view with noise. Images go through Pillow in 8
bits, which rounds after every step and averages where it shrinks, so that views equal the
published ones. Letters: H x W pixels of a view, h x w of the image, T views.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from car_jax.data import photometric
from car_jax.data.compact import PADDED, Frame

Array = np.ndarray


class Window(NamedTuple):
  """An image's share in all its views: how large it becomes, and which window of it is cut."""

  size: Any
  """[2]: height and width after scaling, before the cut."""
  corner: Any
  """[2]: row and column of the window, counted from the padding's where the image is smaller."""
  mirrored: Any


class Zooms(NamedTuple):
  """What tells the T views of a window apart."""

  mirrored: Any
  """[T]"""
  scales: Any
  """[T]: below 1 a part of the window fills the view, above 1 the window and a frame of zeros."""
  sizes: Any
  """[T, 2]: height and width of that part; `scales` times the window's, cut off."""
  corners: Any
  """[T, 2]: its first row and column, below zero where there is a frame."""


def window(
  rng: np.random.Generator, image: Sequence[int], size: Sequence[int], *, scale, mirror: bool
) -> Window:
  """A scale within `scale` and a window [H, W], each place alike, of an image [h, w] scaled so."""
  factor = rng.uniform(*scale)
  scaled = np.array([int(factor * side) for side in image])
  corner = [rng.integers(max(0, has - want) + 1) for has, want in zip(scaled, size, strict=True)]
  return Window(scaled, np.array(corner), bool(mirror and rng.random() < 0.5))


def zooms(
  rng: np.random.Generator, size: Sequence[int], *, views: int, zoom, mirror_views: bool
) -> Zooms:
  """The first view shows the window whole; any view may be flipped."""
  mirrored = rng.random(views) < 0.5 if mirror_views else np.zeros(views, bool)
  scales = np.ones(views)
  if zoom:
    scales[1:] = rng.uniform(zoom[0], zoom[1], views - 1)
  sizes = np.array([[int(s * side) for side in size] for s in scales])
  room = np.array(size) - sizes
  corners = rng.integers(np.minimum(room, 0), np.maximum(room, 0) + 1)
  return Zooms(mirrored, scales, sizes, corners)


class Pair(NamedTuple):
  """An image and its label, as Pillow has them; labels are 32-bit, so that padding is one more."""

  image: Image.Image
  label: Image.Image

  @classmethod
  def of(cls, image: Array, label: Array) -> 'Pair':
    return cls(Image.fromarray(image), Image.fromarray(np.ascontiguousarray(label, np.int32)))

  def resized(self, size: Sequence[int]) -> 'Pair':
    to = int(size[1]), int(size[0])
    if to == self.image.size:
      return self
    resampling = Image.Resampling
    image = self.image.resize(to, resampling.BILINEAR)
    return Pair(image, self.label.resize(to, resampling.NEAREST))

  def mirrored(self, mirror: bool) -> 'Pair':
    if not mirror:
      return self
    return Pair(*(plane.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for plane in self))

  def cut(self, corner: Array, size: Sequence[int]) -> 'Pair':
    """size [H, W] from `corner` on, which may lie outside: black there, and PADDED."""
    top, left = map(int, corner)
    box = left, top, left + int(size[1]), top + int(size[0])
    image = Image.new('RGB', (box[2] - left, box[3] - top))
    label = Image.new('I', image.size, PADDED)
    image.paste(self.image, (-left, -top))
    label.paste(self.label, (-left, -top))
    return Pair(image, label)

  def windowed(self, drawn: Window, size: Sequence[int]) -> 'Pair':
    """The cut of an image already scaled and flipped, in the middle of zeros where it is small."""
    padding = [max(0, int(want - has)) // 2 for has, want in zip(drawn.size, size, strict=True)]
    return self.cut(drawn.corner - np.array(padding), size)


def viewed(
  image: Array, label: Array, base: Window, drawn: Zooms, *, size: Sequence[int]
) -> tuple[Array, Array]:
  """uint8 [h, w, 3], [h, w] -> the T views uint8 [T, H, W, 3] and int32 [T, H, W].

  The image is brought to H x W first, whatever its proportions.
  """
  whole = Pair.of(image, label).resized(size).resized(base.size)
  frame = whole.windowed(base, size).mirrored(base.mirrored)
  views = []
  for mirror, part, corner in zip(drawn.mirrored, drawn.sizes, drawn.corners, strict=True):
    views.append(frame.mirrored(mirror).cut(corner, part).resized(size))
  images, labels = ([np.asarray(plane) for plane in planes] for planes in zip(*views, strict=True))
  return np.stack(images), np.stack(labels)


def parameters(drawn: Zooms, size: Sequence[int]) -> Any:
  """[T, 5]: the centre's way down and right in pixels, degrees, 1 / scale, -1 where flipped."""
  away = drawn.corners + drawn.sizes / 2 - np.asarray(size) / 2
  rest = [np.zeros_like(drawn.scales), 1 / drawn.scales, np.where(drawn.mirrored, -1.0, 1.0)]
  return np.concatenate([away, np.stack(rest, -1)], -1)


def affine(of: Any, size: Sequence[int]) -> Any:
  """`parameters` [..., 5] -> float32 [..., 2, 3]: coordinates of the window to those of a view.

  Coordinates run from -1 to 1 between the outer edges. The flip comes first, then the zoom; the
  scale is the one drawn, though a part has whole pixels: off by less than a pixel.
  """
  ratio, (dy, dx, degrees, scale, flip) = size[0] / size[1], np.moveaxis(of, -1, 0)
  cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
  across, down = -(cos * dx + sin * dy) / (size[1] // 2), -(cos * dy - sin * dx) / (size[0] // 2)
  rows = [flip * cos, sin * ratio, across], [-sin / ratio, cos, down]
  matrix = np.stack([np.stack(row, -1) for row in rows], -2)
  return (scale[..., None, None] * matrix).astype(np.float32)


def inverse(matrix: Any, of: Any, size: Sequence[int]) -> Any:
  """What undoes `affine`: coordinates of a view to those of the window.

  Exact without a turn or without a flip; no inverse where a view has both, as published.
  """
  square, scale = (size[0] / size[1]) ** 2, of[..., 3]
  xx, yy = matrix[..., 0, 0], matrix[..., 1, 1]
  xy, yx = matrix[..., 1, 0] * square, matrix[..., 0, 1] / square
  x, y = matrix[..., 0, 2], matrix[..., 1, 2]
  rows = [xx, xy, -(xx * x + xy * y)], [yx, yy, -(yx * x + yy * y)]
  undone = np.stack([np.stack(row, -1) for row in rows], -2)
  return (undone / np.square(scale)[..., None, None]).astype(np.float32)


def group(
  image: Array,
  label: Array,
  rng: np.random.Generator,
  *,
  size: Sequence[int],
  views: int = 4,
  scale: Sequence[float] = (1.0, 1.1),
  mirror: bool = True,
  mirror_views: bool = True,
  zoom: Sequence[float] = (0.5, 1.0),
  blur: Sequence[float] = (0.1, 2.0),
  jitter: float = 0.4,
  greyscale: float = 0.2,
) -> dict[str, Array]:
  """A target image uint8 [h, w, 3] -> its T views, all drawn anew; bytes as in data/compact.py.

  target [T, H, W, 3], for the teacher; student, the same with noise; affine and affine_inv [T, 2,
  3] float32; target_label [T, H, W], PADDED outside; target_frame [T, 6].
  """
  base = window(rng, size, size, scale=scale, mirror=mirror)
  drawn = zooms(rng, size, views=views, zoom=zoom, mirror_views=mirror_views)
  clean, labels = viewed(image, label, base, drawn, size=size)
  kind: dict[str, Any] = dict(blur=blur, jitter=jitter, greyscale=greyscale)
  student = np.stack([photometric.noisy(v, photometric.noise(rng, **kind)) for v in clean])
  of = parameters(drawn, size)
  matrix = affine(of, size)
  return {
    'target': clean,
    'student': student,
    'affine': matrix,
    'affine_inv': inverse(matrix, of, size),
    'target_label': labels.astype(np.uint8),
    'target_frame': Frame.of(labels != PADDED, PADDED, False),
  }


def windowed(
  image: Array,
  label: Array,
  drawn: Window,
  noise: photometric.Noise | None = None,
  *,
  size: Sequence[int],
) -> tuple[Array, Array]:
  """uint8 [h, w, 3], [h, w] -> a scaled window uint8 [H, W, 3] and int32 [H, W], PADDED outside.

  The noise comes before the cut: contrast is about the mean of the whole image.
  """
  whole = Pair.of(image, label).resized(drawn.size).mirrored(drawn.mirrored)
  if noise is not None:
    noisy = photometric.noisy(np.asarray(whole.image), noise)
    whole = whole._replace(image=Image.fromarray(noisy))
  cut = whole.windowed(drawn, size)
  return np.asarray(cut.image), np.asarray(cut.label)


def source(
  image: Array,
  label: Array,
  rng: np.random.Generator,
  *,
  size: Sequence[int],
  scale: Sequence[float] = (0.5, 1.0),
  mirror: bool = True,
  jitter: float = 0.0,
  blur: bool = False,
  renormalise: bool = True,
  ignore_label: int = 255,
) -> dict[str, Array]:
  """image [H, W, 3] and label [H, W], `ignore_label` outside, in bytes as in data/compact.py, and
  their frame [6].

  Scales are of the image's own size. The batch-norm stage sees target images so too, without
  `renormalise`.
  """
  drawn = window(rng, image.shape[:2], size, scale=scale, mirror=mirror)
  noise = photometric.source_noise(rng, jitter=jitter, blur=blur) if jitter or blur else None
  pixels, labels = windowed(image, label, drawn, noise, size=size)
  frame = Frame.of(labels != PADDED, ignore_label, renormalise)
  return {'image': pixels, 'label': labels.astype(np.uint8), 'frame': frame}
