"""The pickle of LIDC crops, as numpy writes it, and what is wrong with others."""

import os
import pickle

import numpy as np
import pytest

from datasets.lidc_v1.lidc_v1_dataset_builder import split_of
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
def test_records_hold_the_crops_and_series_stay_together(tmp_path, protocol):
  content = entries()
  source = written(tmp_path / 'data_lidc.pickle', content, protocol)
  assert run('lidc_v1', source, tmp_path / 'data') == 0
  seen = {}
  for split in ('train', 'validation', 'test'):
    for name, record in records('lidc_v1', tmp_path / 'data', split).items():
      crop = content[name.rpartition('/')[2]]
      np.testing.assert_array_equal(record['labels'], crop['masks'])
      np.testing.assert_allclose(record['image'][..., 0] / 255, crop['image'], atol=0.5 / 255)
      assert record['group'] == crop['series_uid']
      seen.setdefault(record['group'], set()).add(split)
  assert len(seen) == 10
  assert all(len(splits) == 1 for splits in seen.values())


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
  assert 'damaged' in capsys.readouterr().err
  written(source, [1, 2])
  assert run('lidc_v1', source, tmp_path / 'data') == 2
  assert 'no dictionary' in capsys.readouterr().err
  written(tmp_path / 'y.pickle', {})
  assert run('lidc_v1', tmp_path, tmp_path / 'data') == 2
  assert 'holds 2 pickles' in capsys.readouterr().err
