"""What mask files of every kind mean, and the --classes that say so."""

import cv2
import numpy as np
import pytest
from PIL import Image

from car_jax.data import opening
from car_jax.datasets import common
from car_jax.datasets.folder import classes
from car_jax.errors import UserError
from tests.datasets.files import records, run, write_png

VALUES = np.array([[0, 9, 9], [200, 0, 200]], np.uint8)
NUMBERS = [[0, 1, 1], [2, 0, 2]]
GREY = '0:nothing,9:vessel,200:tumour'
RED, GREEN = (255, 0, 0), (0, 128, 0)
COLOURED = '#000000:nothing,#ff0000:vessel,#008000:tumour'


def read(path, text):
  problems = common.Problems()
  found = classes.read(path, classes.parse(text), problems)
  return found, [*problems.lines]


def saved(path, picture):
  picture.save(path)
  return path


def coloured():
  table = np.zeros((256, 3), np.uint8)
  table[9], table[200] = RED, GREEN
  return table


def test_grey_files(tmp_path):
  for name, picture in {
    'grey': Image.fromarray(VALUES),
    'rgb': Image.fromarray(np.repeat(VALUES[..., None], 3, 2)),
    'deep': Image.fromarray(VALUES.astype(np.uint16)),
  }.items():
    found, problems = read(saved(tmp_path / f'{name}.png', picture), GREY)
    assert problems == []
    assert found.dtype == np.uint8
    assert found.tolist() == NUMBERS


def test_a_palette_file_counts_by_index_or_by_colour(tmp_path):
  picture = Image.fromarray(VALUES)
  picture.putpalette(coloured().ravel().tolist())
  path = saved(tmp_path / 'p.png', picture)
  assert read(path, GREY)[0].tolist() == NUMBERS
  assert read(path, COLOURED)[0].tolist() == NUMBERS


def test_a_coloured_file(tmp_path):
  path = saved(tmp_path / 'c.png', Image.fromarray(coloured()[VALUES]))
  assert read(path, COLOURED)[0].tolist() == NUMBERS
  assert classes.parse(COLOURED).palette == ((0, 0, 0), RED, GREEN)
  assert 'c.png: is coloured; name its colours' in read(path, GREY)[1][0]
  told = read(path, '#000000:nothing,#ff0000:vessel')[1][0]
  assert 'colour #008000 is no class; known: [#000000, #ff0000]' in told


def test_a_value_above_a_byte_is_not_folded_into_one(tmp_path):
  path = saved(tmp_path / 'deep.png', Image.fromarray(np.full((2, 2), 256 + 9, np.uint16)))
  assert 'grey value 265 is no class; known: [0, 9, 200]' in read(path, GREY)[1][0]
  assert read(path, '265:far')[0].tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize('channels', [1, 3])
def test_deep_masks_keep_every_bit(tmp_path, channels):
  values = VALUES.astype(np.uint16) * 20
  picture = np.repeat(values[..., None], channels, 2).squeeze()
  assert cv2.imwrite(str(tmp_path / 'deep.png'), picture)
  assert read(tmp_path / 'deep.png', '0:a,180:b,4000:c')[0].tolist() == NUMBERS


def test_values_below_zero_may_have_a_name(tmp_path):
  values = VALUES.astype(np.int16)
  values[VALUES == 9] = -1
  assert cv2.imwrite(str(tmp_path / 'signed.tif'), values)
  assert read(tmp_path / 'signed.tif', '0:a,-1:b,200:c')[0].tolist() == NUMBERS
  assert 'grey value -1 is no class' in read(tmp_path / 'signed.tif', GREY)[1][0]


def test_transparency_and_floats_mean_no_class(tmp_path):
  grey = Image.fromarray(VALUES)
  for name, alpha, good in (('opaque', 255, True), ('some', VALUES + 55, False)):
    grey.putalpha(Image.fromarray(np.broadcast_to(np.uint8(alpha), VALUES.shape).copy()))
    found, problems = read(saved(tmp_path / f'{name}.png', grey), GREY)
    assert (found is not None) == good
    assert good or f'{name}.png: has transparent pixels' in problems[0]
    grey = grey.convert('L')
  path = saved(tmp_path / 'f.tif', Image.fromarray(VALUES.astype(np.float32)))
  assert 'f.tif: holds floats' in read(path, GREY)[1][0]


def test_bits_are_black_and_white_or_0_and_1(tmp_path):
  path = saved(tmp_path / 'bits.png', Image.fromarray(VALUES > 0))
  want = (VALUES > 0).astype(int).tolist()
  assert read(path, '0:a,1:b')[0].tolist() == want
  assert read(path, '#000000:a,#ffffff:b')[0].tolist() == want


def test_a_list_in_a_file(tmp_path):
  path = tmp_path / 'names.txt'
  path.write_text('0:road\n\n9:car\n  200:car\n')
  assert classes.parse(str(path)) == classes.parse('0:road,9:car,200:car')
  path.write_bytes(b'\xff\xfe0')
  with pytest.raises(UserError, match='names.txt cannot be read as a list'):
    classes.parse(str(path))


def test_void_and_unknown_pixels_are_no_class():
  found = classes.parse('0:road,255:void,1:car,7:unknown')
  assert found.names == ('road', 'car')
  assert found.of == {0: 0, 255: 255, 1: 1, 7: 254}
  assert (found.ignore_label, found.unknown_label) == (255, 254)
  assert len(found.palette) == 2
  both = classes.parse('0:road,7:unknown,9:ignore')
  assert (both.names, both.ignore_label, both.unknown_label) == (('road', 'ignore'), 1, 254)
  assert classes.parse('0:road,7:unknown').ignore_label == 255


def test_values_may_share_a_name_and_the_ignored_class_is_last():
  found = classes.parse('255:ignore, 0:road, 1:road, 2:car')
  assert found.names == ('road', 'car', 'ignore')
  assert found.of == {255: 2, 0: 0, 1: 0, 2: 1}
  assert found.ignore_label == 2
  assert classes.parse(GREY).ignore_label is None
  assert classes.parse('').of == {0: 0, 1: 1, 255: 1}


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('0', "cannot read '0' in --classes '0'\n  expected GREY:NAME"),
    ('0:a,x:b', "cannot read 'x:b'"),
    ('0:a,70000:b', "cannot read '70000:b'"),
    ('#ff00:a', "cannot read '#ff00:a'"),
    ('0:', "cannot read '0:'"),
    ('0:a,#ff0000:b', 'mixes colours and numbers\n  write grey 9 as #090909'),
    ('0:a,0:b', 'gives 0 two names'),
    ('0:a,1:ignore,2:void', "has 'ignore', a class, and 'void', none\n  keep one"),
    ('0:void,1:unknown', 'names no class'),
    (','.join(f'{i}:c{i}' for i in range(300)), '--classes names 300 classes; at most 254'),
  ],
)
def test_mistakes_in_the_text(text, message):
  with pytest.raises(UserError) as e:
    classes.parse(text)
  assert message in str(e.value)


def test_the_ignored_class_reaches_the_data_set(tmp_path):
  write_png(tmp_path / 's' / 'images' / 'x.png', np.zeros((2, 3, 3)))
  write_png(tmp_path / 's' / 'masks' / 'x' / 'a.png', VALUES)
  options = ('--classes', '0:a,9:b,200:ignore', '--validation', '0', '--test', '0')
  assert run('folder', tmp_path / 's', tmp_path / 'd', *options) == 0
  info = opening.open_dataset({'name': 'folder', 'data_dir': str(tmp_path / 'd')}).info
  assert (info.class_names, info.ignore_label) == (('a', 'b', 'ignore'), 2)
  assert records('folder', tmp_path / 'd')['x']['labels'].tolist() == [NUMBERS]


def test_columns_for_each_reader(tmp_path):
  for name in 'ab':
    write_png(tmp_path / f'{name}.png', np.zeros((2, 3)))
  (tmp_path / 't.csv').write_text(
    'image,mask_1,mask_2,split\na.png,a.png,b.png,train\nb.png,,a.png,train'
  )
  assert run('folder', tmp_path / 't.csv', tmp_path / 'd') == 0
  found = records('folder', tmp_path / 'd')
  assert {k: len(v['labels']) for k, v in found.items()} == {'a': 2, 'b': 1}


def damaged_jpeg(path):
  Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(
    path
  )
  path.write_bytes(path.read_bytes()[:-900])


def flipped_png(path):
  write_png(path, np.random.default_rng(0).integers(0, 256, (64, 64, 3)))
  raw = bytearray(path.read_bytes())
  raw[len(raw) // 2] ^= 255
  path.write_bytes(raw)


@pytest.mark.parametrize(
  ('name', 'damage', 'message'),
  [
    ('x.jpg', damaged_jpeg, 'x.jpg cannot be read as a picture (image file is truncated'),
    (
      'x.png',
      flipped_png,
      "x.png cannot be read as a picture (damaged: the checksum of its part 'IDAT'",
    ),
    ('x.png', lambda p: p.write_bytes(b''), 'x.png cannot be read as a picture (an empty file)'),
    (
      'x.tif',
      lambda p: p.write_text('no picture'),
      'x.tif cannot be read as a picture (cannot identify',
    ),
    (
      'x.png',
      lambda p: Image.fromarray(np.full((64, 64), 3000, np.uint16)).save(p),
      'x.png: more than 8 bits per channel (16: uint16 from 3000 to 3000)\n    --range=LOW,HIGH',
    ),
  ],
)
def test_images_that_cannot_be_used_are_named(tmp_path, capsys, name, damage, message):
  (tmp_path / 's' / 'images').mkdir(parents=True)
  damage(tmp_path / 's' / 'images' / name)
  write_png(tmp_path / 's' / 'masks' / 'x' / 'a.png', np.zeros((64, 64)))
  assert run('folder', tmp_path / 's', tmp_path / 'd') == 2
  told = capsys.readouterr().err
  assert message in told
  assert '1 problems' not in told
