"""Runs that are ready to predict, and what is made of them by names of combined.py."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from car_jax import combined, folders, hub, paths
from car_jax.data import options as data_options
from car_jax.data import sources
from car_jax.errors import UserError
from car_jax.methods.base import Method
from car_jax.methods.mc_dropout import MCDropout
from car_jax.methods.mixture import TURNS, Member, Mixture, Turn, all_of


@dataclasses.dataclass
class Loaded:
  """A checkpoint ready to predict.

  path: its folder; of what is made of runs, its name. info: of the data it was loaded for. size:
  height and width of the images that it was trained on, where it tells. which: of its run's
  checkpoints, in words.
  """

  path: pathlib.Path | str
  step: int
  config: ConfigDict
  method: Any
  state: Any
  info: sources.DataInfo
  size: tuple[int, int] | None = None
  crc: Any = None  # of its arrays, as the checkpoint tells them
  which: str = 'only checkpoint'
  members: tuple['Loaded', ...] = ()  # that it is made of

  @property
  def runs(self) -> tuple['Loaded', ...]:
    """Those that it is made of in the end, or itself."""
    return tuple(run for member in self.members for run in member.runs) or (self,)

  @property
  def steps(self) -> str:
    """'step 6', or 'steps 6 and 80' of runs that stopped at several."""
    each = [*dict.fromkeys(f'{run.step:,}' for run in self.runs)]
    return f'step{"s" if len(each) > 1 else ""} {" and ".join(each)}'


def load(text: str, single: Callable[[str], Loaded]) -> Loaded:
  """What a name of combined.py stands for; single(RUN) loads one run.

  Raises UserError: no run, one that is named twice, members of other classes, a net without
  dropout, a training that turned no image.
  """
  kind, runs = combined.split(text)
  if kind == 'ensemble':
    runs = [str(folder) for run in runs for folder in _trainings(run)]
    places = [run if combined.is_named(run) else str(paths.absolute(paths.of(run))) for run in runs]
    if twice := [run for run, place in zip(runs, places, strict=True) if places.count(place) > 1]:
      raise UserError(f'{text} has {twice[0]} twice\n  its members are runs of their own')
  loaded = [single(run) for run in runs]
  first, method, state = loaded[0], None, tuple(one.state for one in loaded)
  if kind == 'ensemble':
    method = _ensemble(dict(zip(runs, loaded, strict=True)))
  elif kind == 'dropout':
    method, state = _dropout(runs[0], first), first.state
  else:
    method = Mixture('tta', _turned(runs[0], first))
  crc = [kind, *(one.crc for one in loaded)]
  members = tuple(loaded)
  return dataclasses.replace(first, path=text, method=method, state=state, crc=crc, members=members)


def _trainings(run: str) -> list[Any]:
  return [run] if combined.is_named(run) else folders.trainings(hub.resolve(run))


def _ensemble(loaded: dict[str, Loaded]) -> Method:
  known = lambda one: (one.info.num_classes, one.info.class_names, one.method.ignored_class)
  (first, ours), *others = loaded.items()
  for other, theirs in others:
    if known(ours) != known(theirs):
      raise UserError(
        f'{other} and {first} were trained for other classes\n'
        '  the runs of an ensemble have the same'
      )
  return Mixture('ensemble', [Member(one.method, k) for k, one in enumerate(loaded.values())])


def _dropout(run: str, one: Loaded) -> Method:
  method = MCDropout(one.method, run)
  side = one.size or (64, 64)
  batch = {'image': np.zeros((1, *side, 3), np.float32), 'example': np.zeros(1, np.uint32)}
  method.check(one.state, batch)
  return method


def _turned(run: str, one: Loaded) -> list[Member]:
  """Members that see the image as training may have turned it."""
  used = _turns(one.config.data)
  if not used:
    known = ', '.join(f'data.{key}' for key in TURNS)
    raise UserError(
      f'{run} was trained on images that were never turned ({known}): its copies would be '
      'strange to it\n  train it with one of them'
    )
  return [Member(one.method, 0, turn) for turn in all_of(used)]


def _turns(config: ConfigDict) -> list[Turn]:
  """Those of a training's images, by its options and its list of transforms."""
  data = data_options.of(config)
  listed = {entry if isinstance(entry, str) else entry.get('name') for entry in data.transforms}
  named = {key for key in TURNS if getattr(data, key)} | listed
  mirrored = any(g is not None and g.mirror is not False for g in (data.source, data.target))
  return [turn for key, turn in TURNS.items() if key in named or (key == 'mirror' and mirrored)]
