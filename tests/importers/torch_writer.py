"""Writes files as torch does, without torch: by pickling stand-ins under torch's names."""

import collections
import contextlib
import io
import pickle
import sys
import types
import zipfile

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {'float32': 'FloatStorage', 'float64': 'DoubleStorage', 'int64': 'LongStorage'}
STORAGES |= {'float16': 'HalfStorage', 'bool': 'BoolStorage', 'uint8': 'ByteStorage'}
STORAGES |= {'bfloat16': 'BFloat16Storage'}


class Tensor:
  """A view (offset, size, stride in numbers) into a flat array, pickled as torch pickles one."""

  def __init__(self, array, offset=0, size=None, stride=None):
    array = np.ascontiguousarray(array) if np.ndim(array) else np.asarray(array)
    self.storage = Storage(array.ravel())
    steps = tuple(s // array.itemsize for s in array.strides)
    self.view = (offset, array.shape if size is None else size, steps if stride is None else stride)

  def __reduce__(self):
    hooks = collections.OrderedDict()
    return sys.modules['torch._utils']._rebuild_tensor_v2, (self.storage, *self.view, False, hooks)


class Storage:
  def __init__(self, flat, location='cuda:0'):
    self.flat, self.location = flat, location

  @property
  def kind(self):
    return getattr(sys.modules['torch'], STORAGES[self.flat.dtype.name])

  def __reduce__(self):
    return sys.modules['torch.storage']._load_from_bytes, (self.legacy(),)

  def legacy(self) -> bytes:
    out = io.BytesIO()
    for head in (MAGIC, 1001, {'little_endian': True, 'protocol_version': 1001}):
      pickle.dump(head, out, protocol=2)
    _pickler(out, lambda s: ('storage', s.kind, '7', s.location, s.flat.size, None)).dump(self)
    pickle.dump(['7'], out, protocol=2)
    out.write(np.int64(self.flat.size).tobytes() + self.flat.tobytes())
    return out.getvalue()


def _pickler(out, pid_of):
  class Pickler(pickle.Pickler):
    def persistent_id(self, x):
      return pid_of(x) if isinstance(x, Storage) else None

  return Pickler(out, protocol=2)


@contextlib.contextmanager
def torch_names():
  """Modules that hold the names a torch pickle refers to."""

  def function(module, name):
    f = lambda *_: None
    f.__module__, f.__name__, f.__qualname__ = module, name, name
    return f

  modules = {name: types.ModuleType(name) for name in ('torch', 'torch._utils', 'torch.storage')}
  for name in STORAGES.values():
    setattr(modules['torch'], name, type(name, (), {'__module__': 'torch'}))
  modules['torch']._utils = modules['torch._utils']
  modules['torch'].storage = modules['torch.storage']
  for module, name in (('_utils', '_rebuild_tensor_v2'), ('storage', '_load_from_bytes')):
    setattr(modules[f'torch.{module}'], name, function(f'torch.{module}', name))
  sys.modules.update(modules)
  try:
    yield
  finally:
    for name in modules:
      del sys.modules[name]


def write(path, content, protocol=4):
  """The published pickle: tensors that each carry a legacy stream."""
  with torch_names(), open(path, 'wb') as file:
    pickle.dump(content, file, protocol=protocol)
  return path


def _dumped(out, content, *more):
  """Pickles content into `out`, and gives the storages of its tensors in the order of their keys.

  more: what follows a storage's size in the reference to it.
  """
  storages = []

  def pid_of(storage):
    if not any(s is storage for s in storages):
      storages.append(storage)
    key = next(i for i, s in enumerate(storages) if s is storage)
    return ('storage', storage.kind, str(key), 'cpu', storage.flat.size, *more)

  with torch_names():
    _pickler(out, pid_of).dump(content)
  return storages


def write_zip(path, content, root='archive'):
  """Today's torch.save: a zip of one pickle and one raw file for each storage."""
  storages = _dumped(out := io.BytesIO(), content)
  with zipfile.ZipFile(path, 'w') as archive:
    archive.writestr(f'{root}/data.pkl', out.getvalue())
    archive.writestr(f'{root}/version', '3\n')
    for i, storage in enumerate(storages):
      archive.writestr(f'{root}/data/{i}', storage.flat.tobytes())
  return path


def write_legacy(path, content):
  """torch.save without zip archive: three heads, the pickle, the storages' keys, their numbers."""
  out = io.BytesIO()
  for head in (MAGIC, 1001, {'little_endian': True}):
    pickle.dump(head, out, protocol=2)
  storages = _dumped(out, content, None)
  pickle.dump([str(i) for i in range(len(storages))], out, protocol=2)
  for storage in storages:
    out.write(np.int64(storage.flat.size).tobytes() + storage.flat.tobytes())
  path.write_bytes(out.getvalue())
  return path


def state_dict(arrays):
  """Name -> array as torch's ordered dict of tensors, with the metadata that torch hangs on it."""
  tensors = collections.OrderedDict((name, Tensor(a)) for name, a in arrays.items())
  tensors._metadata = {'': {'version': 1}}
  return tensors
