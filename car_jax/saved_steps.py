"""Which steps of a run have checkpoints, and which of them is meant.

RUN/checkpoints/STEP   the latest
RUN/best/STEP          the best by config.best, where one was chosen
"""

import pathlib
import re
from collections.abc import Iterator, Sequence

from car_jax import paths
from car_jax.errors import UserError, nearest

BEST, LATEST = 'best', 'checkpoints'  # folders of a run
FOLDERS = {'best': BEST, 'latest': LATEST}
COMMITTED = 'commit_success.txt'  # which orbax puts into a bucket's checkpoint at the end


def locate(path: str | pathlib.Path, step: str = '') -> tuple[pathlib.Path, int]:
  """A run folder, or a folder of checkpoints, and a wish -> (folder, step).

  The wish is 'best', 'latest', a number, or '' for the best where one was chosen, else the latest.
  Raises UserError when nothing is there, or not that step.
  """
  root = place(path)
  places = {name: root / kind for name, kind in FOLDERS.items()}
  if not any(p.is_dir() for p in places.values()):
    places = {'latest': root}
  saved = {name: steps for name, p in places.items() if (steps := list(numbered(p)))}
  if not saved:
    text = f'no checkpoint in {root}\n  expected a --workdir of car-jax train'
    near = root if root.is_dir() else root.parent
    if runs := [p.name for p in (near.iterdir() if near.is_dir() else ()) if is_run(p)]:
      text += f', of which there are in {near}:\n{nearest(root.name, runs)}'
    if paths.is_remote(root):
      text += f'; checkpoints copied from a disk have no {COMMITTED}: fetch the run to this machine'
    raise UserError(text)
  number = int(step) if step.isascii() and step.isdigit() else None
  if step not in ('', 'best', 'latest') and number is None:
    raise UserError(
      f'no checkpoint called {step!r}\n  known: best, latest, or the number of a step'
    )
  name = step if step in ('best', 'latest') else next(iter(saved))
  if name not in saved:
    raise UserError(f'no {name} checkpoint in {root}\n  there: {", ".join(saved)}')
  if number is None:
    return places[name], max(saved[name])
  for name, steps in saved.items():
    if number in steps:
      return places[name], number
  known = sorted({s for steps in saved.values() for s in steps})
  raise UserError(
    f'no checkpoint of step {number} in {root}\n  there: {", ".join(map(str, known))}'
  )


def is_run(folder: pathlib.Path) -> bool:
  return any((folder / kind).is_dir() for kind in FOLDERS.values())


def which(place: pathlib.Path, steps: Sequence[int]) -> str:
  """What to call the checkpoint at `place`, of `steps` in its folder: best, latest, only or a."""
  if place.parent.name == BEST:
    return 'best checkpoint'
  if not place.name.isdigit():  # a model's folder, which has no other
    return 'only checkpoint'
  return 'latest checkpoint' if int(place.name) == steps[-1] else 'a checkpoint'


def place(path: str | pathlib.Path) -> pathlib.Path:
  """The folder of a run. Raises UserError for a bucket that orbax writes no arrays to."""
  folder = paths.of(path)
  if paths.is_remote(folder) and not str(folder).startswith('gs://'):
    raise UserError(
      f'{folder}: checkpoints are written to and read from local folders and gs:// alone\n'
      '  name one of these; reports, arrays and data may be there'
    )
  return folder


def numbered(folder: pathlib.Path) -> Iterator[int]:
  """Steps of the checkpoints there: folders with the name of a number, as it is written here.

  In a bucket an unfinished one has that name too, but not the last of its files.
  """
  for path in folder.iterdir() if folder.is_dir() else ():
    whole = not paths.is_remote(path) or (path / COMMITTED).exists()
    if re.fullmatch('0|[1-9][0-9]{0,17}', path.name) and path.is_dir() and whole:
      yield int(path.name)


def any_in(folder: pathlib.Path) -> bool:
  return next(numbered(folder), None) is not None


def newest(folder: pathlib.Path) -> int:
  """The last step that has a checkpoint there; 0 where there is none."""
  return max(numbered(folder), default=0)
