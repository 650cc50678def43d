"""Opening data sets: splits, and what a user is told when one is absent or damaged."""

import json
import pathlib
import sys

import numpy as np
import pytest

from car_jax.data import opening, prepared
from car_jax.errors import UserError
from tests.datasets.files import folder, run


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> pathlib.Path:
  """A data folder with 'folder' (8 images in train, no other split) and 'folder/other'."""
  root = tmp_path_factory.mktemp('prepared')
  source = folder(root / 'source', (2, 1) * 4)
  shares = ('--validation', '0', '--test', '0')
  assert run('folder', source, root / 'data', *shares) == 0
  assert run('folder', source, root / 'data', *shares, '--variant', 'other') == 0
  return root / 'data'


def opened(data, name='folder', **more):
  return opening.open_dataset({'name': name, 'data_dir': str(data)} | more)


def test_what_is_prepared_is_found(data):
  assert prepared.prepared(data) == ['folder', 'folder/other']
  assert opened(data).info.name == 'folder'
  assert opened(data, 'folder/other').info.readers == 2


def test_slices_follow_the_fixed_order(data):
  dataset = opened(data)
  everything = [r['id'] for r in map(dataset.split('train').__getitem__, range(8))]
  assert sorted(everything) == [f'im{i}' for i in range(8)]
  for text, want in (
    ('train[:50%]', everything[:4]),
    ('train[50%:]', everything[4:]),
    ('train[2:5]', everything[2:5]),
    ('train[-2:]', everything[-2:]),
  ):
    part = dataset.split(text)
    assert [part[i]['id'] for i in range(len(part))] == want
  record = dataset.split('train')[3]
  assert type(record['group']) is str
  assert record['image'].dtype == record['labels'].dtype == np.uint8


@pytest.mark.parametrize('text', ['train[', 'train[:x]', 'train[::2]', 'train [1:]', ''])
def test_a_split_that_cannot_be_read(data, text):
  for dataset in (opened(data), opening.open_dataset({'name': 'fake'})):
    with pytest.raises(UserError, match='cannot read the split'):
      dataset.split(text)


@pytest.mark.parametrize('bounds', ['[:1000]', '[1000:]', '[-1000:]', '[0:1000]'])
def test_a_slice_beyond_the_split_is_no_damage(data, bounds):
  for dataset in (opened(data), opening.open_dataset({'name': 'fake'})):
    with pytest.raises(UserError) as e:
      dataset.split(f'train{bounds}')
    count = len(dataset.split('train'))
    assert f'asks for 1000 images; train has {count}\n  use train, or a share' in str(e.value)
    assert len(dataset.split(f'train[:{count}]')) == count


def test_an_unknown_split_names_the_nearest(data):
  with pytest.raises(UserError, match=r"no split 'trian' in .*\n  did you mean: train"):
    opened(data).split('trian[:10%]')
  with pytest.raises(UserError, match=r"no split 'val'.*\n"):
    opening.open_dataset({'name': 'fake'}).split('val')


def test_an_unknown_key_names_the_nearest(data):
  with pytest.raises(UserError, match=r"key 'data\.mirrr'.*\n  did you mean: mirror"):
    opened(data, mirrr=True)
  with pytest.raises(UserError, match=r"unknown config key 'data\.count'"):
    opened(data, count=3)  # for data made in memory only


@pytest.mark.parametrize(
  ('name', 'lines'),
  [
    ('lidc_masks', ['to prepare it: car-jax prepare lidc_masks --data-dir DIR']),
    ('lidc_masks/size64', ['car-jax prepare lidc_masks --size 64 --data-dir DIR']),
    ('lidc_crops', ['car-jax prepare lidc_crops --source FOLDER --data-dir DIR']),
    ('lidc_mask', ['did you mean: lidc_masks', 'car-jax prepare lidc_masks']),
    ('lidc_masks/size32-noise0.5', ['car-jax prepare lidc_masks --size 32 --noise 0.5 --data']),
    ('lidc_dicom/low-1200', ['car-jax prepare lidc_dicom --source FOLDER --low -1200 --data']),
    ('idd/unknown_8+16', ['car-jax prepare idd --source FOLDER --unknown 8,16 --data']),
    ('street_scenes/unknown0.5', ['car-jax prepare street_scenes --unknown 0.5 --data']),
    (
      'cityscapes/splits_reliability-augmented15',
      ['cityscapes --source FOLDER --splits reliability --augmented 15 --data'],
    ),
    ('folder/othr', ['did you mean: folder/other', 'car-jax prepare folder']),
    ('folder/othr', ['--variant othr']),
    ('imagenet', ['known: ', 'folder/other']),
  ],
)
def test_what_is_not_prepared_is_told_with_the_command(data, name, lines):
  with pytest.raises(UserError) as e:
    opened(data, name)
  told = str(e.value).replace(str(data), 'DIR')
  assert told.startswith(f'data set {name!r} is not prepared in DIR')
  for line in lines:
    assert line in told


def test_where_nothing_is_prepared_there_is_the_command_alone(tmp_path):
  with pytest.raises(UserError) as e:
    opened(tmp_path, 'lidc_masks')
  assert len(str(e.value).splitlines()) == 2
  assert 'known' not in str(e.value)


def test_the_default_place(monkeypatch, data):
  monkeypatch.setenv('TFDS_DATA_DIR', str(data))
  assert opening.open_dataset({'name': 'folder'}).info.num_classes == 2
  with pytest.raises(UserError) as e:
    opening.open_dataset({'name': 'lidc_masks', 'data_dir': ''})
  assert '--data-dir' not in str(e.value)


@pytest.fixture
def damaged(data, tmp_path):
  """A copy of the prepared folder, to be damaged."""
  import shutil

  shutil.copytree(data / 'folder' / 'default', tmp_path / 'folder' / 'default')
  return next((tmp_path / 'folder' / 'default').glob('*/dataset_info.json')).parent


def read_all(folder):
  source = opened(folder.parents[2]).split('train')
  return [source[i] for i in range(len(source))]


def cut(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwrite(path):
  path.write_bytes(b'\0' * path.stat().st_size)


@pytest.mark.parametrize('damage', [cut, overwrite, pathlib.Path.unlink])
def test_a_damaged_data_file_is_told_with_its_folder(damaged, damage):
  assert len(read_all(damaged)) == 8
  (file,) = damaged.glob('*.array_record*')
  damage(file)
  with pytest.raises(UserError) as e:
    read_all(damaged)
  assert str(damaged) in str(e.value)
  assert '--overwrite' in str(e.value)


@pytest.mark.parametrize('name', ['dataset_info.json', 'features.json'])
def test_a_damaged_description_is_told_with_its_folder(damaged, name):
  cut(damaged / name)
  with pytest.raises(UserError) as e:
    read_all(damaged)
  assert str(damaged) in str(e.value)
  assert '--overwrite' in str(e.value)


def test_a_data_set_of_another_kind(damaged):
  path = damaged / 'metadata.json'
  meta = json.loads(path.read_text())
  del meta['class_names']
  path.write_text(json.dumps(meta))
  with pytest.raises(UserError, match='cannot be read'):
    read_all(damaged)


def test_a_bit_of_a_description_is_missed_by_nobody(damaged):
  """Flipped bits of the three files: told, or the same data set and records."""
  same = lambda: (opened(damaged.parents[2]).info, [r['id'] for r in read_all(damaged)])
  want, rng = same(), np.random.default_rng(0)
  for name in ('metadata.json', 'features.json', 'dataset_info.json'):
    raw = (damaged / name).read_bytes()
    for at in rng.choice(len(raw), 25, replace=False):
      changed = bytearray(raw)
      changed[at] ^= 1 << int(rng.integers(7))
      (damaged / name).write_bytes(changed)
      try:
        assert same() == want, (name, raw[at - 20 : at + 10])
      except UserError as e:
        assert str(damaged) in str(e) or 'no split' in str(e)  # noqa: PT017
    (damaged / name).write_bytes(raw)


def test_features_of_another_kind_import_nothing(damaged, monkeypatch):
  """TFDS would import the module that the file names."""
  (damaged / 'strange_module.py').write_text('raise SystemExit("it ran")\n')
  monkeypatch.syspath_prepend(str(damaged))
  path = damaged / 'features.json'
  for place in (lambda f: f, lambda f: f['featuresDict']['features']['image']):
    found = json.loads(path.read_text())
    place(found)['pythonClassName'] = 'strange_module.X'
    path.write_text(json.dumps(found))
    with pytest.raises(UserError, match=r'features.json cannot be read(.|\n)*--overwrite'):
      opened(damaged.parents[2])
  assert 'strange_module' not in sys.modules


def test_fewer_records_than_there_are_is_damage(damaged):
  path = damaged / 'dataset_info.json'
  info = json.loads(path.read_text())
  info['splits'][0]['shardLengths'] = ['7']
  path.write_text(json.dumps(info))
  with pytest.raises(UserError, match='has 8 records, not 7'):
    read_all(damaged)


@pytest.mark.parametrize(
  'change',
  [
    *({'readers': 0}, {'readers': 'x'}, {'class_names': []}),
    *({'palette': [[300, 0, 0], [0, 0, 0]]}, {'palette': [[0, 0, 0]]}),
    *({'ignore_label': -1}, {'ignore_label': 256}, {'unknown_label': 3}),
  ],
)
def test_a_description_without_checksum_is_looked_at(damaged, change):
  path = damaged / 'metadata.json'
  meta = json.loads(path.read_text())
  del meta['checksum']  # as earlier versions wrote it
  path.write_text(json.dumps(meta))
  assert opened(damaged.parents[2]).info.num_classes == 2
  path.write_text(json.dumps(meta | change))
  with pytest.raises(UserError, match='metadata.json cannot be read'):
    opened(damaged.parents[2])
