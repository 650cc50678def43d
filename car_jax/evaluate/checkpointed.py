"""From checkpoints to a report: what car-jax eval and the demo do.

Every checkpoint brings its config; the first one's says which data and scores are meant, and all
are scored on that data.
"""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from car_jax import checkpoints, combined, errors, folders, hub, lookup, loop, saved_steps, sharding
from car_jax import config as configs
from car_jax import paths as places
from car_jax.data import opening, pipeline, sources
from car_jax.errors import UserError, naming, nearest, nearest_key
from car_jax.evaluate import made_of_runs, plan, report, save
from car_jax.evaluate.harness import Evaluator
from car_jax.evaluate.made_of_runs import Loaded
from car_jax.evaluate.predict import Subject, subjects
from car_jax.methods.train_state import for_evaluation, not_finite
from car_jax.report import table


def name_and_folder(text: str) -> tuple[str, str]:
  """'[NAME=]FOLDER' -> (name, folder), which may be a model that hub.resolve finds.

  A folder that is there may have '=' in its name.
  """
  alone = hub.is_named(text) or places.of(text).exists()
  name, _, path = ('', '', text) if alone else text.rpartition('=')
  return name or hub.name_of(path), hub.place_of(path)


def names_and_folders(texts: Sequence[str], what: str) -> list[tuple[str, str]]:
  """`name_and_folder` of each. Raises UserError for a name that two of them have."""
  given = [name_and_folder(text) for text in texts]
  names = [name for name, _ in given]
  if len({*names}) < len(names):
    raise UserError(f'two {what} are called {max(names, key=names.count)!r}\n  give NAME=FOLDER')
  return given


def read_config(path: str | pathlib.Path, wish: str = '') -> ConfigDict:
  """The config that a checkpoint was trained with, completed; the first one's, where several make
  a predictor. Raises UserError."""
  path = hub.folders_of(str(path))[0]
  path = folders.trainings(path)[0]
  return hub.read(path, wish, lambda saved, step: configs.saved(saved.meta(step)['config']))


def check_changes(config: ConfigDict, changes: Sequence[tuple[str, str]]) -> None:
  """Raises UserError for what is no option of prediction; dtypes and precision are such options."""
  method: Any = lookup.find('method', config.method.name)
  known = [f'method.{k}' for k in (*method.prediction_options, 'precision')]
  for key, _ in changes:
    if key not in known and not re.fullmatch(r'method\.(\w+\.)*dtype', key):
      raise UserError(f'config.{key} cannot be changed after training\n{nearest_key(key, known)}')


def load(
  path: str | pathlib.Path,
  wish: str = '',
  info: sources.DataInfo | None = None,
  mesh: Any = None,
  changes: Sequence[tuple[str, str]] = (),
) -> Loaded:
  """A checkpoint's method and state, for data of `info` (those it was trained on).

  path: may be made of runs, see combined.py. wish: a step, 'best' or 'latest'; '' is the best one.
  changes: options of inference, as configs.override takes them. Raises UserError for a damaged
  checkpoint, naming others there.
  """
  if combined.is_named(str(path)):
    return made_of_runs.load(
      str(path), functools.partial(load, wish=wish, info=info, mesh=mesh, changes=changes)
    )
  use = functools.partial(_opened, path=path, info=info, mesh=mesh, changes=changes)
  return hub.read(path, wish, use)


def _opened(
  saved: checkpoints.Checkpoints,
  step: int,
  *,
  path: str | pathlib.Path,
  info: sources.DataInfo | None,
  mesh: Any,
  changes: Sequence[tuple[str, str]],
) -> Loaded:
  meta = saved.meta(step)
  with naming(path):
    config = configs.saved(meta['config'])
  check_changes(config, changes)
  config = configs.override(config, changes)
  learnt = sources.from_json(meta['data'])
  info = info or learnt
  if 0 < learnt.num_classes != info.num_classes:
    raise UserError(
      f'{saved.place(step)} was trained for {learnt.num_classes} classes, the data have '
      f'{info.num_classes}\n  score it on data with the classes of its training'
    )
  method = loop.build_method(config, info, 1)
  if not method.predictors():
    raise UserError(f'method {config.method.name!r} predicts no segmentation; see metrics.jsonl')
  side = config.data.get('size') or 0
  size = (meta.get('image') or (side, side))[:2]
  batch = {'image': np.zeros((1, *(size if all(size) else (32, 32)), 3), np.float32)}
  if info.black_box:
    batch['black_box'] = np.zeros(batch['image'].shape[:3], np.int32)
  mesh = mesh or sharding.make_mesh()
  template = sharding.place_state(method.init(config.seed, batch), mesh, config.fsdp)
  state, _ = saved.restore(step, template)
  state = for_evaluation(state)
  if bad := not_finite(state):
    raise UserError(
      f'{saved.place(step)}: {bad[0]} has numbers that are not finite\n'
      '  its training diverged: train again, with a lower learning rate'
    )
  known = (int(size[0]), int(size[1])) if all(size) else None
  return Loaded(
    saved.place(step),
    step,
    config,
    method,
    state,
    info,
    known,
    meta['crc'],
    saved_steps.which(saved.place(step), saved.steps()),
  )


def named(
  loaded: Sequence[Loaded], names: Sequence[str], predictors: Sequence[str] = ()
) -> list[Subject]:
  """Predictors of checkpoints; of several under their checkpoint's name, which of a single one of
  its is all of the name.

  predictors: names of those that are wanted; () for all. Raises UserError for one that no
  checkpoint has, and for a checkpoint with none of them.
  """
  each = [subjects(one.method, one.state) for one in loaded]
  known = dict.fromkeys(row.name for of in each for row in of)
  if lost := [name for name in predictors if name not in known]:
    raise UserError(f'no checkpoint has a predictor {lost[0]!r}\n{nearest(lost[0], known)}')
  rows = []
  for name, of in zip(names, each, strict=True):
    kept = [row for row in of if row.name in (predictors or known)]
    if not kept:
      raise UserError(f'no --predictor is one of {name}\n  it has {_names(of)}')
    if len(loaded) > 1:
      full = [f'{name}: {row.name}' for row in kept] if kept[1:] else [name]
      kept = [dataclasses.replace(row, name=n) for row, n in zip(kept, full, strict=True)]
    rows += kept
  return rows


def _names(rows: Sequence[Subject]) -> str:
  return table.joined([repr(row.name) for row in rows])


def by_predictor(seeds: dict[str, list[str]], subjects: Sequence[str]) -> dict[str, list[str]]:
  """Model and predictor -> the subjects that are trainings of it."""
  out: dict[str, list[str]] = {}
  for model, runs in seeds.items():
    for subject in subjects:
      run, colon, predictor = subject.partition(': ')
      if run in runs:
        out.setdefault(f'{model}{colon}{predictor}', []).append(subject)
  return out


def evaluate(
  paths: Sequence[str],
  config: ConfigDict,
  out: str | pathlib.Path,
  *,
  step: str = '',
  saved: str = '',
  predictors: Sequence[str] = (),
  command: str = '',
  changes: Sequence[tuple[str, str]] = (),
) -> tuple[Any, pathlib.Path]:
  """Scores checkpoints on config.data and config.report, writes the report -> (Results, page).

  `saved` names some of save.KINDS, joined by commas: arrays for other tools, in out/../arrays.
  A path may be NAME=FOLDER, and FOLDER hold runs seed0, seed1, ..; `step` and `changes` are the
  wish and the changes of `load`, of every checkpoint, `predictors` those of `named`; `command` is
  printed in the report, to repeat it. Raises UserError.
  """
  spec = plan.report_spec(config)
  given = names_and_folders(paths, 'checkpoints')
  each = {name: folders.named_trainings(name, path) for name, path in given}
  seeds = {name: [*of] for name, of in each.items() if name not in of}
  names, paths = zip(*(run for of in each.values() for run in of.items()), strict=True)
  out = places.of(out)
  folders.check_replaceable(out, report.RESULTS, report.FORM)
  mesh = sharding.make_mesh()
  data = opening.open_dataset(config.data)
  loaded = [load(path, step, data.info, mesh, changes) for path in paths]
  rows, source = named(loaded, names, predictors), data.split(spec['split'])
  if line := pipeline.cut(source, config.data):
    sharding.say(line)
  named_runs = [*zip(names, loaded, strict=True)]
  for name, one in named_runs:
    sharding.say(f'{name}: {one.which}, {one.steps}')
  hosts = dict(host=jax.process_index(), hosts=jax.process_count(), devices=mesh.size)
  models = tuple(f'{name}: {one.path}, {one.steps}' for name, one in named_runs)
  about = report.About(table.joined(names), spec['split'], models, command, config.to_dict())
  return report.evaluate(
    Evaluator(spec, data.info, mesh=mesh, detail=True, readers=True),
    rows,
    lambda: pipeline.eval_batches(source, data.info, config.data, **hosts),
    out,
    about,
    images=len(source),
    seed=config.seed,
    saver=_saver(saved, rows, _arrays_of(out), data.info, source, config.data),
    trainings=by_predictor(seeds, [row.name for row in rows]),
  )


def _arrays_of(report: pathlib.Path) -> pathlib.Path:
  """Where the arrays of a report go: a folder beside it, which is no other report's."""
  return report.parent / ('arrays' if report.name == 'report' else f'{report.name}-arrays')


def _saver(
  saved: str, rows: Sequence[Subject], place: pathlib.Path, info: Any, source: Any, data: Any
) -> save.Saver | None:
  """Of the kinds that `saved` names. Raises UserError for one that no subject has."""
  if not saved:
    return None
  wanted = [k for k in errors.parts(saved, save.KINDS, 'save') if k in save.OWN]
  if lost := [k for k in wanted if not any(k in row.own for row in rows)]:
    raise UserError(f'none of the checkpoints has {lost[0]}\n  --save probabilities, or samples')
  several = len({*pipeline.shapes(source, data)}) > 1
  return save.Saver(place, saved, info, len(source), several_sizes=several)
