"""Long work on a thread of its own: the main thread stays free for signals.

Python runs a signal's handler between two of its own instructions, and compiling a large net is
one instruction of several minutes.
"""

import atexit
import os
import pathlib
import sys
import threading
from collections.abc import Callable
from typing import Any

import jax

from car_jax import memory
from car_jax.interrupt import Interrupt, Stopped


def use_compilation_cache() -> None:
  """A second start compiles nothing; JAX_COMPILATION_CACHE_DIR moves the cache."""
  home = os.environ.get('XDG_CACHE_HOME', pathlib.Path.home() / '.cache')
  if not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
    jax.config.update('jax_compilation_cache_dir', str(pathlib.Path(home) / 'car_jax'))


def compiled(jitted: Any, *arguments: Any, stop: Interrupt, say: Callable[[str], None]) -> Any:
  """jitted.lower(*arguments).compile(); `say` is told where that takes over a second."""
  text = 'compiling (once; later starts find it in the cache)'

  def work() -> Any:
    program = jitted.lower(*arguments).compile()
    memory.give_back()
    return program

  return awaited(work, stop=stop, slow=lambda: say(text))


def awaited(
  work: Callable[[], Any], *, stop: Interrupt, slow: Callable[[], None] = lambda: None
) -> Any:
  """work(), done by another thread; `slow` is called if it takes over a second.

  Raises Stopped once `stop` asks for it, and what `work` raises. What is under way then is given
  up with the process.
  """
  done: dict[str, Any] = {}

  def run() -> None:
    try:
      done['result'] = work()
    except BaseException as e:
      done['error'] = e

  thread = threading.Thread(target=run, daemon=True)
  thread.start()
  try:
    thread.join(1.0)
    if thread.is_alive():
      slow()
    while thread.is_alive():
      if stop.asked():
        raise Stopped
      thread.join(0.2)
  except BaseException:
    atexit.register(_leave, thread, stop)
    raise
  if 'error' in done:
    raise done['error']
  return done['result']


def _leave(thread: threading.Thread, stop: Interrupt) -> None:
  """Ends the process as it is: its libraries cannot be unloaded under a thread that compiles."""
  if thread.is_alive():
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(stop.status)
