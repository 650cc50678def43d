"""SIGTERM and Ctrl-C ask the training loop to save and leave.

Several processes leave at the same place, whichever of them the signal reaches: jax's preemption
manager, which hears SIGTERM itself, has them agree on the next place that none of them has passed.
"""

import contextlib
import itertools
import os
import signal
import sys
import threading
from typing import Any

import jax
from jax.experimental import multihost_utils

from car_jax import sharding

_places, _reached = itertools.count(1), threading.Event()


class Stopped(Exception):
  """A signal asked to stop before the work was done."""


def all_stop_here() -> bool:
  """Whether several processes stop here, or should have at a place before.

  Each asks as often as the others, at the same places.
  """
  if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(next(_places)):
    _reached.set()
  return _reached.is_set()


class Interrupt:
  """Context in which SIGTERM and Ctrl-C ask the loop to save and leave."""

  signal = 0

  def __enter__(self) -> 'Interrupt':
    self._old = {}
    # Of several processes jax's handler of SIGTERM stays: it tells the others.
    handled = (signal.SIGINT, *([signal.SIGTERM] if jax.process_count() == 1 else []))
    for s in handled:
      with contextlib.suppress(ValueError):  # not the main thread
        self._old[s] = signal.signal(s, self._note)
    return self

  def _note(self, number: int, frame: Any) -> None:
    if self.signal:
      raise KeyboardInterrupt  # asked twice: leave at once
    self.signal = number
    if jax.process_count() > 1:
      os.kill(os.getpid(), signal.SIGTERM)
    print('stopping: saving first; again to leave at once', file=sys.stderr, flush=True)

  def asked(self) -> bool:
    """Whether this process alone may stop at once; several must agree first."""
    return bool(self.signal) and jax.process_count() == 1

  @property
  def status(self) -> int:
    """The exit status, the same on every process: all of them must ask."""
    return 130 if signal.SIGINT in sharding.gathered(self.signal) else 0

  def agreed(self) -> bool:
    """Whether to stop now, the same on every process: all of them must ask."""
    return self.asked() or all_stop_here()

  def __exit__(self, *_: Any) -> None:
    for s, handler in self._old.items():
      signal.signal(s, handler)
