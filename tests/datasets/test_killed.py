"""Preparations killed for real: nothing half done is left, and the same command then works."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.datasets.files import nothing_prepared, records, run, write_png

COUNT = 3000
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope='module')
def source(tmp_path_factory):
  """Enough images for a preparation that lasts a second or so: one picture, listed often."""
  root = tmp_path_factory.mktemp('many')
  write_png(root / 'mask.png', np.zeros((40, 40)))
  write_png(root / 'im.png', np.full((40, 40, 3), 7))
  for i in range(COUNT):
    os.link(root / 'im.png', root / f'im{i}.png')
  rows = [f'im{i}.png,mask.png;mask.png,train' for i in range(COUNT)]
  (root / 'list.csv').write_text('\n'.join(['image,masks,split', *rows]))
  return root / 'list.csv'


@pytest.mark.parametrize(
  ('number', 'status'), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 130)]
)
def test_a_killed_preparation(tmp_path, source, number, status):
  command = [sys.executable, '-m', 'datasets.prepare', 'folder', '--source', source]
  process = subprocess.Popen(
    [*command, '--data-dir', tmp_path], cwd=ROOT, stderr=subprocess.PIPE, text=True
  )
  limit = time.monotonic() + 60
  while not list(tmp_path.rglob('*incomplete*')) and time.monotonic() < limit:
    time.sleep(0.005)
  process.send_signal(number)
  told = process.communicate(timeout=60)[1]
  assert process.returncode == status
  assert nothing_prepared(tmp_path)
  if number != signal.SIGKILL:
    assert told.strip().endswith('interrupted: nothing was prepared; the same command starts again')
    assert 'Traceback' not in told
  assert run('folder', source, tmp_path) == 0
  assert len(records('folder', tmp_path)) == COUNT
  assert not list(tmp_path.rglob('*incomplete*'))
