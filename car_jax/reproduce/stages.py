"""The stages of an experiment: each is a command, and its own files say whether it is done.

Folders below the workdir, of a training called `train`: train/seed0, train/seed1, ..; train-report,
of all seeds; imagenet, the start; released, the authors' weights; models, those of a study.
"""

import dataclasses
import importlib
import pathlib
import shlex
from collections.abc import Callable, Iterator

import jax
from ml_collections import ConfigDict

from car_jax import batch_size, files, saved_steps, workdir, writers
from car_jax import config as configs
from car_jax.data.prepared import default_data_dir
from car_jax.errors import UserError
from car_jax.importers import registry
from car_jax.reliability import study_options
from car_jax.reproduce import counts
from car_jax.reproduce.experiments import TORCHVISION, Experiment, Start, Training

Changes = tuple[tuple[str, str], ...]
CAR_JAX, LABEL_MAPS = 'car_jax.__main__', 'car_jax.evaluate.label_maps'
RESULTS, STUDY = 'results.json', 'study.json'
RANDOM = 'none'  # --imagenet: no weights
VALIDATION = 'configs/reliability_validation.py'
SETTLED = ('log_every', 'save_every', 'keep', 'data.threads', 'data.workers', 'data.eval_batch')


@dataclasses.dataclass(frozen=True)
class Request:
  """What a user asked for, checked; `changes` are those of every config that is trained."""

  experiment: Experiment
  workdir: pathlib.Path
  sources: tuple[pathlib.Path | None, ...] = ()
  data_dir: pathlib.Path = dataclasses.field(default_factory=default_data_dir)
  seeds: int = 3
  changes: Changes = ()
  imagenet: str = ''
  released: str = ''
  partial: bool = False

  def departures(self) -> list[str]:
    """Why no comparison of it is one with the publication."""
    lines = ['part of the data (--partial)'] if self.partial else []
    if self.experiment.start and self.imagenet == RANDOM and not self.released:
      lines.append("no ImageNet's weights to begin with")
    for training in self.experiment.trainings if not self.released else ():
      _, changed = effective_config(training.config, self.changes)
      lines += [f'{training.name}: {line.partition(";")[0]}' for line in changed]
    return lines + [f'{key}={value}' for key, value in self.changes if key not in SETTLED]

  def caveat(self) -> list[str]:
    """The same as a line to print; none without departures."""
    departures = '; '.join(self.departures())
    return [f'No reproduction, and compared with nothing: {departures}.'] if departures else []


@dataclasses.dataclass(frozen=True)
class Stage:
  """One command. `done` reads the files that it leaves; one that was interrupted is not done."""

  name: str
  arguments: tuple[str, ...]
  done: Callable[[], bool]
  module: str = CAR_JAX
  training: Training | None = None
  """What it trains, where it does."""

  @property
  def command(self) -> str:
    program = 'car-jax' if self.module == CAR_JAX else f'python -m {self.module}'
    return f'{program} {shlex.join(self.arguments)}'

  def run(self) -> int:
    """The exit status of the command."""
    return importlib.import_module(self.module).main([*self.arguments])


def of(request: Request) -> list[Stage]:
  """All stages, in their order. Raises UserError."""
  made = [*_preparing(request)]
  if request.experiment.study:
    return [*made, *_studying(request)]
  if request.released:
    return [*made, *_released(request)]
  if start := request.experiment.start:
    made += _imagenet(request, start)
  for training in request.experiment.trainings:
    for seed in range(request.seeds):
      if training.after:
        made += _finds(request, training.after, seed)
      made.append(_training(request, training, seed))
    made.append(_report(training.name, request.workdir / training.name))
  return made


def chosen(stages: list[Stage], name: str) -> list[Stage]:
  """Those that are called so, or lie below: `train` is all seeds and their report. UserError."""
  if not name:
    return stages
  named = [s for s in stages if s.name == name or s.name.startswith(f'{name}/')]
  if not named:
    raise UserError(f'no stage {name!r}\n  known: {", ".join(s.name for s in stages)}')
  return named


def _preparing(request: Request) -> Iterator[Stage]:
  for source, folder in zip(request.experiment.sources, request.sources, strict=True):
    given = ('--source', str(folder or 'FOLDER'), *_data_dir('', request))
    done = lambda source=source: counts.prepared(source, request.data_dir)
    yield Stage(f'prepare/{source.data}', ('prepare', source.data, *source.options, *given), done)


def _data_dir(key: str, request: Request) -> tuple[str, ...]:
  """An option where it is not the default: of car-jax prepare, or a `key` of a config."""
  if request.data_dir == default_data_dir():
    return ()
  return (f'--config.{key}={request.data_dir}',) if key else ('--data-dir', str(request.data_dir))


def _imagenet(request: Request, start: Start) -> Iterator[Stage]:
  if request.imagenet == RANDOM:
    return
  importer, _, path = (request.imagenet or start.file).rpartition(':')
  arguments = ('import', importer or 'torchvision', path, '--config', start.config)
  out = request.workdir / 'imagenet'
  own = any(t.config == start.config for t in request.experiment.trainings)
  yield Stage(
    'imagenet',
    (*arguments, '--out', str(out), *_flags(request.changes if own else ())),
    lambda: (out / 'config.json').exists(),
  )


def check_imagenet(request: Request) -> None:
  """Raises UserError where ImageNet's weights are needed and their file is not there."""
  start, out = request.experiment.start, request.workdir / 'imagenet'
  if start is None or request.released or request.imagenet == RANDOM or out.exists():
    return
  path = request.imagenet.rpartition(':')[2]
  if not path or not pathlib.Path(path).exists():
    what = f'--imagenet {path} is not there' if path else '--imagenet is missing'
    raise UserError(
      f"{what}: the published training begins with ImageNet's weights\n"
      f'  get {TORCHVISION}{start.file}, then --imagenet {start.file} (or --imagenet timm:FILE)\n'
      f'  --imagenet {RANDOM} trains without, which is no reproduction'
    )


def _training(request: Request, training: Training, seed: int) -> Stage:
  run = request.workdir / training.name / f'seed{seed}'
  changes = training_changes(request, training, seed)
  config, _ = effective_config(training.config, changes)
  arguments = ('train', '--config', training.config, '--workdir', str(run), *_flags(changes))
  done = lambda: trained(run, config)
  return Stage(f'{training.name}/seed{seed}', arguments, done, training=training)


def effective_config(path: str, changes: Changes) -> tuple[ConfigDict, list[str]]:
  """The config that a training on the devices here keeps, and what is another in it."""
  config = configs.load(path, changes)
  return batch_size.effective(config, jax.device_count(), jax.process_count())


def training_changes(request: Request, training: Training, seed: int) -> Changes:
  """Of the training's config: ours, then the user's."""
  made = [('seed', str(seed))]
  if request.data_dir != default_data_dir():
    made.append(('data.data_dir', str(request.data_dir)))
  if training.start and request.imagenet != RANDOM:
    made.append((f'init.{training.start.part}', f'{request.workdir / "imagenet"}:net'))
  if training.after:
    made.append(('init.net', f'{request.workdir / training.after / f"seed{seed}"}:net'))
    made.append(('data.target.counts', str(_importance(request, seed) / 'counts.npz')))
  return (*made, *request.changes)


def trained(run: pathlib.Path, config: ConfigDict) -> bool:
  """Whether a run has all its steps and the evaluation after them. UserError: of another config."""
  if not workdir.check(run, config) or saved_steps.newest(run / saved_steps.LATEST) < config.steps:
    return False
  last = [row for _, row in writers.records(run / 'metrics.jsonl') if row['step'] == config.steps]
  scored = {key.partition('/')[0] for row in last for key in row}
  return scored >= {*config.evals}


def _importance(request: Request, seed: int) -> pathlib.Path:
  return request.workdir / 'found' / f'seed{seed}'


def _finds(request: Request, after: str, seed: int) -> Iterator[Stage]:
  """What a first stage finds on the target's training images, by which the second draws them."""
  run, out = request.workdir / after / f'seed{seed}', _importance(request, seed)
  report, counted = out / 'report', out / 'counts.npz'
  given = ('--checkpoint', str(run), '--config.report.split=train', '--save', 'labels')
  arguments = ('eval', *given, '--out', str(report))
  yield _scoring(f'found/seed{seed}', arguments, report / RESULTS, run)
  done = lambda: counted.exists() and not _older(counted, out / 'arrays' / 'index.json')
  maps = (str(out / 'arrays' / 'argmax'), str(counted))
  yield Stage(f'counts/seed{seed}', maps, done, LABEL_MAPS)


def _report(name: str, runs: pathlib.Path) -> Stage:
  out = runs.with_name(f'{runs.name}-report')
  arguments = ('eval', '--checkpoint', f'{name}={runs}', '--out', str(out))
  return _scoring(f'{name}/report', arguments, out / RESULTS, runs)


def _scoring(
  name: str, arguments: tuple[str, ...], made: pathlib.Path, runs: pathlib.Path
) -> Stage:
  """Done where the file that was `made` is of this command, and no checkpoint below is newer."""

  def done() -> bool:
    if not made.exists() or any(_older(made, p) for p in runs.glob('**/checkpoints/*')):
      return False
    return files.read_json(made)['command'] == stage.command

  stage = Stage(name, arguments, done)
  return stage


def _older(path: pathlib.Path, than: pathlib.Path) -> bool:
  return than.exists() and path.stat().st_mtime < than.stat().st_mtime


def _released(request: Request) -> Iterator[Stage]:
  """The authors' weights: imported and scored."""
  last, out = request.experiment.trainings[-1], request.workdir / 'released'
  arguments = ('import', request.experiment.importer, request.released, '--config', last.config)
  more = (*_data_dir('data.data_dir', request), *_flags(request.changes))
  done = lambda: (out / 'config.json').exists()
  yield Stage('import', (*arguments, '--out', str(out), *more), done)
  yield _report('released', out)


def _studying(request: Request) -> Iterator[Stage]:
  """A folder of weights imported, their accuracy on all validation images, the study."""
  runs = request.workdir / 'models'
  study, validation = f'{request.experiment.study}:{runs}', f'{VALIDATION}:{runs}'
  weights = request.released or 'FOLDER'
  yield Stage(
    'import',
    ('import', 'registry', study, '--weights', weights),
    lambda: registry.complete(study, weights),
  )
  for name, config in (('validation', validation), ('study', study)):
    out = request.workdir / name
    flags = (*_of_sets(config, request), *_flags(request.changes))
    arguments = ('eval', '--config', config, '--out', str(out), *flags)
    yield _scoring(name, arguments, out / STUDY, runs)


def _of_sets(config: str, request: Request) -> tuple[str, ...]:
  """Where the data of a study's sets lie, where that is not the default."""
  full = study_options.load(config)
  places = [f'sets.{name}' for name in full.sets]
  places += ['calibrate_on'] if full.calibrate_on else []
  return tuple(f for p in places for f in _data_dir(f'{p}.data.data_dir', request))


def _flags(changes: Changes) -> tuple[str, ...]:
  return tuple(f'--config.{key}={value}' for key, value in changes)
