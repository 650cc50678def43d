"""A user's mistake: one clear message, exit status 2, no traceback."""

import difflib
import sys
from collections.abc import Callable, Iterable


class UserError(Exception):
  """What was wrong, with the value; further lines: the nearest valid one, the mending command."""


def nearest(value: str, known: Iterable[str]) -> str:
  """A hint line for a misspelt name: the closest known one, or all of them."""
  known = sorted(map(str, known))
  close = difflib.get_close_matches(str(value), known, n=1, cutoff=0.6)
  return f'  did you mean: {close[0]}' if close else f'  known: {", ".join(known) or "none"}'


def report(error: UserError) -> None:
  print(f'error: {error}', file=sys.stderr, flush=True)


def exit_on_user_error(main: Callable) -> Callable:
  """Wraps a command's main: a UserError becomes its message on stderr and exit status 2."""

  def run(*args, **kw):
    try:
      return main(*args, **kw)
    except UserError as e:
      report(e)
      return 2

  return run
