"""IDD's folders: the published test scenes, several sizes, unknown objects, damage by path."""

import cv2
import numpy as np
import pytest

from car_jax.data import labels, opening, pipeline
from car_jax.datasets.idd import idd_dataset_builder as builder
from tests.datasets.files import nothing_prepared, records, run, write_png

SCENES = (('train', '265'), ('train', '26'), ('train', '3761'), ('train', '7'), ('val', '95'))


def idd(root):
  """One image of each of SCENES, of two sizes, ids 0 to 25 and 255; one is a jpg."""
  rng = np.random.default_rng(0)
  for k, (part, scene) in enumerate(SCENES):
    size, stem = ((16, 24), (20, 32))[k % 2], f'frame{k}'
    ending = 'jpg' if scene == '7' else 'png'
    image = rng.integers(0, 256, (*size, 3))
    write_png(root / f'leftImg8bit/{part}/{scene}/{stem}_leftImg8bit.{ending}', image)
    ids = rng.permutation(np.resize([*range(26), 255], size[0] * size[1])).reshape(size)
    write_png(root / f'gtFine/{part}/{scene}/{stem}_gtFine_labellevel3Ids.png', ids)
    write_png(root / f'gtFine/{part}/{scene}/{stem}_gtFine_labelColors.png', ids)
  write_png(root / 'leftImg8bit/test/1/x_leftImg8bit.png', np.zeros((4, 4)))
  return root


def test_there_are_37_test_scenes():
  assert len(builder.TEST_SCENES) == 37


def test_splits_sizes_and_labels(tmp_path):
  source = idd(tmp_path / 's')
  assert run('idd', source, tmp_path / 'd', '--scale', '1') == 0
  for split, groups in (
    ('test', {'train/265', 'train/7'}),
    ('train', {'train/26', 'train/3761'}),
    ('calibration', {'val/95'}),
  ):
    found = records('idd/scale1', tmp_path / 'd', split)
    assert {r['group'] for r in found.values()} == groups
    for name, record in found.items():
      path = source / 'gtFine' / f'{name}_gtFine_labellevel3Ids.png'
      ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
      np.testing.assert_array_equal(record['labels'][0], labels.idd_train_ids(ids))
      assert record['image'].shape[:2] == ids.shape


def test_unknown_objects(tmp_path):
  source = idd(tmp_path / 's')
  assert run('idd', source, tmp_path / 'd', '--scale', '1', '--unknown', '16, 8') == 0
  name = 'idd/scale1-unknown_16+8'
  dataset = opening.open_dataset({'name': name, 'data_dir': str(tmp_path / 'd')})
  assert dataset.info.unknown_label == 254
  config = dict(batch=1)
  for batch in pipeline.eval_batches(dataset.split('test'), dataset.info, config):
    path = source / 'gtFine' / f'{batch["id"][0]}_gtFine_labellevel3Ids.png'
    ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(batch['unknown'][0], (ids == 8) | (ids == 16))
    np.testing.assert_array_equal(batch['labels'][0, 0], labels.idd_train_ids(ids))


@pytest.mark.parametrize(
  ('text', 'told'),
  [
    ('8,9', '--unknown 8,9: 9 is car, a known class'),
    ('26', "'26' is no level-3 id\n"),
    ('autorickshaw', "'autorickshaw' is no level-3 id"),
  ],
)
def test_ids_that_cannot_be_unknown(tmp_path, capsys, text, told):
  assert run('idd', idd(tmp_path / 's'), tmp_path / 'd', '--unknown', text) == 2
  message = capsys.readouterr().err
  assert told in message
  assert 'may be unknown: 1 parking, 3 rail track, 8 autorickshaw' in message


def test_damage_is_named_at_once(tmp_path, capsys):
  source = idd(tmp_path / 's')
  (source / 'gtFine/train/265/frame0_gtFine_labellevel3Ids.png').unlink()
  write_png(source / 'gtFine/train/26/frame1_gtFine_labellevel3Ids.png', np.full((20, 32), 26))
  write_png(source / 'leftImg8bit/val/95/frame4_leftImg8bit.jpg', np.zeros((16, 24, 3)))
  (source / 'leftImg8bit/train/7/notes.txt').write_text('x')
  assert run('idd', source, tmp_path / 'd') == 2
  told = capsys.readouterr().err
  assert '4 problems' in told
  for what in (
    'frame0_gtFine_labellevel3Ids.png: missing',
    'frame1_gtFine_labellevel3Ids.png: id 26 is no class; expected 0 to 25 and 255',
    'is there twice, also as frame4_leftImg8bit.',
    'notes.txt: expected SCENE/NAME_leftImg8bit.png or .jpg',
  ):
    assert what in told
  assert nothing_prepared(tmp_path / 'd')


def test_another_layout_is_refused(tmp_path, capsys):
  (tmp_path / 's/leftImg8bit').mkdir(parents=True)
  assert run('idd', tmp_path / 's', tmp_path / 'd') == 2
  assert 'leftImg8bit holds no {train,val}/SCENE' in capsys.readouterr().err
