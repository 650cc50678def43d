"""SIGTERM and Ctrl-C ask the training loop to save and leave."""

import contextlib
import signal
import sys
from typing import Any

import jax
import numpy as np

from car_jax import sharding


class Interrupt:
  """Context in which SIGTERM and Ctrl-C ask the loop to save and leave."""

  signal = 0

  def __enter__(self) -> 'Interrupt':
    self._old = {}
    for s in (signal.SIGTERM, signal.SIGINT):
      with contextlib.suppress(ValueError):  # not the main thread
        self._old[s] = signal.signal(s, self._note)
    return self

  def _note(self, number: int, frame: Any) -> None:
    if self.signal:
      raise KeyboardInterrupt  # asked twice: leave at once
    self.signal = number
    print('stopping: saving first; again to leave at once', file=sys.stderr, flush=True)

  def asked(self) -> bool:
    """Whether this process alone may stop at once; several must agree first."""
    return bool(self.signal) and jax.process_count() == 1

  @property
  def status(self) -> int:
    return 0 if self.signal == signal.SIGTERM else 130

  def agreed(self, step: int, every: int) -> bool:
    """Whether to stop now, the same on every process: several ask each other at log steps."""
    if jax.process_count() == 1:
      return self.asked()
    if every <= 0 or step % every:
      return False
    self.signal = int(np.max(sharding.gathered(self.signal)))
    return bool(self.signal)

  def __exit__(self, *_: Any) -> None:
    for s, handler in self._old.items():
      signal.signal(s, handler)
