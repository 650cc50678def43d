"""Trains: python train.py --config configs/demo.py --workdir runs/demo [--config.KEY=VALUE].

The same command continues an interrupted run. A config is Python that runs with your rights: read a
stranger's before you use it.
"""

import argparse

from car_jax import config as configs
from car_jax import option_tables, options
from car_jax.errors import UserError, command_line, exit_on_user_error


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
  parser = argparse.ArgumentParser(prog='train.py', description=__doc__, allow_abbrev=False)
  add = parser.add_argument
  add('--config', required=True, help='a file such as configs/car_lidc.py, or file:variant')
  add('--workdir', help='where checkpoints, metrics.jsonl and TensorBoard files go')
  add('--options', action='store_true', help='list all options of the config, and train nothing')
  add('--new', action='store_true', help='start over; an old run in --workdir is moved aside')
  add_cluster(parser)
  return parser.parse_known_args(arguments)


def add_cluster(parser: argparse.ArgumentParser) -> None:
  add = parser.add_argument
  add('--distributed', action='store_true', help='join the other hosts (TPU pod, SLURM)')
  add('--coordinator', help='HOST:PORT of process 0, where the cluster does not tell')
  add('--processes', type=int, help='number of processes, with --coordinator')
  add('--process', type=int, help='which of them this is, from 0, with --coordinator')


def join_cluster(args: argparse.Namespace) -> None:
  """Joins the other processes where the flags of `add_cluster` say so. Raises UserError."""
  if not args.coordinator and (args.processes is not None or args.process is not None):
    raise UserError('--processes and --process need --coordinator HOST:PORT')
  if args.processes is not None and not 0 <= (args.process or 0) < args.processes:
    raise UserError(
      f'--process {args.process} of --processes {args.processes}; it is 0 to their number - 1'
    )
  if args.distributed or args.coordinator:
    from car_jax import sharding

    sharding.start_distributed(args.coordinator, args.processes, args.process)


@exit_on_user_error
def main(arguments: list[str]) -> int:
  args, rest = parse(arguments)
  config = configs.load(args.config, configs.split_overrides(rest))
  if args.options:
    print(option_tables.terminal(options.leaves(configs.Run, config.to_dict())))
    return 0
  if args.workdir is None:
    raise UserError('--workdir is missing, the folder of the run\n  such as --workdir runs/first')
  if not args.workdir.strip():
    raise UserError("--workdir '' names no folder\n  such as --workdir runs/first")
  from car_jax import ahead, loop

  ahead.use_compilation_cache()
  join_cluster(args)
  loop.train(config, args.workdir, new=args.new)
  return 0


if __name__ == '__main__':
  command_line(main)
