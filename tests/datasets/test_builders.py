"""Every builder as TFDS users know builders: named, described without files, built from manual_dir.

No TensorFlow is installed: whatever of TFDS asks for it fails here.
"""

import collections
import importlib
import importlib.util
import itertools
import pathlib
import re

import numpy as np
import pytest
import tensorflow_datasets as tfds

from car_jax.data import opening, prepared
from car_jax.datasets import lidc_masks, prepare
from car_jax.datasets.gta5 import gta5_dataset_builder
from car_jax.datasets.lidc_masks import lidc_masks_dataset_builder
from car_jax.errors import UserError
from tests.datasets import files, test_acdc, test_gta5, test_idd, test_lidc_v1, test_synthia
from tests.datasets.test_cityscapes import cityscapes
from tests.generate import released

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = [
  (name, config.name) for name in prepared.KNOWN for config in prepare.builder(name).BUILDER_CONFIGS
]
COMMON = {'train', 'validation', 'test'}
SPLITS = {  # where they are others
  'acdc': {'fog_test', 'fog_calibration', 'night_test', 'rain_test', 'rain_calibration'}
  | {'snow_calibration'},
  'cityscapes/scale1-splits_adaptation': COMMON | {'val2'},
  'cityscapes/scale1-splits_reliability': COMMON | {'calibration'},
  'cityscapes/splits_reliability-augmented15': COMMON | {'calibration', 'calibration_augmented'},
  'generated_objects': {'test'},
  'generated_scenes': {'fog', 'heavy_rain'},
  'gta5': {'train', 'validation'},
  'idd': {'train', 'calibration', 'test'},
  'lidc_dicom': {'train'},
  'street_scenes/height64-count400-domain_fog-seed1-part_test': {'test'},
  'synthia': {'train', 'validation'},
}
NESTED = {('train', 'val2'), ('calibration', 'calibration_augmented')}  # one is made of the other
LEFTOVERS = ('cityscapes', 'acdc', 'idd', 'synthia', 'lidc_crops', 'gta5')
LEFTOVERS += ('generated_scenes', 'generated_objects')


def street(root):
  for city in ('munster', 'lindau', 'bonn'):
    part = 'val' if city != 'bonn' else 'test'
    place = root / f'leftImg8bit/{part}/{city}/{city}_000000_000019'
    image = np.random.default_rng(len(city)).integers(0, 256, (16, 32, 3))
    files.write_png(place.with_name(f'{place.name}_leftImg8bit.png'), image)
    label = f'gtFine/{part}/{city}/{city}_000000_000019_gtFine_labelIds.png'
    files.write_png(root / label, image[..., 0] % 34)
    files.write_png(root / f'black_box/{part}/{city}/{place.name}_x.png', image[..., 0] % 34)
  cityscapes(root)


def one_series(root):
  pytest.importorskip('pydicom')
  from tests.datasets.test_lidc_dicom import write_series

  write_series(root)


def pickled(root):
  root.mkdir()
  test_lidc_v1.written(root / 'data_lidc.pickle', test_lidc_v1.entries())


MAKERS = {
  'lidc_crops': files.lidc_crops,
  'lidc_v1': pickled,
  'lidc_dicom': one_series,
  'cityscapes': street,
  'acdc': test_acdc.acdc,
  'idd': test_idd.idd,
  'gta5': test_gta5.gta5,
  'synthia': test_synthia.synthia,
  'folder': lambda root: files.folder(root, (1, 2) * 12),
  'generated_scenes': released.styles,
  'generated_objects': released.objects,
}


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  """name -> a tiny source of that data set, made once; None where it needs none."""
  root = tmp_path_factory.mktemp('sources')

  def of(name):
    if name in MAKERS and not (root / name).exists():
      MAKERS[name](root / name)
    return root / name if name in MAKERS else None

  return of


@pytest.fixture(scope='module')
def few_masks(tmp_path_factory):
  """Four slices of each split, and those of the series that lidc_dicom's source has."""
  from tests.datasets import test_lidc_dicom

  data = dict(np.load(lidc_masks_dataset_builder.FILE))
  rows = [np.flatnonzero(data['split'] == split)[:4] for split in range(3)]
  rows = np.unique(np.concatenate([*rows, test_lidc_dicom.ROWS]))
  path = tmp_path_factory.mktemp('masks') / 'few.npz'
  np.savez(path, **{k: v if k == 'series_uid' else v[rows] for k, v in data.items()})
  return path


@pytest.fixture(autouse=True)
def small(few_masks, monkeypatch):
  monkeypatch.setattr(lidc_masks_dataset_builder, 'FILE', few_masks)
  monkeypatch.setattr(gta5_dataset_builder, 'SIZE', (19, 11))


def built(name, data_dir, manual_dir, **more):
  """As a user does it who knows TFDS alone."""
  importlib.import_module(f'car_jax.datasets.{name.partition("/")[0]}')
  builder = tfds.builder(name, data_dir=data_dir)
  download = tfds.download.DownloadConfig(manual_dir=manual_dir, **more)
  builder.download_and_prepare(download_config=download)
  return builder


def check(record, features, meta):
  """A record is what the features say, and its labels are classes."""
  assert set(record) == set(features)
  (h, w, channels), labels = record['image'].shape, record['labels']
  assert channels in (1, 3)
  assert labels.shape == (len(labels), h, w)
  assert 1 <= len(labels) <= meta['readers']
  for key in set(record) - {'id', 'group'}:
    assert record[key].dtype == features[key].np_dtype == np.uint8
    assert record[key].ndim == len(features[key].shape)
  named = {*range(len(meta['class_names'])), meta['ignore_label'], meta['unknown_label']}
  assert set(np.unique(labels).tolist()) <= named
  if 'black_box' in record:
    assert record['black_box'].shape == (h, w)
    assert set(np.unique(record['black_box']).tolist()) <= named


@pytest.mark.parametrize(('name', 'config'), CONFIGS)
def test_every_listed_config(name, config, source, tmp_path, capsys):
  assert importlib.util.find_spec('tensorflow') is None
  full, drawn = f'{name}/{config}', name == 'street_scenes'
  bare = tfds.builder(full, data_dir=tmp_path)
  features, listed = bare.info.features, bare.builder_config
  assert listed.description
  assert bare.info.full_name == f'{full}/{listed.version}'
  assert bare.info.description
  assert ('tensorflow.org' in bare.info.homepage) == (name in ('folder', 'street_scenes'))
  assert bare.info.metadata['licence'] or name == 'folder'
  assert bare.info.citation or name == 'folder'
  assert ('black_box' in features) == (drawn or config == 'black_box')
  classes = len(bare.info.metadata['class_names']), bare.info.metadata['ignore_label']
  assert classes == ((2, None) if name.startswith('lidc') or name == 'folder' else (19, 255))
  assert not bare.is_prepared()
  assert (bare.MANUAL_DOWNLOAD_INSTRUCTIONS is None) == (name in prepared.SHIPPED)

  builder = built(full, tmp_path, source(name), max_examples_per_split=1 if drawn else None)
  assert ' reader' in capsys.readouterr().out  # the report
  assert set(builder.info.splits) == SPLITS.get(full, SPLITS.get(name, COMMON))
  groups = collections.defaultdict(set)
  ours = opening.open_dataset({'name': full, 'data_dir': str(tmp_path)})
  readers = {'folder': 2}.get(name, 4 if name.startswith('lidc') else 1)
  assert ours.info.readers == builder.info.metadata['readers'] == readers
  everything = collections.Counter()
  for split in builder.info.splits:
    records = [*tfds.data_source(full, split=split, data_dir=tmp_path, download=False)]
    assert len(records) == builder.info.splits[split].num_examples > 0
    assert [r['id'].decode() for r in records] == ours.split(split).ids
    for record in records:
      check(record, features, builder.info.metadata)
      groups[split].add(record['group'])
      everything[record['id']] += not any(split == inner for _, inner in NESTED)
  if name != 'synthia':  # as published: what is validated on is trained on too
    assert max(everything.values()) == 1
  if name not in ('synthia', 'generated_scenes'):  # whose splits are one scene in several weathers
    for pair in itertools.combinations(groups, 2):
      assert groups[pair[0]].isdisjoint(groups[pair[1]]) or set(pair) in map(set, NESTED)


@pytest.mark.parametrize('name', MAKERS)
def test_an_empty_source_is_told_with_what_belongs_there(name, tmp_path, capsys):
  (tmp_path / 's').mkdir()
  assert files.run(name, tmp_path / 's', tmp_path / 'd') == 2
  told = ' '.join(capsys.readouterr().err.split())
  assert f'error: Manual directory {tmp_path}/s does not exist or is empty' in told
  assert prepare.instructions(name) in told


@pytest.mark.parametrize('name', LEFTOVERS)
def test_leftovers_of_systems_change_nothing(name, tmp_path, capsys):
  MAKERS[name](tmp_path / 's')
  found = []
  for place in ('clean', 'left'):
    assert files.run(name, tmp_path / 's', tmp_path / place) == 0
    (info,) = (tmp_path / place / name).rglob('dataset_info.json')
    found.append({p.name: p.read_bytes() for p in info.parent.glob('*array_record*')})
    assert ('leftover of the system' in capsys.readouterr().out) == (place == 'left')
    files.leave(tmp_path / 's')
  assert found[0] == found[1]


@pytest.mark.parametrize('more', [{}, {'max_examples_per_split': 1}])
def test_bad_files_are_told_and_nothing_is_prepared(tmp_path, more):
  files.truncate(files.lidc_crops(tmp_path / 's') / 'lidc_crops_test/test/images/ptest/s0.png')
  with pytest.raises(UserError, match=r'1 problem in .*\n.*s0\.png cannot be read as a picture'):
    built('lidc_crops', tmp_path / 'd', tmp_path / 's', **more)
  assert files.nothing_prepared(tmp_path / 'd')


def test_a_config_of_ones_own(tmp_path):
  config = lidc_masks.Config(size=32, noise=2.0)
  builder = tfds.builder('lidc_masks', config=config, data_dir=tmp_path)
  builder.download_and_prepare()
  read = tfds.builder('lidc_masks/size32-noise2', data_dir=tmp_path).as_data_source('test')
  assert read[0]['image'].shape == (32, 32, 1)
  with pytest.raises(UserError, match=r'--size cannot be 300\n  expected a whole number from 1'):
    lidc_masks.Config(size=300)


def test_the_command_and_tfds_share_what_is_prepared(tmp_path, source, capsys):
  """Whatever of a listed config the other one prepared is there already."""
  built('gta5/scale0.5', tmp_path, source('gta5'))
  assert files.run('gta5', source('gta5'), tmp_path, '--scale', '0.5') == 0
  assert 'already prepared' in capsys.readouterr().out
  assert files.run('gta5', source('gta5'), tmp_path) == 0
  train = tfds.data_source('gta5', split='train', data_dir=tmp_path)  # no source is asked for
  assert [r['id'] for r in train] == [b'00002']


def test_the_variants_that_configs_name_are_listed():
  texts = '\n'.join(path.read_text() for path in (ROOT / 'configs').glob('*.py'))
  named = set(re.findall(rf"'({'|'.join(prepared.KNOWN)})/([\w.+,-]+)'", texts))
  assert ('lidc_masks', 'size64') in named
  assert named <= set(CONFIGS)
