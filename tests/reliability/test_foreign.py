"""Predictions of another framework: read as its user wrote them, scored as our own, or refused."""

import csv
import json
import os
import pathlib
import re
import types

import cv2
import numpy as np
import pytest
from scipy.special import softmax

from car_jax import sharding
from car_jax.commands import eval as evaluation
from car_jax.errors import UserError
from car_jax.evaluate import save
from car_jax.evaluate.predict import Prediction
from car_jax.reliability import command, foreign, pairing, plan, segmenters, study, study_options
from tests.evaluate import scene
from tests.importers.test_huggingface import write_safetensors
from tests.reliability import runs

CLASSES = 4


@pytest.fixture
def folder(tmp_path):
  """Three scenes with logits [H, W, C] in .npy and [C, H, W] in .npz."""
  rng = np.random.default_rng(0)
  for part in ('predictions/a', 'predictions/b', 'labels'):
    (tmp_path / part).mkdir(parents=True)
  labels, logits = {}, {}
  for name in ('a/one', 'a/two', 'b/three'):
    label = rng.integers(0, CLASSES, (6, 8)).astype(np.uint8)
    label[0, :3] = 255, 255, 254
    stem = name.split('/')[1]
    cv2.imwrite(str(tmp_path / 'labels' / f'{stem}_gtFine_labelTrainIds.png'), label)
    labels[name], logits[name] = label, rng.standard_normal((6, 8, CLASSES)).astype(np.float32)
  at = tmp_path / 'predictions'
  np.save(at / 'a' / 'one_leftImg8bit.npy', logits['a/one'])
  np.savez(at / 'a' / 'two.npz', logits=np.moveaxis(logits['a/two'], -1, 0))
  np.savez(at / 'b' / 'three.npz', logits=logits['b/three'])
  return tmp_path, labels, logits


def config(where, **changes):
  c = study_options.defaults()
  c.classes = tuple('abcd')
  c.palette = tuple((40 * k, 0, 0) for k in range(CLASSES))
  c.measures = ('pixel_accuracy', 'nll', 'unknown_auroc')
  c = command.with_models(
    c, predictions=[f'mine={where / "predictions"}'], labels=str(where / 'labels')
  )
  for k, v in changes.items():
    c[k] = v
  return c


def read(where, name, **changes):
  one = study.Study(plan.plan(config(where, **changes)), where, sharding.make_mesh())
  batches = one.segmenter('mine').batches(one.plan.sets[command.PREDICTIONS])
  return next(b for b in batches if b.ids[0] == name)


def test_arrays_of_every_layout_mean_the_same(folder):
  where, labels, logits = folder
  one, two = read(where, 'a/one'), read(where, 'a/two')
  np.testing.assert_array_equal(runs.arrays(one)['logits'][0], logits['a/one'])
  np.testing.assert_array_equal(runs.arrays(two)['logits'][0], logits['a/two'])
  assert one.groups[0] == 'a/one'
  assert runs.traits(one).logits
  assert runs.traits(two).logits
  unknown = np.asarray(runs.arrays(one)['unknown'][0])
  np.testing.assert_array_equal(unknown, labels['a/one'] == 254)
  want = np.where(labels['a/one'] == 254, 255, labels['a/one'])
  np.testing.assert_array_equal(runs.arrays(one)['labels'][0], want)


def test_samples_of_class_ids(folder):
  where, _, _ = folder
  ids = np.random.default_rng(1).integers(0, CLASSES, (5, 6, 8))
  for path in (where / 'predictions').rglob('*.np?'):
    path.unlink()
  np.savez(where / 'predictions' / 'b' / 'three.npz', samples=ids)
  three = read(where, 'b/three')
  assert not runs.traits(three).logits
  share = np.stack([(ids == c).mean(0) for c in range(CLASSES)], -1)
  found = softmax(np.asarray(runs.arrays(three)['logits'][0]), -1)
  np.testing.assert_allclose(found, share, atol=1e-6)
  entropy = -np.sum(np.where(share > 0, share * np.log(np.maximum(share, 1e-30)), 0), -1)
  np.testing.assert_allclose(runs.arrays(three)['disagreement'][0], entropy, atol=1e-5)


def test_probabilities_samples_of_them_and_safetensors(folder):
  where, _, logits = folder
  at = where / 'predictions' / 'a'
  probs = softmax(logits['a/one'].astype(np.float64), -1).astype(np.float32)
  (at / 'one_leftImg8bit.npy').unlink()
  np.savez(at / 'one.npz', probabilities=probs)
  batch = read(where, 'a/one')
  assert not runs.traits(batch).logits
  np.testing.assert_allclose(
    softmax(np.asarray(runs.arrays(batch)['logits'][0]), -1), probs, atol=1e-6
  )
  np.savez(at / 'one.npz', samples=np.stack([probs, probs[::-1]]), features=np.ones(3))
  batch = read(where, 'a/one')
  found = softmax(np.asarray(runs.arrays(batch)['logits'][0]), -1)
  np.testing.assert_allclose(found, (probs + probs[::-1]) / 2, atol=1e-6)
  assert float(runs.arrays(batch)['disagreement'].min()) >= 0
  assert not runs.traits(batch).logits
  assert runs.arrays(batch)['features'].shape == (1, 3)
  (at / 'one.npz').unlink()
  write_safetensors(at / 'one.safetensors', {'logits': logits['a/one']})
  np.testing.assert_array_equal(runs.arrays(read(where, 'a/one'))['logits'][0], logits['a/one'])


def test_a_list_of_pairs_tells_labels_images_and_groups(folder):
  where, _, logits = folder
  cv2.imwrite(str(where / 'photo.png'), np.full((6, 8, 3), 255, np.uint8))
  with (where / 'pairs.csv').open('w', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(['prediction', 'label', 'image', 'group'])
    writer.writerow(['a/two.npz', 'labels/two_gtFine_labelTrainIds.png', 'photo.png', 'night'])
    writer.writerow(['b/three.npz', 'labels/three_gtFine_labelTrainIds.png', '', ''])
  c = config(where)
  c.sets[command.PREDICTIONS].labels = str(where / 'pairs.csv')
  one = study.Study(plan.plan(c), where, sharding.make_mesh())
  batch, other = one.segmenter('mine').batches(one.plan.sets[command.PREDICTIONS])
  assert other.groups[0] == other.ids[0] == 'b/three'
  assert (batch.ids[0], batch.groups[0]) == ('a/two', 'night')
  assert float(runs.arrays(batch)['image'].min()) == 1
  np.testing.assert_array_equal(runs.arrays(batch)['logits'][0], logits['a/two'])


def test_pipes_and_damaged_files_are_refused_by_name(folder):
  where, _, _ = folder
  (pair, *_), at = (
    pairing.pairs(where / 'predictions', str(where / 'labels')),
    where / 'predictions' / 'a' / 'one_leftImg8bit.npy',
  )
  (label,) = pair.labels
  for path in (at, label):
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UserError, match=f'{path.name} is no regular file'):
      foreign.open_arrays(path)
  label.unlink()
  cv2.imwrite(str(label), np.full((6, 8), 300, np.uint16))
  with pytest.raises(UserError, match='is a picture of uint16 numbers'):
    foreign.open_arrays(label)


@pytest.fixture
def saved(tmp_path):
  """saved(kinds, sharp): a folder as `car-jax eval --save` writes it, and the subject's own."""

  def write(kinds, sharp=True):
    rng, valid = np.random.default_rng(0), np.ones(2, bool)
    logits = rng.standard_normal((2, 6, 8, CLASSES)).astype(np.float32)
    own = softmax(logits, -1)
    mean = np.eye(CLASSES, dtype=np.float32)[own.argmax(-1)] if sharp else own[:, ::-1]
    labels = own.argmax(-1).astype(np.uint8)[:, None]
    with save.Saver(tmp_path / 'arrays', kinds, scene.info(CLASSES), images=2) as saver:
      saver.readers(labels, np.ones((2, 1)), valid)
      saver.prediction('mine', Prediction(labels, np.ones((2, 1)), mean, own), valid)
      for kind, rows in dict(logits=logits, features=np.ones((2, 3), np.float32)).items():
        if kind in saver.kinds:
          saver.own('mine', kind, rows, valid)
      saver.close(types.SimpleNamespace(ids=['x', 'y'], groups=None))
    return logits, own, mean

  return write


def batches_of(folder):
  return [*segmenters.Folder('mine', folder, ()).batches(study_options.ImageSet(name='all'))]


@pytest.mark.parametrize('told', [True, False])
@pytest.mark.parametrize('sharp', [True, False])
def test_saved_probabilities_of_a_deterministic_model_are_its_own(saved, tmp_path, sharp, told):
  _, own, mean = saved('probabilities', sharp)
  if not told:  # by a version that did not say
    path = tmp_path / 'arrays' / 'index.json'
    index = json.loads(path.read_text())
    del index['arrays']['mine/probabilities.npy']['one_hot']
    path.write_text(json.dumps(index))
  found = batches_of(tmp_path / 'arrays')
  assert [(b.ids[0], b.groups[0], runs.traits(b).logits) for b in found] == [
    ('x', 'x', False),
    ('y', 'y', False),
  ]
  logits = np.concatenate([runs.arrays(b)['logits'] for b in found])
  np.testing.assert_allclose(softmax(logits, -1), own if sharp else mean, atol=1e-6)


def test_saved_logits_and_features(saved, tmp_path):
  logits, _, _ = saved('probabilities,logits,features')
  found = batches_of(tmp_path / 'arrays')
  np.testing.assert_array_equal(np.concatenate([runs.arrays(b)['logits'] for b in found]), logits)
  assert all(runs.traits(b).logits for b in found)
  assert runs.arrays(found[0])['features'].shape == (1, 3)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda i: {}, "it has no 'format'"),
    (lambda i: [], 'a list instead of an object'),
    (lambda i: i | {'ids': 'xy'}, "ids is 'xy'"),
    (lambda i: i | {'ids': ['x', 3]}, "'3' is no name"),
    (lambda i: i | {'ids': ['x', 'x']}, '2 images'),
    (lambda i: i | {'groups': ['x']}, '2 images, 1 groups'),
    (lambda i: i | {'num_classes': 9}, '9 classes of 4 names'),
    (lambda i: i | {'num_classes': True}, "num_classes is 'True'"),
    (lambda i: i | {'subjects': {'mine': '../mine'}}, 'is no place in this folder'),
    (lambda i: i | {'arrays': {'mine/logits.npy': 3}}, 'is said of an array'),
    (lambda i: i | {'ids': ['x', 'y', 'z']}, 'has 2 images of 3'),
    (lambda i: i | {'ignore_label': 1, 'num_classes': 4}, ''),
  ],
)
def test_an_index_of_another_form_is_refused(saved, tmp_path, change, message):
  saved('logits')
  path = tmp_path / 'arrays' / 'index.json'
  path.write_text(json.dumps(change(json.loads(path.read_text()))))
  if message:
    with pytest.raises(UserError, match=f'arrays.*{message}[^\n]*\n  save it again'):
      batches_of(tmp_path / 'arrays')
  else:
    assert len(batches_of(tmp_path / 'arrays')) == 2


def test_saved_features_alone_cannot_be_scored(saved, tmp_path):
  saved('features')
  with pytest.raises(UserError, match=r'only features\n  car-jax eval --save logits'):
    batches_of(tmp_path / 'arrays')


def test_label_ids_of_cityscapes_become_train_ids(folder, tmp_path):
  path = tmp_path / 'x_gtFine_labelIds.png'
  cv2.imwrite(str(path), np.array([[7, 26, 5, 33]], np.uint8))
  np.testing.assert_array_equal(foreign.open_arrays(path)[''], [[0, 13, 255, 18]])
  cv2.imwrite(str(path), np.array([[7, 26, 34, 200]], np.uint8))
  with pytest.raises(UserError, match=r'Ids.png: id 34 is no class; expected 0 to 33 and 255'):
    foreign.open_arrays(path)


def spoil(where, what):
  at = where / 'predictions' / 'a'
  label = where / 'labels' / 'two_gtFine_labelTrainIds.png'
  x = np.zeros((6, 8, CLASSES), np.float32)
  if what == 'classes':
    np.savez(at / 'two.npz', logits=np.zeros((6, 8, 7)))
  if what == 'nan':
    x[0, 0, 0] = np.nan
    np.savez(at / 'two.npz', logits=x)
  if what == 'none':
    x[0, 0] = -np.inf
    x[1, 1, 1] = -np.inf  # of one class: allowed
    np.savez(at / 'two.npz', logits=x)
  if what == 'npz':
    (at / 'two.npz').rename(at / 'two.npy')
  if what == 'npy':
    (at / 'two.npz').write_bytes((at / 'one_leftImg8bit.npy').read_bytes())
  if what == 'type':
    np.savez(at / 'two.npz', logits=x.view('V4'))
  if what == 'size':
    np.savez(at / 'two.npz', logits=np.zeros((5, 8, CLASSES)))
  if what == 'truncated':
    raw = (at / 'two.npz').read_bytes()
    (at / 'two.npz').write_bytes(raw[: len(raw) // 2])
  if what == 'sum':
    np.savez(at / 'two.npz', probabilities=x + 0.5)
  if what == 'names':
    np.savez(at / 'two.npz', x=x, y=x)
  if what == 'ids':
    np.savez(at / 'two.npz', samples=np.full((2, 6, 8), 9))
  if what == 'missing':
    label.unlink()
  if what == 'range':
    cv2.imwrite(str(label), np.full((6, 8), 77, np.uint8))
  if what == 'colour':
    cv2.imwrite(str(label), np.zeros((6, 8, 3), np.uint8))
  if what == 'png':
    label.write_bytes(label.read_bytes()[:30])


@pytest.mark.parametrize(
  ('what', 'message'),
  [
    ('classes', 'two.npz: 7 classes; 4 are named'),
    ('nan', 'two.npz: 1 of 192 values are not finite'),
    ('none', 'two.npz: 1 pixels have no class, all their logits are -inf'),
    ('npz', 'two.npy cannot be read as a .npy file .by its content it is an .npz'),
    ('npy', 'two.npz cannot be read as a .npz file .by its content it is an .npy'),
    ('type', r'two.npz: numbers of type \|V4; expected float32'),
    ('size', r'two.npz: shape \(5, 8, 4\); its label is 6 x 8'),
    ('truncated', 'two.npz cannot be read as a .npz file'),
    ('sum', 'two.npz: the probabilities do not sum to one'),
    ('names', r"two.npz holds \['x', 'y'\]"),
    ('ids', 'two.npz: class id 9; expected 0 to 3'),
    ('missing', r'1 predictions have no label in .*:\n  .*two.npz'),
    ('range', 'two_gtFine_labelTrainIds.png: label 77 is no class; expected 0 to 3'),
    ('colour', 'two_gtFine_labelTrainIds.png is a picture of colours'),
    ('png', 'two_gtFine_labelTrainIds.png cannot be read as a picture .truncated'),
  ],
)
def test_bad_files_are_named(folder, what, message):
  where, _, _ = folder
  spoil(where, what)
  with pytest.raises(UserError, match=message):
    command.run(config(where), str(where / 'out'), '')
  assert not (where / 'out' / 'study.json').exists()


def test_folders_that_hold_nothing_to_score(folder, capsys):
  where, _, _ = folder
  (where / 'out').mkdir()
  base = ['--config', 'configs/reliability.py', '--out', str(where / 'out')]
  for arguments, message in (
    (['--predictions', str(where / 'nowhere')], 'no run and no folder of predictions'),
    (['--predictions', str(where / 'out'), '--labels', str(where)], 'holds no prediction'),
    (['--predictions', str(where / 'predictions')], 'give --labels FOLDER'),
    (['--predictions', str(where / 'predictions'), '--labels', 'x.csv'], 'no such list of labels'),
  ):
    assert evaluation.main([*base, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_class_numbers_may_be_stored_in_more_bits(tmp_path):
  path = tmp_path / 'x.png'
  cv2.imwrite(str(path), np.array([[0, 1], [255, 1]], np.uint16))
  np.testing.assert_array_equal(foreign.open_arrays(path)[''], [[0, 1], [255, 1]])


DOCS = pathlib.Path(__file__).parents[2] / 'docs' / 'reliability.md'
EXAMPLES = re.findall('```python\n(.*?)```', DOCS.read_text(), re.DOTALL)
OWN = """from tests.reliability import runs
def get_config():
  import pathlib
  return runs.foreign(pathlib.Path({!r}), fresh=False)
"""


def test_what_predictions_alone_cannot_be_fitted_to_is_said(tmp_path, capsys, monkeypatch):
  runs.foreign(tmp_path)
  (tmp_path / 'own.py').write_text(OWN.format(str(tmp_path)))
  monkeypatch.chdir(tmp_path)
  given = ['--predictions', 'other=predictions/fog', '--labels', 'labels/fog']
  assert evaluation.main(['--config', 'own.py', *given]) == 0
  line = (
    'Left out of the config: calibrators clusters and temperature and guarantee miscoverage10, '
    'since --predictions are of one set and there is no data to fit on. Give --calibrator FILE.npz,'
    ' or a config of your own with calibrate_on.'
  )
  assert capsys.readouterr().err.count(line) == 1
  out = tmp_path / 'runs' / 'own' / 'study-predictions'  # beside the study of the config's models
  assert not (tmp_path / 'runs' / 'own' / 'study').exists()
  assert json.loads((out / 'study.json').read_text())['notes'][0] == line
  assert line in (out / 'study.md').read_text()
  assert command.left_out(study_options.defaults()) == []  # whose guarantee needs calibrate_on


def test_the_study_of_two_conditions_in_the_docs_runs(tmp_path, monkeypatch):
  runs.foreign(tmp_path)
  monkeypatch.chdir(tmp_path)
  (code,) = [b for b in EXAMPLES if 'def get_config' in b]
  (tmp_path / 'own.py').write_text(code)
  four = ["--config.classes=('a', 'b', 'c', 'd')", '--config.resamples=5', '--config.worst=0']
  assert evaluation.main(['--config', 'own.py', *four]) == 0
  content = json.loads((tmp_path / 'runs' / 'own' / 'study' / 'study.json').read_text())
  assert {(c['set'], c['calibrator']) for c in content['cells']} == {
    (s, k) for s in ('clear', 'fog') for k in ('none', 'temperature')
  }
  assert len(content['guarantee_results']) == 4
