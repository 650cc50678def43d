"""The command: interruptions, repetition, replacement, and mistakes on the command line."""

import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from car_jax.data import sources
from datasets import common
from tests.datasets.files import folder, nothing_prepared, records, run, write_png

REPOSITORY = pathlib.Path(__file__).parents[2]
SPLIT = ('--validation', '0', '--test', '0')


@pytest.fixture
def source(tmp_path):
  return folder(tmp_path / 'source', (1, 1, 1))


def leftovers(data_dir):
  return [p for p in data_dir.rglob('*') if p.name.startswith('.') or 'incomplete' in p.name]


def test_an_interrupted_preparation_leaves_nothing_half_done(tmp_path, source, monkeypatch):
  read, calls = common.read_image, []

  def interrupted(*args, **kw):
    calls.append(args)
    if len(calls) > 2:
      raise KeyboardInterrupt
    return read(*args, **kw)

  monkeypatch.setattr(common, 'read_image', interrupted)
  with pytest.raises(KeyboardInterrupt):
    run('folder', source, tmp_path / 'data', *SPLIT)
  assert nothing_prepared(tmp_path / 'data')
  monkeypatch.undo()
  assert run('folder', source, tmp_path / 'data', *SPLIT) == 0
  assert len(records('folder', tmp_path / 'data')) == 3
  assert not leftovers(tmp_path / 'data')


def test_what_a_killed_run_left_is_cleared_away(tmp_path, source):
  home = tmp_path / 'data' / 'folder' / 'default'
  (home / '1.0.0.incompleteABC123').mkdir(parents=True)
  (home / '1.0.0.incompleteABC123' / 'x.array_record').write_bytes(b'half')
  left = home / 'overwrite.incomplete' / 'folder' / 'default' / '1.0.0'
  left.mkdir(parents=True)
  (left / 'dataset_info.json').write_text('{}')
  assert nothing_prepared(tmp_path / 'data')
  assert run('folder', source, tmp_path / 'data', *SPLIT) == 0
  assert not leftovers(tmp_path / 'data')
  assert len(records('folder', tmp_path / 'data')) == 3


def test_what_is_prepared_stays_unless_overwritten(tmp_path, source, capsys):
  assert run('folder', source, tmp_path / 'data', *SPLIT) == 0
  assert 'prepared ' in capsys.readouterr().out
  write_png(source / 'images' / 'new.png', np.full((10, 14, 3), 9))
  write_png(source / 'masks' / 'new' / 'a.png', np.zeros((10, 14)))
  assert run('folder', source, tmp_path / 'data', *SPLIT) == 0
  assert 'already prepared; --overwrite' in capsys.readouterr().out
  assert len(records('folder', tmp_path / 'data')) == 3
  assert run('folder', source, tmp_path / 'data', *SPLIT, '--overwrite') == 0
  assert len(records('folder', tmp_path / 'data')) == 4


def test_overwriting_with_damaged_files_keeps_what_was_there(tmp_path, source, capsys):
  assert run('folder', source, tmp_path / 'data', *SPLIT) == 0
  (source / 'images' / 'im0.png').write_text('damaged')
  assert run('folder', source, tmp_path / 'data', *SPLIT, '--overwrite') == 2
  assert 'im0.png' in capsys.readouterr().err
  assert len(records('folder', tmp_path / 'data')) == 3


def test_two_preparations_are_the_same_bytes(tmp_path, source):
  for name in ('a', 'b'):
    assert run('folder', source, tmp_path / name) == 0
  files = [sorted((tmp_path / name).rglob('*.array_record*')) for name in ('a', 'b')]
  assert files[0]
  for a, b in zip(*files, strict=True):
    assert a.name == b.name
    assert a.read_bytes() == b.read_bytes()


def test_the_default_place_is_tfdss(tmp_path, source, monkeypatch):
  from datasets import prepare

  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'default'))
  assert prepare.main(['folder', '--source', str(source), *SPLIT]) == 0
  assert sources.prepared(tmp_path / 'default') == ['folder']
  assert len(sources.open_dataset({'name': 'folder'}).split('train')) == 3


def test_the_command_as_a_user_runs_it(tmp_path, source):
  arguments = ['folder', '--source', str(source), '--data-dir', str(tmp_path / 'data'), *SPLIT]
  command = [sys.executable, '-m', 'datasets.prepare', *arguments]
  done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=100)
  assert done.returncode == 0
  assert done.stdout.startswith(f'prepared {tmp_path}')
  assert re.fullmatch(r'\s*folder train: 3 in \S+\s*', done.stderr)  # no library's chatter


@pytest.mark.parametrize(
  ('name', 'arguments', 'message'),
  [
    ('lidc_mask', [], "no data set 'lidc_mask'\n  did you mean: lidc_masks"),
    ('folder', [], 'folder needs --source'),
    ('lidc_masks', ['--source', '.'], 'lidc_masks ships with the project and takes no --source'),
    ('folder', ['--source', 'nowhere'], 'no such source nowhere'),
    ('lidc_crops', ['--source', '.', '--size', '64'], 'lidc_crops has no option --size'),
    (
      'lidc_masks',
      ['--low', '1'],
      'lidc_masks has no option --low\n  known: contrast, noise, size',
    ),
    ('lidc_masks', ['--size', '300'], '--size cannot be 300\n  expected 1 to 128'),
    ('lidc_masks', ['--size', '0'], 'size'),
    (
      'lidc_dicom',
      ['--source', '.', '--low', '5', '--high', '5'],
      '--low cannot be 5.0\n  expected less',
    ),
    ('folder', ['--source', '.', '--validation', '0.7', '--test', '0.7'], 'validation'),
    ('folder', ['--source', '.', '--variant', '../x'], 'variant'),
    (
      'cityscapes',
      ['--source', '.', '--splits', 'x'],
      "--splits cannot be 'x'\n  expected ambiguity, reliability or adaptation",
    ),
    ('cityscapes', ['--source', '.', '--augmented', '2'], 'and with it --splits reliability'),
    ('street_scenes', ['--unknown', '1.5'], '--unknown cannot be 1.5\n  expected 0 to 1'),
  ],
)
def test_mistakes_on_the_command_line(tmp_path, capsys, name, arguments, message):
  assert run(name, None, tmp_path / 'data', *arguments) == 2
  told = capsys.readouterr().err
  assert told.startswith('error: ')
  assert message in told
  assert nothing_prepared(tmp_path / 'data')


@pytest.mark.parametrize(
  'arguments',
  [
    ['folder', '--bogus'],
    [],
    ['lidc_masks', '--size', 'x'],
    ['street_scenes', '--unknown', '8,16'],
  ],
)
def test_what_argparse_refuses_exits_2(arguments, capsys):
  from datasets import prepare

  with pytest.raises(SystemExit) as e:
    prepare.main(arguments)
  assert e.value.code == 2
  assert 'error:' in capsys.readouterr().err
