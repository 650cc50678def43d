"""Files and arrays -> images for a model, with what puts its maps back into their form."""

import dataclasses
import pathlib
import zlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from car_jax import pictures, spans
from car_jax.data.sources import DataInfo
from car_jax.errors import UserError, reading
from car_jax.predict import sources, values
from car_jax.predict.sources import Item
from car_jax.predict.volumes import Volume, read_dicom, read_nifti
from car_jax.problems import Problems


@dataclasses.dataclass(frozen=True)
class Content:
  """What was read.

  images: as values.images gives them. keys: what each one's draws follow from; the slices of a
  volume share theirs, so that sample n is one segmentation of all. single: one image without an
  axis of a batch.
  """

  images: list[np.ndarray]
  keys: list[Any]
  volume: Volume | None = None
  single: bool = True

  def arranged(self, outputs: Iterator[Any]) -> Any:
    """The next Outputs of its images as one: of an image, a batch, or with a volume's axes."""
    rows = [next(outputs) for _ in self.images]
    if self.single and self.volume is None:
      return rows[0]
    out = jax.tree.map(lambda *x: np.stack(x), *rows)
    if self.volume is None:
      return out
    store = self.volume.stored
    return out.replace(
      samples=np.moveaxis(store(np.moveaxis(out.samples, 1, -1)), -1, 0),
      weights=out.weights.mean(0),
      **{
        name: store(getattr(out, name))
        for name in ('mask', 'probabilities', 'entropy', 'mutual_information')
      },
    )


def content(given: Any, text: str, info: DataInfo) -> Content:
  """An array or the path of a file. text: as of values.span_of. Raises UserError."""
  if isinstance(given, (str, pathlib.Path)):
    item = sources.item_of(pathlib.Path(given))
    out = read(item, text, info, Problems())
    if len(sizes := {x.shape[:2] for x in out.images}) > 1:
      several = ', '.join(f'{w}x{h}' for h, w in sorted(sizes))
      raise UserError(f'{item.paths[0]}: pages of {several}\n  car-jax predict writes each')
    return out
  array = np.asarray(given)
  images = values.images(array, values.span_of(text, info), given=bool(text))
  keys = [zlib.crc32(np.ascontiguousarray(x)) for x in images]  # type: ignore[arg-type]
  return Content(images, keys, single=array.ndim < 4)


def read(item: Item, text: str, info: DataInfo, problems: Problems) -> Content:
  """What an item holds; what was taken otherwise than as it is, is noted. Raises UserError."""
  path, span = item.paths[0], values.span_of(text, info, volume=item.volume)
  if item.volume:
    if item.kind == 'nifti':
      slices, volume = read_nifti(path)
    else:
      slices, volume, remark = read_dicom(item.paths)
      if remark:
        problems.note(path, remark)
    images = _slices(slices, span, path)
    return Content(images, [item.name] * len(images), volume, single=False)
  if item.kind == 'array':
    with reading(path, 'an .npy array'):
      array = np.load(path)
    return Content(
      values.images(array, span, str(path), given=bool(text)), item.names, single=array.ndim < 4
    )
  pages = pictures.open_pages(path)
  images = [spans.shown_bytes(path, page, problems, page.shown.ndim == 3, span) for page in pages]
  return Content(images, item.names, single=len(images) == 1)


def _slices(slices: np.ndarray, span: spans.Span, path: pathlib.Path) -> list[np.ndarray]:
  """Of a volume [Z, H, W]: bytes as they are, all else by the span."""
  if slices.dtype == np.uint8:
    return [*slices[..., None]]
  return [spans.to_bytes(path, x, span)[..., None] for x in slices]
