"""Cityscapes' folders, drawn ones among them: records, and every kind of damage named by path."""

import json
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from car_jax.data import augmentation, labels, opening, sources
from car_jax.datasets.cityscapes import cityscapes_dataset_builder as builder
from car_jax.datasets.street_scenes import __main__ as street_scenes
from tests.datasets.files import nothing_prepared, records, run, truncate, write_png

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden' / 'sac'
FEW = ('--height', '32', '--count', '4')


def cityscapes(root, size=(16, 32), black_box='png'):
  """One image each of aachen, ulm and frankfurt; label ids with all 34 numbers."""
  rng = np.random.default_rng(0)
  for part, city in (('train', 'aachen'), ('train', 'ulm'), ('val', 'frankfurt')):
    stem = f'{city}_000000_000019'
    image = rng.integers(0, 256, (*size, 3))
    write_png(root / f'leftImg8bit/{part}/{city}/{stem}_leftImg8bit.png', image)
    ids = rng.permutation(np.resize(np.arange(34), size[0] * size[1])).reshape(size)
    write_png(root / f'gtFine/{part}/{city}/{stem}_gtFine_labelIds.png', ids)
    box = root / f'black_box/{part}/{city}/{stem}_prediction.{black_box}'
    if black_box == 'png':
      write_png(box, ids[::-1])
    elif black_box == 'npy':
      box.parent.mkdir(parents=True)
      np.save(box, ids[::-1].astype(np.float32))
  return root


@pytest.mark.parametrize('black_box', ['png', 'npy', 'none'])
def test_records_at_a_quarter_of_the_size(tmp_path, black_box):
  source = cityscapes(tmp_path / 's', black_box=black_box)
  assert run('cityscapes', source, tmp_path / 'd') == 0
  info = opening.open_dataset({'name': 'cityscapes', 'data_dir': str(tmp_path / 'd')}).info
  assert info.black_box == (black_box != 'none')
  for split, part, city in (
    ('train', 'train', 'aachen'),
    ('validation', 'train', 'ulm'),
    ('test', 'val', 'frankfurt'),
  ):
    stem = f'{city}_000000_000019'
    ((name, record),) = records('cityscapes', tmp_path / 'd', split).items()
    assert name == record['group'] == f'{city}/{stem}'
    picture = Image.open(source / f'leftImg8bit/{part}/{city}/{stem}_leftImg8bit.png')
    small = picture.resize((8, 4), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(record['image'], np.asarray(small))
    ids = np.asarray(Image.open(source / f'gtFine/{part}/{city}/{stem}_gtFine_labelIds.png'))
    want = lambda x: np.where((y := labels.train_ids(x[2::4, 2::4])) == 24, 255, y)
    np.testing.assert_array_equal(record['labels'], want(ids)[None])
    if black_box != 'none':
      np.testing.assert_array_equal(record['black_box'], want(ids[::-1]))


def test_train_ids_serve_where_there_are_no_label_ids(tmp_path):
  source = cityscapes(tmp_path / 's')
  for path in source.glob('gtFine/*/*/*'):
    kept = labels.train_ids(np.asarray(Image.open(path)))
    path.unlink()
    trained = path.with_name(path.name.replace('labelIds', 'labelTrainIds'))
    write_png(trained, np.where(kept == 24, 255, kept))
  assert run('cityscapes', source, tmp_path / 'd', '--scale', '1') == 0
  ((_, record),) = records('cityscapes/scale1', tmp_path / 'd').items()
  (path,) = source.glob('gtFine/train/aachen/*')
  np.testing.assert_array_equal(record['labels'][0], np.asarray(Image.open(path)))


def test_everything_damaged_is_named_at_once_and_nothing_is_prepared(tmp_path, capsys):
  source = cityscapes(tmp_path / 's')
  for k in range(1, 6):
    image = np.zeros((16, 32, 3))
    stem = f'aachen_00000{k}_000019'
    write_png(source / f'leftImg8bit/train/aachen/{stem}_leftImg8bit.png', image)
    write_png(source / f'gtFine/train/aachen/{stem}_gtFine_labelIds.png', image[..., 0])
    write_png(source / f'black_box/train/aachen/{stem}_x.png', image[..., 0])
  gt, box = source / 'gtFine/train/aachen', source / 'black_box/train/aachen'
  (gt / 'aachen_000001_000019_gtFine_labelIds.png').unlink()
  write_png(gt / 'aachen_000002_000019_gtFine_labelIds.png', np.full((16, 32), 34))
  write_png(gt / 'aachen_000003_000019_gtFine_labelIds.png', np.zeros((16, 30)))
  (gt / 'aachen_000004_000019_gtFine_labelIds.png').write_text('no picture')
  (box / 'aachen_000005_000019_x.png').unlink()
  write_png(gt / 'aachen_000000_000019_gtFine_labelIds.png', np.zeros((16, 32, 3)))
  truncate(source / 'leftImg8bit/val/frankfurt/frankfurt_000000_000019_leftImg8bit.png')
  write_png(source / 'black_box/train/ulm/ulm_000000_000019_prediction.png', np.full((16, 32), 99))
  assert run('cityscapes', source, tmp_path / 'd') == 2
  told = capsys.readouterr().err
  assert '8 problems' in told
  for path, what in (
    ('aachen_000001_000019_gtFine_labelIds.png', 'missing'),
    ('aachen_000002_000019_gtFine_labelIds.png', 'id 34 is no class; expected 0 to 33'),
    ('aachen_000003_000019', '30x16 pixels, its image '),
    ('aachen_000004_000019_gtFine_labelIds.png', 'cannot be read as a picture'),
    ('aachen_000005_000019*', '0 black-box predictions; expected one'),
    ('aachen_000000_000019_gtFine_labelIds.png', 'is a picture of colours'),
    ('frankfurt_000000_000019_leftImg8bit.png', 'truncated'),
    ('ulm_000000_000019_prediction.png', 'id 99 is no class'),
  ):
    (line,) = (line for line in told.splitlines() if path in line and line.startswith('  '))
    assert what in line
  assert 'Traceback' not in told
  assert nothing_prepared(tmp_path / 'd')


def test_train_ids_out_of_range(tmp_path, capsys):
  source = cityscapes(tmp_path / 's')
  path = source / 'gtFine/val/frankfurt/frankfurt_000000_000019_gtFine_labelIds.png'
  path.unlink()
  odd = np.zeros((16, 32))
  odd[2, 3] = 19
  write_png(path.with_name(path.name.replace('labelIds', 'labelTrainIds')), odd)
  assert run('cityscapes', source, tmp_path / 'd') == 2
  assert 'labelTrainIds.png: id 19 is no class; expected 0 to 18 and 255' in capsys.readouterr().err


def test_other_layouts_are_refused(tmp_path, capsys):
  (tmp_path / 's/leftImg8bit').mkdir(parents=True)
  assert run('cityscapes', tmp_path / 's', tmp_path / 'd') == 2
  assert 'leftImg8bit/train is not there' in capsys.readouterr().err
  source = cityscapes(tmp_path / 't')
  assert run('cityscapes', source, tmp_path / 'd', '--black-box', str(tmp_path / 'no')) == 2
  assert 'no such folder' in capsys.readouterr().err
  (source / 'leftImg8bit/val/frankfurt/notes.txt').write_text('x')
  write_png(source / 'leftImg8bit/val/x_leftImg8bit.png', np.zeros((4, 4)))
  assert run('cityscapes', source, tmp_path / 'd') == 2
  told = capsys.readouterr().err
  for name in ('frankfurt/notes.txt', 'val/x_leftImg8bit.png'):
    assert f'{name}: expected CITY/NAME_leftImg8bit.png' in told
  assert run('cityscapes', source, tmp_path / 'd', '--scale', '0') == 2
  assert '--scale cannot be 0.0' in capsys.readouterr().err


RELIABILITY = ('--scale', '1', '--splits', 'reliability')
NAME = 'cityscapes/scale1-splits_reliability'


def test_the_splits_for_reliability(tmp_path):
  source = cityscapes(tmp_path / 's', black_box='none')
  for city in ('lindau', 'munster'):
    for path in source.glob('*/val/frankfurt/*'):
      copy = path.parents[1] / city / path.name.replace('frankfurt', city)
      write_png(copy, np.asarray(Image.open(path))[::-1])
  assert run('cityscapes', source, tmp_path / 'd', *RELIABILITY, '--augmented', '3') == 0
  name = f'{NAME}-augmented3'
  cities = {}
  for split in ('train', 'validation', 'calibration', 'test'):
    cities[split] = {i.split('/')[0] for i in records(name, tmp_path / 'd', split)}
  assert cities == {
    'train': {'aachen'},
    'validation': {'ulm'},
    'calibration': {'lindau', 'munster'},
    'test': {'frankfurt'},
  }
  plain = records(name, tmp_path / 'd', 'calibration')
  copies = records(name, tmp_path / 'd', 'calibration_augmented')
  stems = {c: f'{c}/{c}_000000_000019' for c in ('lindau', 'munster')}
  assert set(copies) == {f'{stem}_aug{k}' for stem in stems.values() for k in range(3)}
  for stem in stems.values():  # each city has the published seed
    rng = np.random.RandomState(111)
    for k in range(3):
      copy = copies[f'{stem}_aug{k}']
      want = augmentation.augmented(plain[stem]['image'], rng)
      np.testing.assert_array_equal(copy['image'], want)
      np.testing.assert_array_equal(copy['labels'], plain[stem]['labels'])
      assert copy['group'] == plain[stem]['group']


def test_a_damaged_file_is_named_once_for_all_copies(tmp_path, capsys):
  source = cityscapes(tmp_path / 's', black_box='none')
  for path in [*source.glob('*/val/frankfurt/*')]:
    copy = path.parents[1] / 'munster' / path.name.replace('frankfurt', 'munster')
    copy.parent.mkdir(exist_ok=True)
    path.rename(copy)
  truncate(next(source.glob('leftImg8bit/val/munster/*')))
  assert run('cityscapes', source, tmp_path / 'd', *RELIABILITY, '--augmented', '2') == 2
  told = capsys.readouterr().err
  assert '1 problem in' in told
  assert told.count('truncated') == 1


ADAPTATION = ('--scale', '1', '--splits', 'adaptation')


def test_the_splits_for_adaptation(tmp_path):
  source = cityscapes(tmp_path / 's', black_box='none')
  picture = np.random.default_rng(1).integers(0, 256, (16, 32, 3))
  write_png(source / 'leftImg8bit/test/bonn/bonn_000007_000019_leftImg8bit.png', picture)
  assert run('cityscapes', source, tmp_path / 'd', *ADAPTATION) == 0
  name, found = 'cityscapes/scale1-splits_adaptation', {}
  for split in ('train', 'val2', 'validation', 'test'):
    found[split] = records(name, tmp_path / 'd', split)
  stem = lambda city: f'{city}/{city}_000000_000019'
  assert {split: set(r) for split, r in found.items()} == {
    'train': {stem('aachen'), stem('ulm')},
    'val2': {stem('aachen')},  # ulm's first frame is not among them
    'validation': {stem('frankfurt')},
    'test': {'bonn/bonn_000007_000019'},
  }
  (test,) = found['test'].values()
  np.testing.assert_array_equal(test['image'], picture[..., ::-1])
  assert (test['labels'] == 255).all()
  a, b = found['train'][stem('aachen')], found['val2'][stem('aachen')]
  np.testing.assert_array_equal(a['labels'], b['labels'])


def test_an_image_of_train_needs_no_label(tmp_path, capsys):
  source = cityscapes(tmp_path / 's', black_box='none')
  (source / 'gtFine/train/ulm/ulm_000000_000019_gtFine_labelIds.png').unlink()
  assert run('cityscapes', source, tmp_path / 'd', *ADAPTATION) == 0
  told = capsys.readouterr().err
  assert told.count('1 of 2 images of train have no label: all their pixels are ignored') == 1
  found = records('cityscapes/scale1-splits_adaptation', tmp_path / 'd')
  ulm, aachen = (found[f'{city}/{city}_000000_000019'] for city in ('ulm', 'aachen'))
  (path,) = source.glob('leftImg8bit/train/ulm/*')
  np.testing.assert_array_equal(ulm['image'], np.asarray(Image.open(path)))
  np.testing.assert_array_equal(ulm['labels'], np.full((1, 16, 32), 255))
  assert (aachen['labels'] != 255).any()
  assert run('cityscapes', source, tmp_path / 'e', '--scale', '1') == 2
  assert 'ulm_000000_000019_gtFine_labelIds.png: missing' in capsys.readouterr().err


def test_what_adaptation_needs_is_named(tmp_path, capsys):
  source = cityscapes(tmp_path / 's', black_box='none')
  (source / 'leftImg8bit/test/bonn').mkdir(parents=True)
  (source / 'leftImg8bit/test/bonn/bonn_000007_000019_leftImg8bit.png').write_text('no picture')
  (source / 'gtFine/val/frankfurt/frankfurt_000000_000019_gtFine_labelIds.png').unlink()
  (source / 'gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png').unlink()  # of val2
  write_png(source / 'gtFine/train/bremen/b_gtFine_labelTrainIds.png', np.zeros((16, 32)))
  (source / 'gtFine/train/bremen/b_gtFine_color.png').touch()
  assert run('cityscapes', source, tmp_path / 'd', *ADAPTATION) == 2
  told = capsys.readouterr().err
  assert '4 problems' in told
  assert 'have no label' not in told
  assert 'frankfurt_000000_000019_gtFine_labelIds.png: missing' in told
  assert 'aachen_000000_000019_gtFine_labelIds.png: missing' in told
  assert 'bonn_000007_000019_leftImg8bit.png cannot be read as a picture' in told
  lost = 'leftImg8bit/train/bremen/b_leftImg8bit.png: missing, but its label '
  assert f'{lost}{source}/gtFine/train/bremen/b_gtFine_labelTrainIds.png is there' in told
  assert nothing_prepared(tmp_path / 'd')


def test_the_frames_of_val2_are_the_published_ones():
  published = json.loads((GOLDEN / 'splits.json').read_text())['cityscapes_val2_frames']
  assert builder.val2_frames() == set(published)
  assert len(published) == 500


def test_a_city_that_the_splits_do_not_know(tmp_path, capsys):
  source = cityscapes(tmp_path / 's', black_box='none')
  (source / 'leftImg8bit/val/frankfurt').rename(source / 'leftImg8bit/val/frankfort')
  assert run('cityscapes', source, tmp_path / 'd', *RELIABILITY) == 2
  told = capsys.readouterr().err
  assert "knows no city 'frankfort' in val\n  did you mean: frankfurt" in told


def test_drawn_scenes_are_the_same_as_files_and_as_records(tmp_path):
  more = (*FEW, '--domain', 'night', '--strength', '0.5')
  assert street_scenes.main([str(tmp_path / 'files'), *more]) == 0
  assert run('cityscapes', tmp_path / 'files', tmp_path / 'd', '--scale', '1') == 0
  assert run('street_scenes', None, tmp_path / 'd', *more) == 0
  for split, count in (('train', 4), ('validation', 1), ('test', 1)):
    files = records('cityscapes/scale1', tmp_path / 'd', split)
    name = 'street_scenes/height32-count4-domain_night-strength0.5'
    drawn = records(name, tmp_path / 'd', split)
    assert len(files) == len(drawn) == count
    for key in files:
      for field in ('image', 'labels', 'black_box'):
        np.testing.assert_array_equal(files[key][field], drawn[key][field])


def test_unknown_objects_are_5_in_files_and_254_in_records(tmp_path):
  more = (*FEW, '--unknown', '1')
  assert street_scenes.main([str(tmp_path / 'files'), *more]) == 0
  assert run('cityscapes', tmp_path / 'files', tmp_path / 'd', '--scale', '1') == 0
  assert run('street_scenes', None, tmp_path / 'd', *more) == 0
  name = 'street_scenes/height32-count4-unknown1'
  info = opening.open_dataset({'name': name, 'data_dir': str(tmp_path / 'd')}).info
  assert (info.unknown_label, info.ignore_label) == (254, 255)
  files = records('cityscapes/scale1', tmp_path / 'd')
  seen = 0
  for key, record in records(name, tmp_path / 'd').items():
    unknown = record['labels'][0] == 254
    seen += unknown.any()
    (path,) = (tmp_path / 'files').glob(f'gtFine/*/{key}_gtFine_labelIds.png')
    assert (np.asarray(Image.open(path))[unknown] == 5).all()
    plain = np.where(unknown, 255, record['labels'][0])
    np.testing.assert_array_equal(files[key]['labels'][0], plain)
    assert (record['black_box'] < 19).all()
  assert seen >= 2


def test_mistakes_with_drawn_scenes(tmp_path, capsys):
  assert street_scenes.main([str(tmp_path / 'x'), '--domain', 'nihgt']) == 2
  assert 'did you mean: night' in capsys.readouterr().err
  assert run('street_scenes', None, tmp_path / 'd', '--strength', '1.5') == 2
  assert '--strength cannot be 1.5\n  expected a number from 0 to 1' in capsys.readouterr().err
  assert run('street_scenes', None, tmp_path / 'd', '--height', '33') == 2
  assert 'an even number from 32' in capsys.readouterr().err
  (tmp_path / 'x').mkdir()
  (tmp_path / 'x' / 'mine').touch()
  assert street_scenes.main([str(tmp_path / 'x')]) == 2
  assert 'is not empty' in capsys.readouterr().err
  name = 'street_scenes/height64-domain_fog'
  with pytest.raises(sources.UserError, match='street_scenes --height 64 --domain fog --data-dir'):
    opening.open_dataset({'name': name, 'data_dir': str(tmp_path / 'd')})


def test_labels_and_predictions_without_image_and_parts_that_are_not_read(tmp_path, capsys):
  source = cityscapes(tmp_path / 's')
  write_png(source / 'black_box/train/aachen/aachen_000000_0000190_x.png', np.zeros((16, 32)))
  write_png(source / 'leftImg8bit/test/bonn/b_leftImg8bit.png', np.zeros((16, 32, 3)))
  (source / 'gtFine/train/aachen/aachen_000000_000019_gtFine_polygons.json').touch()
  (source / 'gtFine/train/aachen/notes.txt').touch()
  assert run('cityscapes', source, tmp_path / 'd') == 0
  told = capsys.readouterr().out
  for line in (
    f'1 x black-box prediction of no image that is read: {source}/black_box/train/aachen/aachen',
    f'1 x part that is not read: {source}/leftImg8bit/test',
    f'1 x file beside labels, not read: {source}/gtFine/train/aachen/notes.txt',
  ):
    assert line in told
  label = source / 'gtFine/val/frankfurt/f_gtFine_labelIds.png'
  write_png(label, np.zeros((16, 32)))
  assert run('cityscapes', source, tmp_path / 'e') == 2
  assert f'f_leftImg8bit.png: missing, but its label {label} is there' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('content', 'reason'),
  [
    (np.full((16, 32), 34), 'id 34 is no class; expected 0 to 33 (1e+02 % of pixels)'),
    (np.full((16, 32), 7.5), 'it holds other than whole numbers'),
    (np.full((16, 32), np.nan), 'it holds other than whole numbers'),
    (np.full((16, 32), np.inf), 'it holds other than whole numbers'),
    (np.full((16, 32), 1e30), 'it holds numbers that are no ids'),
    (np.zeros((16, 32), complex), 'it holds complex128 (16, 32)'),
    (np.zeros((16, 32, 1)), 'it holds float64 (16, 32, 1)'),
    (np.full((16, 32), None), 'cannot be read as an array'),
    (b'\x93NUMPY\1\0', 'cannot be read as an array'),
    (b'', 'cannot be read as an array'),
    ('more than is there', 'cannot be read as an array'),
    ('pipe', 'is no regular file but a pipe'),
  ],
)
def test_predictions_that_are_no_ids(tmp_path, capsys, content, reason):
  source = cityscapes(tmp_path / 's', black_box='npy')
  (path,) = source.glob('black_box/train/aachen/*.npy')
  if isinstance(content, np.ndarray):
    np.save(path, content, allow_pickle=True)
  elif isinstance(content, bytes):
    path.write_bytes(content)
  elif content == 'pipe':
    path.unlink()
    os.mkfifo(path)
  else:
    np.save(path, np.zeros((16, 32)))
    path.write_bytes(path.read_bytes().replace(b'(16, 32)', b'(10000000, 100000)')[:200])
  assert run('cityscapes', source, tmp_path / 'd') == 2
  told = capsys.readouterr().err
  assert f'{path}' in told
  assert reason in told
