"""A user's own images: whatever lies there or stands in a table is used or named; deep images."""

import os

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.datasets.files import folder, nothing_prepared, records, run, write_png
from tests.datasets.test_folder import ALL_TRAIN, csv_source, labelled


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
  assert '1 x link to a folder that is entered already, not followed' in told


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
  assert '--range=LOW,HIGH' in told


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
