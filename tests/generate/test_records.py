"""Generated sets: the same bytes in whatever order they are made, and nothing half-made counts."""

import errno
import json
import os
import pathlib
import subprocess

import numpy as np
import pytest
from PIL import Image

from car_jax import folders
from car_jax.errors import UserError
from car_jax.generate import boxes, records, sets

ABOUT = dict(generator='test', seed=3, settings=dict(steps=4, scale=(7.5, 8)))


def pictures(index):
  rng = np.random.default_rng(index)
  image = rng.integers(0, 256, (8, 16, 3), np.uint8)
  return image, rng.integers(0, 34, (8, 16), np.uint8)


def styled(index):
  image, ids = pictures(index)
  return records.StyleImage(f'bonn/bonn_{index % 3:06}_000019', image, ids, 255 - image)


def with_object(index):
  image, ids = pictures(index)
  box, mask = boxes.Box(2, 3, 4, 6), np.zeros((8, 16), bool)
  mask[3:5, 4:6] = True
  kept = dict(mask=mask) if index % 4 else dict(reason='no change')
  return records.ObjectImage('bonn/bonn_0', image, ids, box, 'exact', **kept)


def make(out, kind, groups, indices):
  writer = records.Writer(out, kind, groups={g: {'prompt': g} for g in groups}, **ABOUT)
  made = []
  for group in groups:
    for index in writer.missing(group, indices):
      writer.add(group, index, styled(index) if kind == 'style' else with_object(index))
      made.append((group, index))
  sets.write_index(out)
  return made


def content(out):
  return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob('*')) if p.is_file()}


def test_the_layout_is_that_of_the_released_images(tmp_path):
  make(tmp_path, 'style', ['fog'], [7])
  make(tmp_path, 'ood', ['polar bear'], [4, 5])
  assert {p for p in content(tmp_path) if not p.startswith('records/')} == {
    'fog/leftImg8bit/val/bonn/fog_7_bonn_000001_000019_leftImg8bit.png',
    'fog/gtFine/val/bonn/fog_7_bonn_000001_000019_labelIds.png',
    'fog/original/val/bonn/fog_7_bonn_000001_000019_leftImg8bit.png',
    *(f'with_positions/polar bear/{i}{end}' for i in (4, 5) for end in ('.png', '_gt.png')),
    *(f'with_positions/polar bear/{i}_pos.json' for i in (4, 5)),
    'with_positions/polar bear/5_ood.png',
    'masks/polar bear/5_mask.png',
    'masks/polar bear/4_mask.txt',
    'index.jsonl',
  }
  place = tmp_path / 'with_positions' / 'polar bear'
  box = json.loads((place / '5_pos.json').read_text())
  assert box == {'5.png': {'pos_mask': [2, 3], 'size_mask': 4}}
  ids, found = (np.asarray(Image.open(place / f'5_{end}.png')) for end in ('gt', 'ood'))
  mask = np.asarray(Image.open(tmp_path / 'masks/polar bear/5_mask.png'))
  assert {*np.unique(mask)} == {0, 255}
  np.testing.assert_array_equal(found, np.where(mask == 255, 255, ids))
  np.testing.assert_array_equal(ids, pictures(5)[1])
  row = [json.loads(line) for line in (tmp_path / 'index.jsonl').read_text().splitlines()][-1]
  assert (row['id'], row['status'], row['mask_area'], row['box']['size']) == (
    *('polar bear/5', 'accepted', 4), 4,
  )  # fmt: skip
  assert row['settings'] == {'steps': 4, 'scale': [7.5, 8], 'prompt': 'polar bear'}


@pytest.mark.parametrize('kind', records.KINDS)
def test_any_order_gives_the_same_bytes(tmp_path, kind):
  for name, parts in dict(
    a=[range(8)], b=[range(4), range(4, 8)], c=[range(4, 8), range(8)]
  ).items():
    for part in parts:
      make(tmp_path / name, kind, ['x', 'y'], part)
  assert content(tmp_path / 'a') == content(tmp_path / 'b') == content(tmp_path / 'c')
  assert make(tmp_path / 'a', kind, ['x', 'y'], range(8)) == []


@pytest.mark.parametrize('written', range(6))
def test_what_was_cut_short_is_made_again(tmp_path, monkeypatch, written):
  make(tmp_path / 'whole', 'ood', ['x'], range(3))
  make(tmp_path / 'cut', 'ood', ['x'], range(1))
  left = [written]

  def write(path, data, real=records.write):
    if not left[0]:
      raise KeyboardInterrupt
    left[0] -= 1
    real(path, data)

  monkeypatch.setattr(records, 'write', write)
  with pytest.raises(KeyboardInterrupt):
    make(tmp_path / 'cut', 'ood', ['x'], range(3))
  monkeypatch.undo()
  assert [i.index for i in sets.read(tmp_path / 'cut')] == [0]
  assert make(tmp_path / 'cut', 'ood', ['x'], range(3)) == [('x', 1), ('x', 2)]
  assert content(tmp_path / 'cut') == content(tmp_path / 'whole')


def test_half_files_of_killed_runs_are_removed(tmp_path):
  make(tmp_path, 'style', ['fog'], range(2))
  gone = subprocess.Popen(['true'])
  gone.wait()
  place = tmp_path / 'fog/leftImg8bit/val/bonn'
  names = [f'a.png.{gone.pid}.part', f'b.png.{os.getpid()}.part', f'c.png.{gone.pid}.part']
  for name in names:
    (place / name).write_bytes(b'x')
    os.utime(place / name, (0, 0) if name[0] != 'c' else None)
  sets.write_index(tmp_path)
  assert [(place / name).exists() for name in names] == [False, True, True]


def test_files_that_are_gone_are_made_again(tmp_path):
  make(tmp_path, 'style', ['fog'], range(2))
  before = content(tmp_path)
  next(tmp_path.rglob('*_1_*labelIds.png')).unlink()
  assert make(tmp_path, 'style', ['fog'], range(2)) == [('fog', 1)]
  assert content(tmp_path) == before


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (dict(seed=4), 'seed: 3 there, 4 now'),
    (dict(generator='other'), 'generator: "test" there, "other" now'),
    (dict(settings=dict(steps=5, scale=(7.5, 8))), 'steps: 4 there, 5 now'),
    (dict(settings=dict(steps=4)), r'scale: \[7.5, 8\] there, none now'),
    (dict(groups={'fog': {'prompt': 'mist'}}), 'prompt: "fog" there, "mist" now'),
  ],
)
def test_other_settings_are_refused_with_what_differs(tmp_path, change, message):
  make(tmp_path, 'style', ['fog'], [0])
  before = content(tmp_path)
  given = ABOUT | dict(groups={'fog': {'prompt': 'fog'}}) | change
  with pytest.raises(UserError, match=rf'such as fog/0_bonn(.|\n)*{message}\n  name a new folder'):
    records.Writer(tmp_path, 'style', **given)
  assert content(tmp_path) == before


def test_another_domain_may_join_with_a_prompt_of_its_own(tmp_path):
  make(tmp_path, 'style', ['fog'], [0])
  assert make(tmp_path, 'style', ['rain'], [0]) == [('rain', 0)]
  assert [i.id for i in sets.read(tmp_path)] == [
    f'{d}/0_bonn_000000_000019' for d in ('fog', 'rain')
  ]


@pytest.mark.parametrize('name', ['', '..', 'a/b', 'a\nb', ' fog', 'records', 'x' * 101, 'a:b'])
def test_a_name_that_is_no_folder_is_refused(tmp_path, name):
  with pytest.raises(UserError, match='domain .*folder'):
    records.Writer(tmp_path, 'style', groups={name: {}}, **ABOUT)
  assert not content(tmp_path)


def test_a_full_disk_names_the_file_and_leaves_nothing_half_written(tmp_path, monkeypatch):
  make(tmp_path, 'style', ['fog'], [0])
  before = content(tmp_path)

  def full(self, data):
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(pathlib.Path, 'write_bytes', full)
  writer = records.Writer(tmp_path, 'style', groups={'fog': {'prompt': 'fog'}}, **ABOUT)
  with pytest.raises(OSError, match='No space left') as e:
    writer.add('fog', 1, styled(1))
  assert 'fog_1_bonn' in e.value.filename
  monkeypatch.undo()
  assert content(tmp_path) == before


def test_a_folder_that_cannot_be_written_is_told_first(tmp_path, monkeypatch):
  def refuse(folder):
    raise UserError(f'{folder} cannot be written')

  monkeypatch.setattr(folders, 'check_writable', refuse)
  with pytest.raises(UserError, match='cannot be written'):
    records.Writer(tmp_path, 'style', groups={'fog': {}}, **ABOUT)


@pytest.mark.parametrize(
  'damage',
  [
    lambda r: r.write_text('{'),
    lambda r: r.write_text(r.read_text().replace('"fog/0_', '"fog/1_')),
    lambda r: r.write_text(r.read_text().replace('fog/leftImg8bit', '../leftImg8bit')),
    lambda r: r.write_text(r.read_text().replace('"scene": "bonn', '"scene": "../bonn')),
    lambda r: r.rename(r.with_name('5.json')),
  ],
)
def test_a_damaged_record_is_named(tmp_path, damage):
  make(tmp_path, 'style', ['fog'], [0])
  damage(tmp_path / 'records/style/fog/0.json')
  with pytest.raises(UserError, match=r'records/style/fog/\d\.json(.|\n)*its image is made again'):
    sets.read(tmp_path)


def test_what_is_rejected_by_eye_is_left_out_and_counted(tmp_path):
  make(tmp_path, 'style', ['fog'], range(3))
  make(tmp_path, 'ood', ['c# 1', 'x'], range(3))
  listed = '# mine\n\nfog/1_bonn_000001_000019 # two moons\nc# 1/2\nx/0 # and no mask\n'
  (tmp_path / sets.BY_EYE).write_text(listed)
  items = sets.write_index(tmp_path)
  struck = {i.id: i.reason for i in items if i.status == sets.STRUCK}
  assert struck == {'fog/1_bonn_000001_000019': 'two moons', 'c# 1/2': '', 'x/0': 'and no mask'}
  assert sets.acceptance(items) == [
    'fog: 2 of 3 accepted, 1 rejected by eye',
    'c# 1: 1 of 3 accepted, 1 rejected, 1 rejected by eye',
    'x: 2 of 3 accepted, 1 rejected by eye',
  ]
  rows = [json.loads(line) for line in (tmp_path / 'index.jsonl').read_text().splitlines()]
  assert [r['status'] for r in rows].count(sets.STRUCK) == 3
  (tmp_path / sets.BY_EYE).write_text('fog/9\n')
  with pytest.raises(UserError, match=r"rejected_by_eye.txt: line 1: no image 'fog/9'"):
    sets.read(tmp_path)
