"""train.py and eval.py as a user runs them, and what they say to a user's mistakes."""

import json
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

import eval as evaluation
import train

CONFIG = ('--config', 'configs/smoke.py:supervised')


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A finished run with checkpoints of steps 1 and 2."""
  workdir = tmp_path_factory.mktemp('run') / 'run'
  changes = ('--config.steps=2', '--config.save_every=1', '--config.eval_every=0')
  assert train.main([*CONFIG, '--workdir', str(workdir), *changes]) == 0
  return workdir


@pytest.fixture
def damaged(run, tmp_path):
  """A copy of the run whose newest checkpoint lost half of its largest file."""
  copy = tmp_path / 'copy'
  shutil.copytree(run, copy)
  for folder in (copy / 'best', copy / 'checkpoints'):
    for step in folder.iterdir() if folder.exists() else ():
      if step.name == '2':
        largest = max((p for p in step.rglob('*') if p.is_file()), key=lambda p: p.stat().st_size)
        largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
  return copy


def test_eval_prints_the_table_and_ends_with_the_page(run, capsys):
  small = '--config.report.split=test[:4]'
  assert evaluation.main(['--checkpoint', str(run), '--save', 'probabilities', small]) == 0
  out = capsys.readouterr().out
  page = pathlib.Path(re.search(r'report: (.*)\n$', out)[1])
  assert page == run / 'report' / 'report.html'
  numbers = json.loads((run / 'report' / 'results.json').read_text())
  assert numbers['data']['images'] == 4
  for subject in numbers['subjects']:
    assert f'{subject["scores"]["ged4"]["mean"]:.3f}' in out
  probs = np.load(next((run / 'arrays').rglob('probabilities.npy')))
  np.testing.assert_allclose(probs.sum(-1), 1, atol=1e-5)


def test_eval_compares_checkpoints_under_given_names(run, tmp_path):
  pair = ['--checkpoint', f'early={run}', '--checkpoint', f'late={run}']
  more = ['--out', str(tmp_path / 'both'), '--step', '1', '--config.report.split=test[:4]']
  assert evaluation.main([*pair, *more]) == 0
  numbers = json.loads((tmp_path / 'both' / 'results.json').read_text())
  names = [s['name'] for s in numbers['subjects']]
  assert any(n.startswith('early') for n in names)
  assert any(n.startswith('late') for n in names)
  early, late = (
    [s['scores'] for s in numbers['subjects'] if n in s['name']] for n in ('early', 'late')
  )
  assert early == late


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ([*CONFIG, '--config.method.optim.lrr=1'], 'lrr.*\n.*did you mean: .*lr'),
    ([*CONFIG, '--config.steps=many'], "'many'"),
    (['--config', 'configs/smok.py'], 'did you mean: .*smoke'),
    (
      [*CONFIG, '--config.data.name=lidc_crops'],
      'not prepared(.*\n)+.*datasets.prepare lidc_crops',
    ),
    ([*CONFIG, '--config.data.name=lidc_crop'], 'did you mean: lidc_crops'),
    ([*CONFIG, '--config.data.batch=0'], 'batch'),
    ([*CONFIG, '--confg.steps=1'], 'confg'),
  ],
)
def test_mistakes_in_training_leave_nothing(arguments, message, tmp_path, capsys):
  place = ('--workdir', str(tmp_path / 'run'))
  data = () if 'data.name' not in arguments[-1] else (f'--config.data.data_dir={tmp_path}',)
  assert train.main([*arguments, *data, *place]) == 2
  err = capsys.readouterr().err
  assert err.startswith('error: ')
  assert re.search(message, err), err
  assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--config.report.splt=test'], 'splt'),
    (['--config.report.split=tset'], 'did you mean: test'),
    (['--config.report.metrics=("gedd4",)'], 'ged'),
    (['--step', '7'], '7'),
    (['--step', 'newest'], 'newest'),
    (['--save', 'sample'], 'did you mean: samples'),
  ],
)
def test_mistakes_in_evaluation(run, arguments, message, tmp_path, capsys):
  out = tmp_path / 'out'
  assert evaluation.main(['--checkpoint', str(run), '--out', str(out), *arguments]) == 2
  err = capsys.readouterr().err
  assert err.startswith('error: ')
  assert message in err
  assert not out.exists()


def test_a_folder_without_a_checkpoint(tmp_path, capsys):
  assert evaluation.main(['--checkpoint', str(tmp_path / 'nothing')]) == 2
  assert str(tmp_path / 'nothing') in capsys.readouterr().err


def test_a_truncated_checkpoint_is_named_with_those_that_are_whole(damaged, capsys):
  assert evaluation.main(['--checkpoint', str(damaged), '--step', 'latest']) == 2
  err = capsys.readouterr().err
  assert err.startswith('error: damaged checkpoint')
  assert str(damaged) in err
  assert '--step 1' in err


def test_a_mistake_is_one_message_without_a_traceback(tmp_path):
  command = [sys.executable, 'train.py', *CONFIG, '--workdir', str(tmp_path / 'run')]
  done = subprocess.run([*command, '--config.stepps=1'], capture_output=True, text=True)
  assert done.returncode == 2
  assert done.stdout == ''
  assert done.stderr.startswith('error: ')
  assert len(done.stderr.splitlines()) <= 3
  assert 'Traceback' not in done.stderr
