"""Cityscapes' scores against its own evaluator, where installed, and against counting by hand."""

import types

import numpy as np
import pytest
from PIL import Image

from car_jax.data import labels
from car_jax.metrics import cityscapes_official as official
from car_jax.metrics.confusion_matrix import known_mean
from tests.metrics import published


@pytest.fixture
def evaluator(monkeypatch):
  # it calls what newer NumPys lack
  monkeypatch.setattr(np, 'in1d', lambda a, b: np.isin(a, b).ravel(), raising=False)
  name = 'cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling'
  return pytest.importorskip(name, reason='a test-only dependency')


def scene(rng):
  """Truth, instances and prediction of a few blocks: every id occurs, groups among the things."""
  draw = lambda: np.kron(rng.integers(0, 34, (6, 9)), np.ones((4, 5), int))
  truth = draw()
  number = np.kron(rng.integers(-1, 3, (6, 9)), np.ones((4, 5), int))
  instances = np.where((truth >= 24) & (number >= 0), 1000 * truth + number, truth)
  said = np.where(rng.random(truth.shape) < 0.6, truth, draw())
  return truth, instances, said


def evaluated(evaluator, folder, scenes):
  """What cityscapesscripts makes of the scenes, through files as it wants them."""
  given = dict(evalInstLevelScore=True, evalPixelAccuracy=False, quiet=True)
  args = types.SimpleNamespace(**vars(evaluator.args) | given)
  matrix = evaluator.generateMatrix(args)
  instances = evaluator.generateInstanceStats(args)
  for i, (truth, ids, said) in enumerate(scenes):
    stem = f'{folder}/x_{i:06}_000019_gtFine_'
    Image.fromarray(truth.astype(np.uint8)).save(f'{stem}labelIds.png')
    Image.fromarray(ids.astype(np.uint16)).save(f'{stem}instanceIds.png')
    Image.fromarray(said.astype(np.uint8)).save(f'{folder}/{i}.png')
    evaluator.evaluatePair(f'{folder}/{i}.png', f'{stem}labelIds.png', matrix, instances, {}, args)
  scores = types.SimpleNamespace(matrix=np.asarray(matrix)[:34, :34])
  scores.classes = [evaluator.getIouScoreForLabel(c, matrix, args) for c in official.CLASSES]
  category = lambda name: evaluator.getIouScoreForCategory(name, matrix, args)
  scores.categories = [category(name) for name in official.CATEGORIES]
  thing = lambda c: evaluator.getInstanceIouScoreForLabel(c, matrix, instances, args)
  scores.things = [thing(c) for c in official.THINGS]
  group = lambda c: evaluator.getInstanceIouScoreForCategory(c, matrix, instances, args)
  scores.groups = [group(name) for name in official.THING_CATEGORIES]
  return scores


@pytest.mark.parametrize('seed', range(4))
def test_all_scores_are_the_official_evaluators(evaluator, tmp_path, seed):
  rng = np.random.default_rng(seed)
  scenes = [scene(rng) for _ in range(1 + seed % 3)]
  want = evaluated(evaluator, tmp_path, scenes)
  matrix = sum(official.confusion(truth, said) for truth, _, said in scenes)
  pixels = sum(official.instance_pixels(ids, said) for _, ids, said in scenes)
  np.testing.assert_array_equal(matrix, want.matrix)
  things, groups = official.instance_iou(matrix, pixels)
  np.testing.assert_allclose(official.class_iou(matrix), want.classes, rtol=1e-12)
  np.testing.assert_allclose(official.category_iou(matrix), want.categories, rtol=1e-12)
  np.testing.assert_allclose(things, want.things, rtol=1e-12)
  np.testing.assert_allclose(groups, want.groups, rtol=1e-12)


def test_tables_are_the_official_ones(evaluator):
  known = {entry.id: entry for entry in evaluator.labels if entry.id >= 0}
  scored = tuple(i for i, entry in known.items() if not entry.ignoreInEval)
  assert scored == official.CLASSES
  assert labels.label_ids(np.arange(labels.SCORED)).tolist() == [*scored]
  for train_id, label_id in enumerate(official.CLASSES):
    assert known[label_id].trainId == train_id
    assert known[label_id].name == labels.CLASS_NAMES[train_id]
    assert known[label_id].color == labels.OFFICIAL_PALETTE[train_id]
  for name, ids in official.CATEGORIES.items():
    assert ids == tuple(i for i in official.CLASSES if known[i].category == name)
  assert set(official.THINGS) == {i for i in official.CLASSES if known[i].hasInstances}


def test_void_pixels_cost_nothing_and_void_answers_do():
  truth = np.array([[7, 7, 7, 0]])
  assert official.class_iou(official.confusion(truth, [[7, 7, 7, 7]]))[0] == 1
  iou = official.class_iou(official.confusion(truth, [[7, 7, 0, 0]]))
  assert iou[0] == 2 / 3
  assert np.isnan(iou[1:]).all()
  assert known_mean(iou) == 2 / 3


def test_a_category_forgives_its_own_classes():
  matrix = official.confusion(np.array([26, 27, 24]), np.array([27, 26, 26]))
  assert official.class_iou(matrix)[13] == 0
  by_name = dict(zip(official.CATEGORIES, official.category_iou(matrix), strict=True))
  assert by_name['vehicle'] == 2 / 3
  assert by_name['human'] == 0


def test_every_instance_counts_as_one_of_average_size():
  instances = np.array([[26000, 26001, 26001, 26001, 26, 7]])
  said = np.array([[26, 7, 7, 7, 7, 26]])
  truth = np.where(instances >= 1000, instances // 1000, instances)
  pixels = official.instance_pixels(instances, said)
  average = official.THINGS[26]
  np.testing.assert_allclose(pixels[2], [average, average])  # one found, one missed
  things, groups = official.instance_iou(official.confusion(truth, said), pixels)
  want = average / (2 * average + 1)  # one false pixel, unscaled
  assert things[2] == pytest.approx(want)
  assert groups[1] == pytest.approx(want)
  assert np.isnan(np.delete(things, 2)).all()


def test_nothing_to_score_is_nan():
  matrix = np.zeros((34, 34), int)
  assert np.isnan(known_mean(official.class_iou(matrix)))
  assert np.isnan(official.instance_iou(matrix, np.zeros((10, 2)))[1]).all()


def test_ids_out_of_range_and_other_shapes():
  with pytest.raises(ValueError, match='the prediction has ids 7 to 255; expected 0 to 33'):
    official.confusion(np.array([7, 7]), np.array([7, 255]))
  with pytest.raises(ValueError, match='the truth has ids -1'):
    official.confusion(np.array([-1]), np.array([7]))
  with pytest.raises(ValueError, match='differ in shape'):
    official.confusion(np.array([7]), np.array([7, 7]))


def test_while_training_an_absent_class_counts_as_zero():
  matrix = np.array([[3, 1, 0], [1, 1, 0], [0, 0, 0]])
  scores = published.training_scores(matrix)
  np.testing.assert_allclose(scores['iou'], [3 / 5, 1 / 3, 0])
  np.testing.assert_allclose(scores['precision'], [3 / 4, 1 / 2, 0])
  np.testing.assert_allclose(scores['recall'], [3 / 4, 1 / 2, 0])
  assert scores['mean_iou'] == pytest.approx((3 / 5 + 1 / 3) / 3)
  assert published.training_scores(matrix, (2, 1))['mean_iou'] == pytest.approx(3 / 5)
