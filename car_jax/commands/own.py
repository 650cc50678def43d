"""The flag that says which modules of a user's own a checkpoint may name."""

import argparse

from car_jax import lookup


def add(parser: argparse.ArgumentParser) -> None:
  more = 'a module of your own that the run names'
  parser.add_argument('--own', default=[], action='append', help=more)


def trust(args: argparse.Namespace) -> None:
  """Imports the modules that the flag of `add` names. Raises UserError."""
  for module in args.own:
    lookup.own('module', f'{module}:__name__')
