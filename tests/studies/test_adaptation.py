"""The adaptation study: its numbers against plain counting, its files, and what it refuses."""

import json
import shutil

import jax
import numpy as np
import pytest

import train
from car_jax.data import labels, pipeline, sources
from car_jax.errors import UserError
from car_jax.evaluate import checkpointed
from car_jax.reliability import count, segmenters
from car_jax.studies import adaptation, adaptation_plots

CITYSCAPES = labels.CLASS_NAMES[: labels.SCORED]
CONFIG = """
from configs import smoke

def get_config():
  c = smoke.get_config('sac')
  c.data.update(readers=1, num_classes=3, batch=2, count=16, eval_batch=2)
  c.data.source.update(num_classes=3, count=16)
  c.data.target.groups = 1
  c.steps, c.eval_every, c.save_every, c.evals, c.best = 2, 0, 2, {}, ''
  return c
"""


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """One short SAC run, in the places of SAC and of the source-only run."""
  folder = tmp_path_factory.mktemp('adaptation')
  (folder / 'short.py').write_text(CONFIG)
  first = folder / 'sac' / 'seed0'
  assert train.main(['--config', str(folder / 'short.py'), '--workdir', str(first)]) == 0
  shutil.copytree(first, folder / 'source')
  return folder


def counted(run):
  """The confusion matrix of a run on the test images, pixel by pixel."""
  loaded = checkpointed.load(run)
  data = sources.open_dataset(loaded.config.data.to_dict())
  logits, matrix = jax.jit(loaded.method.logits), np.zeros((3, 3), int)
  for batch in pipeline.eval_batches(data.split('test'), data.info, loaded.config.data.to_dict()):
    said = np.asarray(logits(loaded.state, {k: batch[k] for k in ('image', 'labels')})).argmax(-1)
    kept = np.asarray(batch['valid'])
    np.add.at(matrix, (batch['labels'][kept, 0].ravel(), said[kept].ravel()), 1)
  return matrix


@pytest.fixture(scope='module')
def study(runs):
  assert adaptation.main([str(runs), '--out', str(runs / 'study')]) == 0
  return runs / 'study'


def test_the_command_writes_every_runs_numbers(runs, study):
  results = json.loads((study / 'results.json').read_text())
  assert list(results['models']) == ['source', 'sac']
  matrix = counted(runs / 'source')
  both = np.diag(matrix)
  union = matrix.sum(0) + matrix.sum(1) - both
  want = [b / u if u else None for b, u in zip(both, union, strict=True)]
  for model in results['models'].values():
    assert model['iou'] == [pytest.approx(want)]
    assert model['accuracy'] == [pytest.approx(both.sum() / matrix.sum())]
  assert results['gain'] == {'sac': [0.0]}
  assert (study / 'tables.md').read_text() == adaptation.tables(results)
  figure = (study / 'classes.svg').read_text()
  assert all(f'>{name}<' in figure for name in ('background', 'disc 2', 'sac', 'mean of 3'))


def test_the_picture_has_a_row_for_each_view(study):
  import cv2

  picture = cv2.imread(str(study / 'views.png'))
  side, views = 128, 8
  assert picture.shape == (18 + views * side + 6 * 4 + 12, 5 * side + 4 * 4, 3)


def test_the_pictures_labels_are_the_methods_own(runs):
  loaded = checkpointed.load(runs / 'sac' / 'seed0')
  batch, palette = adaptation_plots.training_batch(loaded.config, '', 2)
  found = adaptation_plots.labelled(loaded, batch)
  assert found['said'].shape == found['labels'].shape == (8, 32, 32)
  assert len(palette) == 3
  kept = jax.jit(lambda s, b: loaded.method.labelled(s, b)[3]['kept'])
  assert np.mean(found['labels'] >= 0) == pytest.approx(float(kept(loaded.state, batch)))


def test_means_leave_out_what_synthia_lacks():
  means = adaptation.means_of(CITYSCAPES)
  assert [len(v) for v in means.values()] == [19, 16, 13]
  left_out = {CITYSCAPES[k] for k in set(range(19)) - set(means['mean of 13'])}
  assert left_out == {'terrain', 'truck', 'train', 'wall', 'fence', 'pole'}
  assert list(adaptation.means_of(('sky', 'road'))) == ['mean of 2']


def matrices():
  """Two runs of a source-only model and of SAC; nothing is of the last class or said to be."""
  source = [[[6, 2, 0], [2, 2, 0], [0, 0, 0]], [[5, 5, 0], [0, 5, 0], [0, 0, 0]]]
  sac = [[[8, 0, 0], [0, 4, 0], [0, 0, 0]], [[10, 0, 0], [5, 5, 0], [0, 0, 0]]]
  return {'source': np.array(source), 'sac': np.array(sac)}


def test_a_summary_of_matrices_by_hand():
  found = adaptation.summary(matrices(), ('a', 'b', 'c'))
  assert found['models']['source']['iou'] == [[0.6, pytest.approx(1 / 3), None], [0.5, 0.5, None]]
  assert found['models']['sac']['miou'] == {'mean of 3': [1.0, pytest.approx((2 / 3 + 0.5) / 2)]}
  assert found['gain']['sac'] == [pytest.approx(1 - 7 / 15), pytest.approx(1 / 12)]
  json.dumps(found, allow_nan=False)
  text = adaptation.tables(found)
  assert '| a | 55.0 ± 7.1 | 83.3 ± 23.6 |' in text
  assert '| c | – | – |' in text
  assert 'sac over source: +30.8 points of mIoU (+53.3, +8.3).' in text


def test_without_a_source_only_run_there_is_no_gain():
  found = adaptation.summary({'sac': matrices()['sac'][:1]}, ('a', 'b', 'c'))
  assert found['gain'] == {}
  assert '| a | 100.0 |' in adaptation.tables(found)


def test_runs_are_found_by_name_and_ordered_by_seed(tmp_path):
  for part in ('sac/seed10', 'sac/seed2', 'sac/notes', 'oracle', 'abn/seed0'):
    (tmp_path / part).mkdir(parents=True)
    if part != 'abn/seed0':
      (tmp_path / part / 'checkpoints').mkdir()
  found = adaptation.found_runs(tmp_path)
  assert {k: [p.name for p in v] for k, v in found.items()} == {
    'sac': ['seed2', 'seed10'],
    'oracle': ['oracle'],
  }


def test_a_folder_without_runs_says_where_it_looked(tmp_path):
  with pytest.raises(UserError, match='holds no run; looked for source, abn, sac, oracle') as e:
    adaptation.found_runs(tmp_path)
  assert f'--workdir {tmp_path}/source/seed0' in str(e.value)


def test_runs_of_other_classes_do_not_mix(monkeypatch):
  names = {'a': ('sky', 'road'), 'b': ('sky', 'sea')}

  class Model:
    def __init__(self, name, spec, mesh):
      self.path = spec['path']

    classes = lambda self, spec: (names[self.path], ())
    size = lambda self, spec: 0
    batches = lambda self, spec: ()

  class Counted:
    confusion = np.eye(2)
    pooled = lambda self: self

  monkeypatch.setattr(segmenters, 'Checkpoint', Model)
  monkeypatch.setattr(count, 'tallies', lambda *_: {'none': Counted()})
  with pytest.raises(UserError, match='a and b have different classes; study them apart'):
    adaptation.scored({'source': ['a'], 'sac': ['b']}, '', 'test')
