"""Reads files of torch weights without torch and without running anything they ask for.

Three formats: a plain pickle whose tensors carry a legacy torch.save stream each (CAR's released
files), the zip archive of today's torch.save, and the stream of torch.save before 1.6. Tensors
become arrays, and numpy's are kept as `inert_arrays.Array`; whatever else the pickle names stays an
`Inert`, see inert_pickle.
"""

import functools
import io
import json
import math
import pathlib
import shlex
import zipfile
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from car_jax import files
from car_jax.errors import UserError, reading
from car_jax.importers import foreign, inert_arrays
from car_jax.importers.inert_pickle import (
  Budget,
  CutShort,
  Inert,
  Machine,
  Named,
  Refused,
  encoded,
)

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
  'UntypedStorage': np.uint8,
}
# Complex and quantised numbers: their bytes are passed over, a tensor of them stays an `Inert`.
DTYPES |= {'ComplexFloatStorage': 'V8', 'ComplexDoubleStorage': 'V16', 'QInt32Storage': 'V4'}
DTYPES |= dict.fromkeys(('QInt8Storage', 'QUInt8Storage', 'QUInt4x2Storage'), 'V1')
# The number types that have no storage of their own.
UNTYPED = {'torch.uint16': np.uint16, 'torch.uint32': np.uint32, 'torch.uint64': np.uint64}
UNTYPED |= {'torch.float8_e4m3fn': ml_dtypes.float8_e4m3fn}
UNTYPED |= {'torch.float8_e5m2': ml_dtypes.float8_e5m2}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
PICKLE = b'\x80'  # the first byte of protocols 2 to 5
MOST_AXES = 32
BIG = 'its numbers are in the order of a big-endian machine'


class Storage:
  """The flat numbers that tensors are views of."""

  def __init__(self, numbers: np.ndarray):
    self.numbers = numbers


def whole(x: Any, what: str) -> int:
  if type(x) is not int or not 0 <= x < 2**62:
    raise Refused(f'{what} is no count')
  return x


def _view(budget: Budget, storage: Any, offset: Any, size: Any, stride: Any) -> Any:
  """Part of a storage, uncopied. numpy tests again that it does not reach beyond its buffer."""
  if not isinstance(storage, Storage):
    raise Refused('a tensor of something that is no storage')
  if storage.numbers.dtype.type is np.void:  # ml_dtypes' are of that kind, not of that type
    return Inert('tensor of complex or quantised numbers')
  if not (isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride)):
    raise Refused('a tensor whose shape and strides do not fit together')
  if len(size) > MOST_AXES:
    raise Refused(f'a tensor of {len(size)} axes')
  numbers = storage.numbers
  offset = whole(offset, "a tensor's place")
  size = tuple(whole(n, "a tensor's size") for n in size)
  stride = tuple(whole(s, "a tensor's stride") for s in stride)
  count = math.prod(size)
  last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if count else 0
  if count and last >= len(numbers):
    raise Refused('a tensor reaches beyond its storage')
  budget.take(count * numbers.itemsize, 'a tensor')
  if not count:
    return np.zeros(size, numbers.dtype)
  steps = tuple(s * numbers.itemsize for s in stride)
  view = np.ndarray(size, numbers.dtype, numbers, offset * numbers.itemsize, steps)
  view.flags.writeable = False
  return view


def _stand_ins(budget: Budget, embedded: bool = True) -> dict[str, Callable]:
  """What a torch pickle may name, each checking its arguments.

  embedded: whether a storage may be a file of its own inside the pickle; one level only.
  """

  def tensor(storage, offset, size, stride, *_):
    return _view(budget, storage, offset, size, stride)

  def retyped(storage, offset, size, stride, _grad=None, _hooks=None, kind=None, *_):
    kind = UNTYPED.get(getattr(kind, 'name', ''))
    if kind is None or not isinstance(storage, Storage) or storage.numbers.dtype != np.uint8:
      return Inert('a tensor of an unknown type of number')
    size_of = np.dtype(kind).itemsize
    numbers = storage.numbers[: len(storage.numbers) // size_of * size_of].view(kind)
    return _view(budget, Storage(numbers), offset, size, stride)

  def parameter(data, *_):
    return data if isinstance(data, (np.ndarray, Inert)) else Inert('a parameter without tensor')

  def of_type(function, _type, args, *_):
    known = builders.get(getattr(function, 'name', ''))
    return known(*args) if known and isinstance(args, tuple) else Inert('a tensor of another class')

  builders = {
    'torch._utils._rebuild_tensor': tensor,
    'torch._utils._rebuild_tensor_v2': tensor,
    'torch._utils._rebuild_tensor_v3': retyped,
    'torch._utils._rebuild_parameter': parameter,
    'torch._utils._rebuild_parameter_with_state': parameter,
    'torch._tensor._rebuild_from_type_v2': of_type,
    **_plain(budget),
    **inert_arrays.stand_ins(budget),
  }
  if embedded:
    builders['torch.storage._load_from_bytes'] = functools.partial(_embedded, budget)
  return builders


def _plain(budget: Budget) -> dict[str, Callable]:
  """Of Python's own, what plain values are pickled by."""

  def table(pairs=(), *_):
    if not isinstance(pairs, (list, tuple)):
      raise Refused('a table of something other than pairs')
    budget.step(len(pairs))
    made = Machine(io.BytesIO(), budget, {})
    made.to_dict_of(pairs)
    return made.stack.pop()

  def plain_set(items=(), *_):
    if not isinstance(items, (list, tuple)):
      return set()
    budget.step(len(items))
    return {x for x in items if type(x) is str}  # of names; other sets are left

  return {
    'collections.OrderedDict': table,
    'collections.defaultdict': lambda *_: {},
    'builtins.set': plain_set,
    '__builtin__.set': plain_set,
    '_codecs.encode': functools.partial(encoded, budget),
    '__builtin__.bytes': lambda *_: b'',  # of protocol 2, without arguments
  }


def _referred(storage: Callable[[np.dtype, str, int], Storage]) -> Callable[[Any], Any]:
  """What a pickle's references to things outside it stand for: storages, and, in whole modules of
  old, a class beside its source."""

  def of(pid: Any) -> Any:
    if isinstance(pid, tuple) and len(pid) == 4 and pid[0] == 'module':
      return pid[1] if isinstance(pid[1], Named) else Named('a module')
    return storage(*_pid(pid))

  return of


def _pid(pid: Any) -> tuple[np.dtype, str, int]:
  """What is known of a storage: its type of number, its key and its length."""
  if not (isinstance(pid, tuple) and len(pid) >= 5 and pid[0] == 'storage'):
    raise Refused('it refers to something outside the file')
  kind = getattr(pid[1], 'name', '') if isinstance(pid[1], Named) else ''
  module, _, name = kind.rpartition('.')
  if module not in ('torch', 'torch.cuda', 'torch.storage') or name not in DTYPES:
    raise Refused(f'its numbers are of the type {kind or "?"}, which is not read')
  if type(pid[2]) is not str:
    raise Refused('a storage without name')
  if len(pid) > 5 and pid[5] is not None:
    raise Refused('a storage that is part of another')
  return np.dtype(DTYPES[name]), pid[2], whole(pid[4], "a storage's length")


def _legacy(stream: io.BytesIO, budget: Budget) -> Any:
  """What torch.save without a zip archive wrote, after the number that opens it.

  The pickle comes first and the numbers after it: its tensors are views of storages still empty.
  Together these are no larger than the rest of the stream.
  """
  plain = Machine(stream, budget, {})
  for _ in range(2):  # version, system
    facts = plain.load()
  if isinstance(facts, dict) and facts.get('little_endian') is False:
    raise Refused(BIG)
  known: dict[str, Storage] = {}
  room = len(stream.getbuffer()) - stream.tell()

  def storage(dtype: np.dtype, key: str, count: int) -> Storage:
    nonlocal room
    if key not in known:
      room -= count * dtype.itemsize
      if room < 0:
        raise CutShort
      known[key] = Storage(np.empty(count, dtype))
    if known[key].numbers.dtype != dtype or len(known[key].numbers) != count:
      raise Refused('a storage of two types or lengths')
    return known[key]

  stand_ins = _stand_ins(budget, embedded=False)
  content = Machine(stream, budget, stand_ins, _referred(storage)).load()
  keys = plain.load()
  if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(known):
    raise Refused('the list of its storages is not that of its tensors')
  for key in keys:
    numbers = known[key].numbers
    if len(head := stream.read(8)) < 8:
      raise CutShort
    if (count := int.from_bytes(head, 'little')) != len(numbers):
      raise Refused(f'a storage holds {count} numbers instead of {len(numbers)}')
    if stream.readinto(numbers.view(np.uint8).data) < numbers.nbytes:
      raise CutShort
  return content


def _embedded(budget: Budget, data: Any) -> Storage:
  """One storage from the bytes of a legacy torch.save."""
  if type(data) is not bytes:
    raise Refused('a storage that is no bytes')
  budget.take(len(data), 'a storage')
  stream = io.BytesIO(data)
  if Machine(stream, budget, {}).load() != LEGACY_MAGIC:
    raise Refused('a storage does not begin as torch writes it')
  content = _legacy(stream, budget)
  if not isinstance(content, Storage):
    raise Refused('a storage that is none')
  return content


class _Archive:
  """A zip archive of torch: `root`/data.pkl and a member of raw numbers for each storage."""

  def __init__(self, archive: zipfile.ZipFile, budget: Budget):
    self.archive, self.budget = archive, budget
    names = archive.namelist()
    if len(set(names)) < len(names):
      raise Refused('a zip archive with two members of one name')
    pickles = [n for n in names if n.rpartition('/')[2] == 'data.pkl']
    if not pickles:
      raise ValueError('a zip archive without data.pkl')
    if len(pickles) > 1:
      raise Refused('a zip archive with more than one data.pkl')
    self.root = pickles[0].removesuffix('data.pkl')
    if f'{self.root}constants.pkl' in names:
      raise Refused('it is a compiled TorchScript module, which holds its program')
    order = f'{self.root}byteorder'
    if order in names and self.member(order) != b'little':
      raise Refused(BIG)
    self.storages: dict[str, Storage] = {}

  def member(self, name: str) -> bytes:
    """Its bytes, no more than the directory says; zipfile compares their checksum."""
    try:
      info = self.archive.getinfo(name)
    except KeyError:
      raise Refused(f'a zip archive without {name!r}') from None
    self.budget.take(info.file_size, f'the member {name!r}')
    return files.member(self.archive, info)

  def storage(self, dtype: np.dtype, key: str, count: int) -> Storage:
    if key not in self.storages:
      data = self.member(f'{self.root}data/{key}')
      if len(data) % dtype.itemsize:
        raise Refused(f'the member {key!r} is no whole number of {dtype}')
      self.storages[key] = Storage(np.frombuffer(data, dtype))
    numbers = self.storages[key].numbers
    if len(numbers) != count or numbers.dtype != dtype:
      raise Refused(f'the member {key!r} holds {len(numbers)} numbers instead of {count}')
    return self.storages[key]

  def load(self) -> Any:
    stream = io.BytesIO(self.member(f'{self.root}data.pkl'))
    stand_ins = _stand_ins(self.budget, embedded=False)
    return Machine(stream, self.budget, stand_ins, _referred(self.storage)).load()


def read(path: str | pathlib.Path) -> Any:
  """The content of a file of weights: tensors as read-only arrays, unknown objects as `Inert`.

  Raises UserError, naming the file and the reason: missing, no such file format, cut short, or
  more memory asked for than a file of its size can need.
  """
  path = files.check_regular(path)
  with reading(path, 'a file of torch weights'):
    try:
      return _read(path)
    except Refused as e:
      raise UserError(f'{path} is refused: {e}') from None
    except CutShort:
      raise UserError(f'{path} is cut short') from None


def _read(path: pathlib.Path) -> Any:
  budget = Budget(path.stat().st_size)
  if zipfile.is_zipfile(path):
    with zipfile.ZipFile(path) as archive:
      return _Archive(archive, budget).load()
  stream = io.BytesIO(path.read_bytes())
  head = stream.getvalue()[:2]
  if not head:
    raise UserError(f'{path} is empty')
  if head == b'PK':  # a zip archive's directory is at its end
    raise CutShort
  if head[:1] != PICKLE:
    begin = stream.getvalue()[:32]
    if begin[8:10] == b'{"':  # after the length of its table
      raise ValueError(foreign.SAFETENSORS)
    raise ValueError(foreign.described(begin) or 'neither a pickle nor a zip archive')
  content = Machine(stream, budget, _stand_ins(budget)).load()
  if type(content) is int and content == LEGACY_MAGIC:
    content = _legacy(stream, budget)
  if rest := len(stream.getbuffer()) - stream.tell():
    raise Refused(f'{rest} bytes follow its end')
  return content


def read_saved(path: str | pathlib.Path, key: str, part: str) -> Any:
  """As `read`; of a refused file the message says how torch keeps what is under `key`, its `part`,
  so that it can be read."""
  try:
    return read(path)
  except UserError as e:
    if 'is refused' not in str(e):
      raise
    raise UserError(f'{e}\n{way_out(path, key, part)}') from None


def way_out(path: Any, key: str, part: str = 'weights') -> str:
  """How torch itself writes the file anew, as a table of plain tensors."""
  file, key = (json.dumps(str(x), ensure_ascii=False) for x in (path, key))
  code = (
    f'import torch; x = torch.load({file}, map_location="cpu", weights_only=False); '
    f'x = x.get({key}, x) if isinstance(x, dict) else x; '
    'x = x if isinstance(x, dict) else x.state_dict(); '
    'plain = lambda v: v.dequantize() if v.is_quantized else v.to_dense() if v.is_sparse else v; '
    'torch.save({k: plain(v).detach().clone() for k, v in x.items() '
    'if isinstance(v, torch.Tensor)}, "NEW.pth")'
  )
  return (
    f'  with torch, if you trust the file (this runs what it asks for), keep its {part}:\n'
    f'  python -c {shlex.quote(code)}'
  )
