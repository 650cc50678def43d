"""A run as a folder that others can use: car-jax export RUN --out DIR [--format stablehlo|hub].

stablehlo (default)
  The prediction as a program for jax alone, on CPU, GPU and TPU: uint8 images of any number and
  size -> mask, samples, weights, probabilities, entropy, mutual information; and load_exported.py,
  which runs it without this library. --calibrator puts one inside.
hub
  model.safetensors, config.json and a model card with the scores of RUN/report, to be uploaded to
  the Hugging Face hub. car-jax commands take the folder, zoo:NAME and hf://OWNER/NAME for a run.

See docs/export.md.
"""

import argparse

from car_jax import errors, paths
from car_jax.commands import own, sides
from car_jax.errors import UserError, exit_on_user_error

STABLEHLO = ('samples', 'predictor', 'calibrator', 'size', 'platforms')
HUB = ('license', 'report')


def parse(arguments: list[str]) -> argparse.Namespace:
  parser = errors.parser('export', __doc__)
  add = parser.add_argument
  add('run', help='folder of a run, zoo:NAME or hf://OWNER/NAME')
  add('--out', required=True, type=paths.local, help='the folder to write')
  add('--format', default='stablehlo', choices=['stablehlo', 'hub'])
  add('--step', default='', help='best, latest or a number (default: best, if kept)')
  own.add(parser)
  program = parser.add_argument_group('with --format stablehlo')
  program.add_argument('--samples', type=int, help='segmentations drawn of an image (default 8)')
  program.add_argument('--predictor', help="one of the method's predictors (default: its own)")
  program.add_argument('--calibrator', help='FILE.npz that a study or car-jax calibrate fitted')
  program.add_argument('--size', help='HEIGHT,WIDTH of all images (default: any)')
  program.add_argument(
    '--platforms', help='which of cpu, cuda, rocm and tpu (default: cpu,cuda,tpu)'
  )
  hub = parser.add_argument_group('with --format hub')
  hub.add_argument('--license', help="of the parameters, the hub's abbreviation such as apache-2.0")
  hub.add_argument('--report', type=paths.local, help='of car-jax eval (default: RUN/report)')
  return parser.parse_args(arguments)


@exit_on_user_error
def main(arguments: list[str]) -> int:
  args = parse(arguments)
  other = HUB if args.format == 'stablehlo' else STABLEHLO
  if wrong := [name for name in other if getattr(args, name) is not None]:
    raise UserError(
      f'--{wrong[0]} does not belong to --format {args.format}\n  see car-jax export --help'
    )
  own.trust(args)
  return (to_hub if args.format == 'hub' else to_program)(args)


def to_hub(args: argparse.Namespace) -> int:
  from car_jax import hub, model_card
  from car_jax.evaluate import checkpointed

  loaded = checkpointed.load(args.run, args.step)
  report, place = None, args.report or paths.of(hub.place_of(args.run)) / 'report'
  if args.report or (place / 'results.json').exists():
    report = model_card.read_report(place, loaded.step)
  out = args.out.absolute()
  address = f'zoo:{out.name}' if out.parent == hub.ZOO else f'hf://OWNER/{out.name}'
  hub.save(loaded, args.out, model_card.Card(address, args.license or 'other', report).text)
  size = sum((args.out / name).stat().st_size for name in hub.FILES)
  print(f'{args.run}, step {loaded.step:,} -> {args.out} ({size / 1e6:.2f} MB)')
  print(f'  score it: car-jax eval --checkpoint {args.out}')
  return 0


def to_program(args: argparse.Namespace) -> int:
  from car_jax import predictor, program

  platforms = tuple((args.platforms or 'cpu,cuda,tpu').split(','))
  size = sides.both(args.size, '--size')
  samples = 8 if args.samples is None else args.samples
  options = program.Options(samples, args.predictor or '', size, platforms)
  model = predictor.load(args.run, step=args.step, calibrator=args.calibrator)
  program.export(model, args.out, options)
  print(f'{args.run}, step {model.step:,} -> {args.out}')
  print(f'  try it: python {args.out}/load_exported.py IMAGES.npy OUT.npz')
  return 0
