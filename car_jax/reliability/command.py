"""`car-jax eval --config`: a study's config and the command line's models -> a finished page."""

import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from car_jax import folders, paths, sharding, workdir
from car_jax.errors import UserError
from car_jax.evaluate import checkpointed
from car_jax.reliability import document, worst
from car_jax.reliability.plan import plan
from car_jax.reliability.study import Cell, Study
from car_jax.report.table import joined

MADE = 'study.json'
PREDICTIONS = 'predictions'  # the name of the set that --predictions are of


def with_models(
  config: ConfigDict,
  *,
  checkpoints: Sequence[str] = (),
  predictions: Sequence[str] = (),
  labels: str = '',
  calibrators: Sequence[str] = (),
  kind: str = '',
  resize: str = '',
) -> ConfigDict:
  """The config for models named on the command line, each [NAME=]PATH, in place of its own.

  Predictions are one set of images, so they also take the place of the config's sets; calibrators
  are then files only. The arguments are options of car-jax eval. Raises UserError.
  """
  config = config.copy_and_resolve_references()
  if checkpoints and predictions:
    raise UserError('--checkpoint and --predictions do not go together\n  score them one by one')
  about_files = dict(labels=labels, kind=kind, resize=resize)
  if (given_too := [k for k, v in about_files.items() if v]) and not predictions:
    raise UserError(f'--{given_too[0]} belongs to --predictions')
  if checkpoints or predictions:
    given = checkpointed.names_and_folders(checkpoints or predictions, 'models')
    # a config's key has no dot
    config.models = ConfigDict({name.replace('.', '_'): path for name, path in given})
    config.title = ''  # the config's is of its own models
  if predictions:
    config.kind, config.resize = kind or config.kind, resize or config.resize
    about = dict(labels=labels, role='in-domain', about=labels or 'labels saved beside')
    config.sets = ConfigDict({PREDICTIONS: about})
    config.pools, config.calibrators, config.calibrate_on = ConfigDict(), ConfigDict(), None
    config.guarantees = ConfigDict()
  for text in calibrators:
    name, _, path = text.rpartition('=')
    if not path.endswith('.npz'):
      raise UserError(f'--calibrator {text}: expected [NAME=]FILE.npz, as written by a study')
    config.calibrators[(name or pathlib.Path(path).stem).replace('.', '_')] = path
  return config


def left_out(config: ConfigDict) -> list[str]:
  """A line on what `with_models` takes out of a config that predictions are scored with."""
  fitted, kept = list(config.calibrators), list(config.guarantees if config.calibrate_on else ())
  parts = [
    f'{what}{"s" if len(names) > 1 else ""} {joined(names)}'
    for what, names in (('calibrator', fitted), ('guarantee', kept))
    if names
  ]
  line = (
    f'Left out of the config: {" and ".join(parts)}, since --predictions are of one set and there '
    'is no data to fit on. Give --calibrator FILE.npz, or a config of your own with calibrate_on.'
  )
  return [line] if parts else []


def run(
  config: ConfigDict, out: str, command: str, path: str = 'CONFIG', notes: Sequence[str] = ()
) -> tuple[dict[str, Any], pathlib.Path]:
  """Carries a study out, or what is left of it -> (study.json's dict, the page). UserError.

  command, path: what a user typed, and the config in it. notes: lines for the terminal and page.
  """
  folder = paths.of(out)
  _check_out(folder)
  if jax.process_count() > 1:  # each looks there for what is done
    if jax.process_index() == 0:
      folder.mkdir(parents=True, exist_ok=True)
    workdir.check_shared(folder, '--out')
  began = time.perf_counter()
  study = Study(plan(config, path), folder, sharding.make_mesh())
  for line in notes:
    study.say(line)
  cells: list[Cell] = []
  entries: list[dict[str, Any]] = []
  pictures: dict[str, bytes] = {}
  for of_model in study.run():
    more, drawn = worst.images(study, of_model)  # while the model is in memory
    cells, entries, pictures = cells + of_model, entries + more, pictures | drawn
  about = dict(created=time.strftime('%Y-%m-%d %H:%M'), command=command)
  seconds = time.perf_counter() - began
  content = document.build(study, cells, entries, notes, seconds=seconds, **about)
  page = folder / document.PAGE
  if jax.process_index() == 0:
    page = document.write(folder, content, pictures)
  return content, page


def _check_out(folder: pathlib.Path) -> None:
  """Raises UserError. A folder of an unfinished study has no study.json yet."""
  if not folder.exists() or folder.is_dir():
    folders.check_writable(folder)
  if folder.is_dir() and any(
    (folder / part).is_dir() for part in ('cells', 'calibrators', 'guarantees')
  ):
    return
  folders.check_replaceable(folder, MADE)
