"""Reads files of torch weights without torch and without running anything they ask for.

Three formats: a plain pickle whose tensors carry a legacy torch.save stream each (CAR's released
files), the zip archive of today's torch.save, and the stream of torch.save before 1.6. The pickle
is read as data (see pickles): tensors become arrays, and whatever else a training has saved beside
them an Unknown. A file never becomes many times its size in memory.
"""

import io
import mmap
import pathlib
import pickle
import zipfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from car_jax.errors import UserError, reading
from car_jax.files import check_regular
from car_jax.importers.pickles import Budget, Function, Machine, Refused, Table, Unknown, put

DTYPES = {
  'FloatStorage': np.float32,
  'DoubleStorage': np.float64,
  'HalfStorage': np.float16,
  'BFloat16Storage': ml_dtypes.bfloat16,
  'LongStorage': np.int64,
  'IntStorage': np.int32,
  'ShortStorage': np.int16,
  'CharStorage': np.int8,
  'ByteStorage': np.uint8,
  'BoolStorage': np.bool_,
}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


class Kind(NamedTuple):
  """The type of a storage's numbers, little-endian in the file as here."""

  dtype: np.dtype


class Storage(NamedTuple):
  """The flat array [count] that tensors are views of; None where its numbers come later."""

  count: int
  numbers: np.ndarray | None


def _is_count(n: Any) -> bool:
  return type(n) is int and 0 <= n < 2**62


class _Reader:
  """The functions of torch that a pickle of tensors names, on one budget of memory."""

  def __init__(self, budget: Budget):
    self.budget = budget
    kinds = {n: Kind(np.dtype(t)) for n, t in DTYPES.items()}
    self.functions: dict[tuple[str, str], Any] = {
      (module, n): kind for n, kind in kinds.items() for module in ('torch', 'torch.cuda')
    }
    for module, name, call in (
      ('collections', 'OrderedDict', _table),
      ('torch._utils', '_rebuild_tensor_v2', self.tensor),
      ('torch._utils', '_rebuild_tensor', self.tensor),
      ('torch._utils', '_rebuild_parameter', lambda data, *_: data),
      ('torch._utils', '_rebuild_parameter_with_state', lambda data, *_: data),
      ('_codecs', 'encode', self.encoded),  # how protocol 2 writes bytes
      ('__builtin__', 'bytes', lambda: b''),
      ('builtins', 'bytes', lambda: b''),
    ):
      self.functions[module, name] = Function(call)

  def load(self, stream: Any, storage: Callable[..., Any] | None = None, **more: Function) -> Any:
    """One pickle of the stream; `storage` gives a Storage by kind, key and count."""

    def persistent(pid: Any) -> Any:
      if storage is None or not isinstance(pid, tuple) or pid[0] != 'storage' or len(pid) < 5:
        raise Refused('it refers to something outside the file')
      _, kind, key, _, count, *view = pid
      if any(v is not None for v in view):
        raise Refused('a storage is a view of another one, as torch before 0.4 wrote it')
      if isinstance(kind, Unknown):
        return kind
      if not (isinstance(kind, Kind) and isinstance(key, str) and _is_count(count)):
        raise Refused('a storage is not described as torch does it')
      return storage(kind.dtype, key, count)

    named = {('torch.storage', name): f for name, f in more.items()}
    return Machine(self.functions | named, persistent).load(stream)

  def tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Any:
    """A view into a storage, copied; refuses one that reaches beyond it."""
    if isinstance(storage, Unknown):
      return storage
    shaped = isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride)
    if not (isinstance(storage, Storage) and shaped and len(size) <= 32):
      raise Refused('a tensor is not made of a storage, a size and a stride')
    if not all(map(_is_count, (offset, *size, *stride))):
      raise Refused('a tensor reaches beyond its storage')
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if 0 not in size and last >= storage.count:
      raise Refused('a tensor reaches beyond its storage')
    if storage.numbers is None:
      return Unknown('a tensor whose numbers come later')
    kind = storage.numbers.dtype
    if 0 in size:
      return np.zeros(size, kind)
    length = kind.itemsize
    for n in size:
      length *= n
    self.budget.spend(length)
    steps = tuple(s * kind.itemsize for s in stride)
    numbers = storage.numbers[offset:]
    return np.lib.stride_tricks.as_strided(numbers, size, steps, writeable=False).copy()

  def encoded(self, text: Any, codec: Any = '') -> bytes:
    if not isinstance(text, str) or codec != 'latin1':
      raise Refused(f'it calls _codecs.encode on a {type(text).__name__} with {codec!r:.20}')
    self.budget.spend(len(text))
    return text.encode('latin1')

  def legacy_storage(self, data: Any) -> Storage:
    """One storage from the bytes of a legacy torch.save."""
    if not isinstance(data, bytes):
      raise Refused('a storage is no bytes')
    self.budget.spend(len(data))
    stream = io.BytesIO(data)
    if self.load(stream) != LEGACY_MAGIC:
      raise Refused('a storage does not begin as torch writes it')
    storage = self.stream(stream)
    if not isinstance(storage, Storage):
      raise Refused('a storage does not hold numbers')
    return storage

  def stream(self, stream: Any) -> Any:
    """The content of a torch.save without zip archive, after the number that opens it.

    Tensors come first and their numbers after them, so the tensors are read twice.
    """
    for _ in range(2):  # version, system
      self.load(stream)
    begin = stream.tell()
    kinds: dict[str, tuple[np.dtype, int]] = {}

    def remember(dtype: np.dtype, key: str, count: int) -> Storage:
      if kinds.setdefault(key, (dtype, count)) != (dtype, count):
        raise Refused(f'the storage {key!r:.20} has two sizes')
      return Storage(count, None)

    self.load(stream, remember)
    storages = {}
    for key in _listed(self.load(stream)):
      if key not in kinds:
        raise Refused(f'no tensor has the storage {key!r:.20}')
      storages[key] = self.following(stream, *kinds[key])
    if missing := [key for key in kinds if key not in storages]:
      raise Refused(f'the numbers of the storage {missing[0]!r:.20} are not in it')
    stream.seek(begin)
    return self.load(stream, lambda dtype, key, count: storages[key])

  def following(self, stream: Any, dtype: np.dtype, count: int) -> Storage:
    """The storage at a stream's place: how many numbers, the numbers."""
    head = stream.read(8)
    if len(head) < 8:
      raise EOFError
    if (written := int.from_bytes(head, 'little', signed=True)) != count:
      raise Refused(f'a storage holds {written} numbers instead of {count}')
    return Storage(count, _numbers(stream.read(count * dtype.itemsize), dtype, count))


def _listed(keys: Any) -> list[str]:
  if not isinstance(keys, list) or not all(isinstance(k, str) for k in keys):
    raise Refused('it has no list of storages')
  return keys


def _numbers(data: bytes, dtype: np.dtype, count: int) -> np.ndarray:
  if len(data) < count * dtype.itemsize:
    raise EOFError
  return np.frombuffer(data, dtype, count)


def _table(pairs: Any = ()) -> Table:
  if not all(isinstance(p, (list, tuple)) and len(p) == 2 for p in pairs):
    raise Refused('an ordered dict of no pairs')
  return put(Table(), [part for pair in pairs for part in pair])


def _zip(reader: _Reader, archive: zipfile.ZipFile) -> Any:
  """The content of a zip archive: one pickle, and a file for each storage."""
  reader.budget.spend(sum(entry.file_size for entry in archive.infolist()))
  name = next((n for n in archive.namelist() if n.endswith('data.pkl')), None)
  if name is None:
    raise Refused('a zip archive without data.pkl')
  root = name.removesuffix('data.pkl')
  storages: dict[tuple[str, np.dtype], Storage] = {}

  def storage(dtype: np.dtype, key: str, count: int) -> Storage:
    if (key, dtype) not in storages:
      if f'{root}data/{key}' not in archive.NameToInfo:
        raise Refused(f'the storage {key!r:.20} is not in it')
      data = archive.read(f'{root}data/{key}')
      storages[key, dtype] = Storage(count, _numbers(data, dtype, count))
    found = storages[key, dtype]
    if found.count != count:
      raise Refused(f'the storage {key!r:.20} has two sizes')
    return found

  if f'{root}byteorder' in archive.NameToInfo and archive.read(f'{root}byteorder') != b'little':
    raise Refused('its numbers are big-endian')
  return reader.load(io.BytesIO(archive.read(name)), storage)


def read(path: str | pathlib.Path) -> Any:
  """The content of a file of weights, tensors as numpy arrays.

  What is neither tensor nor plain value is an Unknown. Raises UserError, naming the file and the
  reason: missing, no such file format, cut short, more in memory than its size allows, or asking
  for code.
  """
  path = check_regular(path)
  reader = _Reader(Budget(path.stat().st_size))
  with reading(path, 'a file of torch weights'):
    try:
      content = _content(path, reader)
    except Refused as e:
      raise UserError(f'{path} is refused: {e}') from None
    except EOFError:
      raise UserError(f'{path} is cut short') from None
  if isinstance(content, Unknown):
    raise UserError(
      f'{path} is refused: it is a whole {content.name}, not its weights\n'
      '  with torch, if you trust it (this runs its code), save its weights alone: '
      "torch.save(torch.load(FILE, map_location='cpu', weights_only=False).state_dict(), NEW)"
    )
  return content


def _content(path: pathlib.Path, reader: _Reader) -> Any:
  with path.open('rb') as file:
    head = file.read(4)
    if zipfile.is_zipfile(file):
      with zipfile.ZipFile(file) as archive:
        return _zip(reader, archive)
    if not head or head[:2] == b'PK':
      raise EOFError  # a zip archive's directory is at its end
    if head[:1] != pickle.PROTO:
      raise ValueError('neither a pickle nor a zip archive')
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
      legacy = Function(reader.legacy_storage)
      content = reader.load(stream, _load_from_bytes=legacy)
      return reader.stream(stream) if content == LEGACY_MAGIC else content


def read_saved(path: str | pathlib.Path, key: str, part: str) -> Any:
  """As `read`, of a file that a training wrote: of more than tensors, what is under `key`, its
  `part`, must be tensors; the message says how to keep it otherwise."""
  content = read(path)
  table = content.get(key, content) if isinstance(content, Mapping) else content
  if isinstance(table, Unknown):
    other = table
  else:
    values = table.values() if isinstance(table, Mapping) else ()
    other = next((v for v in values if isinstance(v, Unknown)), None)
  if other is not None:
    raise UserError(
      f'{path}: its {part} hold a {other.name}, which is no tensor\n'
      f'  with torch, if you trust it (this runs its code), keep its {part}: torch.save('
      f"torch.load(FILE, map_location='cpu', weights_only=False)['{key}'], NEW)"
    )
  return content


def is_table(content: Any) -> bool:
  """Whether it is a table of weights by name."""
  return isinstance(content, Mapping) and all(
    isinstance(name, str) and isinstance(w, np.ndarray) for name, w in content.items()
  )
