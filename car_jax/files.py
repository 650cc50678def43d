"""Reading files that somebody else wrote: regular files only, and every failure by path."""

import json
import os
import pathlib
import stat
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

from car_jax import paths
from car_jax.errors import UserError, reading

HIDDEN: tuple[str, ...] = ('.DS_Store', 'Thumbs.db', 'ehthumbs.db', 'desktop.ini', '__MACOSX')
HIDDEN += ('.Spotlight-V100', '.Trashes', '.fseventsd', '.TemporaryItems', '.apdisk', '@eaDir')
HIDDEN += ('$RECYCLE.BIN', 'System Volume Information', '.directory', '.ipynb_checkpoints')
HIDDEN += ('.git', '.gitignore', '.gitkeep', '.gitattributes', '.svn')


def is_leftover(path: pathlib.Path) -> bool:
  """Whether a system or a tool, not the user, has put it there, such as '._a.png'."""
  return path.name.startswith('._') or path.name in HIDDEN


def _raise(error: UserError) -> None:
  raise error


def walk(
  folder: str | pathlib.Path,
  *,
  passed: Callable[[pathlib.Path, str], Any] = lambda path, why: None,
  failed: Callable[[UserError], Any] = _raise,
) -> list[pathlib.Path]:
  """Every file below a folder, in the order of their paths; an empty folder stands for itself.

  Linked folders are entered, each place once. `passed` is called with what is passed over
  (leftovers of the system, second ways to a place) and why; `failed` with the errors of folders
  that cannot be listed.
  """
  paths: list[pathlib.Path] = []
  seen: set[str] = set()
  todo = [pathlib.Path(folder)]
  while todo:
    place = todo.pop()
    if (real := os.path.realpath(place)) in seen:
      passed(place, 'link to a folder that is entered already, not followed')
      continue
    seen.add(real)
    try:
      with reading(place, 'a folder'):
        inside = sorted(place.iterdir(), reverse=True)
    except UserError as e:
      failed(e)
      continue
    for path in filter(is_leftover, inside):
      passed(path, 'leftover of the system, passed over')
    inside = [path for path in inside if not is_leftover(path)]
    if not inside and place != pathlib.Path(folder):
      paths.append(place)
    todo += [path for path in inside if path.is_dir()]
    paths += [path for path in inside if not path.is_dir()]
  return sorted(paths)


def check_regular(path: str | pathlib.Path) -> pathlib.Path:
  """The path of a file that is there. Raises UserError: missing, a folder, a pipe or a device."""
  path = paths.of(path)
  if paths.is_remote(path):
    _check_object(path)
    return path
  with reading(path, 'a file'):
    try:
      mode = path.stat().st_mode
    except FileNotFoundError:
      raise UserError(f'no file {path}') from None
  if stat.S_ISDIR(mode):
    raise UserError(f'{path} is a folder, not a file')
  if not stat.S_ISREG(mode):
    raise UserError(f'{path} is no regular file but a pipe or a device\n  copy it to a file first')
  return path


def _check_object(path: pathlib.Path) -> None:
  with reading(path, 'an object'):
    if path.is_dir():
      raise UserError(f'{path} is a folder, not a file')
    if not path.exists():
      raise UserError(f'no file {path}')


def read_bytes(path: str | pathlib.Path, what: str = 'a file') -> bytes:
  """The whole file. Raises UserError by path."""
  path = check_regular(path)
  with reading(path, what):
    return path.read_bytes()


def read_text(path: str | pathlib.Path, what: str = 'UTF-8 text', mend: str = '') -> str:
  """The whole file as UTF-8, without a byte order mark. Raises UserError by path."""
  raw = read_bytes(path, what)
  with reading(path, what, mend):
    return raw.decode('utf-8-sig')


def read_json(path: str | pathlib.Path, *, keys: tuple[str, ...] = (), mend: str = '') -> Any:
  """A JSON object with at least these keys. Raises UserError by path: damage, another shape."""
  text = read_text(path, 'JSON', mend)
  with reading(path, 'JSON', mend):
    content = json.loads(text)
    if not isinstance(content, dict):
      raise ValueError(f'a {type(content).__name__} instead of an object')
    if missing := [k for k in keys if k not in content]:
      raise ValueError(f'it has no {missing[0]!r}')
  return content


def checksum(content: Any) -> int:
  """CRC32 of what JSON holds, however it is laid out there."""
  return zlib.crc32(json.dumps(content, sort_keys=True, separators=(',', ':')).encode())


def member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
  """A member of an archive, no more of it than the directory says, its checksum compared.

  zipfile's own `read` inflates all that is there before it cuts it to that length. Raises
  ValueError where there is less, and for ways of compression that cannot be stopped half-way.
  """
  if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
    raise ValueError(f'{info.filename!a} is compressed in a way that is not read')
  with archive.open(info) as file:
    data = file.read(info.file_size)
  if len(data) < info.file_size:
    raise ValueError(f'{info.filename!a} is truncated')
  return data
