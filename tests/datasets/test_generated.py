"""Generated sets as data sets: ours and released ones, without what was rejected."""

import numpy as np
import pytest
from PIL import Image

from car_jax.generate import __main__ as command
from car_jax.generate import sets
from tests.datasets.files import nothing_prepared, records, run, truncate
from tests.generate import released

ROAD, CAR, BUILDING, UNKNOWN = 0, 13, 2, 254  # train ids of label ids 7, 26 and 11


def test_released_scenes_become_a_split_for_each_domain(tmp_path, capsys):
  root = released.styles(tmp_path / 's')
  (root / sets.BY_EYE).write_text('fog/11_frankfurt_000001_000019 # two moons\n')
  assert run('generated_scenes', root, tmp_path / 'd') == 0
  told = capsys.readouterr().out
  assert '1 x rejected by eye, left out: two moons: fog/11_frankfurt_000001_000019' in told
  fog, rain = (records('generated_scenes', tmp_path / 'd', k) for k in ('fog', 'heavy_rain'))
  assert [*fog] == ['fog/0_frankfurt_000001_000019']
  for record, number, label in (
    (fog['fog/0_frankfurt_000001_000019'], 0, ROAD),
    (rain['heavy rain/11_frankfurt_000001_000019'], 11, CAR),
  ):
    domain = record['id'].partition('/')[0]
    name = f'{domain}_{number}_frankfurt_000001_000019_leftImg8bit.png'
    image = np.asarray(Image.open(root / domain / 'leftImg8bit/val/frankfurt' / name))
    np.testing.assert_array_equal(record['image'], image)
    np.testing.assert_array_equal(record['labels'], np.full((1, 8, 8), label))
    assert record['group'] == 'frankfurt/frankfurt_000001_000019'


def test_released_objects_are_unknown_where_their_mask_is(tmp_path, capsys):
  root = released.objects(tmp_path / 's')
  assert run('generated_objects', root, tmp_path / 'd', '--variant', 'relis') == 0
  assert '1 x rejected, left out: no reason given: polar bear/1' in capsys.readouterr().out
  found = records('generated_objects/relis', tmp_path / 'd', 'test')
  assert {*found} == {'polar bear/0', 'polar bear/2'}
  for number, label in ((0, ROAD), (2, BUILDING)):
    want = np.full((1, 8, 16), label)
    want[:, 3:5, 4:6] = UNKNOWN
    record = found[f'polar bear/{number}']
    np.testing.assert_array_equal(record['labels'], want)
    image = np.asarray(Image.open(root / f'refined/polar bear/{number}.png'))
    np.testing.assert_array_equal(record['image'], image)
  assert len({r['group'] for r in found.values()}) == 2


def test_images_of_one_scene_are_of_one_group(tmp_path):
  root = released.objects(tmp_path / 's')
  released.save(root / 'masks/polar bear/1_mask.png', np.full((8, 16), 255))
  (root / 'masks/polar bear/1_mask.txt').unlink()
  assert run('generated_objects', root, tmp_path / 'd') == 0
  found = records('generated_objects', tmp_path / 'd', 'test')
  groups = [found[f'polar bear/{k}']['group'] for k in range(3)]
  assert groups[0] == groups[1] != groups[2]


@pytest.mark.parametrize(
  ('name', 'change', 'message'),
  [
    ('objects', lambda r: truncate(next(r.rglob('0_mask.png'))), '0_mask.png cannot be read'),
    ('objects', lambda r: released.save(r / 'masks/polar bear/0_mask.png', np.ones((8, 16))),
     '0_mask.png: has other values than 0 and 255'),
    ('objects', lambda r: released.save(r / 'with_positions/polar bear/0_gt.png', np.ones((4, 4))),
     '0_gt.png: 4x4 pixels'),
    ('objects', lambda r: released.save(r / 'with_positions/polar bear/0_gt.png',
                                        np.full((8, 16), 77)), '77'),
    ('objects', lambda r: [p.rename(p.with_suffix('.txt')) for p in r.rglob('*_mask.png')],
     'of images with objects it holds 3, none of them accepted'),
    ('scenes', lambda r: released.styles(r, ('heavy-rain',)), 'would be splits of the same names'),
    ('scenes', lambda r: (r / sets.BY_EYE).write_text('x\n'), "line 1: no image 'x'"),
    ('scenes', lambda r: next(r.rglob('fog_0*labelIds.png')).unlink(), 'labelIds.png: missing'),
  ],
)  # fmt: skip
def test_bad_files_are_named_and_nothing_is_prepared(tmp_path, capsys, name, change, message):
  root = released.objects(tmp_path / 's') if name == 'objects' else released.styles(tmp_path / 's')
  change(root)
  assert run(f'generated_{name}', root, tmp_path / 'd') == 2
  assert message in capsys.readouterr().err
  assert nothing_prepared(tmp_path / 'd')


def test_a_folder_of_the_other_kind_is_told(tmp_path, capsys):
  assert run('generated_objects', released.styles(tmp_path / 's'), tmp_path / 'd') == 2
  assert 'of images with objects it holds none' in capsys.readouterr().err


def test_ours_are_read_alike(tmp_path):
  out = tmp_path / 's'
  for kind in ('style', 'ood'):
    more = ('--domains', 'fog') if kind == 'style' else ('--objects', 'ball')
    arguments = ('--out', str(out), '--height', '32', '--stop', '2', *more)
    assert command.main(['procedural', kind, *arguments]) == 0
    assert run(f'generated_{"scenes" if kind == "style" else "objects"}', out, tmp_path / 'd') == 0
  objects = records('generated_objects', tmp_path / 'd', 'test')
  for item in sets.read(out):
    image = np.asarray(Image.open(item.picture))
    if item.kind == 'style':
      record = records('generated_scenes', tmp_path / 'd', 'fog')[item.id]
    else:
      record, mask = objects[item.id], np.asarray(Image.open(item.files['mask'])) > 0
      np.testing.assert_array_equal(record['labels'][0] == UNKNOWN, mask)
    np.testing.assert_array_equal(record['image'], image)
    assert record['group'] == item.scene
