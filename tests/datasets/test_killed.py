"""Preparations killed for real: nothing half done is left, and the same command then works."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from car_jax.data import prepared
from tests.datasets.files import nothing_prepared, records, run, write_png

LONG, SHORT = 15_000, 30  # rows: some seconds of work to be killed in; then to be prepared
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  """One picture under many names."""
  root = tmp_path_factory.mktemp('many')
  write_png(root / 'mask.png', np.zeros((40, 40)))
  write_png(root / 'im.png', np.full((40, 40, 3), 7))
  for i in range(LONG):
    os.link(root / 'im.png', root / f'im{i}.png')
  return root


def listed(root, count):
  rows = [f'im{i}.png,mask.png,train' for i in range(count)]
  (root / 'list.csv').write_text('\n'.join(['image,masks,split', *rows]))
  return root / 'list.csv'


@pytest.mark.parametrize(
  ('number', 'status'), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 130)]
)
def test_a_killed_preparation(tmp_path, source, number, status):
  command = [sys.executable, '-m', 'datasets.prepare', 'folder', '--source']
  process = subprocess.Popen(
    [*command, listed(source, LONG), '--data-dir', tmp_path],
    cwd=ROOT,
    stderr=subprocess.PIPE,
    text=True,
  )
  limit = time.monotonic() + 60
  while not list(tmp_path.rglob('*incomplete*')) and time.monotonic() < limit:
    time.sleep(0.005)
  process.send_signal(number)
  told = process.communicate(timeout=60)[1]
  assert process.returncode == status
  assert not prepared.prepared(tmp_path)
  if number != signal.SIGKILL:
    assert nothing_prepared(tmp_path)
    assert told.strip().endswith(
      'interrupted: no half data set is left; run the same command again'
    )
    assert 'Traceback' not in told
  assert run('folder', listed(source, SHORT), tmp_path) == 0
  assert len(records('folder', tmp_path)) == SHORT
  assert not list(tmp_path.rglob('*incomplete*'))


def test_a_disk_that_takes_no_more(tmp_path, source):
  """A limit on the size of files stands in for it."""
  limit = 'import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000,) * 2)'
  run_it = 'import sys; from datasets import prepare; sys.exit(prepare.main(sys.argv[1:]))'
  options = ['folder', '--source', listed(source, 3000), '--data-dir', tmp_path]
  done = subprocess.run(
    [sys.executable, '-c', f'{limit}; {run_it}', *options],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2
  assert done.stderr.splitlines()[-1] == f'error: cannot write to {tmp_path}: File too large'
  assert nothing_prepared(tmp_path)


def test_a_place_that_is_no_folder(tmp_path, source, capsys):
  (tmp_path / 'file').write_text('')
  assert run('folder', listed(source, 3), tmp_path / 'file' / 'data') == 2
  assert ': Not a directory' in capsys.readouterr().err
