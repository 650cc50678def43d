"""Reading torch's files without torch: what comes back, and what is refused."""

import collections
import datetime
import io
import os
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from car_jax.errors import UserError
from car_jax.importers import pickles, torch_file
from tests.importers.torch_writer import Tensor, state_dict, torch_names, write, write_zip

ARRAYS = {
  'w': np.arange(24, dtype=np.float32).reshape(2, 3, 4),
  'wide': np.linspace(0, 1, 5),
  'half': np.array([1.5, -2], np.float16),
  'brain': np.array([1.5, -2, 3e38], ml_dtypes.bfloat16),
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


@pytest.mark.parametrize('protocol', [2, 3, 5])
def test_every_protocol_is_read(tmp_path, protocol):
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
  with pytest.raises(UserError, match='beyond its storage'):
    torch_file.read(path)


class Malicious:
  def __init__(self, marker):
    self.marker = marker

  def __reduce__(self):
    return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize('writer', [write, write_zip])
def test_a_file_that_asks_for_code_is_refused_and_runs_none(tmp_path, writer):
  marker = tmp_path / 'ran'
  path = writer(tmp_path / 'x', {'net': state_dict(ARRAYS), 'trap': Malicious(marker)})
  with pytest.raises(UserError, match=r'refused.*(posix|nt)\.mkdir'):
    torch_file.read(path)
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
def test_names_that_only_begin_like_torch_are_refused(tmp_path, attribute):
  data = b'\x80\x04' + b''.join(
    b'\x8c' + bytes([len(s)]) + s.encode() for s in ('torch', attribute)
  )
  (tmp_path / 'x').write_bytes(data + b'\x93.')
  with pytest.raises(UserError, match='refused'):
    torch_file.read(tmp_path / 'x')


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
  with pytest.raises(UserError, match='cannot be read as a file of torch weights|cut short'):
    torch_file.read(tmp_path / 'x')


def test_a_zip_of_something_else(tmp_path):
  with zipfile.ZipFile(tmp_path / 'x.zip', 'w') as archive:
    archive.writestr('readme', 'hello')
  with pytest.raises(UserError, match=r'refused: a zip archive without data\.pkl'):
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
values = st.recursive(
  plain,
  lambda inside: st.lists(inside) | st.dictionaries(plain, inside) | st.tuples(inside, inside),
)


@settings(max_examples=40, deadline=None)
@given(values, st.integers(2, 5))
def test_plain_values_are_those_of_pickle(value, protocol):
  known = {('_codecs', 'encode'): pickles.Function(lambda text, codec: text.encode(codec))}
  known |= {('__builtin__', 'bytes'): pickles.Function(lambda: b'')}
  data = pickle.dumps([value, value], protocol)
  assert pickles.Machine(known, None).load(io.BytesIO(data)) == [value, value]


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
  assert all(type(u) is pickles.Unknown for u in unknown.values())
  assert unknown['loss'].name.endswith('test_torch_file.Part')
  with pytest.raises(UserError, match=r'its hub hold a .*Part'):
    torch_file.read_saved(path, 'hub', 'hub')


def test_a_whole_model_is_named_with_the_line_that_saves_its_weights(tmp_path):
  path = write_zip(tmp_path / 'x', Part())
  with pytest.raises(UserError, match=r'whole .*Part, not its weights\n.*state_dict\(\), NEW'):
    torch_file.read(path)


def test_a_tensor_of_something_unknown_is_no_tensor(tmp_path):
  tensor = Tensor(ARRAYS['w'])
  tensor.storage = Part()
  path = write(tmp_path / 'x', {'state_dict': {'w': tensor}})
  with pytest.raises(UserError, match='its weights hold a .*Part'):
    torch_file.read_saved(path, 'state_dict', 'weights')


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
  with pytest.raises(UserError, match='is refused: (a tensor|it would become)'):
    torch_file.read(writer(tmp_path / 'x', {'w': tensor}))


@pytest.mark.parametrize(
  ('data', 'message'),
  [
    (b'\x80\x04\x8e' + np.uint64(2**40).tobytes() + b'x.', 'cut short'),
    (b'\x80\x02\x8b' + np.int32(2**31 - 1).tobytes() + b'x.', 'cut short'),
    (b'\x80\x02}' + b'(' * 9999 + b'N' + b't' * 9999 + b'Ns.', 'a tuple as key'),
    (b'\x80\x02\x82\x01.', 'the instruction EXT1'),
    (b'\x80\x02cos\nsystem\n.', r'os\.system'),
    (b'\x80\x02ccollections\nOrderedDict.__init__\n.', 'refused'),
    (b"\x80\x02ctorch\nFloatStorage\n(N(dS'dtype'\nI1\nstb.", 'sets the state of a Kind'),
    (b"\x80\x02ctorch._utils\n_rebuild_tensor\n(N(dS'call'\nI1\nstb.", 'of a Function'),
    (b'\x80\x02K\x01)R.', 'calls what is no function'),
    (b'\x80\x02h\x07.', 'damaged'),
    (b'\x80\x02(.', 'damaged'),
  ],
)
def test_instructions_that_no_file_of_weights_has(tmp_path, data, message):
  (tmp_path / 'x').write_bytes(data)
  with pytest.raises(UserError, match=message):
    torch_file.read(tmp_path / 'x')


def test_a_place_in_memory_costs_nothing(tmp_path):
  (tmp_path / 'x').write_bytes(b'\x80\x02}r\xff\xff\xff\xff.')  # the last of 2^32 places
  assert torch_file.read(tmp_path / 'x') == {}


def test_bytes_taken_many_times_are_counted(tmp_path):
  class Text:
    def __reduce__(self):
      import _codecs

      return _codecs.encode, (TEXT, 'latin1')

  with torch_names():
    data = pickle.dumps([Text() for _ in range(1000)], 2)
  (tmp_path / 'x').write_bytes(data)
  with pytest.raises(UserError, match='many times its size'):
    torch_file.read(tmp_path / 'x')


TEXT = 'x' * 50_000


def test_a_zip_that_inflates_is_refused_before_it_does(tmp_path):
  with zipfile.ZipFile(tmp_path / 'x', 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('a/data.pkl', b'\x80\x02N.')
    archive.writestr('a/data/0', bytes(2**24))
  with pytest.raises(UserError, match='many times its size'):
    torch_file.read(tmp_path / 'x')


def test_a_pipe_is_refused_at_once(tmp_path):
  os.mkfifo(tmp_path / 'x')
  with pytest.raises(UserError, match='no regular file'):
    torch_file.read(tmp_path / 'x')
