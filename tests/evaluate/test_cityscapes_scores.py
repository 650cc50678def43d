"""The benchmark's scores from files; the numbers themselves are tested beside the metric."""

import json

import numpy as np
import pytest
from PIL import Image

from car_jax.data import labels
from car_jax.evaluate import cityscapes_scores, label_maps
from car_jax.metrics import cityscapes_official as official

FRAMES = ('aachen_000000_000019', 'bad-honnef_000001_000019')


@pytest.fixture
def folders(tmp_path):
  """Truth with instances, and predictions that are right but for the first row."""
  for seed, frame in enumerate(FRAMES):
    rng = np.random.default_rng(seed)
    train_ids = rng.integers(0, labels.SCORED, (6, 8))
    truth = labels.label_ids(train_ids)
    thing = np.isin(truth, [*official.THINGS])
    stem = tmp_path / 'truth' / frame.partition('_')[0] / f'{frame}_gtFine_'
    stem.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(truth.astype(np.uint8)).save(f'{stem}labelIds.png')
    ids = np.where(thing, truth.astype(int) * 1000, truth).astype(np.uint16)
    Image.fromarray(ids).save(f'{stem}instanceIds.png')
    train_ids[0] = 0
    label_maps.save(tmp_path / 'said', f'{frame.partition("_")[0]}/{frame}', train_ids)
  return tmp_path / 'said' / 'label_ids', tmp_path / 'truth'


def opened(path):
  return np.asarray(Image.open(path))


def test_files_become_the_benchmarks_scores(folders, tmp_path, capsys):
  said, truth = folders
  out = tmp_path / 'new' / 'scores.json'
  arguments = [str(said), str(truth), '--json', str(out)]
  assert cityscapes_scores.main(arguments) == 0
  pairs = []
  for frame in FRAMES:
    (a,), (b,), (c,) = (
      [*folder.rglob(f'{frame}{end}.png')]
      for folder, end in ((truth, '_gtFine_labelIds'), (said, ''), (truth, '_gtFine_instanceIds'))
    )
    pairs.append([opened(path) for path in (a, b, c)])
  matrix = sum(official.confusion(a, b) for a, b, _ in pairs)
  pixels = sum(official.instance_pixels(c, b) for _, b, c in pairs)
  things, groups = official.instance_iou(matrix, pixels)
  found = json.loads(out.read_text())
  iou = official.class_iou(matrix)
  np.testing.assert_allclose([v['IoU'] for v in found['classes'].values()], iou)
  assert found['classes']['car']['iIoU'] == pytest.approx(things[2])
  assert 'iIoU' not in found['classes']['road']
  assert found['categories']['vehicle']['iIoU'] == pytest.approx(groups[1])
  means = found['means']
  assert means['19 classes'] == pytest.approx({'IoU': iou.mean(), 'iIoU': things.mean()})
  assert means['16 classes']['IoU'] == pytest.approx(np.delete(iou, (9, 14, 16)).mean())
  assert means['13 classes']['IoU'] == pytest.approx(np.delete(iou, (3, 4, 5, 9, 14, 16)).mean())
  said_aloud = capsys.readouterr().out
  assert f'{"road":16} {100 * iou[0]:6.1f}' in said_aloud
  next(truth.rglob('*instanceIds.png')).unlink()
  assert cityscapes_scores.main(arguments) == 0
  assert json.loads(out.read_text())['means']['19 classes']['iIoU'] is None


def test_mistakes_get_one_message(folders, tmp_path, capsys):
  said, truth = folders
  first = said / 'aachen' / f'{FRAMES[0]}.png'
  cases = [
    ([str(tmp_path / 'none'), str(truth)], 'holds no CITY_SEQUENCE_FRAME'),
    ([str(said.parent), str(truth)], f'two files of {FRAMES[0]}'),
    ([str(said.parent / 'train_ids'), str(truth)], f'holds train ids\n  name {said}'),
    ([str(said.parent / 'colours'), str(truth)], 'has 3 dimensions; label ids are 0 to 33'),
  ]
  for arguments, message in cases:
    assert cityscapes_scores.main(arguments) == 2
    assert message in capsys.readouterr().err
  Image.fromarray(np.zeros((2, 2), np.uint8)).save(first)
  assert cityscapes_scores.main([str(said), str(truth)]) == 2
  assert 'is (2, 2)' in capsys.readouterr().err
  first.write_bytes(b'no picture')
  assert cityscapes_scores.main([str(said), str(truth)]) == 2
  assert f'{first} cannot be read' in capsys.readouterr().err
  first.unlink()
  assert cityscapes_scores.main([str(said), str(truth)]) == 2
  assert f'1 frames have no prediction, such as {FRAMES[0]}' in capsys.readouterr().err


def test_other_endings_are_read_and_train_ids_are_told(folders, capsys):
  said, truth = folders
  arguments = [str(said), str(truth)]
  assert cityscapes_scores.main(arguments) == 0
  plain = capsys.readouterr()
  assert 'train ids' not in plain.err
  first, second = (said / f.partition('_')[0] / f'{f}.png' for f in FRAMES)
  first.rename(first.with_suffix('.PNG'))
  Image.open(second).save(second.with_suffix('.tif'))
  second.unlink()
  (said / 'notes.txt').write_text('x')
  assert cityscapes_scores.main(arguments) == 0
  again = capsys.readouterr()
  assert again.out == plain.out
  assert '1 files are no predictions, such as notes.txt' in again.err
  for path in (first.with_suffix('.PNG'), second.with_suffix('.tif')):
    ids = labels.scored_train_ids(opened(path))
    Image.fromarray(np.where(ids == 255, 0, ids).astype(np.uint8)).save(path)
  assert cityscapes_scores.main(arguments) == 0
  assert 'the predictions look like train ids (0 to 18)' in capsys.readouterr().err
  Image.fromarray(np.full((6, 8), 255, np.uint8)).save(first.with_suffix('.PNG'))
  assert cityscapes_scores.main(arguments) == 2
  assert 'ids 255 to 255, as train ids have; label ids are 0 to 33' in capsys.readouterr().err
