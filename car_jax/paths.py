"""Texts that name a place -> paths: of this machine, or of objects in a bucket.

A place of this machine, file:// too, is a pathlib.Path. Of gs://, s3:// and az:// it is a path of
etils.epath, with the same methods. A bucket differs from a disk: a folder is there as long as
something lies in it; an object appears whole when it is closed, and cannot be appended to or mapped
into memory; there are no locks, and nothing moves but by copying object by object. What needs more
than that works in a folder of this machine: `sent` uploads one, `fetched` keeps a copy of one.
"""

import contextlib
import datetime
import json
import os
import pathlib
import re
import shutil
import tempfile
import urllib.parse
from collections.abc import Iterator
from typing import Any, cast

from car_jax.errors import UserError, nearest, reason, writing

EXTRAS = {'gs': 'gcs', 's3': 's3', 'az': 'azure'}  # scheme -> extra of the package that reads it
INDEX = '.fetched.json'  # in a folder of the cache: what its files were copies of


def of(place: str | os.PathLike[str]) -> pathlib.Path:
  """The path that a text names; paths are given back.

  Raises UserError for a scheme that is not known, or whose package is not installed.
  """
  if isinstance(place, pathlib.PurePath):
    return cast(pathlib.Path, place)
  text = os.fspath(place)
  scheme, separator, rest = text.partition('://')
  if not separator or not re.fullmatch('[A-Za-z][A-Za-z0-9+.-]*', scheme):
    return pathlib.Path(text)
  if scheme == 'file':
    host, _, path = rest.partition('/')
    if host not in ('', 'localhost'):
      raise UserError(f'{text} is on another machine\n  file:///FOLDER is on this one')
    return pathlib.Path(urllib.parse.unquote(f'/{path}'))
  if scheme not in EXTRAS:
    known = nearest(scheme, ('file', *EXTRAS))
    raise UserError(f'{text}: nothing is read or written by {scheme}://\n{known}')
  if not rest.strip('/') or rest.startswith('/'):
    raise UserError(f'{text} names no bucket\n  such as {scheme}://bucket/folder')
  return _remote(scheme, text)


def _remote(scheme: str, text: str) -> pathlib.Path:
  os.environ.setdefault('EPATH_USE_TF', 'false')  # which is read when the first path is used
  import fsspec
  from etils import epath

  name = 'gcs' if scheme == 'gs' else scheme  # as epath calls it
  # Tensorstore writes beside fsspec, and other processes do: a list that is kept would be wrong.
  fsspec.config.conf.setdefault(name, {}).setdefault('use_listings_cache', False)
  try:
    fsspec.get_filesystem_class(name)
  except ImportError as e:
    extra = f"  pip install 'car-jax[{EXTRAS[scheme]}]'"
    raise UserError(f'{text}: {scheme}:// needs a package more ({reason(e)})\n{extra}') from None
  path = cast(pathlib.Path, epath.Path(text))
  _check_reached(path)
  return path


_reached: set[str] = set()


def _check_reached(path: pathlib.Path) -> None:
  """Asks a bucket for a path, once a process and bucket. Raises UserError: no network, no right."""
  bucket = '/'.join(path.parts[:3])
  if bucket in _reached:
    return
  files, name = filesystem(path)
  try:
    files.info(name)
  except FileNotFoundError:
    pass
  except Exception as e:  # each package has its own errors
    raise UserError(
      f'{path} cannot be reached ({reason(e)})\n  log in to it, or see whether the bucket is there'
    ) from None
  _reached.add(bucket)


def is_remote(path: Any) -> bool:
  """Whether a path (not a text) is of a bucket."""
  return not isinstance(path, pathlib.Path)


def local(place: str | os.PathLike[str]) -> pathlib.Path:
  """The path of something that must be on this machine. Raises UserError for a bucket's."""
  path = of(place)
  if is_remote(path):
    raise UserError(f'{path}: this must be a place of this machine\n  copy it with your cloud tool')
  return path


def absolute(path: pathlib.Path) -> pathlib.Path:
  """The path from the root; those of buckets are."""
  return path if is_remote(path) else path.absolute()


def filesystem(path: pathlib.Path) -> tuple[Any, str]:
  """fsspec's file system of a bucket's path, and the path's name in it."""
  import fsspec

  return fsspec.core.url_to_fs(str(path).replace('gs://', 'gcs://', 1))


def check_writable(path: pathlib.Path) -> None:
  """Writes an object in a bucket's folder and removes it. Raises UserError."""
  probe = path / f'.written{os.getpid()}'
  try:
    probe.write_text('')
    probe.unlink()
  except Exception as e:  # each package has its own errors
    raise UserError(
      f'{path} cannot be written ({reason(e)})\n  name another place, or log in to this one'
    ) from None


def modified(path: pathlib.Path) -> datetime.datetime:
  """When a bucket's object was written, by the bucket's clock."""
  files, name = filesystem(path)
  return files.modified(name)


def create(path: pathlib.Path, content: bytes) -> bool:
  """Writes an object of a bucket unless it is there; of several that try, one succeeds."""
  files, name = filesystem(path)
  try:
    files.pipe_file(name, content, mode='create')
  except FileExistsError:
    return False
  return True


@contextlib.contextmanager
def uploaded(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """A file to write, which becomes the bucket's object `path` if nothing is raised."""
  with tempfile.TemporaryDirectory(prefix='car_jax-') as place:
    part = pathlib.Path(place) / path.name
    yield part
    files, name = filesystem(path)
    with writing(path):
      files.put_file(str(part), name)


def copy(part: pathlib.Path, folder: pathlib.Path) -> None:
  """Copies the files below `part`, of this machine, into `folder`, of a bucket or not."""
  if not is_remote(folder):
    shutil.copytree(part, folder, dirs_exist_ok=True)
    return
  files, name = filesystem(folder)
  with writing(folder):
    for path in files_below(part):
      files.put_file(str(path), f'{name}/{path.relative_to(part).as_posix()}')


def files_below(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted(p for p in folder.rglob('*') if p.is_file())


def sent(part: pathlib.Path, folder: pathlib.Path, last: str) -> None:
  """Uploads the files of `part` to a bucket's `folder`, in the place of what is there.

  last: the file that says that the folder is whole: an older one goes first, the new one comes
  last. While the upload is under way the object NAME.part lies beside the folder.
  """
  files, name = filesystem(folder)
  mark = f'{name}.part'
  files.pipe_file(mark, b'')
  if files.exists(f'{name}/{last}'):
    files.rm_file(f'{name}/{last}')
  new = sorted(files_below(part), key=lambda p: p == part / last)
  names = [f'{name}/{p.relative_to(part).as_posix()}' for p in new]
  for stale in {*files.find(name)} - {*names}:
    files.rm_file(stale)
  with writing(folder):
    for path, key in zip(new, names, strict=True):
      files.put_file(str(path), key)
  files.rm_file(mark)


def half_sent(folder: pathlib.Path) -> bool:
  """Whether `sent` began with a bucket's folder and did not end."""
  return folder.with_name(f'{folder.name}.part').exists()


def cache() -> pathlib.Path:
  """Where copies of buckets' folders are kept: $CAR_JAX_CACHE, or ~/.cache/car_jax/remote."""
  home = os.environ.get('XDG_CACHE_HOME', pathlib.Path.home() / '.cache')
  return pathlib.Path(os.environ.get('CAR_JAX_CACHE', pathlib.Path(home) / 'car_jax' / 'remote'))


def fetched(place: str | os.PathLike[str]) -> pathlib.Path:
  """A folder or file on this machine that is, or is a copy of, what `place` names.

  A bucket's files are fetched into `cache()`, those that are there and have not changed are not
  fetched again. How many and how large they are is printed. Raises UserError.
  """
  path = of(place)
  if not is_remote(path):
    return path
  files, name = filesystem(path)
  copy = cache() / str(path).replace('://', '/')
  try:
    if files.isfile(name):
      wanted = {name: files.info(name)}
      name, copy = name.rpartition('/')[0], copy.parent
      out = copy / path.name
    else:
      wanted, out = files.find(name, detail=True), copy
    if not wanted:
      raise UserError(f'nothing is in {path}')
    _update(copy, files, name, wanted, str(path), whole=out == copy)
  except UserError:
    raise
  except Exception as e:  # each package has its own errors
    raise UserError(f'{path} cannot be fetched ({reason(e)})') from None
  return out


def _update(
  copy: pathlib.Path, files: Any, root: str, wanted: dict[str, Any], what: str, *, whole: bool
) -> None:
  """Makes the folder `copy` hold the files `wanted`, and (whole) no others."""
  from car_jax import sharding

  index = copy / INDEX
  known = json.loads(index.read_text()) if index.exists() else {}
  there = {_relative(key, root): (key, _version(info)) for key, info in wanted.items()}
  new = {k for k, (_, v) in there.items() if known.get(k) != v or not (copy / k).is_file()}
  for removed in {*known} - {*there} if whole else ():
    (copy / removed).unlink(missing_ok=True)
  copy.mkdir(parents=True, exist_ok=True)
  for k in sorted(new):
    with tempfile.TemporaryDirectory(prefix='.part', dir=copy) as place:
      files.get_file(there[k][0], part := os.path.join(place, 'part'))
      (copy / k).parent.mkdir(parents=True, exist_ok=True)
      shutil.move(part, copy / k)  # processes of one machine share the cache
  if new or {*known} != {*there}:
    kept = {} if whole else known
    index.write_text(json.dumps(kept | {k: v for k, (_, v) in there.items()}))
  if new:
    size = sum(wanted[there[k][0]].get('size') or 0 for k in new) / 1e6
    sharding.say(f'fetched {len(new):,} file(s), {size:,.1f} MB, of {what} into {copy}')


def _relative(key: str, root: str) -> str:
  return key.removeprefix(root).lstrip('/')


def _version(info: dict[str, Any]) -> list[str]:
  """What changes when an object is written again: its size and what its bucket tells."""
  versions = ('generation', 'etag', 'ETag', 'md5Hash', 'mtime', 'LastModified', 'last_modified')
  return [str(info.get(key)) for key in ('size', *versions)]
