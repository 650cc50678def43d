"""Replays golden files: recorded inputs of a reference implementation through our code.

A replay set NAME is the modules `tests/replay/NAME_*.py`. Each registers, per file stem, functions
that compare our values with the recorded ones through a `Replay`. A key of a file that no function
compared, declared as an input or left out with a reason is a MISS: nothing recorded is passed over
in silence.
"""

import dataclasses
import fnmatch
import importlib
import pathlib
import pkgutil
from collections.abc import Callable

import numpy as np

CHECKS: dict[tuple[str, str], list[Callable]] = {}


def replays(name: str, *stems: str):
  """Registers a function(replay) for the files `stems` of set `name`."""

  def register(function):
    for stem in stems:
      CHECKS.setdefault((name, stem), []).append(function)
    return function

  return register


@dataclasses.dataclass
class Row:
  file: str
  key: str
  error: float
  tolerance: float
  left_out: str = ''  # why it is not compared

  @property
  def ok(self) -> bool:
    return bool(self.left_out or self.error <= self.tolerance)  # nan is a miss


class Replay:
  """One golden file being replayed: `r['x']` reads an input, `r.check('y', ours, ...)` compares.

  Reading a key with [] declares it an input; `check` declares it compared, `leave_out` that it
  is not.
  """

  def __init__(self, folder: pathlib.Path, stem: str):
    self.folder, self.stem, self.rows = folder, stem, []
    self.arrays = dict(np.load(folder / f'{stem}.npz', allow_pickle=False))
    self.used: set[str] = set()

  def __contains__(self, key: str) -> bool:
    return key in self.arrays

  def keys(self):
    return self.arrays.keys()

  def __getitem__(self, key: str) -> np.ndarray:
    self.used.add(key)
    return self.arrays[key]

  def check(self, key, ours, tolerance, *, relative=False, scale=None, want=None, name=None):
    """Compares `ours` with the recorded `key` (or with `want`, a part of it).

    relative=True divides the largest error by the largest magnitude recorded; `scale` by that
    instead. `name` labels the row where a key is compared in parts.
    """
    self.used.add(key)
    want = np.asarray(self.arrays[key] if want is None else want, np.float64)
    ours = np.asarray(ours, np.float64)
    if ours.shape != want.shape:
      error = float('inf')
    else:
      same = (ours == want) | (np.isnan(ours) & np.isnan(want))
      with np.errstate(invalid='ignore'):
        error = float(np.max(np.where(same, 0.0, np.abs(ours - want)), initial=0.0))
      if relative or scale is not None:
        size = np.max(np.abs(want), initial=0.0, where=~np.isnan(want))
        error /= float(scale if scale is not None else max(size, 1e-30))
    self.rows.append(Row(self.stem, name or key, error, tolerance))

  def leave_out(self, reason: str, *patterns: str) -> None:
    """Keys, by shell patterns, that record what ours is not to do."""
    for key in self.keys():
      if key not in self.used and any(fnmatch.fnmatchcase(key, p) for p in patterns):
        self.used.add(key)
        self.rows.append(Row(self.stem, key, 0.0, 0.0, reason))


def run(name: str, folder: str | pathlib.Path, only: str | None = None) -> list[Row]:
  """Replays every npz of `folder` (or the stem `only`) against the checks of set `name`."""
  for module in pkgutil.iter_modules([str(pathlib.Path(__file__).parent)]):
    if module.name.split('_')[0] == name:
      importlib.import_module(f'tests.replay.{module.name}')
  rows = []
  for path in sorted(pathlib.Path(folder).glob('*.npz')):
    if only and path.stem != only:
      continue
    replay = Replay(path.parent, path.stem)
    for check in CHECKS.get((name, path.stem), []):
      check(replay)
    left = sorted(replay.keys() - replay.used)
    rows += replay.rows + [
      Row(path.stem, f'{key} (not replayed)', float('nan'), 0.0) for key in left
    ]
  return rows
