"""Saved arrays, read back with nothing but numpy and json."""

import errno
import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from car_jax import errors
from car_jax.errors import UserError
from car_jax.evaluate import npy, predict, save
from car_jax.reliability import segmenters
from car_jax.reliability.study_options import ImageSet
from tests.evaluate import scene
from tests.evaluate.test_harness import plain_ged
from tests.reliability import runs

RNG = jax.random.key(0)


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  folder = tmp_path_factory.mktemp('saved') / 'arrays'
  subjects = predict.subjects(scene.Fake(), scene.STATE)
  spec = dict(samples=5, metrics=('ged5', 'nll'))
  with save.Saver(folder, ('samples', 'probabilities'), scene.info(), images=5) as saver:
    results = scene.evaluate(subjects, scene.batches(5, 4), spec, scene.info(), rng=RNG, save=saver)
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
      assert scene.values(results, subject, 'ged5')[i] == pytest.approx(ged, abs=1e-5)


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


class Sized(scene.Fake):
  """With logits of its own, so that other tools can score what is saved."""

  has_logits = True

  def logits(self, state, batch):
    return jnp.log(scene.soft(batch, self.num_classes, state))


def mixed(*sizes):
  """Two images of each size, one reader, the second row of the last batch not valid."""
  for k, size in enumerate(sizes):
    (batch,) = scene.batches(2, 2, size=size, readers=1)
    batch = {
      key: value[:, :1] if key.startswith('label') else value for key, value in batch.items()
    }
    last = k == len(sizes) - 1
    yield batch | {
      'id': np.array([f'{size}-{i}' for i in range(2)]),
      'valid': np.array([True, not last]),
      'label_weight': np.ones((2, 1), np.float32),
    }


@pytest.fixture(scope='module')
def several(tmp_path_factory):
  folder = tmp_path_factory.mktemp('several') / 'arrays'
  subjects = predict.subjects(Sized(), scene.STATE)[:1]
  info = scene.info(readers=1)
  kinds = ('samples', 'probabilities', 'logits', 'labels')
  with save.Saver(folder, kinds, info, images=5, several_sizes=True) as saver:
    spec = dict(samples=3, metrics=('ged3', 'miou'))
    results = scene.evaluate(subjects, mixed(16, 24, 20), spec, info, rng=RNG, save=saver)
    saver.close(results)
  return folder, results


def test_images_of_several_sizes_have_a_file_each(several):
  folder, results = several
  index = json.loads((folder / 'index.json').read_text())
  assert index['ids'] == list(results.ids) == ['16-0', '16-1', '24-0', '24-1', '20-0']
  assert index['arrays']['samples/samples.npy']['shape'] == [5, 3, None, None]
  assert index['arrays']['samples/weight.npy']['shape'] == [5, 3]
  for i, side in enumerate((16, 16, 24, 24, 20)):
    (samples, readers), sides = (
      [np.load(folder / at / f'{i:06d}.npy') for at in ('samples/samples', 'readers')],
      (side, side),
    )
    assert samples.shape[1:] == readers.shape[1:] == sides
    ged = plain_ged(samples == 1, readers == 1, 'v')
    assert scene.values(results, 'samples', 'ged3')[i] == pytest.approx(ged, abs=1e-5)
    with Image.open(folder / f'samples/class_ids/{results.ids[i]}.png') as picture:
      probs = np.load(folder / 'samples/probabilities' / f'{i:06d}.npy')
      np.testing.assert_array_equal(np.asarray(picture), probs.argmax(-1))
  names = {str(p.relative_to(folder)) for p in folder.rglob('*.npy')}
  assert len(names) == 1 + 1 + 5 * 5  # weights of readers and samples; five arrays by image


def test_a_study_reads_images_of_several_sizes(several):
  folder, _ = several
  model = segmenters.Folder('m', str(folder), ('background', 'nodule'))
  found = list(model.batches(ImageSet(name='s')))
  shapes = [runs.arrays(f)['logits'].shape[1:] for f in found]
  assert shapes == [(s, s, 2) for s in (16, 16, 24, 24, 20)]
  for i, one in enumerate(found):
    logits = np.load(folder / 'samples/logits' / f'{i:06d}.npy')
    np.testing.assert_array_equal(runs.arrays(one)['logits'][0], logits)
  assert [str(f.ids[0]) for f in model.batches(ImageSet(name='s'), only=[3, 0])] == ['24-1', '16-0']


def test_a_full_disk_ends_in_a_message_before_anything_is_computed(tmp_path, monkeypatch):
  def full(descriptor, start, size):
    raise OSError(errno.ENOSPC, 'No space left on device')

  monkeypatch.setattr(os, 'posix_fallocate', full)

  def evaluate(info):
    with save.Saver(tmp_path / 'a', 'samples', info, images=5) as saver:
      subjects = predict.subjects(scene.Fake(), scene.STATE)
      spec = dict(samples=2)
      scene.evaluate(subjects, scene.batches(5, 4), spec, info, rng=RNG, save=saver)

  with pytest.raises(UserError, match=r'no room for readers\.npy: No space .* free\)\n.*--out'):
    evaluate(scene.info())
  assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not pathlib.Path('/dev/full').exists(), reason='no such device')
def test_a_disk_that_fills_while_rows_are_written(monkeypatch):
  array = npy.Growing.__new__(npy.Growing)
  array.path, array.filled, array.images = pathlib.Path('/dev/full'), 0, 4
  no_room = pytest.raises(UserError, match='no room for full: No space left')
  with open('/dev/full', 'wb', buffering=0) as array._file, no_room:
    array.add(np.ones((2, 3)))


def test_arrays_grow_to_what_numpy_saves(tmp_path):
  rows = np.random.default_rng(0).normal(size=(7, 2, 3)).astype(np.float32)
  array = npy.Growing(tmp_path / 'a.npy', rows.dtype, rows.shape)
  size = (tmp_path / 'a.npy').stat().st_size
  for part in (rows[:3], rows[3:3], rows[3:]):
    array.add(part)
  array.close()
  np.save(tmp_path / 'b.npy', rows)
  assert (tmp_path / 'a.npy').read_bytes() == (tmp_path / 'b.npy').read_bytes()
  assert size == (tmp_path / 'b.npy').stat().st_size  # its place was taken at once


def test_an_error_leaves_no_folder(tmp_path):
  with pytest.raises(KeyError), save.Saver(tmp_path / 'a', 'samples', scene.info(), images=1):
    raise KeyError
  assert not list(tmp_path.iterdir())


def test_several_kinds_in_one_text():
  assert errors.parts('logits, features,logits', save.KINDS, 'save') == ('logits', 'features')
  for text in ('', 'logits,', 'logits,feature'):
    with pytest.raises(UserError, match='cannot save'):
      errors.parts(text, save.KINDS, 'save')


def test_unknown_kind_and_a_folder_of_something_else(tmp_path):
  with pytest.raises(UserError, match='did you mean: samples'):
    save.Saver(tmp_path / 'a', 'sample', scene.info(), images=1)
  (tmp_path / 'thesis.tex').write_text('years of work')
  with pytest.raises(UserError, match='holds other files'):
    save.Saver(tmp_path, 'samples', scene.info(), images=1)
  assert (tmp_path / 'thesis.tex').exists()
