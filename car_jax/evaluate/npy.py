"""Arrays of all images as .npy files that grow by a batch at a time, and their reader.

Nothing is mapped into memory while it is written: a full disk is an error of the system there and
not the end of the process, and memory does not grow with the number of images.
"""

import contextlib
import errno
import math
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np

from car_jax import arrays
from car_jax.errors import UserError

AGAIN = 'save it again'
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Growing:
  """One array [I, ..] of known shape. Its place on the disk is taken before the first row.

  Raises UserError where the disk has no place for it.
  """

  def __init__(self, path: pathlib.Path, dtype: np.dtype, shape: tuple[int, ...]):
    self.path, self.filled, self.images = path, 0, shape[0]
    path.parent.mkdir(parents=True, exist_ok=True)
    self._file = path.open('wb')
    size = dtype.itemsize * math.prod(shape)
    with contextlib.ExitStack() as failed, room(path, size):
      failed.callback(self._file.close)
      descr = np.lib.format.dtype_to_descr(dtype)
      head = dict(descr=descr, fortran_order=False, shape=shape)
      np.lib.format.write_array_header_1_0(self._file, head)
      self._file.flush()
      allocate(self._file.fileno(), self._file.tell() + size)
      failed.pop_all()

  def add(self, rows: np.ndarray) -> None:
    if self.filled + len(rows) > self.images:
      raise ValueError(f'more than the {self.images} images that were announced')
    with room(self.path, rows.nbytes):
      self._file.write(np.ascontiguousarray(rows).data)
    self.filled += len(rows)

  def close(self) -> None:
    with room(self.path, 0):
      self._file.close()


class PerImage:
  """Arrays of images that differ in size: FOLDER/000000.npy and so on, in the images' order."""

  def __init__(self, folder: pathlib.Path, images: int):
    self.folder, self.filled, self.images = folder, 0, images

  def add(self, rows: np.ndarray) -> None:
    self.folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
      with room(self.folder, row.nbytes):
        np.save(self._path(self.filled), row)
      self.filled += 1

  def close(self) -> None:
    """Every file is closed already."""

  def _path(self, i: int) -> pathlib.Path:
    return self.folder / f'{i:06d}.npy'

  def __len__(self) -> int:
    return self.images

  def __getitem__(self, i: int) -> np.ndarray:
    return arrays.mapped(self._path(i), AGAIN)


def opened(folder: pathlib.Path, entry: dict[str, Any], name: str) -> 'np.ndarray | PerImage':
  """The array `name` of an index's `entry` by image, in their order; see save.py.

  Raises UserError by path for a file that is missing or damaged.
  """
  if 'files' in entry:
    return PerImage((folder / name).with_suffix(''), entry['shape'][0])
  return arrays.mapped(folder / name, AGAIN)


def allocate(descriptor: int, size: int) -> None:
  """Takes `size` bytes of the disk for a file, where the system can."""
  if not hasattr(os, 'posix_fallocate'):
    return
  try:
    os.posix_fallocate(descriptor, 0, size)
  except OSError as e:
    if e.errno in FULL:
      raise


@contextlib.contextmanager
def room(path: pathlib.Path, size: int) -> Iterator[None]:
  """A disk without place for `size` more bytes becomes a UserError with both numbers."""
  try:
    yield
  except OSError as e:
    if e.errno not in FULL:
      raise
    free = shutil.disk_usage(path.parent).free
    raise UserError(
      f'no room for {path.name}: {e.strerror} ({size / 1e6:,.1f} MB asked, {free / 1e6:,.1f} MB '
      'free)\n  --out on another disk, less kinds in --save, or a part of the split '
      '(--config.report.split)'
    ) from None
