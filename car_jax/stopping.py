"""A user's wish to stop, which is not lost.

Python drops an exception that is raised while an object is being deleted; a KeyboardInterrupt may
come just then. So the wish is also noted, and looked at before the next example.
"""

import contextlib
import functools
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

_wished = threading.Event()


@contextlib.contextmanager
def listening() -> Iterator[None]:
  """Inside, SIGINT and SIGTERM raise KeyboardInterrupt at once, or else at the next `check`."""
  _drop_quietly()
  _wished.clear()
  before = {}
  for number in (signal.SIGINT, signal.SIGTERM):
    with contextlib.suppress(ValueError):  # not the main thread
      before[number] = signal.signal(number, _wish)
  try:
    yield
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


@functools.cache
def _drop_quietly() -> None:
  """Says nothing of an interrupt that Python drops; the hook that is there says the rest."""
  hook = sys.unraisablehook
  sys.unraisablehook = lambda dropped: (
    None if dropped.exc_type is KeyboardInterrupt else hook(dropped)
  )


def _wish(*_: Any) -> None:
  _wished.set()
  raise KeyboardInterrupt


def check() -> None:
  if _wished.is_set():
    raise KeyboardInterrupt
