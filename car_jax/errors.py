"""A user's mistake: one clear message, exit status 2, no traceback.

Commands are wrapped by `exit_on_user_error`, and whatever reads a file of somebody else does so
inside `reading`. These two are the only places that turn other exceptions into messages.
"""

import argparse
import atexit
import contextlib
import difflib
import errno
import functools
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn


class UserError(Exception):
  """What was wrong, with the value; further lines: the nearest valid one, the mending command."""


def nearest(value: str, known: Iterable[str]) -> str:
  """A hint line for a misspelt name: the closest known one, or all of them."""
  known = sorted(set(map(str, known)))
  close = difflib.get_close_matches(str(value), known, n=1, cutoff=0.6)
  return f'  did you mean: {close[0]}' if close else f'  known: {", ".join(known) or "none"}'


def nearest_key(key: str, known: Iterable[str]) -> str:
  """`nearest` of dotted keys: of the same or a similar last part, else what its group has."""
  known = sorted(known)
  place, _, last = key.rpartition('.')
  lasts = {k.rpartition('.')[2] for k in known}
  if alike := difflib.get_close_matches(last, lasts, n=1, cutoff=0.7):
    there = [k for k in known if k.rpartition('.')[2] == alike[0]]
    return f'  did you mean: {" or ".join(difflib.get_close_matches(key, there, n=3, cutoff=0))}'
  while place and not any(k.startswith(f'{place}.') for k in known):
    place = place.rpartition('.')[0]
  prefix = f'{place}.' if place else ''
  inside = [k.removeprefix(prefix) for k in known if k.startswith(prefix)]
  first = {i if '.' not in i else f'{i.partition(".")[0]}.*' for i in inside}
  return f'  known{place and f" of {place}"}: {", ".join(sorted(first))}'


def parts(text: str, known: Iterable[str], what: str) -> tuple[str, ...]:
  """'a,b' -> its parts, each once. Raises UserError for one that is not known: 'cannot WHAT ..'."""
  given = tuple(dict.fromkeys(part.strip() for part in text.split(',')))
  for part in given:
    if part not in known:
      raise UserError(f'cannot {what} {part!r}\n{nearest(part, known)}')
  return given


def package(name: str, extra: str, user: str, otherwise: str = '') -> Any:
  """An optional package, which the extra brings.

  user: what needs it; otherwise: how to do without. Raises UserError where it cannot be imported.
  """
  try:
    return importlib.import_module(name)
  except ImportError as e:
    missing = isinstance(e, ModuleNotFoundError) and e.name == name
    cause = '' if missing or e.name is None else f', which cannot be imported ({reason(e)})'
    raise UserError(
      f"{user} needs {name}{cause}\n  pip install 'car-jax[{extra}]'{otherwise}"
    ) from None


@contextlib.contextmanager
def reading(path: Any, what: str, mend: str = '') -> Iterator[None]:
  """Whatever goes wrong inside is the fault of the file `path`, which was to be `what`.

  Parsers of damaged or hostile files raise nearly anything, so nothing is listed: every exception
  but a UserError becomes a UserError that names the path and the reason. `mend` is one more line.
  For code that parses one file and does nothing else.
  """
  try:
    yield
  except UserError:
    raise
  except Exception as e:
    if isinstance(e, OSError) and e.errno:
      text = f'{path}: {e.strerror}'
    else:
      text = f'{path} cannot be read as {what} ({reason(e)})'
    raise UserError(text + (f'\n  {mend}' if mend else '')) from e


@contextlib.contextmanager
def naming(place: Any, mend: str = '') -> Iterator[None]:
  """A UserError inside is told with `place` before it; `mend` is one more line."""
  try:
    yield
  except UserError as e:
    raise UserError(f'{place}: {e}' + (f'\n  {mend}' if mend else '')) from None


@contextlib.contextmanager
def writing(path: Any) -> Iterator[None]:
  """What the system refuses inside without saying where (a full disk) is said with `path`."""
  try:
    yield
  except OSError as e:
    e.filename = e.filename or str(path)
    raise


def reason(error: BaseException, most: int = 160) -> str:
  """What an exception says, in one line of at most `most` characters."""
  if isinstance(error, MemoryError):
    return 'it needs more memory than there is'
  text = str(error).partition(' <_io')[0].strip()
  first = next((line.strip() for line in text.splitlines() if line.strip()), '')
  plain = isinstance(error, (ValueError, OSError)) and first
  return (first if plain else f'{type(error).__name__} {first}'.strip())[:most]


def report(error: BaseException) -> None:
  print(f'error: {error}', file=sys.stderr, flush=True)


# What the system says where a user can mend it: no place, no right, no such place.
SYSTEM = (
  *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT),
  *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP),
  *(errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.EIO, errno.EXDEV, errno.EBUSY, errno.EILSEQ),
)


def exit_on_user_error(main: Callable) -> Callable:
  """Wraps a command's main: a user's mistake becomes its message on stderr and exit status 2.

  A UserError is one; so is what the system refuses (a full disk, a missing right, a name that is
  too long), and memory that is not there.
  """

  @functools.wraps(main)
  def run(*args, **kw):
    try:
      return main(*args, **kw)
    except Exception as e:
      if not (user_error := mistake(e)):
        raise
      report(user_error)
    return 2

  return run


def mistake(error: BaseException) -> UserError | None:
  """The message of an error that a user can mend; None of one that is the program's."""
  if isinstance(error, UserError):
    return error
  if isinstance(error, OSError) and error.errno in SYSTEM:
    place = error.filename2 or error.filename
    return UserError(f'{place}: {error.strerror}' if place else str(error.strerror))
  no_room = os.strerror(errno.ENOSPC)
  if isinstance(error, ValueError) and no_room in str(error):  # orbax's
    place = re.search(r'file "(.*?\d)\.orbax-checkpoint-tmp', str(error))
    return UserError(f'{place[1]}: {no_room}' if place else no_room)
  if isinstance(error, MemoryError):
    return UserError(f'out of memory{f" ({error})" if str(error) else ""}')
  full = any(words in str(error) for words in ('RESOURCE_EXHAUSTED', 'Out of memory'))  # XLA's
  if isinstance(error, RuntimeError) and full:
    lines = 'a smaller batch, size or net needs less: --config.data.batch=N'
    return UserError(f'out of memory of the device ({reason(error)})\n  {lines}')
  return None


def parser(command: str, about: str | None) -> argparse.ArgumentParser:
  """Of `car-jax COMMAND`, or of a dotted module that python -m runs; its text as it is laid out."""
  return argparse.ArgumentParser(
    prog=f'python -m {command}' if '.' in command else f'car-jax {command}',
    description=about,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )


def command_line(main: Callable[[list[str]], int]) -> None:
  """Runs a command with the arguments of this process and exits; Ctrl-C is no traceback.

  Neither is a reader of its output that has seen enough, such as `head`.
  """
  try:
    status = main(sys.argv[1:])
    sys.stdout.flush()
    sys.exit(status)
  except BrokenPipeError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end
    sys.exit(1)
  except BaseException as e:
    if not interrupted(e):
      raise
    print('interrupted', file=sys.stderr)
    leave(130)


def interrupted(error: BaseException | None) -> bool:
  """Whether it is a KeyboardInterrupt, or was raised while one was cleaned up after."""
  while error and not isinstance(error, KeyboardInterrupt):
    error = error.__context__
  return error is not None


def leave(status: int) -> NoReturn:
  """Ends the process once temporary files are gone; at a usual end, threads of jax may crash it."""
  atexit._run_exitfuncs()
  with contextlib.suppress(BrokenPipeError):  # who read the output is interrupted, too
    sys.stdout.flush()
  sys.stderr.flush()
  os._exit(status)
