"""Result folders and files that are either whole or not there."""

import contextlib
import glob
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping

from car_jax import files, paths, saved_steps
from car_jax.errors import UserError


def check_writable(folder: pathlib.Path) -> None:
  """Raises UserError if nothing can be written to `folder`, or to where it is to be made."""
  if paths.is_remote(folder):
    paths.check_writable(folder)
    return
  folder = pathlib.Path(os.path.abspath(folder))
  place = next(p for p in (folder, *folder.parents) if p.exists())
  try:
    with tempfile.TemporaryDirectory(prefix='.written', dir=place):
      pass
  except OSError as e:
    raise UserError(
      f'{folder} cannot be written: {e.strerror}{"" if place == folder else f" ({place})"}\n'
      '  name another place, or make this one writable'
    ) from None


def says(path: pathlib.Path, form: str) -> bool:
  """Whether the `format` of a JSON file begins so."""
  with contextlib.suppress(UserError):
    return str(files.read_json(path).get('format')).startswith(form)
  return False


def check_replaceable(folder: pathlib.Path, marker: str, form: str = '') -> None:
  """Raises UserError if `folder` holds something that was not written here, or cannot be written.

  marker: the file that a finished folder of this kind has. form: how the format begins that it
  says, where other programs have files of such a name.
  """
  if folder.exists() and not folder.is_dir():
    raise UserError(f'{folder} is a file\n  name a folder')
  remote = paths.is_remote(folder)
  whole = (folder / marker).exists() or (remote and paths.half_sent(folder))
  if folder.is_dir() and any(folder.iterdir()) and not whole:
    raise UserError(
      f'{folder} holds other files (no {marker} among them) and is not replaced\n'
      '  name a new or empty folder'
    )
  if form and (folder / marker).exists() and not says(folder / marker, form):
    raise UserError(
      f'{folder} holds other files ({marker} says nothing of {form!r}) and is not replaced\n'
      '  name a new or empty folder'
    )
  check_writable(folder if remote else pathlib.Path(os.path.abspath(folder)).parent)


def begin(folder: pathlib.Path, marker: str, form: str = '') -> pathlib.Path:
  """An empty folder to be filled and then given to `finish`: NAME.PID.part beside `folder`.

  What killed processes left of theirs is removed. For a folder of a bucket it is a temporary one
  of this machine.
  """
  check_replaceable(folder, marker, form)
  if paths.is_remote(folder):
    return pathlib.Path(tempfile.mkdtemp(prefix='car_jax-'))
  for left in folder.parent.glob(f'{glob.escape(folder.name)}.*.part'):
    pid = left.name.split('.')[-2]
    if pid.isdecimal() and (int(pid) == os.getpid() or not runs(int(pid))):
      shutil.rmtree(left, ignore_errors=True)
  part = folder.with_name(f'{folder.name}.{os.getpid()}.part')
  part.mkdir(parents=True)
  return part


def runs(pid: int) -> bool:
  """Whether there is such a process on this machine."""
  try:
    os.kill(pid, 0)
  except (ProcessLookupError, OverflowError):
    return False
  except PermissionError:
    pass
  return True


def finish(part: pathlib.Path, folder: pathlib.Path, marker: str) -> None:
  """Puts the filled `part` in the place of `folder`; `marker` as in `begin`."""
  if paths.is_remote(folder):
    paths.sent(part, folder, last=marker)
    shutil.rmtree(part)
    return
  old = folder.with_name(folder.name + '.old')
  shutil.rmtree(old, ignore_errors=True)
  if folder.exists():
    folder.rename(old)
  part.rename(folder)
  shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def replaced(folder: pathlib.Path, marker: str, form: str = '') -> Iterator[pathlib.Path]:
  """A folder to write into, which takes the place of `folder` if nothing is raised."""
  part = begin(folder, marker, form)
  try:
    yield part
  except BaseException:
    shutil.rmtree(part, ignore_errors=True)
    raise
  finish(part, folder, marker)


@contextlib.contextmanager
def whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """A file to write, which takes the place of `path` if nothing is raised; its folder is made."""
  if paths.is_remote(path):
    with paths.uploaded(path) as part:
      yield part
    return
  part = path.with_name(f'{path.name}.{os.getpid()}.part')
  path.parent.mkdir(parents=True, exist_ok=True)
  try:
    yield part
    part.replace(path)
  finally:
    part.unlink(missing_ok=True)


def write(folder: pathlib.Path, contents: Mapping[str, str | bytes]) -> None:
  """Files by name, each whole or not at all, in their order."""
  for name, content in contents.items():
    with whole(folder / name) as part:
      part.write_bytes(content.encode() if isinstance(content, str) else content)


def slug(name: str) -> str:
  """'calibration net, argmax' -> 'calibration-net-argmax', for file names and anchors."""
  return re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-') or 'x'


def check_slugs(what: str, names: list[str]) -> None:
  """Names become names of files, and two must not become one. Raises UserError."""
  seen: dict[str, str] = {}
  for name in names:
    if not any(ch.isascii() and ch.isalnum() for ch in name):
      raise UserError(f'{what}: no file can be called {name!r}\n  use letters a-z or digits')
    other = seen.setdefault(slug(name), name)
    if other != name:
      raise UserError(
        f'{what}: files of {other!r} and {name!r} would have one name, {slug(name)!r}\n'
        '  rename one of them'
      )


def trainings(folder: str | pathlib.Path) -> list[pathlib.Path]:
  """Runs seed0, seed1, .. in a folder, by their numbers; the folder itself where it has none."""
  folder = paths.of(folder)
  number = lambda path: path.name.removeprefix('seed')
  several = [p for p in folder.glob('seed*') if number(p).isdigit() and saved_steps.is_run(p)]
  return sorted(several, key=lambda p: int(number(p))) or [folder]


def named_trainings(name: str, folder: str) -> dict[str, str]:
  """Runs by name: NAME/seed0, NAME/seed1, .. of `trainings`, or the folder itself by its own."""
  runs = trainings(folder)
  if runs == [paths.of(folder)]:
    return {name: folder}
  return {f'{name}/{run.name}': str(run) for run in runs}
