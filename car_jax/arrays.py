"""Numpy's files of others: .npy and .npz, whole, plain numbers and text only, nothing run.

What a header claims is compared with the bytes that are there before anything is allocated.
"""

import io
import math
import pathlib
import zipfile
from typing import Any

import numpy as np

from car_jax import files, paths
from car_jax.errors import reading

ENDINGS = ('.npy', '.npz')
PLAIN = 'biufcUSV'  # kinds of numbers; V without fields is what other tools' bfloat16 becomes
MOST_INFLATED = 1 << 28  # bytes of an archive's arrays, or so many times the file's size:
MOST_RATIO = 200
OTHER = 'change its ending'


def read(path: str | pathlib.Path, mend: str = '') -> dict[str, np.ndarray]:
  """The arrays of a file by name, that of an .npy file by the name ''. Read-only.

  Raises UserError, by path, for a file that is missing, no regular file, damaged, of another
  length than its header says, of objects, or that grows beyond MOST_INFLATED when unpacked.
  """
  path = paths.of(path)
  raw = files.read_bytes(path, 'arrays')
  kind = path.suffix.lower()
  with reading(path, f'a {kind or "numpy"} file', mend):
    if kind != '.npz' and raw.startswith(b'PK'):
      raise ValueError(f'by its content it is an .npz file: {OTHER}')
    if kind == '.npz' and raw.startswith(np.lib.format.MAGIC_PREFIX):
      raise ValueError(f'by its content it is an .npy file: {OTHER}')
    return _archive(raw) if kind == '.npz' else {'': _array(raw)}


def mapped(path: str | pathlib.Path, mend: str = '') -> np.ndarray:
  """A .npy file of any size, read where it is asked for. Raises UserError as `read`.

  One of a bucket is fetched first.
  """
  path = files.check_regular(paths.fetched(path))
  with reading(path, 'a .npy file', mend):
    with path.open('rb') as file:
      shape, fortran, kind = _header(file)
      _check_size(shape, kind, path.stat().st_size - file.tell())
      start = file.tell()
    order: Any = 'F' if fortran else 'C'
    return np.memmap(path, kind, 'r', start, shape, order)


def _archive(raw: bytes) -> dict[str, np.ndarray]:
  with zipfile.ZipFile(io.BytesIO(raw)) as file:
    members = file.infolist()
    names = [m.filename.removesuffix('.npy') for m in members]
    if len({*names}) < len(names):
      raise ValueError(f'two of its arrays are called {max(names, key=names.count)!r}')
    if (total := sum(m.file_size for m in members)) > max(MOST_INFLATED, MOST_RATIO * len(raw)):
      raise ValueError(f'{len(raw):,} bytes that unpack to {total:,}: write it with np.savez')
    return {name: _array(files.member(file, m)) for name, m in zip(names, members, strict=True)}


def _array(raw: bytes) -> np.ndarray:
  file = io.BytesIO(raw)
  shape, fortran, kind = _header(file)
  _check_size(shape, kind, len(raw) - file.tell())
  order: Any = 'F' if fortran else 'C'
  return np.frombuffer(raw, kind, math.prod(shape), file.tell()).reshape(shape, order=order)


def _header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
  """Shape, whether the first axis varies fastest, type. Raises ValueError."""
  version = np.lib.format.read_magic(file)
  read = np.lib.format.read_array_header_1_0
  read = read if version == (1, 0) else np.lib.format.read_array_header_2_0
  shape, fortran, kind = read(file)
  if kind.kind not in PLAIN or kind.fields or kind.hasobject or not kind.itemsize:
    raise ValueError(f'numbers of type {kind}, which are not read')
  return shape, fortran, kind


def _check_size(shape: tuple[int, ...], kind: np.dtype, there: int) -> None:
  if any(isinstance(n, bool) or n < 0 for n in shape):
    raise ValueError(f'a shape of {shape}')
  if (wanted := math.prod(shape) * kind.itemsize) != there:
    short = 'truncated' if there < wanted else 'damaged'
    raise ValueError(f'{short}: {there:,} bytes of numbers, {shape} of {kind} has {wanted:,}')
