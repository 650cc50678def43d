"""LIDC crops: the records of a whole folder, and every kind of damage named by path."""

import cv2
import numpy as np
import pytest

from tests.datasets.files import lidc_crops, nothing_prepared, records, run, truncate, write_png


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  root = tmp_path_factory.mktemp('crops')
  lidc_crops(root / 'source')
  assert run('lidc_crops', root / 'source', root / 'data') == 0
  return root


def test_records_hold_the_files(whole):
  for split, s in (('train', 'train'), ('validation', 'val'), ('test', 'test')):
    found = records('lidc_crops', whole / 'data', split)
    assert set(found) == {f'p{s}/s0', f'p{s}/s1'}
    base = whole / 'source' / f'lidc_crops_{s}' / s
    record = found[f'p{s}/s1']
    assert record['group'] == f'p{s}'
    image = cv2.imread(str(base / 'images' / f'p{s}' / 's1.png'), cv2.IMREAD_GRAYSCALE)
    np.testing.assert_array_equal(record['image'], image[..., None])
    for reader in range(4):
      mask = cv2.imread(str(base / 'gt' / f'p{s}' / f's1_l{reader}.png'), cv2.IMREAD_GRAYSCALE)
      np.testing.assert_array_equal(record['labels'][reader], mask // 255)


def test_unpacked_archives_may_lie_without_their_outer_folder(tmp_path):
  lidc_crops(tmp_path / 'a', count=1)
  (tmp_path / 'b').mkdir()
  for s in ('train', 'val', 'test'):
    (tmp_path / 'a' / f'lidc_crops_{s}' / s).rename(tmp_path / 'b' / s)
  assert run('lidc_crops', tmp_path / 'b', tmp_path / 'data') == 0
  assert list(records('lidc_crops', tmp_path / 'data', 'test')) == ['ptest/s0']


def test_everything_damaged_is_named_at_once_and_nothing_is_prepared(tmp_path, capsys):
  source = lidc_crops(tmp_path / 'source', count=3)
  train, test = (source / f'lidc_crops_{s}' / s for s in ('train', 'test'))
  (train / 'gt' / 'ptrain' / 's0_l3.png').unlink()
  truncate(train / 'images' / 'ptrain' / 's1.png')
  write_png(train / 'gt' / 'ptrain' / 's2_l0.png', np.zeros((12, 11)))
  odd = np.zeros((12, 12))
  odd[3, 4] = 7
  write_png(test / 'gt' / 'ptest' / 's0_l2.png', odd)
  (test / 'gt' / 'ptest' / 's1_l1.png').write_bytes(b'')
  (test / 'gt' / 'ptest' / 's2_l1.png').write_text('no picture')
  assert run('lidc_crops', source, tmp_path / 'data') == 2
  told = capsys.readouterr().err
  assert '6 problems' in told
  for path, what in (
    ('ptrain/s0_l3.png', 'missing'),
    ('ptrain/s1.png', 'truncated'),
    ('ptrain/s2_l0.png', '11x12 pixels, its image '),
    ('ptest/s0_l2.png', 'value 7 in a mask; expected 0 and 255'),
    ('ptest/s1_l1.png', 'cannot be read as a picture'),
    ('ptest/s2_l1.png', 'cannot be read as a picture'),
  ):
    (line,) = (line for line in told.splitlines() if path in line and line.startswith('  '))
    assert what in line
  assert 'Traceback' not in told
  assert nothing_prepared(tmp_path / 'data')


def test_three_annotations_instead_of_four(tmp_path, capsys):
  source = lidc_crops(tmp_path / 'source', count=1)
  (source / 'lidc_crops_val' / 'val' / 'gt' / 'pval' / 's0_l3.png').unlink()
  assert run('lidc_crops', source, tmp_path / 'data') == 2
  assert 's0_l3.png: missing' in capsys.readouterr().err
  assert nothing_prepared(tmp_path / 'data')


def test_a_missing_or_empty_split(tmp_path, capsys):
  source = lidc_crops(tmp_path / 'source', count=1)
  (source / 'lidc_crops_test').rename(tmp_path / 'away')
  assert run('lidc_crops', source, tmp_path / 'data') == 2
  assert 'neither lidc_crops_test/test nor test is there' in capsys.readouterr().err
  (source / 'test').mkdir()
  assert run('lidc_crops', source, tmp_path / 'data') == 2
  assert 'holds no PATIENT/NAME.png' in capsys.readouterr().err
  assert nothing_prepared(tmp_path / 'data')


def test_deep_images_stray_files_and_masks_without_image_are_named(tmp_path, capsys):
  source = lidc_crops(tmp_path / 'source', count=2)
  train = source / 'lidc_crops_train/train'
  write_png(train / 'gt/ptrain/s7_l0.png', np.zeros((12, 12)))
  (train / 'images/ptrain/s0.png').rename(train / 'images/ptrain/s0.PNG')
  cv2.imwrite(str(train / 'images/ptrain/s1.png'), np.full((12, 12), 3000, np.uint16))
  assert run('lidc_crops', source, tmp_path / 'data') == 2
  told = capsys.readouterr().err
  for what in (
    's7.png: missing, but its label',
    's0.PNG: expected PATIENT/NAME.png; move other files elsewhere',
    's0.png: missing, but its label',
    's1.png: more than 8 bits per channel',
  ):
    assert what in told


def test_a_fifth_reader_is_counted(tmp_path, capsys):
  source = lidc_crops(tmp_path / 'source', count=1)
  write_png(source / 'lidc_crops_val/val/gt/pval/s0_l4.png', np.zeros((12, 12)))
  assert run('lidc_crops', source, tmp_path / 'data') == 0
  assert '1 x file beside labels, not read: ' in capsys.readouterr().out
