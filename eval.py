"""Scores checkpoints: python eval.py --checkpoint runs/demo/car [--config.report.split=test].

The config comes from the (first) checkpoint; --config.KEY=VALUE changes it. Several checkpoints, or
NAME=FOLDER, are compared in one report. Writes report.html, report.md, results.json, per_image.csv.
"""

import argparse
import pathlib
import shlex
import sys

from car_jax import config as configs
from car_jax.errors import exit_on_user_error


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
  parser = argparse.ArgumentParser(prog='eval.py', description=__doc__, allow_abbrev=False)
  add = parser.add_argument
  add(
    '--checkpoint', required=True, action='append', help='[NAME=]FOLDER of a run; may be repeated'
  )
  add('--step', default='', help='best, latest or a number (default: best if kept, else latest)')
  add('--out', help='folder of the report (default: report in the first checkpoint)')
  add('--save', default='', help='samples or probabilities: also write arrays for other tools')
  return parser.parse_known_args(arguments)


@exit_on_user_error
def main(arguments: list[str]) -> int:
  args, rest = parse(arguments)
  pairs = configs.split_overrides(rest)
  from car_jax.evaluate import checkpointed
  from train import use_compilation_cache

  first = checkpointed.parted(args.checkpoint[0])[1]
  use_compilation_cache()
  config = configs.override(checkpointed.read_config(first, args.step), pairs)
  out = pathlib.Path(args.out or pathlib.Path(first) / 'report')
  command = f'python eval.py {shlex.join(arguments)}'
  results, page = checkpointed.evaluate(
    args.checkpoint, config, out, step=args.step, saved=args.save, command=command
  )
  from car_jax.evaluate import tables

  print(tables.markdown_scores(results))
  print(f'report: {page}')
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
