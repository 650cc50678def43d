"""The lock of a workdir: one training at a time, whoever ended how."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from car_jax import lock
from car_jax.errors import UserError

HOLDER = """
import pathlib, sys, time
from car_jax import lock
with lock.exclusive(pathlib.Path(sys.argv[1])):
  print('held', flush=True)
  time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
  """Another process that holds tmp_path."""
  command = [sys.executable, '-c', HOLDER, tmp_path]
  with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
    assert process.stdout.readline() == b'held\n'
    yield process
    process.kill()


@pytest.fixture
def no_locks(monkeypatch):
  """A file system without locks."""

  def refuse(*_):
    raise OSError(95, 'Operation not supported')

  monkeypatch.setattr(fcntl, 'flock', refuse)


def write(folder, **who):
  found = dict(host=socket.gethostname(), pid=os.getpid(), since='2026-01-01 00:00:00') | who
  (folder / lock.NAME).write_text(json.dumps(found))


def test_the_holder_is_named_and_a_kill_frees_the_folder(tmp_path, holder):
  message = rf'(?s)process {holder.pid} on .*, since 20.*--workdir'
  with pytest.raises(UserError, match=message), lock.exclusive(tmp_path):
    pass
  holder.send_signal(signal.SIGKILL)
  holder.wait()
  with lock.exclusive(tmp_path):
    assert json.loads((tmp_path / lock.NAME).read_text())['pid'] == os.getpid()
  assert not any(tmp_path.iterdir())


def test_a_folder_that_was_moved_aside_keeps_its_lock_file(tmp_path):
  old = tmp_path / 'old'
  old.mkdir()
  with lock.exclusive(old):
    old.rename(tmp_path / 'aside')
    old.mkdir()
    with lock.exclusive(old):
      assert (old / lock.NAME).exists()
  assert (tmp_path / 'aside' / lock.NAME).exists()


def test_without_locks_a_process_that_works_is_left_alone_and_a_dead_one_is_not(tmp_path, no_locks):
  write(tmp_path, pid=os.getppid())
  with pytest.raises(UserError, match=f'process {os.getppid()} on'), lock.exclusive(tmp_path):
    pass
  dead = subprocess.Popen([sys.executable, '-c', ''])
  dead.wait()
  write(tmp_path, pid=dead.pid)
  with lock.exclusive(tmp_path):
    pass


def test_another_host_counts_until_its_file_grows_old(tmp_path):
  write(tmp_path, host='elsewhere')
  with (
    pytest.raises(UserError, match=rf'(?s)on elsewhere.*rm {tmp_path}'),
    lock.exclusive(tmp_path),
  ):
    pass
  then = time.time() - 2 * lock.STALE
  os.utime(tmp_path / lock.NAME, (then, then))
  with lock.exclusive(tmp_path):
    pass


@pytest.mark.parametrize('text', ['', 'x', '[]', '{"host": 3}', '{"host": "a", "pid": "b"}'])
def test_a_lock_file_that_says_nothing_is_no_holder(tmp_path, text):
  (tmp_path / lock.NAME).write_text(text)
  with lock.exclusive(tmp_path):
    pass
