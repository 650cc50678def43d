"""How a run goes: its pending logs, its rate, the share of time spent waiting for data."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from car_jax.errors import UserError


class Meter:
  """Device logs until they are wanted, the rate, the share of time spent waiting for data."""

  def __init__(self, start: int, steps: int):
    self._pending: list[Any] = []
    self._steps, self._compiled = steps, False
    self._restart(start)
    self.rate = self.waited = float('nan')

  def _restart(self, step: int) -> None:
    """Counts time, and what of it was waiting or pause, from now."""
    self._mark, self._marked = time.perf_counter(), step
    self._wait = self._pause = 0.0

  @contextlib.contextmanager
  def waiting(self) -> Iterator[None]:
    t = time.perf_counter()
    yield
    self._wait += time.perf_counter() - t

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    t = time.perf_counter()
    yield
    self._pause += time.perf_counter() - t

  def add(self, step: int, logs: Any) -> None:
    """Logs of a step, on the device. The rate counts from the end of the first, which compiled."""
    self._pending.append(logs)
    if not self._compiled:
      jax.block_until_ready(logs)
      self._compiled = True
      self._restart(step)

  def check(self, step: int) -> None:
    """Raises UserError naming the first step and term since the last flush that is not finite."""
    rows = jax.device_get(self._pending)
    for i, row in enumerate(rows):
      bad = [k for k, v in row.items() if not np.isfinite(v)]
      if bad:
        at = step - len(rows) + 1 + i
        raise UserError(
          f'{bad[0]} is {float(row[bad[0]])} at step {at:,}; stopped, the last checkpoint is kept\n'
          '  try a lower learning rate, or look at the other terms in metrics.jsonl'
        )

  def flush(self, step: int) -> dict[str, float]:
    """Means over the steps since the last flush, all checked to be finite."""
    self.check(step)
    rows = jax.device_get(self._pending)
    if step > self._marked:
      spent = max(time.perf_counter() - self._mark - self._pause, 1e-9)
      self.rate, self.waited = (step - self._marked) / spent, self._wait / spent
    self._restart(step)
    self._pending = []
    keys = dict.fromkeys(k for row in rows for k in row)  # phases may log other terms
    mean = lambda k: float(np.mean([row[k] for row in rows if k in row], dtype=np.float64))
    return {k: mean(k) for k in keys}

  def scalars(self) -> dict[str, float]:
    speed = {'steps_per_s': self.rate, 'data_wait': self.waited}
    return {k: v for k, v in speed.items() if v == v}  # nan until a step after the first was timed

  def words(self, step: int, examples: int) -> str:
    """'27 img/s  data wait 3%  ETA 1:40', for batches of so many examples."""
    if not self.scalars():
      return ''
    left = duration((self._steps - step) / self.rate)
    return f'{self.rate * examples:.3g} img/s  data wait {self.waited:.0%}  ETA {left}'


def duration(seconds: float) -> str:
  """3725 -> '1:02:05', 65 -> '1:05'."""
  minutes, s = divmod(max(0, round(seconds)), 60)
  hours, m = divmod(minutes, 60)
  return f'{hours}:{m:02d}:{s:02d}' if hours else f'{m}:{s:02d}'
