"""car-jax calibrate RUN --out FILE: a calibrator for a run, fitted to labelled images of its data.

RUN is a --workdir of car-jax train. Each of several readers counts alike, and a method that draws
samples is calibrated on their mean. --config.data.KEY=VALUE changes where its data is. A run of
local temperature scaling (configs/lts_street_scenes.py) is a calibrator already: it is written as
it is.
"""

import argparse

from car_jax import combined, errors, paths
from car_jax import config as configs
from car_jax.commands import own
from car_jax.errors import UserError, command_line, exit_on_user_error

TRAINED = 'lts'  # the method that learns a calibrator
KIND = 'temperature'


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
  parser = errors.parser('calibrate', __doc__)
  parser.add_argument('run', help='folder of the run')
  parser.add_argument('--out', required=True, help='the file to write, such as temperature.npz')
  parser.add_argument('--step', default='', help='best, latest or a number (default: the best)')
  parser.add_argument('--kind', default='', help=f'{KIND} (default), per_class, clusters, ..')
  parser.add_argument('--split', default='', help='of the data of the run (default: validation)')
  own.add(parser)
  return parser.parse_known_args(arguments)


@exit_on_user_error
def main(arguments: list[str]) -> int:
  args, rest = parse(arguments)
  changes = configs.split_overrides(rest)
  if not args.out.endswith('.npz'):
    raise UserError(f'--out {args.out} is no .npz file\n  use --out {args.out}.npz')
  own.trust(args)
  from car_jax import folders
  from car_jax.calibrate import files, local, of_run
  from car_jax.evaluate import checkpointed

  folders.check_writable(paths.of(args.out).parent)
  _, run = checkpointed.name_and_folder(args.run)
  config = configs.override(checkpointed.read_config(run, args.step), changes)
  if config.method.name == TRAINED and not combined.is_named(run):
    if args.kind or args.split or changes:
      raise UserError(
        f'{args.run} is a run of lts, a calibrator itself: give --out and --step alone'
      )
    fit = local.from_run(run, args.step)
  else:
    how = of_run.Drawn(split=args.split or 'validation', seed=config.seed)
    fit = of_run.fit(run, config, args.kind or KIND, how, args.step)
    a = fit.about
    of = f'{a["kind"]}, {a["images"]:,} images of {how.split}, {a["readers"]} readers'
    print(f'{of}: {fit.change}')
    print(''.join(f'warning: {line}\n' for line in a['warnings']), end='')
  files.save(args.out, fit)
  print(f'{args.run} -> {args.out}')
  return 0


if __name__ == '__main__':
  command_line(main)
