"""Scores checkpoints or anybody's files against several readers, or carries out a study.

car-jax eval --checkpoint runs/demo/car [--config.report.split=test]
  The config comes from the (first) checkpoint; --config.KEY=VALUE changes it. Several checkpoints,
  or NAME=FOLDER, are compared in one report: report.html, report.md, results.json, per_image.csv.
car-jax eval --predictions [NAME=]FOLDER --labels FOLDER
  The same report of label maps, logits, probabilities or samples that anybody wrote as files, with
  every score that they have; several folders are compared. See docs/predictions.md.
car-jax eval --config configs/reliability.py [--checkpoint RUN | --predictions FOLDER]
  Accuracy, calibration and detection under shift, of the config's models or of those named here.

A config is Python that runs with your rights: read a stranger's before you use it. Checkpoints,
weights, arrays and pictures are data, and nothing in them runs.
"""

import argparse
import pathlib
import shlex
from typing import Any

from car_jax import config as configs
from car_jax import errors, paths
from car_jax.commands import cluster, own
from car_jax.errors import UserError, exit_on_user_error, writing


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
  parser = errors.parser('eval', __doc__)
  add = parser.add_argument
  add(
    '--checkpoint',
    default=[],
    action='append',
    help='[NAME=]FOLDER of a run, or of runs seed0, seed1, ..; may be repeated',
  )
  add('--config', default='', help='a study, such as configs/reliability.py')
  own.add(parser)
  cluster.add(parser)
  add_explain(parser)
  add(
    '--out',
    help='folder of the report (default: report in the checkpoint; of a study runs/NAME/study, or '
    'runs/NAME/study-checkpoints, study-predictions of models named here)',
  )
  one = parser.add_argument_group('with --checkpoint alone')
  one.add_argument('--step', default='', help='best, latest or a number (default: best, if kept)')
  one.add_argument(
    '--save',
    default='',
    help='samples, probabilities, logits, features, labels (joined by commas): also write these, '
    'into the folder `arrays` beside the report, `NAME-arrays` beside one that is called NAME',
  )
  one.add_argument(
    '--predictor',
    default=[],
    action='append',
    help='a row of the report, such as samples; may be repeated (default: all that they have)',
  )
  given = parser.add_argument_group('predictions made elsewhere')
  given.add_argument(
    '--predictions', default=[], action='append', help="[NAME=]FOLDER of anybody's files"
  )
  add_labels(given)
  study = parser.add_argument_group('with --config')
  more = study.add_argument
  more('--calibrator', default=[], action='append', help='[NAME=]FILE.npz that a study fitted')
  return parser.parse_known_args(arguments)


def add_explain(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('--explain', action='store_true', help='print what each score means')


def add_labels(parser: argparse._ActionsContainer) -> None:
  """Flags that say what predictions made elsewhere are scored against, and what they are."""
  add = parser.add_argument
  add('--labels', default='', help='their labels: a folder, or a CSV of pairs')
  add('--kind', default='', choices=KINDS, help='where their arrays do not say which they are')
  add(
    '--resize',
    default='',
    choices=['bilinear'],
    help='brings their arrays to the size of the labels',
  )
  add(
    '--classes',
    default='',
    help='without --config: NUMBER, NAME,NAME,.. or VALUE:NAME,.. of their classes',
  )
  add('--file-per', default='', choices=['image', 'sample'], help='what a file is of, if unclear')


@exit_on_user_error
def main(arguments: list[str]) -> int:
  args, rest = parse(arguments)
  with cluster.joined(args):  # first, so that the others learn what is wrong here
    pairs = configs.split_overrides(rest)
    _check(args)
    own.trust(args)
    from car_jax import ahead  # imports jax

    ahead.use_compilation_cache()
    command = f'car-jax eval {shlex.join(arguments)}'
    run = study if args.config else files if args.predictions else readers
    return run(args, pairs, command)


KINDS = ('logits', 'probabilities')
REPORT = 'runs/predictions/report'
CHECKPOINT, FILES, STUDY = ('step', 'save', 'predictor'), ('classes', 'file_per'), ('calibrator',)
OF_FILES = ('labels', 'kind', 'resize', *FILES)


def _check(args: argparse.Namespace) -> None:
  """Raises UserError for options that do not go together."""
  paths.of(args.out or '.')  # what cannot be written is said before anything is read
  given = lambda names: [f'--{k.replace("_", "-")}' for k in names if getattr(args, k)]
  if not (args.config or args.checkpoint or args.predictions):
    raise UserError(
      'nothing to score\n'
      '  give --checkpoint RUN, --predictions FOLDER or --config configs/reliability.py'
    )
  if wrong := given((*CHECKPOINT, *FILES, 'explain')) if args.config else given(STUDY):
    word = 'without' if args.config else 'with'
    raise UserError(f'{wrong[0]} goes {word} --config\n  see car-jax eval --help')
  if args.checkpoint and args.predictions:
    raise UserError('--checkpoint and --predictions do not go together\n  score them one by one')
  if wrong := given(CHECKPOINT if args.predictions else OF_FILES):
    raise UserError(
      f'{wrong[0]} belongs to --{"checkpoint" if args.predictions else "predictions"}'
    )


def readers(args: argparse.Namespace, pairs: list[tuple[str, str]], command: str) -> int:
  from car_jax import folders
  from car_jax.evaluate import checkpointed

  name, first = checkpointed.name_and_folder(args.checkpoint[0])
  first = str(folders.trainings(first)[0])
  changes = [pair for pair in pairs if pair[0].startswith('method.')]
  config = checkpointed.read_config(first, args.step)
  checkpointed.check_changes(config, changes)
  config = configs.override(config, pairs)
  configs.check(config)
  out = paths.of(args.out) if args.out else beside(paths.of(first), name)
  with writing(out):
    results, page = checkpointed.evaluate(
      args.checkpoint,
      config,
      out,
      step=args.step,
      saved=args.save,
      predictors=args.predictor,
      command=command,
      changes=changes,
    )
  show(results, page, args.explain)
  return 0


def files(args: argparse.Namespace, pairs: list[tuple[str, str]], command: str) -> int:
  from car_jax.predictions import command as predictions

  out = paths.of(args.out or REPORT)
  options = {name: getattr(args, name) for name in ('kind', 'resize', *FILES)}
  with writing(out):
    results, page = predictions.evaluate(
      args.predictions, args.labels, out, changes=pairs, command=command, **options
    )
  show(results, page, args.explain)
  return 0


def show(results: Any, page: pathlib.Path, explain: bool) -> None:
  """The summary on the terminal."""
  from car_jax import sharding
  from car_jax.evaluate import tables
  from car_jax.report import evaluation

  lines = [f'- {line}' for line in (*results.comparison(), *results.remarks())]
  table = evaluation.terminal(tables.as_json(results), explain=explain)
  sharding.say('\n'.join([table, *lines, f'report: {page}']))


def beside(run: pathlib.Path, name: str) -> pathlib.Path:
  """The folder `report` in the run; of one that cannot be written, of a model that ships or was
  downloaded, and of what is made of several runs, one in the current folder."""
  from car_jax import combined, folders, hub

  if hub.is_hub(run) or combined.is_named(str(run)):
    return pathlib.Path('runs', name.replace(' ', '-'), 'report')
  try:
    folders.check_writable(run)
    return run / 'report'
  except UserError:
    out = pathlib.Path('runs', f'{paths.absolute(run).name}-evaluated', 'report')
    print(f'{run} cannot be written: the report goes to {out} (--out names another place)')
    return out


def study(args: argparse.Namespace, pairs: list[tuple[str, str]], command: str) -> int:
  from car_jax import sharding
  from car_jax.reliability import command as studies
  from car_jax.reliability import correlation, findings, pivot, study_options, survival, view

  stated = study_options.load(args.config, pairs)
  notes = studies.left_out(stated) if args.predictions else []
  config = studies.with_models(
    stated,
    checkpoints=args.checkpoint,
    predictions=args.predictions,
    labels=args.labels,
    calibrators=args.calibrator,
    kind=args.kind,
    resize=args.resize,
  )
  of = '-predictions' if args.predictions else '-checkpoints' if args.checkpoint else ''
  out = args.out or f'runs/{pathlib.Path(args.config.partition(":")[0]).stem}/study{of}'
  content, page = studies.run(config, out, command, args.config, notes)
  seen = view.View(content)
  for table in (*pivot.tables(seen), *survival.tables(seen)):
    sharding.say('\n'.join([f'{table.title}: {table.about}', *table.terminal(), '']))
  sharding.say('\n'.join(f'- {line}' for line in findings.findings(seen)))
  if correlated := correlation.as_table(seen):
    sharding.say('\n'.join(['', correlated.title, *correlated.terminal(), '']))
  sharding.say(f'report: {page}')
  return 0
