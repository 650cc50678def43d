"""python -m datasets.prepare NAME --source DIR: files as they come -> the data that train.py reads.

Prepared data appear under --data-dir when complete; an interrupted run leaves nothing behind. Bad
files are all named, by path, and then nothing is written.
"""

import argparse
import contextlib
import importlib
import io
import logging
import os
import pathlib
import re
import shutil
import sys
import textwrap
from typing import Any

from car_jax import files
from car_jax.data.prepared import KNOWN, default_data_dir
from car_jax.errors import UserError, exit_on_user_error, nearest
from datasets import options, stopping

COMMON = ('name', 'source', 'data_dir', 'overwrite')


def builder(name: str) -> Any:
  """The class that prepares a data set; its SOURCE and OPTIONS say what it can be asked."""
  return importlib.import_module(f'datasets.{name}.{name}_dataset_builder').Builder


def parser(name: str = '') -> argparse.ArgumentParser:
  """Of the command for one data set; without a name, of what all of them take."""
  made = argparse.ArgumentParser(
    prog=f'python -m datasets.prepare {name or "NAME"}',
    description=textwrap.dedent('  ' + (builder(name).__doc__ if name else __doc__).strip()),
    epilog='' if name else f'NAME --help lists the options of one: {", ".join(KNOWN)}',
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  source = builder(name).SOURCE if name else 'the files, for data that do not ship with the project'
  made.add_argument('--source', type=pathlib.Path, help=source or 'none: made on the spot')
  default = default_data_dir()
  told = f'where prepared data lie; default $TFDS_DATA_DIR or {default}'
  made.add_argument('--data-dir', type=pathlib.Path, default=default, help=told)
  made.add_argument('--overwrite', action='store_true', help='replace what is prepared')
  if name:
    add_options(made, builder(name))
  return made


def add_options(made: argparse.ArgumentParser, built: Any) -> None:
  """A flag for each option of a builder, as text: `values` reads it."""
  group = made.add_argument_group('options of this data set') if built.OPTIONS else made
  for key, option in built.OPTIONS.items():
    more = {'metavar': key.upper()}
    if isinstance(option.default, bool):
      more = {'action': 'store_true', 'default': None}
    group.add_argument(f'--{key.replace("_", "-")}', help=option.told.replace('%', '%%'), **more)


def values(built: Any, given: argparse.Namespace) -> dict[str, Any]:
  """What was typed, and the defaults of what was not. Raises UserError: a range, a conflict."""
  typed = {k: getattr(given, k) for k in built.OPTIONS if getattr(given, k) is not None}
  found = {k: options.parsed(k, typed[k], built.OPTIONS[k]) for k in typed}
  found = defaults(built) | found
  built.check(found)
  return found


def defaults(built: Any) -> dict[str, Any]:
  return {key: option.default for key, option in built.OPTIONS.items()}


def parse(arguments: list[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
  """The common arguments, and the options of the data set. Raises UserError."""
  first = arguments[:1] if arguments and not arguments[0].startswith('-') else arguments
  name = next((a for a in first if a in KNOWN), '')
  if not name:
    wanted = next((a for a in arguments if not a.startswith('-')), '')
    if {'-h', '--help'} & {*arguments}:
      parser().parse_args(['--help'])
    raise UserError(f'no data set {wanted!r}\n{nearest(wanted, KNOWN)}')
  arguments = [*arguments]
  arguments.remove(name)
  built = builder(name)
  args, unknown = parser(name).parse_known_args(arguments)
  for text in unknown:
    if not text.startswith('--'):
      raise UserError(
        f'{text!r} belongs to no option\n  all: python -m datasets.prepare {name} --help'
      )
    known = [k.replace('_', '-') for k in (*built.OPTIONS, *COMMON[1:])]
    key = text[2:].partition('=')[0]
    raise UserError(
      f'{name} has no option --{key}\n{nearest(key, known)}\n'
      f'  all: python -m datasets.prepare {name} --help'
    )
  args.name = name
  return args, values(built, args)


def _check_source(name: str, wanted: str, source: pathlib.Path | None) -> None:
  if bool(wanted) != (source is not None):
    raise UserError(
      f'{name} needs --source: {wanted}; see docs/data.md'
      if wanted
      else f'{name} ships with the project and takes no --source'
    )
  if source is not None and not source.is_dir():
    if not os.path.lexists(source):
      raise UserError(f'no such source {source}')
    files.check_regular(source)


@exit_on_user_error
def main(arguments: list[str]) -> int:
  args, chosen = parse(arguments)
  _check_source(args.name, builder(args.name).SOURCE, args.source)
  try:
    folder, told = prepare(args.name, args.source, args.data_dir, chosen, args.overwrite)
  except RuntimeError as e:
    failed = re.search(r'\w+\(\) failed: ([^;]*)', str(e))  # how ArrayRecord tells of a full disk
    if not failed:
      raise
    raise UserError(f'cannot write to {args.data_dir}: {failed[1]}') from None
  first = (
    f'prepared {folder}' if told else f'already prepared; --overwrite to do it again ({folder})'
  )
  text = '\n'.join([first, *told, next_command(args.name, chosen, args.data_dir)])
  print(text.encode(errors='backslashreplace').decode())  # paths may not be UTF-8
  return 0


def next_command(name: str, chosen: dict[str, Any], data_dir: pathlib.Path) -> str:
  """What to type to use it."""
  built = builder(name)
  full = '/'.join(part for part in (name, variant(chosen, built)) if part)
  if built.CONFIG.startswith('reliability'):  # to be tested on, not trained on
    return f'next: name {full} in configs/{built.CONFIG}.py, then python eval.py --config that'
  key = 'data.source' if built.CONFIG.startswith('sac_') else 'data'
  where = '' if data_dir == default_data_dir() else f' --config.{key}.data_dir={data_dir}'
  return (
    f'next: python train.py --config configs/{built.CONFIG}.py '
    f'--workdir runs/{full.replace("/", "-")} --config.{key}.name={full}{where}'
  )


def variant(chosen: dict[str, Any], built: Any) -> str:
  """The data set's second name: --variant, or the options that differ from their defaults."""
  if 'variant' in chosen:
    return chosen['variant']
  usual = defaults(built)
  changed = {k: v for k, v in chosen.items() if v != usual[k] and k != 'black_box'}
  told = lambda v: '_' + v.replace(' ', '') if isinstance(v, str) else f'{v:g}'
  return '-'.join(f'{k}{told(v)}' for k, v in changed.items())


def prepare(
  name: str,
  source: pathlib.Path | None,
  data_dir: pathlib.Path,
  values: dict,
  overwrite: bool = False,
) -> tuple[pathlib.Path, list[str]]:
  """Prepares one data set -> its folder, and what it is made of; nothing if it was there already.

  Raises UserError.
  """
  import tensorflow_datasets as tfds

  from datasets import common

  tfds.disable_progress_bar()
  logging.getLogger('absl').setLevel(logging.ERROR)  # it shows every option as a warning
  Builder = builder(name)
  second = variant(values, Builder)
  config = common.Options(name=second or 'default', source=source, values=values)
  data_dir = data_dir.expanduser()
  home = data_dir / name / config.name
  done = [p.parent for p in home.glob(f'{Builder.VERSION}/dataset_info.json')]
  if done and not overwrite:
    return done[0], []
  for left in home.glob('*incomplete*'):  # an earlier run was killed
    shutil.rmtree(left)
  Builder.name = name
  beside = home / 'overwrite.incomplete'  # what is there stays until the new one is complete
  made_by = Builder(
    data_dir=str(beside if done else data_dir),
    config=config,
    file_format=tfds.core.FileFormat.ARRAY_RECORD,
  )
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      made_by.download_and_prepare()
    made = pathlib.Path(made_by.data_dir)
    final = home / made.name
    if done:
      if final.exists():
        final.rename(beside / 'old')
      made.rename(final)
    return final, made_by.told()
  finally:
    shutil.rmtree(beside, ignore_errors=True)


if __name__ == '__main__':
  stopping.listen()
  try:
    sys.exit(main(sys.argv[1:]))
  except KeyboardInterrupt:
    print('\ninterrupted: no half data set is left; run the same command again', file=sys.stderr)
    sys.exit(130)
