"""Files of weights made to harm their reader: each is refused, in little memory and time."""

import contextlib
import os
import pickle
import struct
import time
import tracemalloc
import zipfile

import numpy as np
import pytest

from car_jax import arrays
from car_jax.errors import UserError
from car_jax.importers import inert_pickle, tables, torch_file
from tests.importers.torch_writer import MAGIC, Tensor, write_zip

HEADS = b''.join(pickle.dumps(x, 2) for x in (MAGIC, 1001, {'little_endian': True}))


def tensor(size, stride, storage, offset=0):
  ints = lambda values: b'(' + b''.join(b'I%d\n' % n for n in values) + b't'
  place = b'I%d\n' % offset + ints(size) + ints(stride)
  return b'ctorch._utils\n_rebuild_tensor_v2\n(' + storage + place + b'I00\nNtR'


def stored(count=4, said=None, kind=b'FloatStorage', numbers=b'\0' * 16):
  """A storage that carries its own legacy stream."""
  said = count if said is None else said
  pid = b'\x80\x02(U\x07storagectorch\n' + kind + b'\nU\x017U\x03cpuJ' + struct.pack('<i', said)
  data = HEADS + pid + b'NtQ.' + pickle.dumps(['7'], 2) + struct.pack('<q', count) + numbers
  return b'ctorch.storage\n_load_from_bytes\n(B' + struct.pack('<I', len(data)) + data + b'tR'


def bombs(depth=20_000):
  """What would take memory, time or stack of a reader that believes it."""
  big = b'X' + struct.pack('<I', 1_000_000) + b'a' * 1_000_000 + b'q\0'
  encode = b'c_codecs\nencode\nq\1h\0X\6\0\0\0latin1\x86q\2R'
  pairs = b''.join(
    b'\x8a\x0a' + (k * (2**61 - 1)).to_bytes(10, 'little') + b'N' for k in range(9999)
  )
  many = b']((NNtq\5' + b'h\5' * 9999 + b'e'
  nested = b'N' + b''.join(b'q\0' + b'h\0' * 2 + b'\x87' for _ in range(200))
  return {
    'memo of 2^32': b'}r\xff\xff\xff\xff.',
    'bytes of 2^40': b'\x8e' + struct.pack('<Q', 2**40) + b'x.',
    'frame of 2^62': b'\x95' + struct.pack('<Q', 2**62) + b'N.',
    'number of 2^31 bytes': b'\x8b' + struct.pack('<i', 2**31 - 1) + b'x.',
    'number of 100 kB': b'\x8b' + struct.pack('<i', 10**5) + b'\1' * 10**5 + b'.',
    'digits': b'L' + b'9' * depth + b'L\n.',
    'nested tuples': b'(' * depth + b'N' + b't' * depth + b'.',
    'nested lists': b']' * depth + b'a' * (depth - 1) + b'.',
    'list in itself': b']q\0h\0a.',
    'table in itself': b'}q\0U\x01ah\0s.',
    'doubling tuples': nested + b'.',
    'doubling tuple as key': b'}' + nested + b'Ns.',
    'keys of one hash': b'}(' + pairs + b'u.',
    'instructions': b']' * 30_000 + b'.',
    'one text as bytes, often': big + encode + b'h\1h\2R' * 2000 + b'.',
    'one list as tables, often': many
    + b'q\3ccollections\nOrderedDict\n'
    + b'q\4'
    + b'h\4h\3\x85R' * 2000
    + b'.',
    'one list as sets, often': many + b'q\3cbuiltins\nset\nq\4' + b'h\4h\3\x85R' * 2000 + b'.',
    'stride 0': tensor((500_000_000,), (0,), stored()) + b'.',
    'stride 0, two axes': tensor((10**6, 2 * 10**6), (0, 0), stored()) + b'.',
    'views that sum up': b'(' + tensor((10**6,), (0,), stored()) * 40 + b't.',
    'more numbers than bytes': stored(4, said=2**31 - 1) + b'.',
    'storage in a storage': stored(numbers=stored()) + b'.',
  }


WRONG = {
  'storage of a tensor without numbers': tensor((64,), (1,), tensor((64, 0), (1, 1), stored())),
  'the same at 4 GB': tensor((10**9,), (1,), tensor((10**9, 0), (1, 1), stored())),
  'storage of text': tensor((1,), (1,), b'Vabc\n'),
  'storage of bytes': tensor((1,), (1,), b'C\4abcd'),
  'beyond': tensor((5,), (1,), stored()),
  'negative size': tensor((-5,), (1,), stored()),
  'negative stride': tensor((4,), (-1,), stored(), 3),
  'negative place': tensor((1,), (1,), stored(), -1),
  'more strides': tensor((2,), (1, 1), stored()),
  'axes': tensor((1,) * 65, (1,) * 65, stored()),
  'sizes beyond int64': tensor((2**70, 0), (1, 1), stored()),
  'size as text': stored().join(
    [b'ctorch._utils\n_rebuild_tensor_v2\n(', b'I0\nVab\nVab\nI00\nNtR']
  ),
  'negative count': stored(-1),
  'storage of a storage': b'ctorch.storage\n_load_from_bytes\n(' + stored() + b'tR',
  'state of a tensor': tensor((4,), (1,), stored()) + b'(K\1(K\1tNtb',
  'called number': b'K\1)R',
  'mark as a value': b'(q\0',
  'empty stack': b'a',
  'unpaired': b'}(K\1u',
  'reference': b'U\1aQ',
  'reference of text': b'P../../etc/passwd\n',
  'registered code': b'\x82\1',
}


def bounded(path, megabytes=150):
  """read(path) within memory and time -> its message, or what it holds."""
  tracemalloc.start()
  begin = time.monotonic()
  try:
    return torch_file.read(path)
  except UserError as e:
    return str(e)
  finally:
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < megabytes * 2**20
    assert time.monotonic() - begin < 60


@pytest.mark.parametrize('name', bombs(1))
def test_sizes_are_not_believed(name, tmp_path, monkeypatch):
  if name == 'instructions':
    monkeypatch.setattr(inert_pickle, 'MOST', 20_000)
  path = tmp_path / 'x.pth'
  path.write_bytes(b'\x80\x04' + bombs()[name])
  found = bounded(path)
  if 'instructions' in name or 'often' in name:
    assert 'more instructions' in found or 'more memory' in found
  with pytest.raises(UserError, match=r'x\.pth'):
    tables.find(path, torch_file.read(path) if not isinstance(found, str) else found, 'thing')


@pytest.mark.parametrize('name', WRONG)
def test_parts_that_do_not_fit_are_refused(name, tmp_path):
  path = tmp_path / 'x.pth'
  path.write_bytes(b'\x80\x03' + WRONG[name] + b'.')
  with pytest.raises(UserError, match=r'x\.pth'):
    torch_file.read(path)


def test_what_is_called_is_never_run_nor_imported(tmp_path):
  """By every instruction that calls."""
  mark = str(tmp_path / 'ran').encode()
  names = [b'os\nmkdir\n', b'builtins\neval\n', b'torch._utils\n_rebuild_tensor_v2.__globals__\n']
  for name in names:
    text = b'X' + struct.pack('<I', len(mark)) + mark
    for call in (
      b'c' + name + text + b'\x85R',
      b'c' + name + text + b'\x85\x81',
      b'c' + name + text + b'\x85}\x92',
      b'(' + text + b'i' + name,
      b'(c' + name + text + b'o',
      b'c' + name + b')R' + text + b'b',
    ):
      (tmp_path / 'x.pth').write_bytes(b'\x80\x04' + call + b'.')
      found = torch_file.read(tmp_path / 'x.pth')
      assert type(found) is inert_pickle.Inert
  assert not (tmp_path / 'ran').exists()


def zipped(path, numbers=bytes(16), method=zipfile.ZIP_DEFLATED, size=(4,), more=()):
  pid = b'(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuJ' + struct.pack('<i', size[0]) + b'tQ'
  with zipfile.ZipFile(path, 'w', method) as archive:
    archive.writestr('a/data.pkl', b'\x80\x02}U\1w' + tensor(size, (1,), pid) + b's.')
    archive.writestr('a/data/0', numbers)
    for name, data in more:
      archive.writestr(name, data)
  return path


def test_an_archive_does_not_inflate(tmp_path):
  path = zipped(tmp_path / 'x.pth', bytes(2**26), size=(2**24,))
  assert 'far more memory' in bounded(path)
  raw = bytearray(path.read_bytes())  # a directory that says the member is small
  at = raw.rfind(b'PK\x01\x02')
  raw[at + 24 : at + 28] = struct.pack('<I', 16)
  path.write_bytes(raw)
  assert 'x.pth' in bounded(path, 40)
  path = zipped(tmp_path / 'x.pth', bytes(2**20), zipfile.ZIP_LZMA)
  assert 'compressed in a way' in bounded(path)


def test_a_member_is_inflated_no_further_than_the_directory_says(tmp_path):
  with zipfile.ZipFile(tmp_path / 'x.npz', 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('x.npy', bytes(2**26))
  raw = bytearray((tmp_path / 'x.npz').read_bytes())
  at = raw.rfind(b'PK\x01\x02')
  raw[at + 24 : at + 28] = struct.pack('<I', 16)
  (tmp_path / 'x.npz').write_bytes(raw)
  tracemalloc.start()
  with pytest.raises(UserError, match=r'x\.npz'):
    arrays.read(tmp_path / 'x.npz')
  assert tracemalloc.get_traced_memory()[1] < 2**24
  tracemalloc.stop()


@pytest.mark.parametrize(
  ('kw', 'message'),
  [
    (dict(more=[('b/data.pkl', b'N.')]), 'more than one data.pkl'),
    (dict(more=[('a/data/0', bytes(16))]), 'two members of one name'),
    (dict(more=[('a/byteorder', b'big')]), 'big-endian'),
    (dict(more=[('a/constants.pkl', b'N.')]), 'TorchScript'),
    (dict(numbers=bytes(15)), 'no whole number'),
    (dict(numbers=bytes(12)), 'holds 3 numbers instead of 4'),
    (dict(numbers=bytes(20)), 'holds 5 numbers instead of 4'),
  ],
)
@pytest.mark.filterwarnings('ignore:Duplicate name')
def test_archives_that_do_not_agree_with_themselves(kw, message, tmp_path):
  with pytest.raises(UserError, match=message):
    torch_file.read(zipped(tmp_path / 'x.pth', **kw))


def test_flipped_bits_of_an_archive_are_noticed(tmp_path):
  rng = np.random.default_rng(0)
  arrays = {'w': rng.normal(size=(5, 4)).astype(np.float32), 'n': np.array(3)}
  path = write_zip(tmp_path / 'x.pth', {k: Tensor(v) for k, v in arrays.items()})
  raw = path.read_bytes()
  for at in rng.integers(0, 8 * len(raw), 300):
    flipped = bytearray(raw)
    flipped[at // 8] ^= 1 << at % 8
    path.write_bytes(flipped)
    try:
      found = torch_file.read(path)
    except UserError:
      continue
    assert found.keys() == arrays.keys()
    for name, want in arrays.items():
      np.testing.assert_array_equal(found[name], want)


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / 'x.pth')
  for path in (tmp_path / 'x.pth', '/dev/zero'):
    with pytest.raises(UserError, match='no regular file'):
      torch_file.read(path)


def test_bytes_after_the_end_are_noticed(tmp_path):
  for content in (b'\x80\x02}U\1w' + tensor((4,), (1,), stored()) + b's.', HEADS + b'}.].'):
    (tmp_path / 'x.pth').write_bytes(
      content if content[:2] == b'\x80\x02' else b'\x80\x02' + content
    )
    torch_file.read(tmp_path / 'x.pth')
    (tmp_path / 'x.pth').write_bytes(content + b'more')
    with pytest.raises(UserError, match='4 bytes follow its end'):
      torch_file.read(tmp_path / 'x.pth')


def test_modules_that_contain_themselves(tmp_path):
  one = inert_pickle.Inert('torch.nn.Module')
  one.state = {'_modules': {'a': one}}
  with pytest.raises(UserError, match='contains itself'):
    tables.find('x', one, 'thing')
  chain = inert_pickle.Inert('torch.nn.Module')
  chain.state = {'_modules': {}}
  for _ in range(40):  # each holds the one below twice
    upper = inert_pickle.Inert('torch.nn.Module')
    upper.state = {'_modules': {'a': chain, 'b': chain}}
    chain = upper
  with pytest.raises(UserError, match='more parts than any net'):
    tables.find('x', chain, 'thing')


def test_random_damage_gives_a_message_or_data(tmp_path):
  rng = np.random.default_rng(1)
  raw = b'\x80\x02}U\1w' + tensor((4,), (1,), stored()) + b's.'
  for _ in range(400):
    damaged = bytearray(raw)
    for at in rng.integers(2, len(raw), rng.integers(1, 6)):
      damaged[at] = rng.integers(256)
    (tmp_path / 'x.pth').write_bytes(damaged)
    with contextlib.suppress(UserError):
      torch_file.read(tmp_path / 'x.pth')
