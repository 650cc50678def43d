"""Label maps as files: values, colours, and that Cityscapes' own evaluator finds and takes them."""

import numpy as np
import pytest
from PIL import Image

from car_jax.data import importance, labels, sources
from car_jax.errors import UserError
from car_jax.evaluate import label_maps

NAME = 'frankfurt/frankfurt_000000_000294'


def train_ids(seed=0):
  found = np.random.default_rng(seed).integers(0, 20, (6, 8))
  return np.where(found == 19, 255, found)


def opened(path):
  return np.asarray(Image.open(path))


def test_three_pictures_of_one_map(tmp_path):
  found = train_ids()
  label_maps.save(tmp_path, NAME, found)
  np.testing.assert_array_equal(opened(tmp_path / 'train_ids' / f'{NAME}.png'), found)
  ids = opened(tmp_path / 'label_ids' / f'{NAME}.png')
  np.testing.assert_array_equal(labels.scored_train_ids(ids), found)
  assert (ids[found == 255] == 0).all()
  colours = opened(tmp_path / 'colours' / f'{NAME}.png')
  assert {tuple(c) for c in colours[found == 1]} == {(244, 35, 232)}
  assert {tuple(c) for c in colours[found == 255]} == {(0, 0, 0)}


def test_they_are_read_in_the_order_of_names(tmp_path):
  for i, name in enumerate(('b/x', 'a/y')):
    label_maps.save(tmp_path, name, train_ids(i))
  (first, y), (second, x) = label_maps.read(tmp_path)
  assert (first, second) == ('a/y', 'b/x')
  np.testing.assert_array_equal(x, train_ids(0))
  np.testing.assert_array_equal(y, train_ids(1))


def test_the_official_evaluator_finds_and_scores_them(tmp_path, monkeypatch):
  name = 'cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling'
  evaluator = pytest.importorskip(name, reason='a test-only dependency')
  found = np.where(train_ids() == 255, 0, train_ids())
  label_maps.save(tmp_path, NAME, found)
  truth = tmp_path / 'gt' / f'{NAME}_gtFine_labelIds.png'
  truth.parent.mkdir(parents=True)
  Image.fromarray(labels.label_ids(found)).save(truth)
  for key, value in dict(
    predictionPath=str(tmp_path / 'label_ids'),
    predictionWalk=None,
    quiet=True,
    evalInstLevelScore=False,
    evalPixelAccuracy=False,
    JSONOutput=False,
  ).items():
    monkeypatch.setattr(evaluator.args, key, value, raising=False)
  prediction = evaluator.getPrediction(evaluator.args, str(truth))
  assert prediction == str(tmp_path / 'label_ids' / f'{NAME}.png')
  scores = evaluator.evaluateImgLists([prediction], [str(truth)], evaluator.args)
  assert scores['averageScoreClasses'] == 1


def test_the_command_counts_classes(tmp_path, capsys):
  found = np.where(train_ids() == 7, 255, train_ids())
  label_maps.save(tmp_path / 'maps', NAME, found)
  file = tmp_path / 'counts.npz'
  assert label_maps.main([str(tmp_path / 'maps'), str(file)]) == 0
  seen = len(set(found.ravel().tolist()) - {255})
  assert f'counts.npz: {seen} of 19 classes on 1 images' in capsys.readouterr().out
  counts = importance.load(file, 19)
  assert counts.ids == (NAME,)
  assert counts.pixels[0].tolist() == [(found == c).sum() for c in range(19)]
  assert label_maps.main([str(tmp_path), str(file)]) == 2
  assert 'train_ids holds no label maps\n  name a folder' in capsys.readouterr().err
  assert label_maps.main([str(tmp_path / 'maps'), str(tmp_path / 'no' / 'c.npz')]) == 2
  assert 'to make it: mkdir ' in capsys.readouterr().err


def test_label_maps_of_other_values_are_named(tmp_path, capsys):
  label_maps.save(tmp_path, 'a', train_ids())
  (tmp_path / 'train_ids' / 'notes.txt').write_text('x')
  assert len([*label_maps.read(tmp_path)]) == 1
  assert '1 files are no label maps, such as notes.txt' in capsys.readouterr().err
  path = tmp_path / 'train_ids' / 'a.png'
  for spoilt in (np.full((6, 8), 19, np.uint8), np.zeros((6, 8, 3), np.uint8)):
    Image.fromarray(spoilt).save(path)
    with pytest.raises(UserError, match='a.png holds no train ids'):
      next(label_maps.read(tmp_path))
  path.write_bytes(path.read_bytes()[:40])
  with pytest.raises(UserError, match='a.png cannot be read as a picture'):
    next(label_maps.read(tmp_path))


def test_mistakes(tmp_path):
  with pytest.raises(UserError, match='holds no label maps\n  name a folder'):
    next(label_maps.read(tmp_path))
  with pytest.raises(ValueError, match='a: 24 is no train id'):
    label_maps.save(tmp_path, 'a', np.array([[0, 24]]))
  with pytest.raises(UserError, match="'../a' cannot name a file"):
    label_maps.save(tmp_path, '../a', np.array([[0, 1]]))


@pytest.mark.parametrize('count', [2, 300])
def test_any_classes_are_saved_by_their_number_and_colour(tmp_path, count):
  palette = tuple((c % 256, 7 * c % 256, c // 256) for c in range(count))
  info = sources.DataInfo('mine', count, tuple(map(str, range(count))), palette, 1)
  found = np.random.default_rng(0).integers(0, count, (6, 8))
  label_maps.save(tmp_path, 'a/b', found, info)
  assert {p.name for p in tmp_path.iterdir()} == {'class_ids', 'colours'}
  saved = opened(tmp_path / 'class_ids' / 'a' / 'b.png')
  np.testing.assert_array_equal(saved, found)
  assert saved.dtype.itemsize == (1 if count <= 256 else 2)
  np.testing.assert_array_equal(opened(tmp_path / 'colours/a/b.png'), np.uint8(palette)[found])


def test_cityscapes_classes_with_an_ignored_one_are_still_its_own(tmp_path):
  names = (*labels.CLASS_NAMES[:19], 'unlabelled')
  info = sources.DataInfo('cityscapes', 20, names, (), 1, ignore_label=19)
  found = np.where(train_ids() == 255, 19, train_ids())
  label_maps.save(tmp_path, 'a', found, info)
  np.testing.assert_array_equal(opened(tmp_path / 'train_ids' / 'a.png'), train_ids())
  other = sources.DataInfo('other', 20, names, ((0, 0, 0),) * 20, 1)
  assert label_maps.of_cityscapes(info)
  assert not label_maps.of_cityscapes(other)
