"""Reading torch's files without torch: what comes back, and what is refused."""

import collections
import datetime
import os
import pickle
import tempfile
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from car_jax.errors import UserError
from car_jax.importers import torch_file
from car_jax.importers.inert_pickle import Inert, Named
from tests.importers.torch_writer import Tensor, state_dict, torch_names, write, write_zip

ARRAYS = {
  'w': np.arange(24, dtype=np.float32).reshape(2, 3, 4),
  'wide': np.linspace(0, 1, 5),
  'half': np.array([1.5, -2], np.float16),
  'mask': np.array([True, False]),
  'count': np.array(7, np.int64),
  'empty': np.zeros((0, 3), np.float32),
}


@pytest.mark.parametrize('writer', [write, write_zip])
def test_arrays_come_back_with_their_types(tmp_path, writer):
  path = writer(tmp_path / 'x.pth', {'net': state_dict(ARRAYS), 'none': None, 'epoch': 3})
  read = torch_file.read(path)
  assert read['none'] is None
  assert read['epoch'] == 3
  assert list(read['net']) == list(ARRAYS)
  for name, array in ARRAYS.items():
    assert read['net'][name].dtype == array.dtype
    np.testing.assert_array_equal(read['net'][name], array)


@pytest.mark.parametrize('protocol', [3, 5])
def test_every_protocol_that_knows_bytes_is_read(tmp_path, protocol):
  path = write(tmp_path / 'x.pickle', state_dict(ARRAYS), protocol)
  np.testing.assert_array_equal(torch_file.read(path)['w'], ARRAYS['w'])


@pytest.mark.parametrize('writer', [write, write_zip])
def test_views_into_a_storage(tmp_path, writer):
  base = np.arange(12, dtype=np.float32)
  views = {
    'transposed': Tensor(base, 0, (4, 3), (1, 4)),
    'offset': Tensor(base, 10, (2,), (1,)),
    'expanded': Tensor(base, 1, (2, 2), (0, 1)),
  }
  read = torch_file.read(writer(tmp_path / 'x', views))
  np.testing.assert_array_equal(read['transposed'], base.reshape(3, 4).T)
  np.testing.assert_array_equal(read['offset'], base[10:])
  np.testing.assert_array_equal(read['expanded'], [[1, 2], [1, 2]])


@pytest.mark.parametrize('writer', [write, write_zip])
@pytest.mark.parametrize(
  'view', [(0, (13,), (1,)), (10, (3,), (1,)), (0, (4, 4), (4, 1)), (-1, (2,), (1,))]
)
def test_a_view_beyond_its_storage_is_refused(tmp_path, writer, view):
  path = writer(tmp_path / 'x', {'w': Tensor(np.arange(12, dtype=np.float32), *view)})
  with pytest.raises(UserError, match='beyond its storage|is no count'):
    torch_file.read(path)


class Malicious:
  def __init__(self, marker):
    self.marker = marker

  def __reduce__(self):
    return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize('writer', [write, write_zip])
def test_a_file_that_asks_for_code_runs_none(tmp_path, writer):
  marker = tmp_path / 'ran'
  path = writer(tmp_path / 'x', {'net': state_dict(ARRAYS), 'trap': Malicious(marker)})
  found = torch_file.read(path)
  assert found['trap'].name in ('posix.mkdir', 'nt.mkdir')
  np.testing.assert_array_equal(found['net']['w'], ARRAYS['w'])
  assert not marker.exists()


def test_code_inside_a_storage_is_refused_too(tmp_path):
  marker = tmp_path / 'ran'

  class Trap:
    def __reduce__(self):
      import sys

      inside = pickle.dumps(Malicious(marker))
      return sys.modules['torch.storage']._load_from_bytes, (inside,)

  with pytest.raises(UserError, match='refused'):
    torch_file.read(write(tmp_path / 'x', {'w': Trap()}))
  assert not marker.exists()


@pytest.mark.parametrize('attribute', ['FloatStorage.__init__', 'nn.Module'])
def test_names_that_only_begin_like_torch_stay_names(tmp_path, attribute):
  data = b'\x80\x04' + b''.join(
    b'\x8c' + bytes([len(s)]) + s.encode() for s in ('torch', attribute)
  )
  (tmp_path / 'x').write_bytes(data + b'\x93.')
  assert type(torch_file.read(tmp_path / 'x')) is Named


@pytest.mark.parametrize('writer', [write, write_zip])
@pytest.mark.parametrize('share', [0.1, 0.5, 0.99])
def test_a_truncated_file_is_said_to_be_cut_short(tmp_path, writer, share):
  path = writer(tmp_path / 'x', state_dict(ARRAYS))
  data = path.read_bytes()
  path.write_bytes(data[: int(len(data) * share)])
  with pytest.raises(UserError, match=r'x is cut short'):
    torch_file.read(path)


@pytest.mark.parametrize('content', [b'', b'not a pickle at all', b'\x89PNG\r\n\x1a\n'])
def test_another_kind_of_file(tmp_path, content):
  (tmp_path / 'x').write_bytes(content)
  with pytest.raises(UserError, match='cannot be read as a file of torch weights|is empty'):
    torch_file.read(tmp_path / 'x')


def test_a_zip_of_something_else(tmp_path):
  with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as archive:
    archive.writestr('readme', 'hello')
  with pytest.raises(UserError, match=r'cannot be read as .* \(a zip archive without data\.pkl'):
    torch_file.read(tmp_path / 'x.zip')


def test_a_missing_file_and_a_folder(tmp_path):
  with pytest.raises(UserError, match='no file .*nowhere'):
    torch_file.read(tmp_path / 'nowhere')
  with pytest.raises(UserError, match='is a folder'):
    torch_file.read(tmp_path)


def test_a_storage_of_another_length_than_it_says(tmp_path):
  def lie(storage):
    good = type(storage).legacy(storage)
    flat = storage.flat
    raw = np.int64(flat.size).tobytes() + flat.tobytes()
    return good.replace(raw, np.int64(flat.size - 1).tobytes() + flat.tobytes())

  tensor = Tensor(np.arange(3, dtype=np.float32))
  with torch_names():
    data = lie(tensor.storage)
  tensor.storage.legacy = lambda: data
  with pytest.raises(UserError, match='holds 2 numbers instead of 3'):
    torch_file.read(write(tmp_path / 'x', {'w': tensor}))


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
plain |= st.binary()
keys = st.none() | st.booleans() | st.integers(-9, 9) | st.text() | st.binary()
values = st.recursive(
  plain,
  lambda inside: st.lists(inside) | st.dictionaries(keys, inside) | st.tuples(inside, inside),
)


@settings(max_examples=40, deadline=None)
@given(values, st.integers(2, 5))
def test_plain_values_are_those_of_pickle(value, protocol):
  with tempfile.NamedTemporaryFile() as file:
    file.write(pickle.dumps([value, value], protocol))
    file.flush()
    assert torch_file.read(file.name) == [value, value]


class Part:
  """A class that the reader does not have, with state, items and a trap."""

  def __init__(self):
    self.history = np.arange(3.0)


class Items(collections.defaultdict):
  pass


def training():
  """What a training saves beside its weights."""
  return {
    'hub': {'loss': Part(), 'items': Items(list, a=[1])},
    'time': datetime.datetime(2026, 1, 2),
    'lr': np.float64(0.1),
    'seed': np.arange(4),
    'places': {(0, 1): {3}, Part: Part},
  }


@pytest.mark.parametrize('writer', [write, write_zip])
def test_what_a_training_saves_beside_its_weights_is_a_name_only(tmp_path, writer, monkeypatch):
  path = writer(tmp_path / 'x', {'state_dict': state_dict(ARRAYS), **training()})
  monkeypatch.setattr(Part, '__new__', lambda *_: pytest.fail('a class of the file is made'))
  read = torch_file.read_saved(path, 'state_dict', 'weights')
  np.testing.assert_array_equal(read['state_dict']['w'], ARRAYS['w'])
  unknown = {'loss': read['hub']['loss'], 'time': read['time'], 'lr': read['lr']}
  assert all(type(u) is Inert for u in unknown.values())
  assert unknown['loss'].name.endswith('test_torch_file.Part')


NUMBERS = np.arange(4, dtype=np.float32)


@pytest.mark.parametrize(
  'parts',
  [
    lambda s: (Tensor(np.zeros((5, 0), np.float32)), 0, (5,), (1,)),
    lambda s: (Tensor(NUMBERS), 0, (4,), (1,)),
    lambda s: ('abcd', 0, (4,), (1,)),
    lambda s: (s, 0.0, (4,), (1,)),
    lambda s: (s, 0, [4], [1]),
    lambda s: (s, 0, (4, 1), (1,)),
    lambda s: (s, 0, ('4',), (1,)),
    lambda s: (s, 0, (True,), (1,)),
    lambda s: (s, 0, (2**63,), (0,)),
    lambda s: (s, 0, (-1,), (1,)),
    lambda s: (s, 3, (4,), (-1,)),
    lambda s: (s, 0, (2**20,), (0,)),  # a million of one number
    lambda s: (s, 0, (2**31, 2**31, 2**31), (0, 0, 0)),
    lambda s: (s, 0, (1,) * 40, (1,) * 40),
  ],
)
@pytest.mark.parametrize('writer', [write, write_zip])
def test_a_tensor_is_a_storage_and_counts_within_it(tmp_path, writer, parts):
  tensor = Tensor(NUMBERS)
  tensor.storage, *tensor.view = parts(tensor.storage)
  with pytest.raises(UserError, match='is refused: a tensor'):
    torch_file.read(writer(tmp_path / 'x', {'w': tensor}))
