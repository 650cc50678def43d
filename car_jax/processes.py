"""Several processes of one run end together: the first to fail says why on every screen.

Collectives wait for ever for a process that has left them, so each process has a thread that
looks for a cause to end. What they know of each other is in the key-value store of jax's
coordination service, which process 0 hosts:

  car_jax/failed/cause   the first cause: its process, text and exit status, as JSON
  car_jax/alive/K        a number that process K raises every BEAT seconds
  car_jax/read/K         there when process K has printed the cause
"""

import contextlib
import dataclasses
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn

import jax
from jax._src import distributed  # the only way to the key-value store

from car_jax import errors, sharding
from car_jax.interrupt import Stopped

FAILED, ALIVE, READ = 'car_jax/failed/cause', 'car_jax/alive/', 'car_jax/read/'
BEAT = 1.0  # seconds
SILENT = 15  # beats of process 0 without one of a process, which then counts as dead
READING = 5.0  # seconds that process 0, which hosts the service, leaves the others to read a cause


@dataclasses.dataclass(frozen=True)
class Cause:
  """Why all processes end: what each but `process` prints, and the exit status of all."""

  process: int
  text: str
  status: int


@contextlib.contextmanager
def joined(coordinator: str | None, processes: int | None, process: int | None) -> Iterator[None]:
  """Joins the other processes, see sharding.start_distributed; what fails inside ends them all.

  Inside is the whole work of a command: its error is printed here, and the process ends. Whoever
  leaves without one waits, at its end, for the others. Raises UserError where nobody is joined.
  """
  sharding.start_distributed(coordinator, processes, process)
  watch = _Watch(distributed.global_state)
  thread = threading.Thread(target=watch.run, daemon=True)
  thread.start()
  try:
    yield
  except SystemExit:  # all have agreed on it
    _end(thread)
    raise
  except BaseException as e:
    watch.fail(e)
  _end(thread)


def _end(thread: threading.Thread) -> None:
  """Waits for the others, then for the thread: Python must not end while it is in jaxlib."""
  jax.distributed.shutdown()
  thread.join()


class _Watch:
  """What a process knows of the others."""

  def __init__(self, state: Any):
    self.client, self.me, self.count = state.client, state.process_id, state.num_processes
    self.ending = threading.Lock()  # who has it ends the process; nobody gives it back

  def run(self) -> None:
    """Ends the process when another one fails or dies."""
    beats = dict.fromkeys(range(self.count), ('', 0))
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # the service is gone: a run that is over
      for beat in itertools.count():
        self.client.key_value_set(f'{ALIVE}{self.me}', str(beat), allow_overwrite=True)
        if self.me == 0:
          self._miss(beat, beats)
        if cause := self._cause():
          self.ending.acquire()
          errors.report(Exception(cause.text))
          self._leave(cause)
        time.sleep(BEAT)

  def _miss(self, beat: int, beats: dict[int, tuple[str, int]]) -> None:
    """Notes new numbers of all processes in `beats`, with the beat of process 0 at which they came.

    One that stays the same too long is a cause. By beats, not by the clock: who was paused together
    with process 0 is not dead. jaxlib itself ends all others when process 0 dies.
    """
    for key, number in self.client.key_value_dir_get(ALIVE):
      k = int(key.rpartition('/')[2])
      if beats[k][0] != number:
        beats[k] = number, beat
    if silent := [k for k, (_, last) in beats.items() if beat - last > SILENT]:
      dead = f'process {silent[0]} has not answered for {SILENT * BEAT:.0f} s'
      self.client.key_value_set(f'{READ}{silent[0]}', '', allow_overwrite=True)  # it never will
      self._state(Cause(silent[0], f'{dead}: it was killed, or its host is gone', 1))

  def _cause(self) -> Cause | None:
    entries = self.client.key_value_dir_get(FAILED.rpartition('/')[0])
    text = dict(entries).get(FAILED)
    return Cause(**json.loads(text)) if text else None

  def _state(self, cause: Cause) -> Cause:
    """The cause that all end for: this one, or one that was stated before."""
    try:
      self.client.key_value_set(FAILED, json.dumps(dataclasses.asdict(cause)))
      return cause
    except jax.errors.JaxRuntimeError:
      return self._cause() or cause

  def fail(self, error: BaseException) -> NoReturn:
    """Ends all processes for the error of this one, unless it follows from that of another."""
    if isinstance(error, jax.errors.JaxRuntimeError) or 'Gloo' in str(error):
      time.sleep((SILENT + 5) * BEAT)  # a collective whose other end is gone: `run` learns why
    mine = _cause_of(self.me, error)
    self.ending.acquire()
    cause = self._state(mine)
    if cause != mine:
      errors.report(Exception(cause.text))
    elif mistake := errors.mistake(error):
      errors.report(mistake)
    elif isinstance(error, (Stopped, KeyboardInterrupt)):
      print('interrupted', file=sys.stderr, flush=True)
    else:
      sys.excepthook(type(error), error, error.__traceback__)
    self._leave(cause)

  def _leave(self, cause: Cause) -> NoReturn:
    """Ends the process at once: much of it may wait for the others."""
    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      self.client.key_value_set(f'{READ}{self.me}', '', allow_overwrite=True)
      last = time.monotonic() + READING
      while self.me == 0 and time.monotonic() < last:
        waits = len(self.client.key_value_dir_get(READ)) < self.count
        time.sleep(0.5)  # in which who has read it ends, too
        if not waits:
          break
    os._exit(cause.status)


def _cause_of(process: int, error: BaseException) -> Cause:
  if isinstance(error, Stopped):
    return Cause(process, 'stopped by SIGTERM', 143)
  if isinstance(error, KeyboardInterrupt):
    return Cause(process, f'process {process} was interrupted', 130)
  mistake = errors.mistake(error)
  text = mistake or f'{type(error).__name__}: {error}'
  return Cause(process, f'process {process} failed: {text}', 2 if mistake else 1)
