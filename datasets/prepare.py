"""car-jax prepare NAME --source DIR: files as they come -> the data that car-jax train reads.

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
import tempfile
import textwrap
from typing import Any

from car_jax import files, paths, stopping
from car_jax.data.prepared import KNOWN, default_data_dir
from car_jax.datasets import options, suggestion
from car_jax.errors import UserError, command_line, exit_on_user_error, nearest
from car_jax.options import declared

COMMON = ('source', 'data_dir', 'overwrite')


def builder(name: str) -> Any:
  """The TFDS builder of a data set; its configs say what it can be asked."""
  return importlib.import_module(f'car_jax.datasets.{name}').Builder


def parser(name: str = '') -> argparse.ArgumentParser:
  """Of the command for one data set; without a name, of what all of them take."""
  made = argparse.ArgumentParser(
    prog=f'car-jax prepare {name or "NAME"}',
    description=textwrap.dedent('  ' + (builder(name).__doc__ if name else __doc__).strip()),
    epilog='' if name else f'NAME --help lists the options of one: {", ".join(KNOWN)}',
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  source = instructions(name) if name else 'the files, for data that do not ship with the project'
  made.add_argument('--source', type=paths.local, help=source or 'none: made on the spot')
  default = default_data_dir()
  where = f'where prepared data lie; default $TFDS_DATA_DIR or {default}'
  made.add_argument('--data-dir', type=paths.of, default=default, help=where)
  made.add_argument('--overwrite', action='store_true', help='replace what is prepared')
  if name:
    add_options(made, builder(name))
  return made


def instructions(name: str) -> str:
  """What has to lie in a data set's source; empty for one that needs none."""
  return ' '.join((builder(name).MANUAL_DOWNLOAD_INSTRUCTIONS or '').split())


def add_options(made: argparse.ArgumentParser, built: Any) -> None:
  """A flag for each option of a builder's configs, as text: `config_of` reads it."""
  known = declared(built.builder_config_cls)
  group = made.add_argument_group('options of this data set') if known else made
  for key, option in known.items():
    more: dict[str, Any] = {'metavar': key.upper()}
    if isinstance(option.default, bool):
      more = {'action': 'store_true', 'default': None}
    group.add_argument(options.flag(key), help=options.help_line(option).replace('%', '%%'), **more)


def config_of(built: Any, given: argparse.Namespace) -> Any:
  """The config with the options that were typed. Raises UserError: a range, a conflict."""
  known = declared(built.builder_config_cls)
  typed = {k: getattr(given, k) for k in known if getattr(given, k) is not None}
  return built.builder_config_cls(**{k: options.parsed(k, known[k], typed[k]) for k in typed})


def parse(arguments: list[str]) -> tuple[argparse.Namespace, Any]:
  """The common arguments, and the config of the data set. Raises UserError."""
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
    end = f'  all: car-jax prepare {name} --help'
    if not text.startswith('--'):
      raise UserError(f'{text!r} belongs to no option\n{end}')
    known = [options.flag(k)[2:] for k in (*declared(built.builder_config_cls), *COMMON)]
    key = text[2:].partition('=')[0]
    raise UserError(f'{name} has no option --{key}\n{nearest(key, known)}\n{end}')
  args.name = name
  return args, config_of(built, args)


def place(name: str, config: Any, data_dir: pathlib.Path) -> pathlib.Path:
  """The folder of a prepared data set."""
  return data_dir.expanduser() / name / config.name / config.version


def check_source(name: str, source: pathlib.Path | None) -> None:
  """Raises UserError for a source that is not there, or not wanted."""
  wanted = instructions(name)
  if wanted and source is None:
    raise UserError(f'{name} needs --source: {wanted}; see docs/data.md')
  if source is not None and not wanted:
    raise UserError(f'{name} ships with the project and takes no --source')
  if source is not None and not source.is_dir():
    if not os.path.lexists(source):
      raise UserError(f'no such source {source}')
    files.check_regular(source)


@exit_on_user_error
def main(arguments: list[str]) -> int:
  args, config = parse(arguments)
  check_source(args.name, args.source)
  try:
    with stopping.listening():
      folder, report = prepare(args.name, args.source, args.data_dir, config, args.overwrite)
  except KeyboardInterrupt:
    print('\ninterrupted: no half data set is left; run the same command again', file=sys.stderr)
    return 130
  except RuntimeError as e:
    failed = re.search(r'\w+\(\) failed: ([^;]*)', str(e))  # how ArrayRecord tells of a full disk
    if not failed:
      raise
    raise UserError(f'cannot write to {args.data_dir}: {failed[1]}') from None
  done = f'prepared {folder}'
  if not report:
    done = f'already prepared; --overwrite to do it again ({folder})'
  if args.data_dir == default_data_dir() and report:
    report = [f'  --data-dir or TFDS_DATA_DIR puts it elsewhere than {args.data_dir}', *report]
  then = suggestion.lines(args.name, builder(args.name), config, args.data_dir)
  text = '\n'.join([done, *report, *then])
  print(text.encode(errors='backslashreplace').decode())  # paths may not be UTF-8
  return 0


def prepare(
  name: str, source: pathlib.Path | None, data_dir: pathlib.Path, config: Any, overwrite: bool
) -> tuple[pathlib.Path, list[str]]:
  """Prepares one data set -> its folder, and what it is made of; nothing if it was there already.

  source: a folder, or for some data sets a file. Raises UserError.
  """
  import tensorflow_datasets as tfds

  tfds.disable_progress_bar()
  logging.getLogger('absl').setLevel(logging.ERROR)
  manual_dir = None
  if source is not None:
    config = config.for_source(source)
    manual_dir = source if source.is_dir() else source.parent
  data_dir = data_dir.expanduser()
  final = place(name, config, data_dir)
  if (final / 'dataset_info.json').exists() and not overwrite:
    return final, []
  if paths.is_remote(data_dir):  # ArrayRecord's writer makes files of this machine alone
    with tempfile.TemporaryDirectory(prefix='car_jax-') as here:
      made, report = _prepared(builder(name), config, manual_dir, pathlib.Path(here) / name)
      paths.sent(made, final, last='dataset_info.json')
    return final, report
  return _prepared(builder(name), config, manual_dir, data_dir / name)


def _prepared(
  built: Any, config: Any, manual_dir: pathlib.Path | None, home: pathlib.Path
) -> tuple[pathlib.Path, list[str]]:
  """Makes one data set in the folder of its name, or makes it again -> as `prepare`."""
  import tensorflow_datasets as tfds

  data_dir, home = home.parent, home / config.name
  final = home / config.version
  for left in (*home.glob('*incomplete*'), *home.parent.glob('.config/*incomplete*')):
    shutil.rmtree(left) if left.is_dir() else left.unlink()  # an earlier run was killed
  beside = home / 'overwrite.incomplete'  # what is there stays until the new one is complete
  replaced = final.exists()
  made_by = built(data_dir=beside if replaced else data_dir, config=config)
  download = tfds.download.DownloadConfig(manual_dir=manual_dir)
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      made_by.download_and_prepare(download_config=download)
    if replaced:
      final.rename(beside / 'old')
      pathlib.Path(made_by.data_dir).rename(final)
    return final, made_by.report()
  finally:
    shutil.rmtree(beside, ignore_errors=True)


if __name__ == '__main__':
  command_line(main)
