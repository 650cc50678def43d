"""Flags with which a command joins the other processes of a cluster."""

import argparse
import contextlib

from car_jax.errors import UserError


def add(parser: argparse.ArgumentParser) -> None:
  more = parser.add_argument_group('several hosts').add_argument
  more(
    '--distributed',
    action='store_true',
    help='join the other processes: of SLURM, Open MPI, a TPU pod slice; see docs/clusters.md',
  )
  more('--coordinator', help='HOST:PORT of process 0, where no cluster tells')
  more('--processes', type=int, help='number of processes, with --coordinator')
  more('--process', type=int, help='which of them this is, from 0, with --coordinator')


def joined(args: argparse.Namespace) -> contextlib.AbstractContextManager[None]:
  """A command's work, together with other processes where the flags of `add` say so.

  Raises UserError for flags that do not fit, and on entering where nobody is joined.
  """
  if not args.coordinator and (args.processes is not None or args.process is not None):
    raise UserError('--processes and --process need --coordinator HOST:PORT')
  if args.processes is not None and not 0 <= (args.process or 0) < args.processes:
    raise UserError(
      f'--process {args.process} of --processes {args.processes}; it is 0 to their number - 1'
    )
  port = (args.coordinator or ':1').rpartition(':')[2]
  if not (port.isdigit() and 0 < int(port) < 1 << 16):
    raise UserError(
      f'--coordinator {args.coordinator}: expected HOST:PORT, such as node0:12345, to port 65535'
    )
  if not (args.distributed or args.coordinator):
    return contextlib.nullcontext()
  from car_jax import processes  # imports jax

  return processes.joined(args.coordinator, args.processes, args.process)
