"""Reproduces a published experiment: car-jax reproduce EXPERIMENT --source FOLDER..

The folders are checked against the published numbers of images and prepared; each seed is trained
or continues where it stopped, and scored by the published conventions. It ends in a table: the
published value and its source, ours with its interval, inside or outside of a stated tolerance;
exit status 1 for a score outside. What is finished is not done again: its own files say so.

--dry-run prints the steps, and what they cost, without doing or needing anything. With --released
the authors' weights are imported and scored, and nothing is trained. See docs/reproduce.md.
"""

import argparse
import pathlib

from car_jax import config as configs
from car_jax import errors, paths
from car_jax.data.prepared import default_data_dir
from car_jax.errors import UserError, exit_on_user_error


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
  from car_jax.reproduce.experiments import EXPERIMENTS

  parser = errors.parser('reproduce', __doc__)
  add = parser.add_argument
  listed = '; '.join(
    f'{name}: {", ".join(s.data for s in e.sources)}' for name, e in EXPERIMENTS.items()
  )
  add('experiment', help=f'with its data sets {listed}. gta5-sac:vgg16 or :fcn8s is another net')
  add('--source', nargs='+', default=[], help='a folder for each data set, in this order')
  add('--data-dir', type=paths.local, default=default_data_dir(), help='where prepared data lie')
  add('--workdir', type=paths.local, help='where runs and reports go; runs/reproduce/EXPERIMENT')
  add('--seeds', type=int, default=3, help='trainings, of seeds 0, 1, .. (default 3)')
  add('--stage', default='', help='only this one, such as train/seed0; or train, all below it')
  add('--imagenet', default='', help="torchvision's file, timm:FILE, or none")
  add('--released', default='', help="the authors' weights; of a study the folder of their files")
  add('--partial', action='store_true', help='part of the data: no comparison is a reproduction')
  dry = parser.add_argument_group('costs')
  dry.add_argument('--dry-run', action='store_true', help='print the steps and their costs')
  dry.add_argument('--peak', type=float, default=156.0, help='TFLOP/s; default 156, A100 in TF32')
  dry.add_argument('--efficiency', type=float, default=0.2, help='share of it; default 0.2')
  dry.add_argument('--bandwidth', type=float, default=1.55, help='TB/s of its memory; default 1.55')
  return parser.parse_known_args(arguments)


@exit_on_user_error
def main(arguments: list[str]) -> int:
  args, rest = parse(arguments)
  changes = tuple(configs.split_overrides(rest))
  if args.seeds < 1 or min(args.peak, args.bandwidth) <= 0 or not 0 < args.efficiency <= 1:
    raise UserError(
      '--seeds is 1 or more, --peak and --bandwidth are above 0, --efficiency at most 1'
    )
  from car_jax.reproduce import costs, dry, experiments, running, stages  # import jax

  experiment = experiments.find(args.experiment)
  name = args.experiment.replace(':', '-')
  request = stages.Request(
    experiment,
    args.workdir or pathlib.Path('runs', 'reproduce', name),
    sources=_sources(args.source, experiment.sources),
    data_dir=args.data_dir,
    seeds=args.seeds,
    changes=changes,
    imagenet=args.imagenet,
    released=args.released,
    partial=args.partial,
  )
  if args.dry_run:
    words = f'{args.peak:g} TFLOP/s x {args.efficiency:g}, {args.bandwidth:g} TB/s'
    rate = costs.Rate(args.peak * args.efficiency * 1e12, args.bandwidth * 1e12, words)
    dry.show(request, args.stage, rate)
    return 0
  return running.run(request, args.stage)


def _sources(given: list[str], wanted: tuple) -> tuple[pathlib.Path | None, ...]:
  """Raises UserError unless there is a folder for each data set, or none at all."""
  if given and len(given) != len(wanted):
    names = ' '.join(f'{s.data.upper()}' for s in wanted)
    raise UserError(f'--source has {len(given)} of {len(wanted)} folders\n  --source {names}')
  return tuple(map(pathlib.Path, given)) or (None,) * len(wanted)
