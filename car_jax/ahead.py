"""Compilation ahead of the call, on a thread of its own: the main thread stays free for signals."""

import atexit
import os
import sys
import threading
from collections.abc import Callable
from typing import Any


class Stopped(Exception):
  """A signal asked to stop before the program was compiled."""


def compiled(
  jitted: Any,
  *arguments: Any,
  stopping: Callable[[], bool] = lambda: False,
  say: Callable[[str], None] = print,
) -> Any:
  """jitted.lower(*arguments).compile(), which takes minutes for a large net.

  `say` is told if it takes over a second. Raises Stopped once `stopping()` is true; what compiles
  then is given up with the process.
  """
  done: dict[str, Any] = {}

  def work() -> None:
    try:
      done['program'] = jitted.lower(*arguments).compile()
    except BaseException as e:
      done['error'] = e

  thread = threading.Thread(target=work, daemon=True)
  thread.start()
  thread.join(1.0)
  if thread.is_alive():
    say('compiling (once; later starts find it in the cache)')
  while thread.is_alive():
    if stopping():
      atexit.register(_leave)
      raise Stopped
    thread.join(0.2)
  if 'error' in done:
    raise done['error']
  return done['program']


def _leave() -> None:
  """Ends the process as it is: its libraries cannot be unloaded under a thread that compiles."""
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(status)


status = 0  # of a process that gives up a compilation
