"""Kinds, their records, files: what is said about a fit, and what cannot be fitted or read."""

import json
import pathlib
import warnings

import jax
import numpy as np
import pytest

from car_jax.calibrate import base, files, local
from car_jax.calibrate.base import Sample
from car_jax.errors import UserError
from car_jax.nn.init import initialize
from car_jax.nn.local_temperature import LocalTemperature
from tests.calibrate.test_temperature import drawn

I, S, C, D = 12, 150, 4, 3


def make_sample(scale=1.8):
  logits, labels = drawn(I * S, C, seed=9)
  labels[::13] = -1
  features = np.random.default_rng(1).normal(size=(I, D)).astype(np.float32)
  return Sample(scale * logits.reshape(I, S, C), labels.reshape(I, S), features)


SAMPLE = make_sample()
KINDS = ['temperature', 'per_class', 'clusters:3', 'clusters2_ece', 'clusters', 'selective']
GRID = {'clusters2_ece': dict(grid=np.arange(0.5, 4, 0.1))}


@pytest.fixture(scope='module')
def fits():
  return {kind: base.fit(kind, SAMPLE, seed=2, **GRID.get(kind, {})) for kind in KINDS}


@pytest.mark.parametrize('kind', KINDS)
def test_a_fit_lowers_the_error_and_says_so(kind, fits):
  about = fits[kind].about
  assert (about['kind'], about['seed']) == (kind, 2)
  assert (about['images'], about['pixels'], about['classes']) == (I, np.sum(SAMPLE.labels >= 0), C)
  measure = 'ece' if 'ece' in kind else 'nll'
  assert about[f'{measure}_after'] < about[f'{measure}_before']
  np.testing.assert_allclose(about['temperatures'], fits[kind].calibrator.temperatures, rtol=1e-6)


@pytest.mark.parametrize('kind', KINDS)
def test_maps_and_samples_are_scaled_alike(kind, fits):
  calibrator = fits[kind].calibrator
  apply = jax.jit(lambda c, x, f: c.apply(x, features=f))
  maps = SAMPLE.logits.reshape(I, 10, 15, C)
  flat, spatial = (apply(calibrator, x, SAMPLE.features) for x in (SAMPLE.logits, maps))
  np.testing.assert_array_equal(flat.reshape(maps.shape), spatial)
  np.testing.assert_array_equal(np.argmax(flat, -1), np.argmax(SAMPLE.logits, -1))


@pytest.mark.parametrize('kind', KINDS)
def test_a_file_holds_all_of_it(kind, fits, tmp_path):
  path = tmp_path / 'new' / 'fit.npz'
  files.save(path, fits[kind])
  found = files.load(path, classes=C)
  assert found.about == fits[kind].about
  assert files.digest(found.calibrator) == files.digest(fits[kind].calibrator)
  assert jax.tree.structure(found.calibrator) == jax.tree.structure(fits[kind].calibrator)
  jax.tree.map(np.testing.assert_array_equal, found.calibrator, fits[kind].calibrator)
  assert [p.name for p in path.parent.iterdir()] == ['fit.npz']


def test_a_local_temperature_net_is_saved_with_its_inputs(tmp_path):
  logits, image = np.zeros((1, 6, 6, C), np.float32), np.zeros((1, 6, 6, 3), np.float32)
  params = initialize(LocalTemperature('image'), 0, logits, image)['params']
  files.save(tmp_path / 'x.npz', base.Fit(local.Local(params, 'image'), {'classes': C}))
  found = files.load(tmp_path / 'x.npz').calibrator
  assert found.inputs == 'image'
  np.testing.assert_allclose(found.apply(logits + 1, image=image), 0.5)
  assert files.digest(found) != files.digest(local.Local(params))
  with pytest.raises(UserError, match='needs the images'):
    found.apply(logits)


def test_a_temperature_at_its_bound_is_told():
  right = Sample(SAMPLE.logits, np.argmax(SAMPLE.logits, -1).astype(np.int32))
  with warnings.catch_warnings():
    warnings.simplefilter('error')  # it is in the record, not on the screen
    told = base.fit('temperature', right).about['warnings']
  assert told == ['T = 0.05 lies at the bound of its range, 0.05 to 20']
  assert 'T = 0.5 lies at the bound' in base.fit('ece_grid', right).about['warnings'][0]
  assert base.fit('temperature', SAMPLE).about['warnings'] == []


@pytest.mark.parametrize(
  ('kind', 'options', 'message'),
  [
    ('temprature', {}, "no calibrator 'temprature'\n  did you mean: temperature"),
    ('lts', {}, 'car-jax calibrate RUN'),
    ('temperature', {'objectiv': 'nll'}, "no option 'objectiv'\n  did you mean: objective"),
    ('temperature', {'seed_': 1}, "no option 'seed_'"),
    ('clusters13', {}, '13 clusters of 12 images\n  use clusters:3'),
    ('clusters0', {}, '0 clusters of 12 images'),
  ],
)
def test_what_cannot_be_fitted(kind, options, message):
  with pytest.raises(UserError, match=message):
    base.fit(kind, SAMPLE, **options)


def test_samples_that_cannot_be_calibrated_on():
  void = Sample(SAMPLE.logits, np.full_like(SAMPLE.labels, -1))
  with pytest.raises(UserError, match='none of the 1800 pixels has a label'):
    base.fit('temperature', void)
  with pytest.raises(UserError, match='need features'):
    base.fit('clusters8', Sample(SAMPLE.logits, SAMPLE.labels))
  with pytest.raises(UserError, match='labels hold 255, but logits have 4 classes'):
    Sample(SAMPLE.logits, np.where(SAMPLE.labels < 0, 255, SAMPLE.labels))
  with pytest.raises(UserError, match='do not belong together'):
    Sample(SAMPLE.logits, SAMPLE.labels[1:])
  with pytest.raises(UserError, match='11 rows of features for 12 images'):
    Sample(SAMPLE.logits, SAMPLE.labels, SAMPLE.features[1:])


def damaged(path: pathlib.Path) -> None:
  data = bytearray(path.read_bytes())
  at = data.index(b'calibrator') if b'calibrator' in data else len(data) // 2
  data[at + 40] ^= 0xFF
  path.write_bytes(data)


def one_array(path: pathlib.Path) -> None:
  with path.open('wb') as file:
    np.save(file, np.zeros(3))


SPOIL = {
  'cut': lambda p: p.write_bytes(p.read_bytes()[:-200]),
  'empty': lambda p: p.write_bytes(b''),
  'text': lambda p: p.write_text('T = 1.7'),
  'flipped': damaged,
  'array': one_array,
}


@pytest.mark.parametrize('how', SPOIL)
def test_damaged_files(how, fits, tmp_path):
  path = tmp_path / 'x.npz'
  files.save(path, fits['temperature'])
  SPOIL[how](path)
  with pytest.raises(UserError, match='x.npz cannot be read as .*\n  fit it again'):
    files.load(path)
  with pytest.raises(UserError, match='x.npz cannot be read as .*\n  delete it'):
    files.load(path, mend='delete it')


@pytest.mark.parametrize(
  'value',
  [
    np.nan,
    np.inf,
    0,
    -1,
    1e-40,
    1e9,
    np.zeros((3, 3)),
    'x',
    np.array([]),
    True,
    1 + 0j,
    np.ones(2),
  ],
)
def test_temperatures_that_none_can_be(fits, tmp_path, value):
  path = tmp_path / 'x.npz'
  for kind, name in (('temperature', 'temperature'), ('per_class', 'table')):
    files.save(path, fits[kind])
    with np.load(path) as file:
      parts = dict(file)
    bad = np.asarray(value)
    bad = np.full(C, bad) if kind == 'per_class' and not bad.ndim else bad
    np.savez(path, **parts | {name: bad})
    with pytest.raises(UserError, match='x.npz cannot be read as a calibrator .*\n  fit it again'):
      files.load(path)
    head = json.loads(str(parts['json']))
    for strange in (None, [], 3, head | {'about': 'x'}, head | {'type': ['x']}):
      np.savez(path, **parts | {'json': json.dumps(strange)})
      with pytest.raises(UserError, match='x.npz cannot be read as a calibrator'):
        files.load(path)


def test_files_of_something_else(fits, tmp_path):
  np.savez(tmp_path / 'x.npz', logits=np.zeros(3))
  with pytest.raises(UserError, match='cannot be read as a calibrator of this version'):
    files.load(tmp_path / 'x.npz')
  with pytest.raises(UserError, match='no calibrator .*none.npz\n  fit it again'):
    files.load(tmp_path / 'none.npz')
  files.save(tmp_path / 'y.npz', fits['per_class'])
  with pytest.raises(UserError, match='fitted to 4 classes, not 19'):
    files.load(tmp_path / 'y.npz', classes=19)
  files.save(tmp_path / 'z.npz', base.Fit(local.Local({}), {'classes': C}))
  with pytest.raises(UserError, match='z.npz cannot be read as a calibrator'):
    files.load(tmp_path / 'z.npz')
  with pytest.raises(UserError, match='name another file'):
    files.save(tmp_path / 'y.npz' / 'z.npz', fits['per_class'])


def test_a_failed_write_leaves_the_old_file(fits, tmp_path, monkeypatch):
  path = tmp_path / 'x.npz'
  files.save(path, fits['temperature'])
  before = path.read_bytes()

  def full(*_, **kw):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(np, 'savez', full)
  with pytest.raises(UserError, match='No space left'):
    files.save(path, fits['per_class'])
  assert path.read_bytes() == before
  assert [p.name for p in tmp_path.iterdir()] == ['x.npz']
