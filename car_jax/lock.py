"""One process at a time in a folder: a lock that says who holds it and does not outlive a kill.

The system's own lock (flock) goes with the process, however it ends. Where a file system has none,
or none that other hosts see, the holder's number and the file's age tell: the holder touches the
file every `BEAT` seconds. In a bucket the lock is an object that only one process can create, and
writes again every `BEAT` seconds.
"""

import contextlib
import datetime
import fcntl
import json
import os
import pathlib
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from car_jax import paths
from car_jax.errors import UserError

NAME = '.lock'
BEAT, STALE = 10.0, 60.0  # seconds between touches; the age at which a holder counts as gone


@contextlib.contextmanager
def exclusive(
  folder: pathlib.Path, use: str = 'trained in', option: str = '--workdir'
) -> Iterator[None]:
  """Holds `folder` for this process. Raises UserError, naming the holder, if another one does.

  use: what is done there, option: what names another folder, for the message.
  """
  path = folder / NAME
  if paths.is_remote(path):
    text = _created(path, use, option)
    touch, release = lambda: _write_again(path, text), lambda: _remove(path, text)
  else:
    file = _acquired(path, use, option)
    touch, release = lambda: os.utime(file), lambda: _release(file, path)
  done = threading.Event()
  thread = threading.Thread(target=_beat, args=(touch, done), daemon=True)
  thread.start()
  try:
    yield
  finally:
    done.set()
    thread.join()
    release()


def _created(path: pathlib.Path, use: str, option: str) -> str:
  """Creates the lock of a bucket's folder -> its content, which no other one has."""
  text = _mine()
  if paths.create(path, text.encode()):
    return text
  probe = path.with_name(f'{NAME}{os.getpid()}')
  probe.write_text('')  # its age is that of now, by the bucket's clock
  now = paths.modified(probe)
  probe.unlink()
  with contextlib.suppress(FileNotFoundError):  # it is given back meanwhile
    theirs = path.read_text()
    if (now - paths.modified(path)).total_seconds() < STALE:
      raise UserError(_message(path, _parsed(theirs), use, option))
    _remove(path, theirs)
  if not paths.create(path, text.encode()):
    raise UserError(_message(path, {}, use, option))
  return text


def _write_again(path: pathlib.Path, text: str) -> None:
  if path.read_text() == text:
    path.write_text(text)


def _remove(path: pathlib.Path, text: str) -> None:
  """Not one that another process has put there."""
  with contextlib.suppress(FileNotFoundError):
    if path.read_text() == text:
      path.unlink()


def _mine() -> str:
  since = datetime.datetime.now().isoformat(' ', 'seconds')
  return json.dumps(dict(host=socket.gethostname(), pid=os.getpid(), since=since))


def _acquired(path: pathlib.Path, use: str, option: str) -> int:
  """The open, locked file at `path`."""
  while True:
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
      locks, free = _flock(file)
      who = _holder(file)
      if not free or (who and _works(who, file, path, locks)):
        raise UserError(_message(path, who, use, option))
    except BaseException:
      os.close(file)
      raise
    if not _is(file, path):  # its last holder removed it meanwhile
      os.close(file)
      continue
    try:
      os.ftruncate(file, 0)
      os.pwrite(file, _mine().encode(), 0)
    except OSError:  # a full disk
      _release(file, path)
      raise
    return file


def _release(file: int, path: pathlib.Path) -> None:
  if _is(file, path):  # not if the folder was moved aside
    path.unlink(missing_ok=True)
  os.close(file)


def _flock(file: int) -> tuple[bool, bool]:
  """-> (whether the file system has locks, whether nobody else has this one)."""
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return True, False
  except OSError:
    return False, True
  return True, True


def _holder(file: int) -> dict[str, Any]:
  return _parsed(os.pread(file, 4096, 0))


def _parsed(text: str | bytes) -> dict[str, Any]:
  """Who wrote it: host, pid, since; empty where it does not say."""
  with contextlib.suppress(ValueError, KeyError, TypeError):
    who = json.loads(text)
    return dict(host=str(who['host']), pid=int(who['pid']), since=str(who['since']))
  return {}


def _works(who: Mapping[str, Any], file: int, path: pathlib.Path, locks: bool) -> bool:
  """Whether a holder whose lock the system does not show still works."""
  if who['host'] != socket.gethostname():
    with tempfile.TemporaryFile(dir=path.parent) as probe:  # the clock of the file system's host
      return os.fstat(probe.fileno()).st_mtime - os.fstat(file).st_mtime < STALE
  if locks or who['pid'] == os.getpid():
    return False
  try:
    os.kill(who['pid'], 0)
  except ProcessLookupError:
    return False
  except OSError:
    pass
  return True


def _is(file: int, path: pathlib.Path) -> bool:
  try:
    return os.path.samestat(os.fstat(file), os.stat(path))
  except FileNotFoundError:
    return False


def _beat(touch: Callable[[], None], done: threading.Event) -> None:
  while not done.wait(BEAT):
    with contextlib.suppress(Exception):  # of the network too: the next one may come through
      touch()


def _message(path: pathlib.Path, who: Mapping[str, Any], use: str, option: str) -> str:
  by = f'process {who["pid"]} on {who["host"]}, since {who["since"]}' if who else 'another process'
  text = (
    f'{path.parent} is being {use} by {by}\n'
    f'  wait until it has ended, stop it, or name another {option}'
  )
  if who and who['host'] != socket.gethostname():
    text += f'\n  if that host is gone: wait {STALE:.0f} s, or rm {path}'
  return text
