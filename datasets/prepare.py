"""python -m datasets.prepare NAME --source DIR: files as they come -> the data that train.py reads.

Prepared data appear under --data-dir when complete; an interrupted run leaves nothing behind. Bad
files are all named, by path, and then nothing is written.
"""

import argparse
import contextlib
import importlib
import io
import logging
import pathlib
import re
import shutil
import sys

from car_jax.data.sources import default_data_dir
from car_jax.errors import UserError, exit_on_user_error, nearest
from datasets import stopping

# name -> whether it needs --source, and its options with their defaults
DATASETS = {
  'lidc_masks': (False, {'size': 128, 'noise': 1.0, 'contrast': 1.0}),
  'lidc_crops': (True, {}),
  'lidc_v1': (True, {}),
  'lidc_dicom': (True, {'low': -1000.0, 'high': 400.0}),
  'cityscapes': (
    True,
    {'scale': 0.25, 'black_box': '', 'splits': 'ambiguity', 'augmented': 0},
  ),
  'acdc': (True, {'scale': 0.25}),
  'idd': (True, {'scale': 0.5, 'unknown': ''}),
  'gta5': (True, {'scale': 1.0}),
  'synthia': (True, {'scale': 1.0}),
  'street_scenes': (
    False,
    {
      **{'height': 128, 'count': 800, 'domain': 'clear', 'strength': 1.0, 'seed': 0},
      **{'unknown': 0.0, 'part': 'all'},
    },
  ),
  'folder': (
    True,
    {
      **{'variant': '', 'classes': '', 'validation': 0.15, 'test': 0.15, 'seed': 0},
      **{'unlabelled': False},
    },
  ),
}
SPLITS = ('ambiguity', 'reliability', 'adaptation')  # of Cityscapes


def parse(arguments: list[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser(prog='python -m datasets.prepare', description=__doc__)
  parser.add_argument('name', help=', '.join(DATASETS))
  parser.add_argument('--source', type=pathlib.Path, help='folder (or CSV) with the files')
  parser.add_argument('--data-dir', type=pathlib.Path, default=default_data_dir())
  parser.add_argument('--overwrite', action='store_true', help='replace what is prepared')
  keys = dict.fromkeys(k for _, group in DATASETS.values() for k in group)
  for key in keys:
    owners = (f'{n}: {group[key]!r}' for n, (_, group) in DATASETS.items() if key in group)
    told = f'defaults {", ".join(owners)}'
    switch = {'action': 'store_true', 'default': None} if key == 'unlabelled' else {}
    parser.add_argument(f'--{key.replace("_", "-")}', help=told, **switch)
  args = parser.parse_args(arguments)
  for key, default in DATASETS.get(args.name, (False, {}))[1].items():
    text = getattr(args, key)
    try:  # one option may be a number for one data set and a list for another
      setattr(args, key, None if text is None else type(default)(text))
    except ValueError:
      parser.error(f'argument --{key}: invalid {type(default).__name__} value: {text!r}')
  return args


@exit_on_user_error
def main(arguments: list[str]) -> int:
  args = parse(arguments)
  if args.name not in DATASETS:
    raise UserError(f'no data set {args.name!r}\n{nearest(args.name, DATASETS)}')
  needs_source, defaults = DATASETS[args.name]
  given = {k: v for k, v in vars(args).items() if v is not None}
  common = ('name', 'source', 'data_dir', 'overwrite')
  for key in given.keys() - set(defaults) - set(common):
    known = [k.replace('_', '-') for k in defaults]
    raise UserError(f'{args.name} has no option --{key}\n{nearest(key, known)}')
  if needs_source != (args.source is not None):
    raise UserError(
      f'{args.name} needs --source: the folder with its files; see docs/data.md'
      if needs_source
      else f'{args.name} ships with the project and takes no --source'
    )
  if args.source is not None and not args.source.exists():
    raise UserError(f'no such source {args.source}')
  values = {k: given.get(k, v) for k, v in defaults.items()}
  check(values)
  try:
    folder = prepare(args.name, args.source, args.data_dir, values, args.overwrite)
  except OSError as e:
    raise UserError(f'{e.strerror or e}: {e.filename or args.data_dir}') from None
  except RuntimeError as e:
    failed = re.search(r'\w+\(\) failed: ([^;]*)', str(e))  # how ArrayRecord tells of a full disk
    if not failed:
      raise
    raise UserError(f'cannot write to {args.data_dir}: {failed[1]}') from None
  print(f'prepared {folder}')
  return 0


def check(values: dict) -> None:
  """Raises UserError for an option outside its range."""
  valid = {
    'size': lambda v: 1 <= v <= 128,
    'scale': lambda v: 0 < v <= 1,
    'height': lambda v: 32 <= v <= 1024 and v % 2 == 0,
    'count': lambda v: v >= 4,
    'splits': lambda v: v in SPLITS,
    'augmented': lambda v: v == 0 or (v > 0 and values['splits'] == 'reliability'),
    'unknown': lambda v: isinstance(v, str) or 0 <= v <= 1,
    'noise': lambda v: v >= 0,
    'contrast': lambda v: v >= 0,
    'low': lambda v: v < values['high'],
    'validation': lambda v: v >= 0 and v + values['test'] < 1,
    'test': lambda v: v >= 0,
    'variant': lambda v: re.fullmatch(r'([A-Za-z][\w-]*)?', v),
  }
  expected = {
    'size': '1 to 128',
    'scale': 'more than 0, at most 1',
    'height': 'an even number from 32 to 1024',
    'count': '4 or more',
    'splits': f'{", ".join(SPLITS[:-1])} or {SPLITS[-1]}',
    'augmented': '0 or more, and with it --splits reliability',
    'unknown': '0 to 1: the share of scenes with unknown objects',
    'low': 'less than --high',
    'validation': '0 or more, and with --test less than 1',
    'variant': 'a name of letters, digits, - and _',
  }
  for key, value in values.items():
    if key in valid and not valid[key](value):
      raise UserError(f'--{key} cannot be {value!r}\n  expected {expected.get(key, "0 or more")}')


def variant(values: dict, defaults: dict) -> str:
  """The data set's second name: --variant, or the options that differ from their defaults."""
  if 'variant' in values:
    return values['variant']
  changed = {k: v for k, v in values.items() if v != defaults[k] and k != 'black_box'}
  told = lambda v: '_' + v.replace(' ', '') if isinstance(v, str) else f'{v:g}'
  return '-'.join(f'{k}{told(v)}' for k, v in changed.items())


def prepare(
  name: str,
  source: pathlib.Path | None,
  data_dir: pathlib.Path,
  values: dict,
  overwrite: bool = False,
) -> pathlib.Path:
  """Prepares one data set and returns its folder. Raises UserError."""
  import tensorflow_datasets as tfds

  from datasets import common

  tfds.disable_progress_bar()
  logging.getLogger('absl').setLevel(logging.ERROR)  # it shows every option as a warning
  module = importlib.import_module(f'datasets.{name}.{name}_dataset_builder')
  chosen = variant(values, DATASETS[name][1])
  options = common.Options(name=chosen or 'default', source=source, values=values)
  data_dir = data_dir.expanduser()
  home = data_dir / name / options.name
  done = [p.parent for p in home.glob(f'{module.Builder.VERSION}/dataset_info.json')]
  if done and not overwrite:
    print(f'already prepared; --overwrite to do it again ({done[0]})')
    return done[0]
  for left in home.glob('*incomplete*'):  # an earlier run was killed
    shutil.rmtree(left)
  module.Builder.name = name
  beside = home / 'overwrite.incomplete'  # what is there stays until the new one is complete
  builder = module.Builder(
    data_dir=str(beside if done else data_dir),
    config=options,
    file_format=tfds.core.FileFormat.ARRAY_RECORD,
  )
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      builder.download_and_prepare()
    made = pathlib.Path(builder.data_dir)
    final = home / made.name
    if done:
      if final.exists():
        final.rename(beside / 'old')
      made.rename(final)
    return final
  finally:
    shutil.rmtree(beside, ignore_errors=True)


if __name__ == '__main__':
  stopping.listen()
  try:
    sys.exit(main(sys.argv[1:]))
  except KeyboardInterrupt:
    print('\ninterrupted: no half data set is left; run the same command again', file=sys.stderr)
    sys.exit(130)
