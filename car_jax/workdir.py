"""The folder of a training run: whose it is, who trains in it, and which config belongs to it."""

import contextlib
import itertools
import json
import math
import secrets
import time
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from car_jax import checkpoints, files, folders, lock, paths, saved_steps, sharding
from car_jax import config as configs
from car_jax.errors import UserError, naming

# What may change when a run goes on: nothing that was computed so far depends on it, as no method
# is told the number of steps. Milestones, which are of the method, may not.
FREE: tuple[str, ...]
FREE = ('steps', 'log_every', 'eval_every', 'save_every', 'keep', 'evals', 'report', 'published')
FREE += ('writers', 'images', 'overview', 'profile', 'fsdp')
HOSTS_OWN = ('data_dir', 'threads', 'workers')  # what may differ between processes
FREE_DATA = (*HOSTS_OWN, 'eval_batch')  # the same of config.data, and of its source and target
SHARED = 10.0  # seconds until a new file on a network disk is seen by all hosts


@contextlib.contextmanager
def claimed(workdir: Path, config: ConfigDict, *, new: bool, ratio: float = 1.0) -> Iterator[None]:
  """The workdir, ready for a run of this config and locked against others; new moves an old aside.

  Process 0 does it, and raises UserError if it cannot: a folder that cannot be written, that
  another process trains in, or that holds a run of another config. All raise it for a folder that
  they do not share. ratio: steps as `base_batch` counts them to one of this config.
  """
  with contextlib.ExitStack() as stack:
    if jax.process_index() == 0:
      try:
        stack.enter_context(_claimed(workdir, config, new, ratio))
      except OSError as e:
        text = f'--workdir {workdir}: {e.strerror}\n  name another folder'
        raise UserError(text) from None
    if jax.process_count() > 1:
      check_shared(workdir)
    yield


def check_same(config: ConfigDict) -> None:
  """Raises UserError unless all processes have one config, but for where a host has its data."""
  kept = _without(json.loads(configs.to_json(config)), HOSTS_OWN)
  digests = sharding.gathered(zlib.crc32(json.dumps(kept, sort_keys=True).encode()) >> 1)
  if differing := [str(k) for k, digest in enumerate(digests) if digest != digests[0]]:
    raise UserError(
      f'the config of process {", ".join(differing)} is not that of process 0\n'
      '  start all of them with the same --config and the same --config.KEY=VALUE'
    )


def check_shared(folder: Path, option: str = '--workdir') -> None:
  """Raises UserError unless every process sees the folder that process 0 sees."""
  token = int(sharding.gathered(secrets.randbelow(2**31))[0])
  path, last = folder / f'.shared-{token}', time.monotonic() + SHARED
  if jax.process_index() == 0:
    path.write_text('')
  sharding.barrier('a shared folder')
  while not (seen := path.exists()) and time.monotonic() < last:
    time.sleep(0.5)
  lacks = [str(k) for k, sees in enumerate(sharding.gathered(int(seen))) if not sees]
  if jax.process_index() == 0:
    path.unlink()
  if lacks:
    raise UserError(
      f'{option} {folder} is another folder for process {", ".join(lacks)} than for process 0\n'
      '  name one on a disk that all hosts share, or in a bucket (gs://)'
    )


@contextlib.contextmanager
def _claimed(workdir: Path, config: ConfigDict, new: bool, ratio: float) -> Iterator[None]:
  with contextlib.ExitStack() as stack:
    if paths.is_remote(workdir):
      paths.check_writable(workdir)
    else:
      workdir.mkdir(parents=True, exist_ok=True)
      stack.callback(_remove_empty, workdir)
    stack.enter_context(lock.exclusive(workdir))
    if new and any((workdir / p).exists() for p in ('config.json', *saved_steps.FOLDERS.values())):
      if paths.is_remote(workdir):
        raise UserError(
          f'{workdir} holds a run, and a bucket moves no folder aside\n'
          '  name another --workdir, or delete it with your cloud tool'
        )
      aside = next(p for k in itertools.count(1) if not (p := Path(f'{workdir}.old-{k}')).exists())
      workdir.rename(aside)
      (aside / lock.NAME).unlink()
      print(f'moved the old run to {aside}', flush=True)
      workdir.mkdir()
      stack.enter_context(lock.exclusive(workdir))
    _adopt(workdir, config, ratio)
    yield


def _remove_empty(folder: Path) -> None:
  with contextlib.suppress(OSError):  # it is not empty
    folder.rmdir()


def _adopt(workdir: Path, config: ConfigDict, ratio: float) -> None:
  """Writes config.json, unless the folder holds a run of another config. Raises UserError."""
  path, old = workdir / 'config.json', check(workdir, config)
  if old is not None:
    done = saved_steps.newest(workdir / saved_steps.LATEST)
    if config.steps < done:
      raise UserError(
        f'{workdir} has {done:,} steps; config.steps is {config.steps:,}\n'
        f'  use --config.steps={math.ceil(done * ratio)} or more, or another --workdir'
      )
    if changed := configs.differences(old, config):
      print('the run goes on, with\n' + '\n'.join(changed), flush=True)
      if config.best and old.get('evals') != config.evals:
        print('  the best checkpoint so far was chosen by the evaluations before', flush=True)
  with folders.whole(path) as part:
    part.write_text(configs.to_json(config))


def check(workdir: Path, config: ConfigDict) -> ConfigDict | None:
  """The config of the run in a folder, if it holds one. Raises UserError: of another config."""
  old = _config_of(workdir)
  if old and (changed := configs.differences(_without_free(old), _without_free(config))):
    lines = '\n'.join(changed)
    batch, shares = old.data.get('batch'), ''
    if batch != config.data.batch:
      shares = f'  it goes on with --config.data.batch={batch}, on devices that share it\n'
    raise UserError(
      f'{workdir} holds a run of another config:\n{lines}\n{shares}'
      f'  use --new to start over (the old run is moved aside), or another --workdir'
    )
  return old


def _config_of(workdir: Path) -> ConfigDict | None:
  """The config of the run that the folder holds: from config.json, or else a checkpoint."""
  path = workdir / 'config.json'
  again = 'use --new to start over (the old run is moved aside), or another --workdir'
  if path.exists():
    kept = files.read_json(path, mend=again)
    with naming(path, again):
      return configs.saved(kept)
  if not saved_steps.any_in(workdir / saved_steps.LATEST):
    return None
  with checkpoints.Checkpoints(workdir / saved_steps.LATEST) as saved:
    for step in reversed(saved.steps()):
      with contextlib.suppress(checkpoints.Damaged):
        return configs.saved(saved.meta(step)['config'])
  raise UserError(f'{workdir} has checkpoints but no config.json, nor have they\n  {again}')


def _without_free(config: ConfigDict) -> ConfigDict:
  fixed = {k: v for k, v in config.to_dict().items() if k not in FREE}
  return ConfigDict(fixed | {'data': _without(fixed['data'], FREE_DATA)})


def _without(values: Any, keys: Collection[str]) -> Any:
  """Without these keys, in the dicts inside too."""
  if not isinstance(values, dict):
    return values
  return {k: _without(v, keys) for k, v in values.items() if k not in keys}
