"""The commands train and eval as a user runs them, and what they say to a user's mistakes."""

import json
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

from car_jax import files, folders
from car_jax.commands import eval as evaluation
from car_jax.commands import train
from car_jax.errors import UserError
from car_jax.evaluate import checkpointed

CONFIG = ('--config', 'tests/small.py:supervised')


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
  assert 'run: best checkpoint, step 2\n' in out
  page = pathlib.Path(re.search(r'report: (.*)\n$', out)[1])
  assert page == run / 'report' / 'report.html'
  numbers = json.loads((run / 'report' / 'results.json').read_text())
  assert numbers['data']['images'] == 4
  for subject in numbers['subjects']:
    assert f'{subject["scores"]["ged4"]["mean"]:.3f}' in out
  probs = np.load(next((run / 'arrays').rglob('probabilities.npy')))
  np.testing.assert_allclose(probs.sum(-1), 1, atol=1e-5)


@pytest.mark.slow
def test_eval_saves_logits(run):
  small = '--config.report.split=test[:4]'
  two_batches = ['--checkpoint', str(run), '--save', 'logits', small, '--config.data.batch=2']
  assert evaluation.main(two_batches) == 0
  index = json.loads((run / 'arrays' / 'index.json').read_text())
  (logits,) = (name for name in index['arrays'] if name.endswith('logits.npy'))
  assert np.load(run / 'arrays' / logits).shape == (4, 32, 32, 2)


def test_a_net_without_features_saves_none(run, capsys):
  assert evaluation.main(['--checkpoint', str(run), '--save', 'features']) == 2
  assert 'none of the checkpoints has features' in capsys.readouterr().err


def test_a_checkpoint_is_asked_with_a_flip_that_its_config_does_not_list(
  run, tmp_path, monkeypatch
):
  load, loaded = checkpointed.load, []
  monkeypatch.setattr(checkpointed, 'load', lambda *a: loaded.append(load(*a)) or loaded[-1])
  options = (
    '--config.report.split=test[:4]',
    '--config.method.mirror=True',
    '--config.report.metrics=("ged4",)',
    '--out',
    str(tmp_path),
  )
  assert evaluation.main(['--checkpoint', str(run), *options]) == 0
  assert loaded[0].method.mirror
  assert not load(run).method.mirror


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
      'not prepared(.*\n)+.*car-jax prepare lidc_crops',
    ),
    ([*CONFIG, '--config.data.name=lidc_crop'], 'did you mean: lidc_crops'),
    ([*CONFIG, '--config.data.batch=0'], 'batch'),
    ([*CONFIG, '--confg.steps=1'], 'confg'),
    (
      [*CONFIG, '--config.data.batch=none'],
      r'config.data.batch is None\n  it is a whole number',
    ),
    ([*CONFIG, '--config.method=x'], 'a group of keys; set one of them, such as method.name'),
    ([*CONFIG, '--processes', '2'], 'need --coordinator'),
    (['--config', 'configs/car_toy.py:foo'], "no variants, so none called 'foo'"),
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
    (['--config.method.mirorr=True'], 'did you mean: method.mirror'),
    (['--config.method.optim.lr=1'], 'method.optim.lr cannot be changed after training'),
    (['--config.method.scales=0.5,0'], 'config.method.scales is (0.5, 0)'),
  ],
)
def test_mistakes_in_evaluation(run, arguments, message, tmp_path, capsys):
  out = tmp_path / 'out'
  assert evaluation.main(['--checkpoint', str(run), '--out', str(out), *arguments]) == 2
  err = capsys.readouterr().err
  assert err.startswith('error: ')
  assert message in err
  assert not out.exists()


def test_a_run_that_cannot_be_written_is_evaluated_and_the_place_said_first(
  run, tmp_path, monkeypatch, capsys
):
  def check(folder, check=folders.check_writable):
    if run in (folder, *folder.parents):
      raise UserError(f'{folder} cannot be written')
    check(folder)

  monkeypatch.setattr(folders, 'check_writable', check)
  monkeypatch.chdir(tmp_path)
  page = pathlib.Path('runs', 'run-evaluated', 'report', 'report.html')
  small = '--config.report.split=test[:4]'
  assert evaluation.main(['--checkpoint', str(run), small]) == 0
  first, *_, last = capsys.readouterr().out.splitlines()
  assert str(page.parent) in first
  assert '--out' in first
  assert last == f'report: {page}'
  assert (tmp_path / page).exists()


def test_that_a_config_runs_is_said_where_it_is_asked_for(capsys):
  for main in (train.main, evaluation.main):
    with pytest.raises(SystemExit):
      main(['--help'])
    assert 'A config is Python that runs' in ' '.join(capsys.readouterr().out.split())


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


def test_a_checkpoint_is_found_by_the_folder_when_its_name_has_an_equals_sign(run, tmp_path):
  shutil.copytree(run, tmp_path / 'lr=1')
  out = ['--out', str(tmp_path / 'out'), '--config.report.split=test[:4]']
  assert evaluation.main(['--checkpoint', str(tmp_path / 'lr=1'), *out]) == 0


def test_what_would_fail_after_scoring_is_told_before(run, tmp_path, capsys):
  (tmp_path / 'mine').mkdir()
  (tmp_path / 'mine' / 'thesis.tex').write_text('years of work')
  assert evaluation.main(['--checkpoint', str(run), '--out', str(tmp_path / 'mine')]) == 2
  assert 'holds other files' in capsys.readouterr().err
  pair = ['--checkpoint', str(run), '--checkpoint', str(run)]
  assert evaluation.main([*pair, '--out', str(tmp_path / 'out')]) == 2
  assert "two checkpoints are called 'run'" in capsys.readouterr().err


def test_a_data_set_of_other_classes_is_told(run, tmp_path, capsys):
  other = json.loads((run / 'config.json').read_text())
  assert other['data']['name'] == 'fake'
  config = tmp_path / 'three.py'
  config.write_text(
    'from car_jax import config\n'
    'def get_config():\n'
    "  c = config.load('tests/small.py:supervised')\n"
    '  c.unlock()\n'
    '  c.data.num_classes, c.steps, c.evals, c.best = 3, 1, {}, ""\n'
    '  return c\n'
  )
  assert train.main(['--config', str(config), '--workdir', str(tmp_path / 'run')]) == 0
  both = ['--checkpoint', f'a={tmp_path / "run"}', '--checkpoint', f'b={run}']
  assert evaluation.main([*both, '--out', str(tmp_path / 'out')]) == 2
  assert 'was trained for 2 classes, the data have 3' in capsys.readouterr().err


def test_a_method_without_segmentations_is_told(tmp_path, capsys):
  changes = ('--config.steps=1', '--config.save_every=1')
  toy = ['--config', 'configs/car_toy.py', '--workdir', str(tmp_path / 'toy'), *changes]
  assert train.main(toy) == 0
  assert evaluation.main(['--checkpoint', str(tmp_path / 'toy')]) == 2
  assert 'predicts no segmentation' in capsys.readouterr().err


def test_whole_images_train_and_evaluate_without_a_size(tmp_path):
  config = tmp_path / 'whole.py'
  config.write_text(
    'from car_jax import config\n'
    'def get_config():\n'
    "  c = config.load('tests/small.py:supervised')\n"
    '  c.unlock()\n'
    '  c.data.size, c.data.batch, c.steps, c.evals, c.best = 32, 2, 1, {}, ""\n'
    '  c.report = dict(split="test", samples=2, metrics=("ged2",))\n'
    '  return c\n'
  )
  run = tmp_path / 'run'
  assert train.main(['--config', str(config), '--workdir', str(run)]) == 0
  place = run / 'checkpoints' / '1' / 'meta' / 'metadata'
  meta = json.loads(place.read_text())
  meta['config']['data']['size'] = 16
  place.write_text(json.dumps(meta))
  whole = {'meta': files.checksum(meta)}
  (run / 'checkpoints' / '1' / 'checksum' / 'metadata').write_text(json.dumps(whole))
  # what the nets were made for is kept with the checkpoint; the data may since have another size
  assert evaluation.main(['--checkpoint', str(run), '--config.report.split=test[:4]']) == 0


def test_a_run_without_a_folder_is_told_that_it_needs_one(capsys):
  assert train.main([*CONFIG]) == 2
  assert '--workdir is missing' in capsys.readouterr().err
