"""What car-jax eval saves is scored back to the numbers that it printed."""

import json
import shutil

import jax
import numpy as np
import pytest

from car_jax.commands import eval as evaluation
from car_jax.commands import train
from car_jax.errors import UserError
from car_jax.evaluate import predict, save
from car_jax.predictions import command
from car_jax.predictions.dataset import Dataset
from tests.evaluate import scene
from tests.evaluate.test_harness import plain_ged
from tests.evaluate.test_save import Sized, mixed

METRICS = ('ged4', 'ged4[u]', 'hm_iou3', 'dice_max4', 'diversity4[v]', 'ece', 'nll', 'brier[own]')
CHANGED = f'--config.report.metrics={(*METRICS, "miou")!r}'


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A run of two steps with its report and arrays."""
  run = tmp_path_factory.mktemp('run') / 'run'
  train.main(
    ['--config', 'tests/small.py:mose', '--workdir', str(run), '--config.steps=1', '--config.best=']
  )
  split = '--config.report.split=test[:5]'
  saved = ['--save', 'samples,probabilities', split, CHANGED, '--config.report.samples=4']
  assert evaluation.main(['--checkpoint', str(run), *saved]) == 0
  return run


def scores(folder):
  content = json.loads((folder / 'results.json').read_text())
  return {s['name']: s['scores'] for s in content['subjects']}


def test_saved_samples_are_scored_back_to_the_same_numbers(run, tmp_path):
  given = ['--predictions', f'run={run / "arrays"}', CHANGED]
  assert evaluation.main([*given, '--out', str(tmp_path / 'out')]) == 0
  ours, theirs = scores(run / 'report'), scores(tmp_path / 'out')
  assert len(ours) > 2
  assert [*theirs] == [name if name == 'readers' else f'run: {name}' for name in ours]
  for expected, scored in zip(ours.values(), theirs.values(), strict=True):
    for metric, want in expected.items():
      got = scored[metric]
      assert got['convention'] == want['convention']
      for key in ('mean', 'low', 'high'):
        assert got[key] == pytest.approx(want[key], abs=2e-6), (metric, key)


def test_labels_in_files_take_the_place_of_saved_readers(run, tmp_path):
  shutil.copytree(run / 'arrays', tmp_path / 'arrays')
  index = json.loads((run / 'arrays' / 'index.json').read_text()) | dict(groups=[*'ppqqq'])
  (tmp_path / 'arrays' / 'index.json').write_text(json.dumps(index))
  readers = np.load(run / 'arrays' / 'readers.npy')
  for id, maps in zip(index['ids'], readers, strict=True):
    (tmp_path / 'labels' / id).parent.mkdir(parents=True, exist_ok=True)
    np.save(tmp_path / 'labels' / f'{id}.npy', maps[:2])
  metrics = [('report.metrics', "('ged4',)")]
  given = [str(tmp_path / 'arrays')]
  results, _ = command.evaluate(given, str(tmp_path / 'labels'), tmp_path / 'a', changes=metrics)
  assert results.info.readers == 2
  assert list(results.ids) == index['ids']
  assert list(results.groups) == index['groups']
  where = index['subjects']['samples']
  samples, weight = (np.load(run / 'arrays' / where / f'{n}.npy') for n in ('samples', 'weight'))
  for i in range(len(samples)):
    plain = plain_ged(samples[i] == 1, readers[i, :2] == 1, 'v')
    assert np.ptp(weight) == 0
    assert scene.values(results, 'arrays: samples', 'ged4')[i] == pytest.approx(plain, abs=1e-5)


def test_saved_images_of_several_sizes(tmp_path):
  subjects = predict.subjects(Sized(), scene.STATE)[:1]
  spec = dict(samples=3, metrics=('ged3', 'nll'))
  info = scene.info(readers=1)
  kinds = ('samples', 'probabilities', 'logits')
  with save.Saver(tmp_path / 'arrays', kinds, info, images=5, several_sizes=True) as saver:
    ours = scene.evaluate(
      subjects, mixed(16, 24, 20), spec, info, rng=jax.random.key(0), save=saver
    )
    saver.close(ours)
  changes = [('report.metrics', "('ged3', 'nll')")]
  theirs, _ = command.evaluate([str(tmp_path / 'arrays')], '', tmp_path / 'out', changes=changes)
  assert list(theirs.ids) == list(ours.ids)
  for metric in ('ged3', 'nll'):
    want = scene.values(ours, 'samples', metric)
    np.testing.assert_allclose(scene.values(theirs, 'arrays', metric), want, atol=1e-6)


def test_saved_folders_of_other_readers_or_without_predictions_are_refused(run, tmp_path):
  shutil.copytree(run / 'arrays', tmp_path / 'other')
  changed = np.load(run / 'arrays' / 'readers.npy')
  changed[-1, 0] = 1 - changed[-1, 0]
  np.save(tmp_path / 'other' / 'readers.npy', changed)
  given = [('one', str(run / 'arrays')), ('two', str(tmp_path / 'other'))]
  with pytest.raises(UserError, match='has other labels in .*other than in'):
    Dataset(given, '')
  index = json.loads((tmp_path / 'other' / 'index.json').read_text())
  index['arrays'] = {k: v for k, v in index['arrays'].items() if 'reader' in k}
  (tmp_path / 'other' / 'index.json').write_text(json.dumps(index))
  with pytest.raises(UserError, match='other has none of samples, probabilities, logits'):
    Dataset(given[1:], '')
  index = json.loads((run / 'arrays' / 'index.json').read_text())
  where = next(w for w in index['subjects'].values() if f'{w}/own.npy' in index['arrays'])
  damaged = np.zeros_like(np.load(run / 'arrays' / where / 'own.npy'))
  np.save(tmp_path / 'other' / where / 'own.npy', damaged)
  (tmp_path / 'other' / 'index.json').write_text(json.dumps(index))
  with pytest.raises(UserError, match=r'own.npy, .*: the probabilities do not sum to one'):
    Dataset(given[1:], '')
  index['arrays'].pop('readers.npy')
  (tmp_path / 'other' / 'index.json').write_text(json.dumps(index))
  with pytest.raises(UserError, match='has no readers'):
    Dataset(given[1:], '')
