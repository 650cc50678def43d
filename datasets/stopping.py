"""A user's wish to stop, which is not lost.

Python drops an exception that is raised while an object is being deleted; a KeyboardInterrupt may
come just then. So the wish is also noted, and looked at before the next example.
"""

import signal
import sys
import threading
from typing import Any

_wished = threading.Event()


def listen() -> None:
  """From now on SIGINT and SIGTERM raise KeyboardInterrupt here, or else at the next `check`."""
  for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, _wish)
  sys.unraisablehook = _report_unless_wished


def _report_unless_wished(dropped: Any) -> None:
  if dropped.exc_type is not KeyboardInterrupt:
    sys.__unraisablehook__(dropped)


def _wish(*_: Any) -> None:
  _wished.set()
  raise KeyboardInterrupt


def check() -> None:
  if _wished.is_set():
    raise KeyboardInterrupt
