"""A user's own images: both layouts, any number of readers, class maps, splits by group."""

import cv2
import numpy as np
import pytest

from car_jax.data import opening, prepared
from car_jax.datasets import base, suggestion
from tests.datasets.files import folder, nothing_prepared, records, run, truncate, write_png

ALL_TRAIN = ('--validation', '0', '--test', '0')


def opened(data_dir, name='folder'):
  return opening.open_dataset({'name': name, 'data_dir': str(data_dir)})


def test_a_folder_with_varying_readers(tmp_path):
  source = folder(tmp_path / 'source', (1, 3, 2))
  assert run('folder', source, tmp_path / 'data', *ALL_TRAIN) == 0
  found = records('folder', tmp_path / 'data')
  assert {k: len(r['labels']) for k, r in found.items()} == {'im0': 1, 'im1': 3, 'im2': 2}
  info = opened(tmp_path / 'data').info
  assert (info.readers, info.num_classes, info.class_names) == (3, 2, ('background', 'object'))
  image = cv2.imread(str(source / 'images' / 'im1.png'))[..., ::-1]  # read as blue, green, red
  np.testing.assert_array_equal(found['im1']['image'], image)
  for reader in range(3):
    mask = cv2.imread(str(source / 'masks' / 'im1' / f'reader{reader}.png'), 0)
    np.testing.assert_array_equal(found['im1']['labels'][reader], mask // 255)


def test_splits_given_by_folders(tmp_path):
  for split, count in (('train', 2), ('validation', 1), ('test', 1)):
    for i in range(count):
      write_png(tmp_path / 's' / 'images' / split / f'{i}.png', np.zeros((8, 8, 3)))
      write_png(tmp_path / 's' / 'masks' / split / f'{i}' / 'a.png', np.zeros((8, 8)))
  assert run('folder', tmp_path / 's', tmp_path / 'data') == 0
  for split, names in (('train', {'train/0', 'train/1'}), ('test', {'test/0'})):
    assert set(records('folder', tmp_path / 'data', split)) == names


def csv_source(root, rows, header='image,masks,split,group'):
  rng = np.random.default_rng(0)
  for i in range(len(rows)):
    write_png(root / f'{i}.png', rng.integers(0, 255, (8, 9, 3)))
    write_png(root / f'{i}_a.png', 255 * (rng.random((8, 9)) < 0.5))
    write_png(root / f'{i}_b.png', 255 * (rng.random((8, 9)) < 0.5))
  table = root / 'table.csv'
  table.write_text('\n'.join([header, *rows]) + '\n')
  return table


def test_a_csv_with_splits_and_groups(tmp_path):
  rows = ['0.png,0_a.png;0_b.png,train,p1', '1.png,1_a.png,val,p2', '2.png, 2_b.png ;,test,p3']
  table = csv_source(tmp_path, rows)
  assert run('folder', table, tmp_path / 'data', '--variant', 'mine') == 0
  assert prepared.prepared(tmp_path / 'data') == ['folder/mine']
  train = records('folder/mine', tmp_path / 'data')
  assert len(train['0']['labels']) == 2
  assert train['0']['group'] == 'p1'
  assert set(records('folder/mine', tmp_path / 'data', 'validation')) == {'1'}
  assert set(records('folder/mine', tmp_path / 'data', 'test')) == {'2'}


def test_drawn_splits_keep_groups_together_and_follow_the_seed(tmp_path):
  rows = [f'{i}.png,{i}_a.png,,patient{i // 2}' for i in range(40)]
  table = csv_source(tmp_path, rows)
  share = ('--validation', '0.3', '--test', '0.3')

  def split_of(name, *more):
    assert run('folder', table, tmp_path / name, *share, *more) == 0
    dataset = opened(tmp_path / name)
    found = {}
    for split in ('train', 'validation', 'test'):
      source = dataset.split(split)
      for i in range(len(source)):
        found.setdefault(source[i]['group'], set()).add(split)
    return found

  first = split_of('a')
  assert len(first) == 20
  assert all(len(splits) == 1 for splits in first.values())
  assert set().union(*first.values()) == {'train', 'validation', 'test'}
  assert split_of('b') == first
  assert split_of('c', '--seed', '1') != first


def test_a_class_map_names_grey_values(tmp_path):
  write_png(tmp_path / 's' / 'images' / 'x.png', np.zeros((2, 4, 3)))
  write_png(tmp_path / 's' / 'masks' / 'x' / 'a.png', np.array([[0, 9, 200, 9]] * 2))
  classes = '0:nothing,200:tumour,9:vessel'
  assert run('folder', tmp_path / 's', tmp_path / 'd', '--classes', classes, *ALL_TRAIN) == 0
  assert records('folder', tmp_path / 'd')['x']['labels'][0, 0].tolist() == [0, 2, 1, 2]
  info = opened(tmp_path / 'd').info
  assert info.class_names == ('nothing', 'tumour', 'vessel')
  assert len(set(info.palette)) == 3


def test_everything_damaged_is_named(tmp_path, capsys):
  source = folder(tmp_path / 's', (1, 1, 1, 1, 1))
  truncate(source / 'images' / 'im0.png')
  write_png(source / 'masks' / 'im1' / 'reader0.png', np.zeros((9, 9)))
  write_png(source / 'masks' / 'im2' / 'reader0.png', np.full((10, 14), 77))
  (source / 'masks' / 'im3' / 'reader0.png').unlink()
  assert run('folder', source, tmp_path / 'd', *ALL_TRAIN) == 2
  printed = capsys.readouterr().err
  for part in (
    '4 problems',
    'im0.png cannot be read as a picture (truncated: it has no end)',
    'im1/reader0.png: 9x9 pixels, its image ',
    'im1.png 14x10\n',
    'im2/reader0.png: grey value 77 is no class; known: [0, 1, 255]',
    'im3.png: has no mask; --unlabelled takes it\n',
  ):
    assert part in printed
  assert nothing_prepared(tmp_path / 'd')


@pytest.mark.parametrize(
  ('header', 'row', 'message'),
  [
    ('picture,masks', '0.png,0_a.png', "has no column 'image'"),
    ('image,mask', '0.png,0_a.png', "has no column 'masks'\n  did you mean: mask"),
    ('image,masks,split', '0.png,0_a.png,training', ":2: unknown split 'training'\n"),
    ('image,masks', '0.png,nowhere.png', 'nowhere.png: missing'),
    ('image,masks', 'nowhere.png,0_a.png', 'nowhere.png: missing'),
    ('image,masks', '0.png,', '0.png: has no mask'),
    ('image,masks', '0.png', ':2: 1 cells under 2 columns'),
    ('image,masks', ',0_a.png', 'table.csv:2: no image'),
    ('image,masks', '0.png,0_a.png\n0.png,0_b.png', '0.png: listed twice'),
  ],
)
def test_mistakes_in_a_csv(tmp_path, capsys, header, row, message):
  table = csv_source(tmp_path, [row], header)
  assert run('folder', table, tmp_path / 'd', *ALL_TRAIN) == 2
  assert message in capsys.readouterr().err
  assert nothing_prepared(tmp_path / 'd')


def test_an_empty_csv_and_a_file_that_is_none(tmp_path, capsys):
  assert run('folder', csv_source(tmp_path, []), tmp_path / 'd') == 2
  assert 'lists no image' in capsys.readouterr().err
  binary = tmp_path / 'x.bin'
  binary.write_bytes(b'\xff\xfe\x00\x81')
  assert run('folder', binary, tmp_path / 'd') == 2
  assert 'x.bin' in capsys.readouterr().err


def test_other_layouts_are_refused(tmp_path, capsys):
  (tmp_path / 's' / 'images').mkdir(parents=True)
  assert run('folder', tmp_path / 's', tmp_path / 'd') == 2
  assert 'no folders images/ and masks/' in capsys.readouterr().err
  (tmp_path / 's' / 'masks').mkdir()
  assert run('folder', tmp_path / 's', tmp_path / 'd') == 2
  assert 'holds no picture' in capsys.readouterr().err


@pytest.mark.parametrize('classes', ['0', '0:a,x:b', '0:a,70000:b', 'a:0'])
def test_mistakes_in_a_class_map(tmp_path, capsys, classes):
  source = folder(tmp_path / 's', (1,))
  assert run('folder', source, tmp_path / 'd', '--classes', classes) == 2
  assert 'expected GREY:NAME' in capsys.readouterr().err


def test_val_is_validation_and_no_picture_lies_beside_the_splits(tmp_path, capsys):
  source = folder(tmp_path / 'source', readers=(1, 1, 1))
  for k, split in enumerate(('train', 'val', 'test')):
    for kind, name in (('images', f'im{k}.png'), ('masks', f'im{k}')):
      (source / kind / split).mkdir()
      (source / kind / name).rename(source / kind / split / name)
  assert run('folder', source, tmp_path / 'data', '--variant', 'mine') == 0
  for k, split in enumerate(('train', 'validation', 'test')):
    (record,) = records('folder/mine', tmp_path / 'data', split)
    assert record.endswith(f'im{k}')
  write_png(source / 'images' / 'extra.png', np.zeros((4, 4)))
  assert run('folder', source, tmp_path / 'other', '--variant', 'mine') == 2
  assert 'extra.png lies in none of them' in capsys.readouterr().err


def labelled(root, split=''):
  """images/ and labels/ side by side, one label each, of four values."""
  rng = np.random.default_rng(0)
  for name in ('a', 'b.c'):
    write_png(root / 'images' / split / f'{name}.png', rng.integers(0, 255, (8, 9, 3)))
    write_png(root / 'labels' / split / f'{name}.png', rng.choice([3, 9, 250, 255], (8, 9)))
  return root


@pytest.mark.parametrize(
  ('kind', 'split'), [('labels', ''), ('labels', 'train'), ('masks', 'train')]
)
def test_one_label_per_image_beside_the_images(tmp_path, kind, split):
  source = labelled(tmp_path / 's', split)
  (source / 'labels').rename(source / kind)
  (tmp_path / 'names.txt').write_text('9:road\n3:car\n250:unknown\n255:void\n')
  more = ('--classes', str(tmp_path / 'names.txt'), *ALL_TRAIN)
  assert run('folder', source, tmp_path / 'd', *more) == 0
  info = opened(tmp_path / 'd').info
  assert (info.class_names, info.num_classes, info.readers) == (('road', 'car'), 2, 1)
  assert (info.ignore_label, info.unknown_label) == (255, 254)
  found = records('folder', tmp_path / 'd')
  assert len(found) == 2
  for name, record in found.items():
    values = cv2.imread(str(source / kind / f'{name}.png'), 0)
    want = np.vectorize({9: 0, 3: 1, 250: 254, 255: 255}.get)(values)
    np.testing.assert_array_equal(record['labels'][0], want)


def test_a_missing_label_and_two_kinds_of_labels(tmp_path, capsys):
  source = labelled(tmp_path / 's')
  (source / 'labels' / 'b.c.png').unlink()
  assert run('folder', source, tmp_path / 'd', '--classes', '3:a,9:b,250:c,255:void') == 2
  assert 'b.c.png: has no mask' in capsys.readouterr().err
  (source / 'masks').mkdir()
  assert run('folder', source, tmp_path / 'd') == 2
  assert 'with either masks/NAME/READER.png or labels/NAME.png' in capsys.readouterr().err


UNLABELLED = ('--unlabelled', '--classes', '0:road,255:car,7:void')


def test_images_of_train_without_masks_are_ignored_all_over(tmp_path, capsys):
  source = folder(tmp_path / 's', (2, 0, 0))
  assert run('folder', source, tmp_path / 'd', *UNLABELLED, *ALL_TRAIN) == 0
  printed = capsys.readouterr().err
  assert printed.count('2 of 3 images of train have no mask: all their pixels are ignored') == 1
  found = records('folder', tmp_path / 'd')
  assert {k: len(r['labels']) for k, r in found.items()} == {'im0': 2, 'im1': 1, 'im2': 1}
  assert (found['im1']['labels'] == np.full((10, 14), 255)).all()
  assert set(np.unique(found['im0']['labels'])) == {0, 1}
  image = cv2.imread(str(source / 'images' / 'im1.png'))[..., ::-1]
  np.testing.assert_array_equal(found['im1']['image'], image)


def test_images_alone_will_do_and_ignore_may_be_a_class(tmp_path):
  source = folder(tmp_path / 's', (0, 0))  # writes no masks/
  more = ('--unlabelled', '--classes', '0:road,255:car,7:ignore', *ALL_TRAIN)
  assert run('folder', source, tmp_path / 'd', *more) == 0
  assert all((r['labels'] == 2).all() for r in records('folder', tmp_path / 'd').values())
  info = opened(tmp_path / 'd').info
  assert (info.ignore_label, info.readers) == (2, 1)


def test_what_unlabelled_does_not_take(tmp_path, capsys):
  rows = ['0.png,,train', '1.png,,val', '2.png,2_a.png,test', 'nowhere.png,,train']
  table = csv_source(tmp_path, rows, 'image,masks,split')
  assert run('folder', table, tmp_path / 'd', '--unlabelled') == 2
  printed = capsys.readouterr().err
  assert "--unlabelled needs an ignored class, --classes '' names none\n  add VALUE:void" in printed
  assert run('folder', table, tmp_path / 'd', *UNLABELLED) == 2
  printed = capsys.readouterr().err
  assert '2 problems' in printed
  assert '1.png: has no mask; validation needs one\n' in printed
  assert 'nowhere.png: missing' in printed
  assert nothing_prepared(tmp_path / 'd')


def test_all_that_is_wrong_with_one_image_is_named(tmp_path, capsys):
  """A mask of another size beside one of other values, of which there are many."""
  source = folder(tmp_path / 's', (3,))
  masks = source / 'masks' / 'im0'
  write_png(masks / 'reader0.png', np.zeros((4, 5)))
  write_png(masks / 'reader1.png', np.arange(140).reshape(10, 14))
  assert run('folder', source, tmp_path / 'd', *ALL_TRAIN) == 2
  printed = capsys.readouterr().err
  assert f'2 problems in {source}' in printed
  assert 'reader0.png: 5x4 pixels, its image' in printed
  assert 'reader1.png: grey values 2, 3, 4, 5, 6, 7, 8, 9 and 130 more are no class' in printed


def test_a_split_that_nothing_falls_into_is_said_with_a_seed_that_fills_all(tmp_path, capsys):
  rows = [f'{i}.png,{i}_a.png,,p{i // 2}' for i in range(10)]
  table = csv_source(tmp_path, rows)
  assert run('folder', table, tmp_path / 'd') == 0
  printed = capsys.readouterr().out
  assert 'validation' not in prepared_splits(tmp_path / 'd')
  assert 'WARNING: a split that none of the images, or of their groups, falls into' in printed
  mend = printed.partition('prepare it again with ')[2].partition(':')[0].split()
  assert run('folder', table, tmp_path / 'd', *mend) == 0
  assert prepared_splits(tmp_path / 'd') == {'train', 'validation', 'test'}
  assert 'WARNING' not in capsys.readouterr().out
  few = csv_source(tmp_path, rows[:2])
  assert run('folder', few, tmp_path / 'd', '--overwrite') == 0
  assert 'name the splits, in a CSV or by folders' in capsys.readouterr().out


def prepared_splits(data_dir):
  return {name for name in base.SPLITS if suggestion.split(opened(data_dir), name) is not None}
