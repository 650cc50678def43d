"""car-jax calibrate RUN --out FILE: the calibrator of a run of local temperature scaling.

RUN is a --workdir of car-jax train with a config such as configs/lts_street_scenes.py.
"""

import argparse

from car_jax import errors, paths
from car_jax.errors import UserError, command_line, exit_on_user_error


def parse(arguments: list[str]) -> argparse.Namespace:
  parser = errors.parser('calibrate', __doc__)
  parser.add_argument('run', help='folder of the run')
  parser.add_argument('--out', required=True, help='the file to write, such as lts.npz')
  parser.add_argument('--step', default='', help='best, latest or a number (default: the best)')
  return parser.parse_args(arguments)


@exit_on_user_error
def main(arguments: list[str]) -> int:
  args = parse(arguments)
  if not args.out.endswith('.npz'):
    raise UserError(f'--out {args.out} is no .npz file\n  use --out {args.out}.npz')
  from car_jax.calibrate import files, local
  from car_jax.evaluate import folders

  folders.check_writable(paths.of(args.out).parent)
  files.save(args.out, local.from_run(args.run, args.step))
  print(f'{args.run} -> {args.out}')
  return 0


if __name__ == '__main__':
  command_line(main)
