"""Trains: car-jax train --config configs/demo.py --workdir runs/demo [--config.KEY=VALUE].

The same command continues an interrupted run. A config is Python that runs with your rights: read a
stranger's before you use it.
"""

import argparse

from car_jax import config as configs
from car_jax import errors, memory
from car_jax.commands import cluster, options
from car_jax.errors import UserError, exit_on_user_error


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
  parser = errors.parser('train', __doc__)
  add = parser.add_argument
  add('--config', required=True, help='a file such as configs/car_lidc.py, or file:variant')
  add('--workdir', help='where checkpoints, metrics.jsonl and TensorBoard files go')
  add('--options', action='store_true', help='list all options of the config, and train nothing')
  add('--new', action='store_true', help='start over; an old run in --workdir is moved aside')
  cluster.add(parser)
  return parser.parse_known_args(arguments)


@exit_on_user_error
def main(arguments: list[str]) -> int:
  args, rest = parse(arguments)
  if args.options:
    return options.main([args.config, *rest])
  memory.one_heap()
  with cluster.joined(args):  # first, so that the others learn what is wrong here
    config = configs.load(args.config, configs.split_overrides(rest))
    if args.workdir is None:
      raise UserError('--workdir is missing, the folder of the run\n  such as --workdir runs/first')
    if not args.workdir.strip():
      raise UserError("--workdir '' names no folder\n  such as --workdir runs/first")
    from car_jax import ahead, loop, sharding

    ahead.use_compilation_cache()
    loop.train(config, args.workdir, new=args.new)
    sharding.say(f'done: {args.workdir}')
  return 0
