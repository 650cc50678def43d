"""Which images are in files and folders, and what they are called."""

import os
import re

import numpy as np
import pytest
from PIL import Image

from car_jax.errors import UserError
from car_jax.predict import sources
from tests.predict.models import scene, units, write_nifti, write_picture, write_series


def named(inputs):
  return {item.name: (item.kind, item.count) for item in inputs.items}


def noted(inputs):
  return '\n'.join(inputs.problems.noted())


def test_every_kind_of_file_at_any_depth(tmp_path):
  image = scene(8, 8, 0)
  for name in ('b.png', 'deep/down/c.JPG', 'd.npy', 'sub/e.webp'):
    write_picture(tmp_path / name, image)
  np.save(tmp_path / 'f.npy', np.stack([image] * 12))
  pages = [Image.fromarray(image)] * 3
  pages[0].save(tmp_path / 'g.tif', save_all=True, append_images=pages[1:])
  volume = units(4, 8, 6)
  write_nifti(tmp_path / 'h.nii.gz', volume, np.eye(4))
  write_series(tmp_path / 'series', volume)
  inputs = sources.find([str(tmp_path)])
  assert not inputs.problems.lines
  assert named(inputs) == {
    'b': ('picture', 1),
    'd': ('array', 1),
    'deep/down/c': ('picture', 1),
    'f': ('array', 12),
    'g': ('picture', 3),
    'h': ('nifti', 4),
    'series': ('dicom', 4),
    'sub/e': ('picture', 1),
  }
  names = {item.name: item.names for item in inputs.items}
  assert names['f'][0], names['f'][-1] == ('f_01', 'f_12')
  assert names['g'] == ['g_1', 'g_2', 'g_3']
  assert names['h'] == ['h']


def test_files_of_one_name_are_kept_apart_and_named(tmp_path):
  for folder in ('one', 'two'):
    write_picture(tmp_path / folder / 'a.png', scene(8, 8, 0))
  for name in ('a.jpg', 'A.tif', 'b.png'):
    write_picture(tmp_path / 'one' / name, scene(8, 8, 0))
  pages = [Image.fromarray(scene(8, 8, 0))] * 2
  pages[0].save(tmp_path / 'one' / 'x.tif', save_all=True, append_images=pages[1:])
  write_picture(tmp_path / 'one' / 'x_2.png', scene(8, 8, 0))
  inputs = sources.find([str(tmp_path / 'one'), str(tmp_path / 'two')])
  names = [name for item in inputs.items for name in item.names]
  assert len({name.casefold() for name in names}) == len(names) == 8
  assert {*names} >= {'a_jpg', 'A_tif', 'a_png', 'a_png_2', 'b'}
  assert noted(inputs).count('another is called a too') == 1
  assert 'one/a.jpg as a_jpg' in noted(inputs)


def test_a_name_that_is_too_long_to_call_files_after_it_is_a_problem(tmp_path):
  place, out = tmp_path / 'in', tmp_path / 'out'
  write_picture(place / 'a.png', scene(8, 8, 0))
  for name in ('x' * 220, 'y' * 221, 'ä' * 111):
    write_picture(place / f'{name}.png', scene(8, 8, 0))
  pages = [Image.fromarray(scene(8, 8, 0))] * 2
  pages[0].save(place / f'{"z" * 219}.tif', save_all=True, append_images=pages[1:])
  write_series(place / ('s' * 230), units(2, 8, 6))
  np.save(place / 'none.npy', np.zeros((0, 8, 8, 3), np.uint8))
  inputs = sources.find([str(place)], out)
  assert [*named(inputs)] == ['a', 'none', 'x' * 220]
  lines = '\n'.join(inputs.problems.lines)
  for path, size in (('y' * 221, 221), ('ä' * 111, 222), ('z' * 219, 221), ('s' * 230, 230)):
    assert re.search(rf'{path}\S*: its name is too long .*\({size} bytes, of 220\)', lines)
  for name in ('a.png', 'none.npy', f'{"x" * 220}.png'):
    (place / name).unlink()
  with pytest.raises(UserError, match='(?s)nothing can be read.*its name is too long'):
    sources.find([str(place)], out)
  assert len(named(sources.find([str(place)]))) == 4  # nothing is written


def test_nothing_is_left_out_unsaid(tmp_path):
  place = tmp_path / 'in'
  write_picture(place / 'a.png', scene(8, 8, 0))
  write_picture(place / 'out' / 'masks' / 'a.png', scene(8, 8, 0))
  for name in ('._a.png', '.hidden.png', 'Thumbs.db', 'notes.txt', '.git/b.png'):
    (place / name).parent.mkdir(exist_ok=True)
    (place / name).write_bytes(b'x')
  (place / 'odd.tif').write_bytes(b'')
  (place / 'broken.nii.gz').write_bytes(b'no volume')
  (place / 'broken.npy').write_bytes(b'no array')
  os.mkfifo(place / 'pipe.png')
  inputs = sources.find([str(place), str(place / 'a.png')], place / 'out')
  assert named(inputs) == {'a': ('picture', 1), 'odd': ('picture', 1)}
  lines = '\n'.join(inputs.problems.lines)
  for name in ('broken.nii.gz', 'broken.npy', 'pipe.png'):
    assert name in lines
  for name in ('.hidden.png', '._a.png', 'Thumbs.db', 'notes.txt', '.git', 'out/masks/a.png'):
    assert name in noted(inputs)
  assert 'named twice' in noted(inputs)


def test_where_nothing_is_to_predict(tmp_path):
  with pytest.raises(UserError, match='no file or folder'):
    sources.find([str(tmp_path / 'nowhere')])
  (tmp_path / 'notes.txt').write_text('')
  with pytest.raises(UserError, match='(?s)nothing to predict.*notes.txt'):
    sources.find([str(tmp_path)])
  with pytest.raises(UserError, match='(?s)nothing can be read.*notes.txt'):
    sources.find([str(tmp_path / 'notes.txt')])  # named itself: a fault


def test_labels_beside_images_are_not_predicted(tmp_path):
  for path in ('images/a.png', 'masks/a/anna.png', 'masks/a/ben.png', 'more/masks/b.png'):
    write_picture(tmp_path / path, scene(8, 8, 0))
  inputs = sources.find([str(tmp_path)])
  assert [*named(inputs)] == ['images/a', 'more/masks/b']  # without images/, a name like others
  assert f'{tmp_path}/masks' in noted(inputs)
  assert 'beside images/' in noted(inputs)
  assert len(named(sources.find([str(tmp_path / 'masks')]))) == 2  # named itself


def test_a_folder_of_one_series_is_an_item(tmp_path):
  write_series(tmp_path / 's', units(3, 6, 5))
  item = sources.item_of(tmp_path / 's')
  assert (item.name, item.kind, item.count) == ('s', 'dicom', 3)
  write_picture(tmp_path / 's' / 'a.png', scene(8, 8, 0))
  with pytest.raises(UserError, match='not of one DICOM series; it holds 2 images'):
    sources.item_of(tmp_path / 's')


def test_series_of_one_folder_and_files_without_an_ending(tmp_path):
  volume = units(3, 6, 5)
  write_series(tmp_path / 's', volume, uid='1.2.3')
  write_series(tmp_path / 's' / 'more', volume[:1], uid='1.2.4')
  inputs = sources.find([str(tmp_path / 's')])
  single = next(iter((tmp_path / 's/more').iterdir())).stem
  assert named(inputs) == {'s': ('dicom', 3), f'more/{single}': ('dicom', 1)}
  for path in [*(tmp_path / 's/more').iterdir()]:
    path.rename(tmp_path / 's' / 'IM0001')
  inputs = sources.find([str(tmp_path / 's')])
  assert named(inputs) == {'s_1.2.3': ('dicom', 3), 'IM0001': ('dicom', 1)}
