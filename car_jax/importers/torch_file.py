"""Reads files of torch weights without torch and without running anything they ask for.

Three formats: a plain pickle whose tensors carry a legacy torch.save stream each (CAR's released
files), the zip archive of today's torch.save, and the stream of torch.save before 1.6. A pickle may
name any function; the reader admits those that rebuild tensors, refuses all others, and so cannot
be made to run code.
"""

import collections
import io
import pathlib
import pickle
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np

from car_jax.errors import UserError

DTYPES = {
  'FloatStorage': np.float32,
  'DoubleStorage': np.float64,
  'HalfStorage': np.float16,
  'LongStorage': np.int64,
  'IntStorage': np.int32,
  'ShortStorage': np.int16,
  'CharStorage': np.int8,
  'ByteStorage': np.uint8,
  'BoolStorage': np.bool_,
}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class Refused(pickle.UnpicklingError):
  """The file asks for something other than tensors."""


class _OrderedDict(collections.OrderedDict):
  """Takes the `_metadata` that torch hangs on a state dict, and drops it."""

  def __setstate__(self, state: Any) -> None:
    pass


def _storage_class(name: str) -> type:
  return type(name, (), {'dtype': np.dtype(DTYPES[name])})


def _rebuild(storage: np.ndarray, offset: int, size: tuple, stride: tuple, *_: Any) -> np.ndarray:
  """A view into a storage, copied; refuses one that reaches beyond it."""
  last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if all(size) else -1
  if offset < 0 or last >= len(storage) or min(stride, default=0) < 0:
    raise Refused('a tensor reaches beyond its storage')
  item = storage.itemsize
  view = np.lib.stride_tricks.as_strided(
    storage[offset:], size, tuple(s * item for s in stride), writeable=False
  )
  return view.copy()


def _rebuild_parameter(data: np.ndarray, *_: Any) -> np.ndarray:
  return data


class _Reader(pickle.Unpickler):
  """Knows tensors, storages and ordered dicts; everything else in the file is refused."""

  def __init__(self, stream: Any, storage: Callable[[tuple], np.ndarray] | None = None):
    super().__init__(stream, encoding='utf-8')
    self._storage = storage

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) == ('collections', 'OrderedDict'):
      return _OrderedDict
    if (module, name) in (
      ('torch._utils', '_rebuild_tensor_v2'),
      ('torch._utils', '_rebuild_tensor'),
    ):
      return _rebuild
    if (module, name) == ('torch._utils', '_rebuild_parameter'):
      return _rebuild_parameter
    if (module, name) == ('torch.storage', '_load_from_bytes'):
      return _legacy_storage
    if module in ('torch', 'torch.cuda') and name in DTYPES:
      return _storage_class(name)
    raise Refused(f'it names {module}.{name}, which is no part of a tensor')

  def persistent_load(self, pid: Any) -> Any:
    if self._storage is None or not isinstance(pid, tuple) or pid[0] != 'storage':
      raise Refused('it refers to something outside the file')
    return self._storage(pid)


def _legacy_storage(data: bytes) -> np.ndarray:
  """One storage from the bytes of a legacy torch.save."""
  stream = io.BytesIO(data)
  if pickle.Unpickler.load(_Reader(stream)) != LEGACY_MAGIC:
    raise Refused('a storage does not begin as torch writes it')
  _Reader(stream).load()  # protocol version
  _Reader(stream).load()  # system
  found: dict[str, tuple[np.dtype, int]] = {}

  def remember(pid: tuple) -> str:
    _, kind, key, _, count, *_ = pid
    found[key] = (kind.dtype, count)
    return key

  wanted = _Reader(stream, remember).load()
  arrays = {}
  for key in _Reader(stream).load():
    dtype, count = found[key]
    (written,) = np.frombuffer(stream.read(8), '<i8')
    if written != count:
      raise Refused(f'a storage holds {written} numbers instead of {count}')
    arrays[key] = np.frombuffer(stream.read(count * dtype.itemsize), dtype.newbyteorder('<'), count)
  return arrays[wanted]


def _zip_storage(archive: zipfile.ZipFile, root: str) -> Callable[[tuple], np.ndarray]:
  def load(pid: tuple) -> np.ndarray:
    _, kind, key, _, count, *_ = pid
    return np.frombuffer(archive.read(f'{root}data/{key}'), kind.dtype.newbyteorder('<'), count)

  return load


def _stream(stream: BinaryIO) -> Any:
  """The content of a torch.save without zip archive, after the number that opens it.

  Tensors come first and their numbers after them, so the tensors are read twice.
  """
  found: dict[str, np.ndarray] = {}

  def storage(pid: tuple) -> np.ndarray:
    _, kind, key, _, count, *_ = pid
    return found.setdefault(key, np.zeros(count, kind.dtype))

  for _ in range(2):  # version, system
    _Reader(stream).load()
  begin = stream.tell()
  _Reader(stream, storage).load()
  for key in _Reader(stream).load():
    head = stream.read(8)
    if len(head) < 8:
      raise EOFError
    (count,) = np.frombuffer(head, '<i8')
    kind = found[key].dtype
    if count != len(found[key]):
      raise Refused(f'a storage holds {count} numbers, not {len(found[key])}')
    data = stream.read(count * kind.itemsize)
    if len(data) < count * kind.itemsize:
      raise EOFError
    found[key] = np.frombuffer(data, kind.newbyteorder('<'), count)
  stream.seek(begin)
  return _Reader(stream, storage).load()


def read(path: str | pathlib.Path) -> Any:
  """The content of a file of weights, tensors as numpy arrays.

  Raises UserError, naming the file and the reason: missing, no such file format, cut short, or
  asking for code.
  """
  path = pathlib.Path(path)
  try:
    if zipfile.is_zipfile(path):
      with zipfile.ZipFile(path) as archive:
        name = next((n for n in archive.namelist() if n.endswith('data.pkl')), None)
        if name is None:
          raise Refused('a zip archive without data.pkl')
        storage = _zip_storage(archive, name.removesuffix('data.pkl'))
        return _Reader(io.BytesIO(archive.read(name)), storage).load()
    with path.open('rb') as stream:
      head = stream.read(2)
      if head == b'PK':
        raise EOFError  # a zip archive's directory is at its end
      if head and head[:1] != pickle.PROTO:
        raise ValueError('neither a pickle nor a zip archive')
      stream.seek(0)
      content = _Reader(stream).load()
      return _stream(stream) if content == LEGACY_MAGIC else content
  except FileNotFoundError:
    raise UserError(f'no file {path}') from None
  except Refused as e:
    raise UserError(f'{path} is refused: {e}') from None
  except EOFError:
    raise UserError(f'{path} is cut short') from None
  except Exception as e:  # a damaged pickle fails in many ways
    if 'truncated' in str(e):
      raise UserError(f'{path} is cut short') from None
    raise UserError(f'{path} is no file of torch weights ({type(e).__name__}: {e})') from None


def read_saved(path: str | pathlib.Path, key: str, part: str) -> Any:
  """As `read`, of a file that a training wrote: where more than tensors is in it, the message says
  how to keep what is under `key`, its `part`."""
  try:
    return read(path)
  except UserError as e:
    if 'is refused' not in str(e):
      raise
    raise UserError(
      f"{e}\n  with torch, keep its {part}: torch.save(torch.load(FILE)['{key}'], NEW)"
    ) from None


def is_table(content: Any) -> bool:
  """Whether it is a table of weights by name."""
  return isinstance(content, Mapping) and all(hasattr(w, 'shape') for w in content.values())
