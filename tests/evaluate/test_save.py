"""Saved arrays, read back with nothing but numpy and json."""

import json

import jax
import numpy as np
import pytest

from car_jax.errors import UserError
from car_jax.evaluate import harness, predict, save
from tests.evaluate import scene
from tests.evaluate.test_harness import plain_ged

RNG = jax.random.key(0)


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  folder = tmp_path_factory.mktemp('saved') / 'arrays'
  subjects = predict.subjects(scene.Fake(), scene.STATE)
  spec = dict(samples=5, metrics=('ged5', 'nll'))
  with save.Saver(folder, ('samples', 'probabilities'), scene.info(), images=5) as saver:
    results = harness.evaluate(
      subjects, scene.batches(5, 4), spec, scene.info(), rng=RNG, save=saver
    )
    saver.close(results, split='test')
  return folder, results


def test_another_tool_finds_our_scores_in_the_arrays(saved):
  folder, results = saved
  index = json.loads((folder / 'index.json').read_text())
  assert index['ids'] == list(results.ids)
  assert index['split'] == 'test'
  readers, weight = (np.load(folder / f'{n}.npy') for n in ('readers', 'reader_weight'))
  for subject, where in index['subjects'].items():
    samples = np.load(folder / where / 'samples.npy', mmap_mode='r')
    probs = np.load(folder / where / 'probabilities.npy', mmap_mode='r')
    assert samples.shape == (5, 5, scene.SIZE, scene.SIZE)
    np.testing.assert_allclose(probs.sum(-1), 1, atol=1e-5)
    for i in range(5):
      ged = plain_ged(samples[i] == 1, readers[i][weight[i] > 0] == 1, 'v')
      assert results.found[subject]['ged5'][i] == pytest.approx(ged, abs=1e-5)


def test_index_states_every_array(saved):
  folder, _ = saved
  index = json.loads((folder / 'index.json').read_text())
  assert {str(p.relative_to(folder)) for p in folder.rglob('*.npy')} == set(index['arrays'])
  for path, entry in index['arrays'].items():
    array = np.load(folder / path, mmap_mode='r')
    assert (list(array.shape), str(array.dtype)) == (entry['shape'], entry['dtype'])
    assert len(entry['axes'].split(', ')) == array.ndim
  assert 'independent-pixels/own.npy' in index['arrays']
  sharp = {p: e['one_hot'] for p, e in index['arrays'].items() if 'probabilities' in p}
  assert sharp == {f'{w}/probabilities.npy': w == 'argmax' for w in index['subjects'].values()}


def test_an_error_leaves_no_folder(tmp_path):
  with pytest.raises(KeyError), save.Saver(tmp_path / 'a', 'samples', scene.info(), images=1):
    raise KeyError
  assert not list(tmp_path.iterdir())


def test_several_kinds_in_one_text():
  assert save.kinds_of('logits, features,logits') == ('logits', 'features')
  for text in ('', 'logits,', 'logits,feature'):
    with pytest.raises(UserError, match='cannot save'):
      save.kinds_of(text)


def test_unknown_kind_and_a_folder_of_something_else(tmp_path):
  with pytest.raises(UserError, match='did you mean: samples'):
    save.Saver(tmp_path / 'a', 'sample', scene.info(), images=1)
  (tmp_path / 'thesis.tex').write_text('years of work')
  with pytest.raises(UserError, match='holds other files'):
    save.Saver(tmp_path, 'samples', scene.info(), images=1)
  assert (tmp_path / 'thesis.tex').exists()
