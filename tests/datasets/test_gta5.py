"""GTA5's folders: palette labels, frames of odd sizes, the published split, damage by path."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from car_jax.data import labels
from car_jax.datasets import common
from car_jax.datasets.gta5 import gta5_dataset_builder as builder
from tests.datasets.files import nothing_prepared, records, run, write_png

GOLDEN = pathlib.Path(__file__).parents[1] / 'golden' / 'sac'
SMALL = ('--scale', '0.01')  # 19x11


def gta5(root, frames=(1, 2, 6, 10001), size=(11, 19)):
  """Random frames; label pictures whose palette has the colours of other classes."""
  rng = np.random.default_rng(0)
  (root / 'labels').mkdir(parents=True)
  for frame in frames:
    write_png(root / f'images/{frame:05}.png', rng.integers(0, 256, (*size, 3)))
    ids = Image.fromarray(rng.integers(0, 35, size).astype(np.uint8))
    ids = Image.frombytes('P', ids.size, ids.tobytes())
    ids.putpalette(rng.integers(0, 256, 768).astype(np.uint8).tobytes())
    ids.save(root / f'labels/{frame:05}.png')
  return root


def test_records_and_splits(tmp_path, monkeypatch):
  source = gta5(tmp_path / 's')
  monkeypatch.setattr(builder, 'SIZE', (19, 11))
  assert run('gta5', source, tmp_path / 'd') == 0
  assert set(records('gta5', tmp_path / 'd')) == {'00002'}  # 10001 is in no split
  validation = records('gta5', tmp_path / 'd', 'validation')
  assert set(validation) == {'00001', '00006'}
  record = validation['00006']
  picture = np.asarray(Image.open(source / 'images/00006.png'))
  np.testing.assert_array_equal(record['image'], picture)
  ids = np.asarray(Image.open(source / 'labels/00006.png'))
  np.testing.assert_array_equal(record['labels'], labels.scored_train_ids(ids)[None])


def test_frames_of_any_size_are_first_brought_to_one(tmp_path):
  source = gta5(tmp_path / 's', frames=(2,), size=(20, 31))
  assert run('gta5', source, tmp_path / 'd', *SMALL) == 0
  (record,) = records('gta5/scale0.01', tmp_path / 'd').values()
  whole = Image.open(source / 'images/00002.png').resize((1914, 1052), Image.Resampling.BILINEAR)
  small = whole.resize((19, 11), Image.Resampling.BILINEAR)
  np.testing.assert_array_equal(record['image'], np.asarray(small))
  ids = Image.open(source / 'labels/00002.png').resize((1914, 1052), Image.Resampling.NEAREST)
  small = ids.resize((19, 11), Image.Resampling.NEAREST)
  np.testing.assert_array_equal(record['labels'][0], labels.scored_train_ids(np.asarray(small)))


def test_the_split_is_the_published_one():
  published = json.loads((GOLDEN / 'splits.json').read_text())['gta5_val_ids']
  found = common.listed_numbers(builder.VALIDATION)
  assert found == set(published)
  assert len(found) == 1000
  assert found < set(builder.FRAMES)


def test_damage_is_named_at_once(tmp_path, capsys):
  source = gta5(tmp_path / 's', frames=(1, 2, 3))
  (source / 'labels/00001.png').unlink()
  write_png(source / 'labels/00002.png', np.zeros((11, 19, 3)))
  (source / 'images/00003.png').write_text('no picture')
  assert run('gta5', source, tmp_path / 'd', *SMALL) == 2
  told = capsys.readouterr().err
  for what in (
    '3 problems in',
    '00001.png: missing',
    '00002.png: is a picture of colours; expected 8-bit class numbers',
    '00003.png cannot be read as a picture',
  ):
    assert what in told
  assert nothing_prepared(tmp_path / 'd')


def test_ids_of_no_class_are_named_and_what_is_not_read_is_counted(tmp_path, capsys, monkeypatch):
  source = gta5(tmp_path / 's', frames=(1, 2, 10001))
  monkeypatch.setattr(builder, 'SIZE', (19, 11))
  (source / 'images/00001.png').unlink()
  assert run('gta5', source, tmp_path / 'd') == 0
  told = capsys.readouterr().out
  assert f'1 x frame that is not read: {source}/images/10001.png' in told
  assert f'2 x label of no frame that is read from {source}/images: ' in told
  assert '1 x label with id 34, a licence plate, which is no class of Cityscapes: ignored' in told
  write_png(source / 'labels/00002.png', np.zeros((4, 19)))
  assert run('gta5', source, tmp_path / 'e') == 2
  told = capsys.readouterr().err
  assert f'00002.png: 19x4 pixels, its image {source}/images/00002.png 19x11' in told
  for strange in (35, 77, 254):
    write_png(source / 'labels/00002.png', np.full((11, 19), strange))
    assert run('gta5', source, tmp_path / 'e') == 2
    assert (
      f'00002.png: id {strange} is no class; expected 0 to 34 and 255' in capsys.readouterr().err
    )


@pytest.mark.parametrize(
  ('name', 'told'),
  [
    ('notes.txt', 'notes.txt: expected a number of 5 digits and .png; move other files away'),
    ('10001.png', 'images holds none of 00001.png to 10000.png\n  see docs/data.md'),
  ],
)
def test_other_layouts_are_refused(tmp_path, capsys, name, told):
  (tmp_path / 'images').mkdir()
  (tmp_path / 'images' / name).touch()
  assert run('gta5', tmp_path, tmp_path / 'd') == 2
  assert told in capsys.readouterr().err
