"""A user's own images: both layouts, any number of readers, class maps, splits by group."""

import os

import cv2
import numpy as np
import pytest
from PIL import Image

from car_jax.data import sources
from tests.datasets.files import folder, nothing_prepared, records, run, truncate, write_png

ALL_TRAIN = ('--validation', '0', '--test', '0')


def opened(data_dir, name='folder'):
  return sources.open_dataset({'name': name, 'data_dir': str(data_dir)})


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
  assert sources.prepared(tmp_path / 'data') == ['folder/mine']
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
  told = capsys.readouterr().err
  for part in (
    '4 problems',
    'im0.png cannot be read as a picture (truncated: it has no end)',
    'im1/reader0.png: 9x9 pixels, its image ',
    'im1.png 14x10\n',
    'im2/reader0.png: grey value 77 is no class; known: [0, 1, 255]',
    'im3.png: has no mask; --unlabelled takes it\n',
  ):
    assert part in told
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


@pytest.mark.parametrize('split', ['', 'train'])
def test_one_label_per_image_beside_the_images(tmp_path, split):
  source = labelled(tmp_path / 's', split)
  (tmp_path / 'names.txt').write_text('9:road\n3:car\n250:unknown\n255:void\n')
  more = ('--classes', str(tmp_path / 'names.txt'), *ALL_TRAIN)
  assert run('folder', source, tmp_path / 'd', *more) == 0
  info = opened(tmp_path / 'd').info
  assert (info.class_names, info.num_classes, info.readers) == (('road', 'car'), 2, 1)
  assert (info.ignore_label, info.unknown_label) == (255, 254)
  found = records('folder', tmp_path / 'd')
  assert len(found) == 2
  for name, record in found.items():
    values = cv2.imread(str(source / 'labels' / f'{name}.png'), 0)
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
  told = capsys.readouterr().err
  assert told.count('2 of 3 images of train have no mask: all their pixels are ignored') == 1
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
  told = capsys.readouterr().err
  assert "--unlabelled needs an ignored class, --classes '' names none\n  add VALUE:void" in told
  assert run('folder', table, tmp_path / 'd', *UNLABELLED) == 2
  told = capsys.readouterr().err
  assert '2 problems' in told
  assert '1.png: has no mask; validation needs one\n' in told
  assert 'nowhere.png: missing' in told
  assert nothing_prepared(tmp_path / 'd')


def changed(root, change):
  """The source of two images with one reader each, after something was done to it."""
  source = folder(root / 's', (1, 1))
  change(source)
  return source


def beside(path, name):
  """A copy of a file beside it."""
  path.with_name(name).write_bytes(path.read_bytes())


def into(source, split):
  for kind in ('images', 'masks'):
    (source / kind).rename(source / 'old')
    (source / kind).mkdir()
    (source / 'old').rename(source / kind / split)


def linked(source, name, folders=('images', 'masks')):
  """The folders lie elsewhere, each as a link called `name`."""
  for kind in folders:
    (source / kind).rename(source.parent / f'real_{kind}')
    (source / kind).mkdir()
    (source / kind / name).symlink_to(source.parent / f'real_{kind}')


@pytest.mark.parametrize(
  ('change', 'messages'),
  [
    (lambda s: (s / 'images/n.npy').write_bytes(b'x'), ['n.npy: is no picture that is read']),
    (lambda s: (s / 'masks/im0/r.nii.gz').write_bytes(b'x'), ['r.nii.gz: is no picture that']),
    (lambda s: beside(s / 'masks/im0/reader0.png', 'reader0.tif'), ['reader0.tif: a second file']),
    (lambda s: write_png(s / 'masks/y/r.png', np.zeros((4, 4))), ['y/r.png: belongs to no image']),
    (lambda s: write_png(s / 'masks/im0/d/r.png', np.zeros((4, 4))), ['d/r.png: belongs to no']),
    (lambda s: write_png(s / 'masks/r.png', np.zeros((4, 4))), ['masks/r.png: belongs to no']),
    (lambda s: beside(s / 'images/im0.png', 'im0.PNG'), ['im0.', 'of one name with']),
    (lambda s: into(s, 'Train'), ['is the folder Train a split?', 'call it train']),
    (lambda s: into(s, 'training'), ['is the folder training a split?', 'call it train']),
    (lambda s: (s / 'images').rename(s / 'Images'), ['no folders images/', 'but Images, masks']),
    (lambda s: (s / 'images/a.png').symlink_to('im0.png'), ['listed twice']),
    (lambda s: (s / 'images/a.png').symlink_to('nowhere'), ['a.png']),
    (lambda s: linked(s, 'sub', ('images',)), ['sub/im0.png: has no mask']),
    (lambda s: os.mkfifo(s / 'images/a.png'), ['a.png is no regular file']),
    (lambda s: (s / 'images/im0.png').write_bytes(b'GIF89a'), ['im0.png cannot be read']),
  ],
)
def test_whatever_lies_in_a_folder_is_used_or_named(tmp_path, capsys, change, messages):
  source = changed(tmp_path, change)
  assert run('folder', source, tmp_path / 'd', *ALL_TRAIN) == 2
  told = capsys.readouterr().err
  for message in messages:
    assert message in told
  assert nothing_prepared(tmp_path / 'd')


def test_a_second_label_of_one_image(tmp_path, capsys):
  source = labelled(tmp_path / 's')
  beside(source / 'labels/a.png', 'a.tif')
  more = ('--classes', '3:a,9:b,250:c,255:void', *ALL_TRAIN)
  assert run('folder', source, tmp_path / 'd', *more) == 2
  assert 'a.tif: a second file of one image, beside a.png' in capsys.readouterr().err


def test_linked_folders_are_read_and_loops_and_leftovers_are_noted(tmp_path, capsys):
  source = changed(tmp_path, lambda s: linked(s, 'sub'))
  (source / 'images/sub/loop').symlink_to(source / 'images')
  for name in ('images/._im0.png', 'images/Thumbs.db', 'masks/.DS_Store', 'masks/sub/im0/._r.png'):
    (source / name).write_bytes(b'x')
  assert run('folder', source, tmp_path / 'd', *ALL_TRAIN) == 0
  assert set(records('folder', tmp_path / 'd')) == {'sub/im0', 'sub/im1'}
  told = capsys.readouterr().out
  assert '4 x leftover of the system, passed over' in told
  assert '1 x link to a folder that it lies in, not followed' in told


def test_the_same_pixels_in_two_splits_are_a_leak(tmp_path, capsys):
  """Whatever the file is called and however it is written; one colour alone says nothing."""
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (6, 7, 3)).astype(np.uint8)
  for split, name in (('train', 'a.png'), ('test', 'b.bmp')):
    (tmp_path / 's/images' / split).mkdir(parents=True)
    Image.fromarray(image).save(tmp_path / 's/images' / split / name)
    write_png(tmp_path / 's/images' / split / 'blank.png', np.zeros((6, 7, 3)))
    for mask in (name[0], 'blank'):
      write_png(tmp_path / 's/masks' / split / mask / 'r.png', np.zeros((6, 7)))
  assert run('folder', tmp_path / 's', tmp_path / 'd') == 2
  told = capsys.readouterr().err
  assert '1 problem in' in told
  assert (
    f'test/b.bmp: the same pixels as {tmp_path}/s/images/train/a.png, which is in train' in told
  )
  (tmp_path / 's/images/test').rename(tmp_path / 's/images/train/test')
  (tmp_path / 's/masks/test').rename(tmp_path / 's/masks/train/test')
  assert run('folder', tmp_path / 's', tmp_path / 'd') == 0


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('image,masks\n0.png,0_a.png,0_b.png\n', ':2: 3 cells under 2 columns'),
    (
      'image,masks,splits\n0.png,0_a.png,test\n',
      "column 'splits', which means nothing here\n  did",
    ),
    ('image,masks,Group\n0.png,0_a.png,g\n', "column 'Group'"),
    ('image,mask_1,Mask_2\n0.png,0_a.png,0_b.png\n', "column 'Mask_2'"),
    ('image,masks,masks\n0.png,0_a.png,0_b.png\n', "has 2 columns 'masks'"),
    ('image,image,masks\n0.png,1.png,0_a.png\n', "has 2 columns 'image'"),
    ('split,masks,image\ntrain,0_a.png\n', ':2: 2 cells under 3 columns'),
    ('image,masks\n0.png,0_a.png\n./0.png,0_b.png\n', '0.png: listed twice'),
    ('image,masks\n0.png,0_a.png\nx/../0.png,0_b.png\n', '0.png: listed twice'),
    ('image,masks\n0.png,0_a.png;0_a.png\n', '0.png: one of its masks is listed twice'),
    ('image,masks\n0.png,0\0.png\n', 'table.csv cannot be read as a CSV (it holds a zero byte)'),
    ('image,masks\n"0.png,0_a.png\n', 'table.csv cannot be read as a CSV'),
    ('image;masks\n0.png;0_a.png\n', "no column 'image'"),
    ('', 'table.csv is empty'),
    ('image,masks\n0.png,' + 'x' * 5000 + '\n', 'File name too long'),
    ('image,masks\n0.png,/dev/zero\n', '/dev/zero is no regular file'),
  ],
)
def test_every_cell_and_column_of_a_csv_is_used_or_named(tmp_path, capsys, text, message):
  table = csv_source(tmp_path, ['', ''])
  (tmp_path / 'x').mkdir()
  table.write_text(text)
  assert run('folder', table, tmp_path / 'd', *ALL_TRAIN) == 2
  assert message in capsys.readouterr().err
  assert nothing_prepared(tmp_path / 'd')


def test_a_drawn_row_follows_the_split_that_its_group_has(tmp_path):
  rows = [f'{i}.png,{i}_a.png,{"test" if i == 7 else ""},p' for i in range(12)]
  assert run('folder', csv_source(tmp_path, rows), tmp_path / 'd') == 0
  assert len(records('folder', tmp_path / 'd', 'test')) == 12


def deep(root, image):
  (root / 'images').mkdir(parents=True)
  assert cv2.imwrite(str(root / 'images/a.tif'), image)
  write_png(root / 'images/b.png', np.full((8, 9, 3), 77))
  for name in 'ab':
    write_png(root / f'masks/{name}/r.png', np.zeros((8, 9)))
  return root


@pytest.mark.parametrize('shape', [(8, 9), (8, 9, 3)])
@pytest.mark.parametrize('kind', ['uint16', 'int16', 'float32'])
def test_deep_images_by_a_range_or_percentiles(tmp_path, capsys, kind, shape):
  image = np.random.default_rng(0).uniform(0, 4000, shape).astype(kind)
  source = deep(tmp_path / 's', image)
  for given, (low, high) in (
    ('1000,3000', (1000, 3000)),
    ('2%,95.5%', np.percentile(image, [2, 95.5])),
  ):
    more = (*ALL_TRAIN, '--range', given, '--overwrite')
    assert run('folder', source, tmp_path / 'd', *more) == 0
    want = np.rint(255 * np.clip((image.astype(float) - low) / (high - low), 0, 1))
    want = want[..., ::-1] if image.ndim == 3 else np.repeat(want[..., None], 3, 2)
    found = records('folder', tmp_path / 'd')
    np.testing.assert_array_equal(found['a']['image'], want)
    assert (found['b']['image'] == 77).all()
    assert f'brought to 8 by --range {given}: ' in capsys.readouterr().out
  assert run('folder', source, tmp_path / 'e', *ALL_TRAIN) == 2
  told = capsys.readouterr().err
  assert 'a.tif: more than 8 bits per channel' in told
  assert '--range LOW,HIGH' in told


def test_a_deep_image_of_nan_is_refused(tmp_path, capsys):
  image = np.ones((8, 9), np.float32)
  image[2, 3] = np.nan
  assert run('folder', deep(tmp_path / 's', image), tmp_path / 'd', '--range', '0,1') == 2
  assert 'a.tif: 1 of its values are nan or infinite' in capsys.readouterr().err


def test_each_file_is_turned_by_its_own_tag(tmp_path, capsys):
  exif = Image.Exif()
  exif[0x0112] = 6
  source = folder(tmp_path / 's', (1,))
  image, mask = source / 'images/im0.png', source / 'masks/im0/reader0.png'
  Image.open(image).save(image, exif=exif)
  assert run('folder', source, tmp_path / 'd', *ALL_TRAIN) == 2
  told = capsys.readouterr().err
  assert f'reader0.png: 14x10 pixels, its image {image} 10x14; by its EXIF tag {image} is' in told
  Image.open(mask).save(mask, exif=exif)
  assert run('folder', source, tmp_path / 'd', *ALL_TRAIN) == 0
  record = records('folder', tmp_path / 'd')['im0']
  np.testing.assert_array_equal(record['image'], np.rot90(np.asarray(Image.open(image)), -1))
  np.testing.assert_array_equal(
    record['labels'][0], np.rot90(np.asarray(Image.open(mask)), -1) // 255
  )
