"""Checkpoints a run can be trusted to: orbax, with the config, the versions and checksums of all.

  <folder>/<step>/state      the arrays
  <folder>/<step>/meta       config, versions, data set, metrics, shapes and a CRC of every array,
                             and the digests of constants (constants.py), which are not saved
  <folder>/<step>/checksum   a CRC of meta

A checkpoint is written beside the training and appears under its name when complete. Orbax reads
flipped bytes without complaint; the CRCs do not.
"""

import errno
import functools
import json
import logging
import pathlib
import shutil
import sys
import time
import zlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from car_jax import constants, files, paths, saved_steps, sharding
from car_jax.errors import UserError, nearest, reading

FORMAT = 2  # 1 had no checksum of meta


class Damaged(UserError):
  """A checkpoint that cannot be read back as it was written."""


def crcs(tree: Any) -> dict[str, int]:
  """Leaf path -> CRC32 of its bytes. A dataclass has the paths of the dict it is restored as."""
  contents = ((k, np.ascontiguousarray(sharding.fetched(a))) for k, a in leaves(tree))
  return {k: zlib.crc32(a) for k, a in contents}  # type: ignore[arg-type]


def differing(saved: dict[str, int], tree: Any) -> str:
  """What is wrong with arrays whose CRCs were saved, in words; '' where nothing is."""
  sums = crcs(tree)
  wrong = sorted(k for k in {*saved, *sums} if sums.get(k) != saved.get(k))
  return f'{len(wrong)} arrays differ from what was saved, first {wrong[0]}' if wrong else ''


def versions() -> dict[str, str]:
  import importlib.metadata

  import car_jax

  names = ('jax', 'flax', 'optax', 'orbax-checkpoint', 'numpy')
  packages = {name: importlib.metadata.version(name) for name in names}
  return {'car_jax': car_jax.__version__, 'python': sys.version.split()[0]} | packages


class Checkpoints:
  """The checkpoints of one folder: to write, keeping the newest `keep`, or only to read.

  A reader leaves alone what another process is writing there.
  """

  def __init__(self, folder: str | pathlib.Path, keep: int | None = None):
    import orbax.checkpoint as ocp

    _quieten()
    self.folder = paths.absolute(saved_steps.place(folder))
    self._ocp = ocp
    self._manager: Any = self._writer(keep) if keep else None

  def _writer(self, keep: int) -> Any:
    if jax.process_index() == 0:
      self._move_damaged()
    sharding.barrier(f'{self.folder.name} looked through')
    # Two managers that write at the same time must not wait at each other's barriers.
    apart = self._ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=self.folder.name)
    options = self._ocp.CheckpointManagerOptions(
      max_to_keep=keep, cleanup_tmp_directories=True, multiprocessing_options=apart
    )

    class Manager(self._ocp.CheckpointManager):  # type: ignore[name-defined]
      def reached_preemption(self, step: int) -> bool:
        return False  # jax would be asked by the step, which is not how interrupt.py counts

    return Manager(self.folder, options=options)

  def _move_damaged(self) -> None:
    """Of checkpoints whose own record cannot be read: orbax' writer would not begin."""
    for step in [*saved_steps.numbered(self.folder)]:
      path = self.place(step)
      try:
        _ = self._ocp.path.step.standard_name_format().find_step(self.folder, step).commit_timestamp
      except Exception as e:
        aside = path.with_name(f'{step}.damaged-{time.time_ns()}')
        print(f'warning: damaged checkpoint {path}: {first_line(e)}', file=sys.stderr)
        print(f'  moved to {aside}', file=sys.stderr, flush=True)
        path.rename(aside)

  def place(self, step: int) -> pathlib.Path:
    return self.folder / str(step)

  def steps(self) -> list[int]:
    return sorted(self._manager.all_steps() if self._manager else saved_steps.numbered(self.folder))

  def save(self, step: int, state: Any, meta: dict[str, Any]) -> None:
    """Starts writing and returns; `meta` must be JSON. A step that is there is replaced.

    Raises OSError where the disk has no place: orbax's own threads would end in tracebacks.
    """
    args, digests, state = self._ocp.args, constants.digests(state), constants.without(state)
    size = sum(getattr(a, 'nbytes', 8) for _, a in leaves(state))
    free = size if paths.is_remote(self.folder) else shutil.disk_usage(self.folder).free
    if size > free:
      text = f'a checkpoint takes {size / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free'
      raise OSError(errno.ENOSPC, text, str(self.folder))
    if step in self._manager.all_steps():
      self._manager.wait_until_finished()
      self._manager.delete(step)
    meta = meta | {'step': step, 'versions': versions(), 'crc': crcs(state), 'format': FORMAT}
    meta |= {'shapes': shapes(state), 'constants': digests}
    meta = json.loads(json.dumps(meta))  # as it will be read
    items = dict(meta=args.JsonSave(meta), checksum=args.JsonSave({'meta': files.checksum(meta)}))
    composite = args.Composite(state=args.StandardSave(state), **items)
    self._manager.save(step, args=composite, force=True)

  def meta(self, step: int) -> dict[str, Any]:
    """What was saved beside the arrays. Raises Damaged."""
    path = self.place(step)
    try:
      meta = files.read_json(path / 'meta' / 'metadata', keys=('config', 'crc'))
      # Only what has neither of the two is of format 1: losing one does not switch checking off.
      if 'format' in meta or (path / 'checksum').exists():
        kept = files.read_json(path / 'checksum' / 'metadata', keys=('meta',))
        if kept['meta'] != files.checksum(meta):
          raise Damaged(f'{path}: its meta differs from what was saved')
      elif not all(isinstance(meta[k], dict) for k in ('config', 'crc')):
        raise Damaged(f'{path}: meta has another form')
      else:
        _tell_older(path)
    except (UserError, OSError) as e:
      raise Damaged(f'{path}: meta cannot be read ({first_line(e)})') from None
    return meta

  def restore(self, step: int, template: Any) -> tuple[Any, dict[str, Any]]:
    """-> (state, meta), shaped and placed like `template` (None: as saved, on one device).

    Constants are the template's; without one they are left out. Raises Damaged, on all processes
    where one cannot read its part, and UserError where the arrays are not those of the template.
    """
    damaged, read = None, None
    try:
      read = self._read(step, template)
    except Damaged as e:
      damaged = e
    path = self.place(step)
    if not sharding.all_agree(damaged is None):
      raise damaged or Damaged(f'{path}: another process cannot read its part')
    state, meta = read  # type: ignore[misc]
    if wrong := differing(meta['crc'], state):
      raise Damaged(f'{path}: {wrong}')
    return state if template is None else constants.filled(state, template), meta

  def _read(self, step: int, template: Any) -> tuple[Any, dict[str, Any]]:
    """What `restore` gives, its numbers unchecked. Raises as `restore`."""
    meta, path = self.meta(step), self.place(step)
    kept = constants.without(template)
    if template is not None and 'shapes' in meta:
      check_shapes(path, {k: tuple(v) for k, v in meta['shapes'].items()}, shapes(kept))
    if template is not None:
      check_constants(path, meta.get('constants', {}), constants.digests(template))
    try:
      abstract = self._like_saved(step) if template is None else abstract_of(kept)
      wanted = self._ocp.args.StandardRestore(abstract)
      with self._ocp.Checkpointer(self._ocp.StandardCheckpointHandler()) as reader:
        return reader.restore(path / 'state', args=wanted), meta
    except MemoryError as e:
      raise UserError(f'{path} needs more memory than there is') from e
    except Exception as e:  # orbax raises many kinds for damaged files
      raise Damaged(f'{path}: {first_line(e)}') from None

  def _like_saved(self, step: int) -> Any:
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    saved = self._ocp.StandardCheckpointer().metadata(self.folder / str(step) / 'state')
    return jax.tree.map(
      lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=here), saved.item_metadata.tree
    )

  def wait(self) -> None:
    if self._manager:
      self._manager.wait_until_finished()

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
    if kind not in (None, SystemExit) and jax.process_count() > 1:
      return  # what is being written waits for processes that end with this one
    if self._manager:
      self._manager.wait_until_finished()
      self._manager.close()


PATIENCE = 10.0  # seconds


@functools.cache
def _tell_older(path: pathlib.Path) -> None:
  text = 'is of an older version: its arrays have checksums, its config and names have none'
  print(f'note: {path} {text}', file=sys.stderr, flush=True)


def read(path: str | pathlib.Path, wish: str, use: Callable[['Checkpoints', int], Any]) -> Any:
  """use(checkpoints, step) of what `locate` finds, see there.

  A training beside this may remove or replace it meanwhile: then the one that is wished for now is
  read. While its first one is being written, that is waited for, but not for long: what a killed
  run left looks alike. Raises UserError for a damaged one, with the other steps there.
  """
  tried, patience = None, time.monotonic() + PATIENCE
  while True:
    try:
      folder, step = saved_steps.locate(path, wish)
    except UserError:
      being_written = saved_steps.place(path).glob('*/*.orbax-checkpoint-tmp')
      if time.monotonic() > patience or not any(being_written):
        raise
      time.sleep(0.3)
      continue
    with Checkpoints(folder) as saved:
      try:
        with reading(folder / str(step), 'a checkpoint'):
          return use(saved, step)
      except Damaged as e:
        if tried == (folder, step):  # still there, and still unreadable
          others = [str(s) for s in saved.steps() if s != step]
          best, latest = folder.parent / saved_steps.BEST, folder.parent / saved_steps.LATEST
          if folder == best and saved_steps.any_in(latest):
            others.insert(0, 'latest')
          hint = f'\n  others there: --step {" or ".join(others)}' if others else ''
          raise UserError(f'damaged checkpoint {e}{hint}') from None
    tried = folder, step
    time.sleep(0.3)


@functools.cache
def _quieten() -> None:
  """Keeps orbax' reading threads from printing tracebacks of what is raised here in one line.

  After the first array that cannot be read the others' threads go on, to a loop that is closed.
  """
  for name in ('absl', 'asyncio'):
    logging.getLogger(name).setLevel(logging.CRITICAL)

  def expected(error: BaseException | None, where: Any) -> bool:
    code = getattr(where, 'cr_code', None)
    from_orbax = code is not None and 'orbax' in code.co_filename
    return from_orbax or (isinstance(error, RuntimeError) and 'loop is closed' in str(error))

  hook, unraisable = sys.excepthook, sys.unraisablehook
  sys.excepthook = lambda kind, e, tb: None if expected(e, None) else hook(kind, e, tb)
  sys.unraisablehook = lambda u: None if expected(u.exc_value, u.object) else unraisable(u)


def part_of(checkpoints: Checkpoints, step: int, name: str) -> dict[str, Any]:
  """One part of a saved state as nested dicts, whatever its shapes. Raises UserError, Damaged."""
  state, _ = checkpoints.restore(step, None)
  if name not in state:
    raise UserError(
      f'{checkpoints.folder / str(step)} has no part {name!r}\n{nearest(name, state)}'
    )
  return state[name]


def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  """Leaf path -> shape."""
  return {name: tuple(np.shape(leaf)) for name, leaf in leaves(tree)}


def leaves(tree: Any) -> list[tuple[str, Any]]:
  pairs, _ = jax.tree_util.tree_flatten_with_path(tree)
  return [(jax.tree_util.keystr(path, simple=True, separator='/'), leaf) for path, leaf in pairs]


def check_shapes(path: pathlib.Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
  """Raises UserError, naming the first array that differs."""
  if odd := sorted(k for k in {*saved, *wanted} if saved.get(k) != wanted.get(k)):
    name = odd[0]
    raise UserError(
      f'{path} is of another method or data set: {name} is {saved.get(name, "not there")}, '
      f'{wanted.get(name, "not there")} is wanted\n'
      '  is config.data.name, and what was prepared under it, that of the training?'
    )


def check_constants(path: pathlib.Path, saved: dict[str, str], wanted: dict[str, str]) -> None:
  """Raises UserError, naming the constants that are not what they were."""
  if odd := sorted(k for k in {*saved, *wanted} if saved.get(k) != wanted.get(k)):
    raise UserError(
      f'{path} belongs to other weights than there are now: {", ".join(odd)}\n'
      '  put the files back that the run began with, or start over with --new'
    )


def abstract_of(template: Any) -> Any:
  """Shapes, types and places of a tree, to restore into."""
  return jax.tree.map(
    lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=getattr(a, 'sharding', None)),
    template,
  )


def newest_sound(checkpoints: Checkpoints, template: Any) -> tuple[Any, dict[str, Any]] | None:
  """The newest checkpoint that reads back whole; damaged ones are reported and passed over.

  None where there is none at all. Raises UserError where every one is damaged.
  """
  steps = checkpoints.steps()
  for step in reversed(steps):
    try:
      return checkpoints.restore(step, template)
    except Damaged as e:
      older = [s for s in steps if s < step]
      then = f'using step {older[-1]}' if older else 'no older one is left'
      print(f'warning: damaged checkpoint {e}; {then}', file=sys.stderr, flush=True)
  if steps:
    raise UserError(
      f'no checkpoint in {checkpoints.folder} can be read\n'
      '  start over with --new or another --workdir'
    )
  return None


def first_line(error: Exception) -> str:
  line = (str(error).strip().splitlines() or [type(error).__name__])[0]
  return line.partition(' See full TensorStore details')[0][:160]
