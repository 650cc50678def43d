"""The command: interruptions, repetition, replacement, and mistakes on the command line."""

import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np
import pytest

from car_jax.data import opening, prepared
from car_jax.datasets import common, options, prepare
from car_jax.options import declared
from tests.datasets.files import folder, nothing_prepared, records, run, write_png

REPOSITORY = pathlib.Path(__file__).parents[2]
SPLIT = ('--validation', '0', '--test', '0')


@pytest.fixture
def source(tmp_path):
  return folder(tmp_path / 'source', (1, 1, 1))


def leftovers(data_dir):
  """But .config, where TFDS notes which config is the default."""
  hidden = (p for p in data_dir.rglob('.*') if p.name != '.config')
  return [*hidden, *data_dir.rglob('*incomplete*')]


def test_nothing_is_left_among_the_temporary_files(tmp_path, source, monkeypatch):
  (tmp_path / 'temporary').mkdir()
  monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'temporary'))
  assert run('folder', source, tmp_path / 'data', *SPLIT) == 0
  assert not [*(tmp_path / 'temporary').iterdir()]


def test_an_interrupted_preparation_leaves_nothing_half_done(tmp_path, source, monkeypatch):
  read, calls = common.read_image, []

  def interrupted(*args, **kw):
    calls.append(args)
    if len(calls) > 2:
      raise KeyboardInterrupt
    return read(*args, **kw)

  monkeypatch.setattr(common, 'read_image', interrupted)
  assert run('folder', source, tmp_path / 'data', *SPLIT) == 130
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


def test_a_folder_that_lost_its_description_is_replaced(tmp_path, source):
  assert run('folder', source, tmp_path / 'data', *SPLIT) == 0
  (tmp_path / 'data/folder/default/1.0.0/dataset_info.json').unlink()
  assert run('folder', source, tmp_path / 'data', *SPLIT) == 0
  assert len(records('folder', tmp_path / 'data')) == 3


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


def test_the_default_place_is_tfdss(tmp_path, source, monkeypatch, capsys):
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path / 'default'))
  assert prepare.main(['folder', '--source', str(source), *SPLIT]) == 0
  elsewhere = f'--data-dir or TFDS_DATA_DIR puts it elsewhere than {tmp_path}/default\n'
  assert elsewhere in capsys.readouterr().out
  assert prepared.prepared(tmp_path / 'default') == ['folder']
  assert len(opening.open_dataset({'name': 'folder'}).split('train')) == 3


def test_the_command_as_a_user_runs_it(tmp_path, source):
  arguments = ['folder', '--source', str(source), '--data-dir', str(tmp_path / 'data'), *SPLIT]
  command = [sys.executable, '-m', 'datasets.prepare', *arguments]
  done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=100)
  assert done.returncode == 0
  assert done.stdout.startswith(f'prepared {tmp_path}')
  assert re.fullmatch(
    r'\s*folder train: 100% 3/3 \[.* images/s\]\s*', done.stderr
  )  # no library's chatter


@pytest.mark.parametrize(
  ('name', 'arguments', 'message'),
  [
    ('lidc_mask', [], "no data set 'lidc_mask'\n  did you mean: lidc_masks"),
    ('folder', [], 'folder needs --source'),
    ('lidc_masks', ['--source', '.'], 'lidc_masks ships with the project and takes no --source'),
    ('folder', ['--source', 'nowhere'], 'no such source nowhere'),
    ('lidc_crops', ['--source', __file__], 'test_prepare.py is a file; expected a folder'),
    ('lidc_crops', ['--source', '.', '--size', '64'], 'lidc_crops has no option --size'),
    (
      'lidc_masks',
      ['--low', '1'],
      'lidc_masks has no option --low\n  known: contrast, data-dir, noise, overwrite, size',
    ),
    (
      'lidc_masks',
      ['--size', '300'],
      '--size cannot be 300\n  expected a whole number from 1 to 128',
    ),
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
    (
      'street_scenes',
      ['--unknown', '1.5'],
      '--unknown cannot be 1.5\n  expected a number from 0 to 1',
    ),
  ],
)
def test_mistakes_on_the_command_line(tmp_path, capsys, name, arguments, message):
  assert run(name, None, tmp_path / 'data', *arguments) == 2
  printed = capsys.readouterr().err
  assert printed.startswith('error: ')
  assert message in printed
  assert nothing_prepared(tmp_path / 'data')


BIG = '9' * 20


@pytest.mark.parametrize(
  ('arguments', 'expected'),
  [
    (['folder', '--bogus'], 'folder has no option --bogus'),
    (['--overwrite'], 'no data set '),
    (['folder', '--source', '.', 'more'], "'more' belongs to no option"),
    *(
      ([name, *source, f'--{key}={value}'], f'--{key} cannot be ')
      for name, source, key, values in (
        ('lidc_masks', [], 'size', ('x', '1.5', 'nan', BIG, '9' * 5000)),
        ('lidc_masks', [], 'noise', ('nan', 'inf', '-1', '1e300')),
        ('street_scenes', [], 'unknown', ('8,16', 'nan')),
        ('street_scenes', [], 'seed', ('-1', BIG)),
        ('street_scenes', [], 'height', ('33',)),
        ('street_scenes', [], 'count', ('3', '2000000')),
        ('street_scenes', [], 'domain', ('fogg', '../x')),
        ('cityscapes', ['--source', '.'], 'scale', ('0', '1e-9', 'nan', '2')),
        ('cityscapes', ['--source', '.'], 'augmented', ('-1', BIG)),
        ('lidc_dicom', ['--source', '.'], 'low', ('-inf', 'nan')),
        ('folder', ['--source', '.'], 'validation', ('nan', 'inf', '-0.1')),
        ('folder', ['--source', '.'], 'seed', (BIG,)),
        ('folder', ['--source', '.'], 'range', ('5', '5,5', '5,1', 'nan,1', '1%,99', '-1%,101%')),
      )
      for value in values
    ),
  ],
)
def test_what_no_option_can_be_is_told_with_its_range(arguments, expected, tmp_path, capsys):
  assert prepare.main([*arguments, '--data-dir', str(tmp_path)]) == 2
  printed = capsys.readouterr().err
  assert printed.startswith('error: ' + expected)
  assert re.search('expected|--help|did you mean|known:|usage', printed)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('name', prepared.KNOWN)
def test_help_lists_the_options_of_one_data_set(name, capsys):
  with pytest.raises(SystemExit) as e:
    prepare.main([name, '--help'])
  assert e.value.code == 0
  text = capsys.readouterr().out
  printed, own = ' '.join(text.split()), text.partition('options of this data set')[2]
  wanted = declared(prepare.builder(name).builder_config_cls)
  assert re.findall(r'^  (--[a-z-]+)', own, re.MULTILINE) == [*map(options.flag, wanted)]
  for option in wanted.values():
    assert option.about
    assert options.help_line(option) in printed


def test_the_end_tells_what_was_prepared(tmp_path, capsys):
  for name, readers, size in (('a', 1, (4, 6)), ('b', 2, (4, 6)), ('c', 2, (8, 8))):
    write_png(tmp_path / f's/images/{name}.png', np.full((*size, 3), 9))
    for r in range(readers):
      mask = np.zeros(size)
      mask[0, 0] = 255
      write_png(tmp_path / f's/masks/{name}/{r}.png', mask)
  (tmp_path / 's/images/._a.png').write_bytes(b'x')
  (tmp_path / 's/notes.txt').write_bytes(b'x')
  classes = ('--classes', '0:back,255:lesion,7:other,9:ignore', '--variant', 'v')
  assert run('folder', tmp_path / 's', tmp_path / 'd', *SPLIT, *classes) == 0
  printed = capsys.readouterr().out.splitlines()
  pixels = 3 * 24 + 2 * 64
  assert printed[0] == f'prepared {tmp_path}/d/folder/v/1.0.0'
  assert printed[1] == '  train: 3 images; 2 x 2 readers, 1 x 1 reader; 2 x 6x4 RGB, 1 x 8x8 RGB'
  share = (f'{100 * k / pixels:.3g} %' for k in (pixels - 5, 5))
  assert printed[2] == '    pixels: back {}, lesion {}, other none, ignored none'.format(*share)
  assert printed[3].startswith('  no pixel of other anywhere')
  assert f'  1 x leftover of the system, passed over: {tmp_path}/s/images/._a.png' in printed
  assert f'  1 x beside images/ and masks/, not read: {tmp_path}/s/notes.txt' in printed
  command = f'--config.data.name=folder/v --config.data.data_dir={tmp_path}/d'
  assert printed[-1].startswith('next: car-jax train --config configs/')
  assert command in printed[-1]
