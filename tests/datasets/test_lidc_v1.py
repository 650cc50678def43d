"""The pickle of LIDC crops, as numpy writes it, and what is wrong with others."""

import os
import pickle
import struct

import numpy as np
import pytest

from car_jax.datasets.lidc_v1.lidc_v1_dataset_builder import read, split_of
from car_jax.errors import UserError
from tests.datasets.files import nothing_prepared, records, run, truncate


def entries(count=20, size=8):
  rng = np.random.default_rng(0)
  return {
    f'crop{k}': {
      'image': rng.random((size, size)),
      'masks': [(rng.random((size, size)) < 0.3).astype(float) for _ in range(4)],
      'series_uid': f'1.2.{k // 2}',
    }
    for k in range(count)
  }


def written(path, content, protocol=2):
  path.write_bytes(pickle.dumps(content, protocol))
  return path


@pytest.mark.parametrize('protocol', [2, 5])
def test_records_hold_the_crops(tmp_path, protocol):
  content = entries()
  source = written(tmp_path / 'data_lidc.pickle', content, protocol)
  assert run('lidc_v1', source, tmp_path / 'data') == 0
  for split in ('train', 'validation', 'test'):
    for name, record in records('lidc_v1', tmp_path / 'data', split).items():
      crop = content[name.rpartition('/')[2]]
      np.testing.assert_array_equal(record['labels'], crop['masks'])
      np.testing.assert_allclose(record['image'][..., 0] / 255, crop['image'], atol=0.5 / 255)
      assert record['group'] == crop['series_uid']


def test_splits_are_64_16_20_percent_of_the_series():
  uids = [f'{k:03d}' for k in range(100)]
  found = split_of(uids)
  assert [len(found[s]) for s in ('train', 'validation', 'test')] == [64, 16, 20]
  assert sorted(uid for names in found.values() for uid in names) == uids
  assert found['test'][:3] == ['026', '086', '002']  # scikit-learn's for 100 and seed 0


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda c: c.pop('masks'), "has no 'masks'"),
    (lambda c: c['masks'].pop(), '3 masks; expected 4'),
    (lambda c: c.update(image=c['image'][:4]), 'image (4, 8)'),
    (lambda c: c.update(image=c['image'] * 300), 'expected 0 to 1'),
    (lambda c: c['masks'].__setitem__(0, c['masks'][0] + 2), 'value 2 in a mask'),
  ],
)
def test_a_bad_entry_is_named(tmp_path, capsys, change, message):
  content = entries()
  change(content['crop7'])
  source = written(tmp_path / 'x.pickle', content)
  assert run('lidc_v1', source, tmp_path / 'data') == 2
  told = capsys.readouterr().err
  assert "'crop7'" in told
  assert message in told
  assert nothing_prepared(tmp_path / 'data')


class Malicious:
  def __reduce__(self):
    return os.system, ('touch /tmp/should_not_be_there',)


def test_a_pickle_runs_no_code_and_other_files_are_told(tmp_path, capsys):
  source = written(tmp_path / 'x.pickle', {'a': Malicious()})
  assert run('lidc_v1', source, tmp_path / 'data') == 2
  assert 'it asks for posix.system' in capsys.readouterr().err
  assert not os.path.exists('/tmp/should_not_be_there')
  truncate(written(tmp_path / 'x.pickle', entries()))
  assert run('lidc_v1', source, tmp_path / 'data') == 2
  assert 'cannot be read as a pickle of LIDC crops (truncated' in capsys.readouterr().err
  written(source, [1, 2])
  assert run('lidc_v1', source, tmp_path / 'data') == 2
  assert 'no dictionary' in capsys.readouterr().err
  written(tmp_path / 'y.pickle', {})
  assert run('lidc_v1', tmp_path, tmp_path / 'data') == 2
  assert 'holds 2 pickles' in capsys.readouterr().err


def by_hand(
  kind=b"S'f8'", state=b"(I3\nS'<'\nNNNI-1\nI-1\nI0\nt", shape=(2, 4), data=None, core=b'core'
):
  """An array as numpy of Python 2 pickles it, in protocol 0."""
  data = np.arange(8.0).tobytes() if data is None else data
  sizes = b''.join(b'I%d\n' % n for n in shape)
  head = b"cnumpy.%s.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR" % core
  made = b'cnumpy\ndtype\n(%s\nI0\nI1\ntR%sb' % (kind, state)
  text = repr(data)[1:].encode()  # BINSTRING's text form: what was a str in Python 2
  return head + b'(I1\n(' + sizes + b't' + made + b'I0\nS' + text + b'\ntb'


def entry_of(array):
  return b"(dS'x'\n(dS'image'\n" + array + b"sS'masks'\n(l" + (array + b'a') * 4 + b"sS'u'\nI1\nss."


@pytest.mark.parametrize('core', [b'core', b'_core'])
def test_arrays_of_old_pythons_and_of_both_names_of_numpy(tmp_path, core):
  path = tmp_path / 'x.pickle'
  path.write_bytes(entry_of(by_hand(core=core)))
  found = read(path)['x']
  for array in (found['image'], *found['masks']):
    np.testing.assert_array_equal(array, np.arange(8.0).reshape(2, 4))


def test_every_plain_kind_and_order_is_read_as_numpy_reads_it(tmp_path):
  rng = np.random.default_rng(0)
  kinds = ('bool', 'i1', 'u1', '>i2', 'u2', '<i4', '>u8', 'f2', 'f4', '>f8')
  made = {k: (rng.random((3, 5)) * 9).astype(k) for k in kinds}
  made |= {'columns': np.asfortranarray(made['f4']), 'strided': made['f4'][::2, ::-1]}
  for protocol in range(6):
    content = {k: {'image': x, 'masks': [x] * 4, 'series_uid': np.str_(k)} for k, x in made.items()}
    found = read(written(tmp_path / 'x.pickle', content, protocol))
    for k, x in made.items():
      np.testing.assert_array_equal(found[k]['image'], x)
      assert found[k]['image'].dtype == x.dtype
      assert found[k]['series_uid'] == k


FIELDS = b"(I3\nS'|'\nN(S'a'\nt(dS'a'\n(cnumpy\ndtype\n(S'O8'\nI0\nI1\ntRI0\ntsI8\nI1\nI0\nt"
POINTERS = (0x414141414141).to_bytes(8, 'little') * 8
HOSTILE = {
  'numbers that are taken for objects': entry_of(
    by_hand(kind=b"S'V8'", state=FIELDS, data=POINTERS)
  ),
  'a plain kind that becomes a structured one': entry_of(by_hand(state=FIELDS, data=POINTERS)),
  'objects': entry_of(by_hand(kind=b"S'O8'", data=POINTERS)),
  'another size of the kind': entry_of(by_hand(state=b"(I3\nS'<'\nNNNI800\nI-1\nI0\nt")),
  'more than its bytes': entry_of(by_hand(shape=(2, 400))),
  'a negative shape': entry_of(by_hand(shape=(-2, -4))),
  'no pixels': entry_of(by_hand(shape=(0, 4), data=b'')),
  'a shape beyond 64 bits': entry_of(by_hand(shape=(2**40, 2**40))),
  'another class': b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(I0\ntS'b'\ntR.",
  'a class called': b'cnumpy\nndarray\n(I9\ntR.',
  'an attribute of a function': b"cnumpy.core.multiarray\nscalar\n(N(dS'__code__'\nI1\nstb.",
  'a dotted name': b'cnumpy\ndtype.type\n(I1\ntR.',
  'a memo of gigabytes': b'\x80\x02}r\xff\xff\xff\xff.',
  'bytes of a terabyte': b'\x80\x04\x8e' + struct.pack('<Q', 2**40) + b'x.',
  'a frame of exabytes': b'\x80\x04\x95' + struct.pack('<Q', 2**62) + b'N.',
  'a buffer of a terabyte': b'\x80\x05\x96' + struct.pack('<Q', 2**40) + b'x.',
  'a number of gigabytes': b'\x80\x02\x8b' + struct.pack('<i', 2**31 - 1) + b'x.',
  'a key that is too deep to hash': b'\x80\x02}N' + b'\x85' * 200_000 + b'Ns.',
  'one text copied again and again': b'\x80\x02X'
  + struct.pack('<I', 9000)
  + b'a' * 9000
  + b'q\0'
  + b'c_codecs\nencode\nq\x01'
  + b'h\x01h\0\x85R' * 99
  + b'.',
}


@pytest.mark.parametrize('kind', HOSTILE)
def test_states_that_numpy_would_believe_are_refused(tmp_path, kind):
  path = tmp_path / 'x.pickle'
  path.write_bytes(HOSTILE[kind])
  with pytest.raises(UserError, match=r'x\.pickle (cannot be read as|is no)'):
    read(path)


def test_one_array_in_all_entries_is_refused(tmp_path, capsys):
  image = np.zeros((64, 64))
  content = {f'{k}': {'image': image, 'masks': [image] * 4, 'series_uid': 'u'} for k in range(40)}
  assert run('lidc_v1', written(tmp_path / 'x.pickle', content), tmp_path / 'd') == 2
  assert 'its entries share their arrays' in capsys.readouterr().err


@pytest.mark.parametrize(
  'value', [None, 3, 'text', [[1], [1, 2]], {'a': 1}, np.zeros(4), np.zeros(())]
)
def test_an_entry_of_another_form_is_named(tmp_path, capsys, value):
  content = entries()
  content['crop3']['image'] = content['crop4']['masks'] = value
  assert run('lidc_v1', written(tmp_path / 'x.pickle', content), tmp_path / 'd') == 2
  told = capsys.readouterr().err
  assert "'crop3'" in told
  assert "'crop4'" in told
  assert 'Traceback' not in told
