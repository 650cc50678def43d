"""A line on the terminal that says how far long work is, at what rate, and when it will be done."""

from collections.abc import Callable
from typing import IO

import tqdm


def line(
  total: int, *, what: str = 'images', title: str = '', out: IO[str] | None = None
) -> Callable[[int], None]:
  """-> progress(k): k more of `total` (in units of `what`) are done, of the work called `title`.

  Quiet where `out` (standard error) is no terminal.
  """
  bar = tqdm.tqdm(total=total, desc=title or None, unit=f' {what}', file=out, disable=None)

  def progress(k: int) -> None:
    bar.update(k)
    if bar.n >= total:
      bar.close()

  return progress
