"""ACDC's folders: splits by condition, and every kind of damage named by path."""

import numpy as np
import pytest

from car_jax.data import labels, opening, sources
from tests.datasets.files import nothing_prepared, records, run, write_png

SCENES = (
  # condition, part, scene; a scene of rain that is named after another condition
  *(('fog', 'train', 'GOPR1'), ('fog', 'val', 'GOPR2'), ('night', 'train', 'GOPR1')),
  *(('rain', 'train', 'GP_fog_3'), ('rain', 'val', 'GP_train'), ('snow', 'val', 'GOPR7')),
)


def acdc(root, prefixed=False, size=(12, 20)):
  """Two images of each of SCENES, label ids with all 34 numbers and 255."""
  rng = np.random.default_rng(0)
  images = root / 'rgb_anon_trainvaltest' / 'rgb_anon' if prefixed else root / 'rgb_anon'
  gt = root / 'gt_trainval' / 'gt' if prefixed else root / 'gt'
  for condition, part, scene in SCENES:
    for k in range(2):
      place, stem = f'{condition}/{part}/{scene}', f'{scene}_frame_{k}'
      write_png(images / place / f'{stem}_rgb_anon.png', rng.integers(0, 256, (*size, 3)))
      ids = np.resize([*range(34), 255], size[0] * size[1])
      write_png(gt / place / f'{stem}_gt_labelIds.png', rng.permutation(ids).reshape(size))
      write_png(gt / place / f'{stem}_gt_labelColor.png', np.zeros((*size, 3)))
  write_png(images / 'fog' / 'train_ref' / 'GOPR1' / 'x_rgb_ref_anon.png', np.zeros((4, 4)))
  return root


@pytest.mark.parametrize('prefixed', [False, True])
def test_splits_by_condition(tmp_path, prefixed):
  source = acdc(tmp_path / 's', prefixed)
  assert run('acdc', source, tmp_path / 'd', '--scale', '1') == 0
  for condition, part, scene in SCENES:
    split = f'{condition}_{"test" if part == "train" else "calibration"}'
    found = records('acdc/scale1', tmp_path / 'd', split)
    group = f'{condition}/{scene}'
    assert set(found) == {f'{group}/{scene}_frame_{k}' for k in range(2)}
    assert {r['group'] for r in found.values()} == {group}
    for record in found.values():
      assert set(np.unique(record['labels'])) == {*range(19), 255}
  with pytest.raises(sources.UserError, match=r"no split 'snow_test'"):
    opening.open_dataset({'name': 'acdc/scale1', 'data_dir': str(tmp_path / 'd')}).split(
      'snow_test'
    )


def test_labels_belong_to_their_images_at_a_quarter(tmp_path):
  source = acdc(tmp_path / 's')
  place = 'rain/train/GP_fog_3/GP_fog_3_frame_1'
  ids = np.repeat(np.repeat(np.array([[7, 26, 0], [23, 33, 4]]), 4, 0), 4, 1)
  image = np.repeat(ids[..., None], 3, -1)
  write_png(source / 'rgb_anon' / f'{place}_rgb_anon.png', image)
  write_png(source / 'gt' / f'{place}_gt_labelIds.png', ids)
  assert run('acdc', source, tmp_path / 'd') == 0
  record = records('acdc', tmp_path / 'd', 'rain_test')['rain/GP_fog_3/GP_fog_3_frame_1']
  want = labels.scored_train_ids(ids[::4, ::4])
  np.testing.assert_array_equal(record['labels'][0], want)
  assert record['image'].shape == (2, 3, 3)


def test_damage_is_named_at_once(tmp_path, capsys):
  source = acdc(tmp_path / 's')
  gt = source / 'gt/fog/train/GOPR1'
  (gt / 'GOPR1_frame_0_gt_labelIds.png').unlink()
  write_png(gt / 'GOPR1_frame_1_gt_labelIds.png', np.full((12, 20), 34))
  write_png(source / 'gt/fog/val/GOPR2/GOPR2_frame_0_gt_labelIds.png', np.zeros((12, 21)))
  (source / 'rgb_anon/snow/val/GOPR7/notes.txt').write_text('x')
  assert run('acdc', source, tmp_path / 'd') == 2
  told = capsys.readouterr().err
  assert '4 problems' in told
  for what in (
    'GOPR1_frame_0_gt_labelIds.png: missing',
    'GOPR1_frame_1_gt_labelIds.png: id 34 is no class; expected 0 to 33 and 255',
    'GOPR2_frame_0_gt_labelIds.png: 21x12 pixels, its image ',
    'notes.txt: expected SCENE/NAME_rgb_anon.png',
  ):
    assert what in told
  assert nothing_prepared(tmp_path / 'd')


def test_other_layouts_are_refused(tmp_path, capsys):
  (tmp_path / 's/gt').mkdir(parents=True)
  assert run('acdc', tmp_path / 's', tmp_path / 'd') == 2
  assert 'expected rgb_anon/ and gt/ side by side' in capsys.readouterr().err
  (tmp_path / 's/rgb_anon/fogg/train').mkdir(parents=True)
  assert run('acdc', tmp_path / 's', tmp_path / 'd') == 2
  assert 'conditions: fog, night, rain, snow' in capsys.readouterr().err
