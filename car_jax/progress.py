"""A line that says how far long work is, at what rate, and when it will be done."""

import sys
import time
from collections.abc import Callable
from typing import IO, Any

import tqdm

EVERY = 10.0  # seconds between the lines of a log


class _Bar(tqdm.tqdm):
  """tqdm's line, with slow rates as 1.30 s/image."""

  @staticmethod
  def format_meter(*args: Any, unit: str = 'it', **kw: Any) -> str:
    text = tqdm.tqdm.format_meter(*args, unit=unit, **kw)
    return text.replace(f's/{unit}', f' s/{unit.strip().removesuffix("s")}')


def line(
  total: int, *, what: str = 'images', title: str = '', out: IO[str] | None = None
) -> Callable[[int], None]:
  """-> progress(k): k more of `total` (in units of `what`) are done, of the work called `title`.

  A bar where `out` (standard error) is a terminal; in a log a line every 10 s, and at the end.
  """
  out = out or sys.stderr
  bar = _Bar(total=total, desc=title or None, unit=f' {what}', file=out, disable=None)
  began = time.perf_counter()
  done, shown = 0, began

  def progress(k: int) -> None:
    nonlocal done, shown
    done, now = done + k, time.perf_counter()
    bar.update(k)
    if done >= total:
      bar.close()
    if bar.disable and (done >= total or now - shown >= EVERY):
      shown = now
      words: dict[str, Any] = dict(prefix=title, unit=f' {what}', ncols=0)
      print(bar.format_meter(done, total, now - began, **words), file=out, flush=True)

  return progress
