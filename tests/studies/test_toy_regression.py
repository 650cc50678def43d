"""The toy study, shortened: what it writes, that it continues, and its numbers from its curves."""

import functools
import json
import re
import threading
import time
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from car_jax.methods.car_toy import CARToy
from car_jax.studies import toy_regression as study
from car_jax.studies import toy_runs
from tests.report.document import Document, network, weight

SHORT = ['--seeds', '2', '--steps', '20', '--calibration-steps', '10', '--workers', '2']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  out = tmp_path_factory.mktemp('toy') / 'study'
  with pytest.MonkeyPatch.context() as patch:
    # As many runs as a law has here: the same shapes, so nothing is compiled twice.
    patch.setattr(study, 'FIGURE_1', (study.FIGURE_1[0], study.FIGURE_1[1][:2]))
    patch.setattr(toy_runs, 'CARToy', functools.partial(CARToy, hidden=(8,), ll_points=200))
    assert study.main(['--out', str(out), *SHORT]) == 0
  return out


def test_a_shortened_study_leaves_figures_numbers_and_tables(folder):
  text = (folder / 'report.html').read_text()
  assert network(text) == []
  assert weight(text) < 400_000
  figures = Document(text).figures
  assert {'data and calibration net', 'without (weight 0)', 'the last two fifths'} <= {*figures}
  ElementTree.fromstring((folder / 'toy_figure2.svg').read_text())
  results = json.loads((folder / 'results.json').read_text())
  assert len(results['laws']) == 9
  curve = results['figure2']
  assert curve['runs'] == 18
  assert curve['step'] == [0, 10, 20]  # training steps, not numbers of looks
  files = [dict(np.load(study.run_file(folder, law))) for law in study.LAWS]
  runs = np.concatenate([numbers['log_likelihood'][0] for numbers in files])
  np.testing.assert_allclose(curve['curves']['1']['median'], np.median(runs, 0), atol=1e-4)
  rows = [r for r in figures['median and quartiles over 18 runs'] if 'weight 1' in r['series']]
  drawn = [float(r['log likelihood of a draw']) for r in rows]
  np.testing.assert_allclose(drawn, np.median(runs, 0), rtol=1e-3)
  tables = (folder / 'tables.md').read_text()
  assert 'stays above 0 from | step 20 |' in tables
  widths = {len(re.split(r'(?<!\\)\|', line)) for line in tables.split('\n\n')[3].splitlines()}
  assert len(widths) == 1


def test_a_finished_study_is_only_redrawn_and_a_missing_law_is_trained(folder, capsys, monkeypatch):
  before = {p: p.stat().st_mtime_ns for p in (folder / 'runs').iterdir()}
  (folder / 'report.html').unlink()
  monkeypatch.setattr(toy_runs, 'Runs', None)  # nothing may be trained
  assert study.main(['--out', str(folder), *SHORT]) == 0
  assert {p: p.stat().st_mtime_ns for p in (folder / 'runs').iterdir()} == before
  assert (folder / 'report.html').exists()
  assert 'report.html' in capsys.readouterr().out


def test_ctrl_c_says_how_to_go_on(tmp_path, capsys, monkeypatch):
  def interrupted(*_):
    raise KeyboardInterrupt

  monkeypatch.setattr(study, 'train_missing', interrupted)
  assert study.main(['--out', str(tmp_path), *SHORT]) == 130
  assert 'the same command continues' in capsys.readouterr().err


def test_other_settings_in_the_same_folder_are_refused(folder, capsys):
  assert study.main(['--out', str(folder), *SHORT[2:], '--seeds', '3']) == 2
  message = capsys.readouterr().err
  assert 'holds a study with --seeds 2 --steps 20 --calibration-steps 10' in message


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--steps', '25'], '--steps is 25; G is looked at in every 10th step\n  use --steps 20'),
    (['--seeds', '0'], '--seeds is 0, below 1'),
    (['--figure', '3'], "no --figure '3'\n  known: 1, 2, all"),
    (['--steps', '0'], '--steps is 0, below 1'),
    (['--calibration-steps', '-1'], '--calibration-steps is -1, below 0'),
  ],
)
def test_impossible_settings_are_refused(tmp_path, capsys, arguments, message):
  assert study.main(['--out', str(tmp_path / 'x'), *arguments]) == 2
  assert message in capsys.readouterr().err
  assert not (tmp_path / 'x').exists()


@pytest.mark.slow
def test_runs_side_by_side_equal_a_run_alone(monkeypatch):
  """vmap changes nothing: each run draws by its own seed."""
  small = lambda **kw: CARToy(hidden=(8,), refine_batch=20, ll_points=20, samples=3, **kw)
  monkeypatch.setattr(toy_runs, 'CARToy', small)
  laws, seeds = [(0.5, 0.05), (0.9, 0.1)], [3, 4]
  told = []
  runs = toy_runs.Runs(4, 20, told.append)
  both, _ = runs.train(laws, seeds)
  alone, _ = runs.train(laws[1:], seeds[1:])
  assert both['log_likelihood'].shape == (2, 2, 3)
  for key in ('log_likelihood', 'upper'):
    np.testing.assert_allclose(both[key][:, 1:], alone[key], rtol=2e-3)
  np.testing.assert_allclose(both['mean'][1:], alone['mean'], rtol=1e-4)
  assert sum(told) == (2 + 1) * (4 + 2 * 20)
  runs.stop.set()
  with pytest.raises(toy_runs.Stopped):
    runs.train(laws, seeds)


def test_an_error_in_one_job_stops_the_others():
  stop, finished = threading.Event(), []

  def wrong():
    raise RuntimeError('broken')

  def patient():
    finished.append(stop.wait(20))

  began = time.perf_counter()
  with pytest.raises(RuntimeError, match='broken'):
    study.side_by_side([patient, wrong, patient, patient], 2, stop)
  assert time.perf_counter() - began < 10
  assert all(finished)


def test_first_above_wants_the_curve_to_stay():
  step = np.arange(0, 120, 10)
  curve = np.array([-1, 1, -1, -1, 1, 1, 1, 1, 1, 1, 1, -1])
  assert study.first_above(step, curve) == 40
  assert study.first_above(step, -np.ones(12)) is None
