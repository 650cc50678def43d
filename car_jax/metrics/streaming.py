"""Exact totals over a data set: partial sums on the device, addition in float64 on the host."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


class Streaming:
  """Adds what `partial` returns for each batch; `result` is `finish` of the totals.

  partial(*batch) is a pure function, jitted here: a pytree of sums, each with a first axis of rows
  (image rows, or images) that are kept apart on the device and added on the host, where integers
  become int64 and floats float64. So the result does not depend on how the data is cut into
  batches. finish(totals) gets the same pytree without the row axis.
  """

  def __init__(self, partial: Callable[..., Any], finish: Callable[[Any], Any]):
    self._partial, self._finish = jax.jit(partial), finish
    self.total: Any = None  # pytree of numpy arrays; None before the first batch

  def update(self, *batch) -> None:
    self.add(self._partial(*batch))

  def add(self, sums: Any) -> None:
    """Adds sums computed elsewhere, in the form that `partial` returns."""
    part = jax.tree.map(_rows_added, jax.device_get(sums))
    self.total = part if self.total is None else jax.tree.map(np.add, self.total, part)

  def result(self) -> Any:
    """finish(totals); nan before the first batch."""
    return float('nan') if self.total is None else self._finish(self.total)


def _rows_added(x) -> np.ndarray:
  x = np.asarray(x)
  whole = np.issubdtype(x.dtype, np.integer) or x.dtype == bool
  return np.sum(x.astype(np.int64 if whole else np.float64), 0)
