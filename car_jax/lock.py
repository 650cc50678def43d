"""One training at a time in a workdir: a lock that says who holds it and does not outlive a kill.

The system's own lock (flock) goes with the process, however it ends. Where a file system has none
across hosts, the file's age tells: its holder touches it every `BEAT` seconds.
"""

import contextlib
import datetime
import fcntl
import json
import os
import pathlib
import socket
import threading
import time
from collections.abc import Iterator

from car_jax.errors import UserError

NAME = '.lock'
BEAT, STALE = 10.0, 60.0  # seconds between touches; the age at which a holder counts as gone


@contextlib.contextmanager
def held(folder: pathlib.Path) -> Iterator[None]:
  """Holds `folder` for this process. Raises UserError, naming the holder, if another one does."""
  path = folder / NAME
  file = _acquired(path)
  done = threading.Event()
  thread = threading.Thread(target=_beat, args=(file, done), daemon=True)
  thread.start()
  try:
    yield
  finally:
    done.set()
    thread.join()
    if _is(file, path):  # not if the folder was moved aside
      path.unlink()
    os.close(file)


def _acquired(path: pathlib.Path) -> int:
  """The open, locked file at `path`."""
  while True:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError:
        raise UserError(_message(path, os.pread(file, 4096, 0))) from None
      except OSError:
        pass  # a file system without such locks: the age has to do
      if not _is(file, path):  # its last holder removed it while we waited
        os.close(file)
        continue
      text = os.pread(file, 4096, 0)
      if (
        text
        and _host(text) != socket.gethostname()
        and time.time() - os.stat(file).st_mtime < STALE
      ):
        raise UserError(
          f'{_message(path, text)}\n  or, if that process is gone, wait {STALE:.0f} s or: rm {path}'
        )
      os.ftruncate(file, 0)
      since = datetime.datetime.now().isoformat(' ', 'seconds')
      who = dict(host=socket.gethostname(), pid=os.getpid(), since=since)
      os.pwrite(file, json.dumps(who).encode(), 0)
      return file
    except BaseException:
      os.close(file)
      raise


def _is(file: int, path: pathlib.Path) -> bool:
  try:
    return os.path.samestat(os.fstat(file), os.stat(path))
  except FileNotFoundError:
    return False


def _beat(file: int, done: threading.Event) -> None:
  while not done.wait(BEAT):
    with contextlib.suppress(OSError):
      os.utime(file)


def _host(text: bytes) -> str:
  try:
    return str(json.loads(text)['host'])
  except (ValueError, KeyError, TypeError):
    return ''


def _message(path: pathlib.Path, text: bytes) -> str:
  try:
    who = json.loads(text)
    by = f'process {who["pid"]} on {who["host"]}, since {who["since"]}'
  except (ValueError, KeyError, TypeError):
    by = 'another process'
  return (
    f'{path.parent} is being trained in by {by}\n'
    '  wait until it has ended, stop it, or name another --workdir'
  )
