"""Masks of pictures and volumes of yours, and how sure the model is of them.

car-jax predict RUN FILES|FOLDERS --out OUT [--samples 8]
  PNG, JPEG, TIFF (each page an image), BMP, WebP and GIF of any depth, .npy arrays, NIfTI volumes
  and DICOM series; any size. OUT then holds index.html, predictions.csv and of every image its
  mask, samples, class probabilities and uncertainty; see docs/predict.md.

What is complete is not done again: the same command goes on, and predicts what is new. Files that
cannot be read are named, and the others are predicted; then the exit status is 1.
"""

import argparse
import pathlib
import shlex
import sys
from typing import Any

from car_jax import config as configs
from car_jax import errors, paths
from car_jax.commands import own, sides
from car_jax.errors import UserError, exit_on_user_error

MOST_SAMPLES = 1 << 16


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
  parser = errors.parser('predict', __doc__)
  add = parser.add_argument
  add('run', help='folder of a run, or of an imported model')
  add('inputs', nargs='+', help='files and folders')
  add('--out', required=True, type=paths.local, help='folder of the predictions')
  add('--samples', type=int, help='segmentations drawn of each image (default 8)')
  add('--seed', type=int, default=0, help='other draws')
  add(
    '--save',
    default='masks,samples,probabilities,uncertainty',
    help='which of these to write (default: all)',
  )
  add('--calibrator', default='', help='FILE.npz that a study or car-jax calibrate fitted')
  add('--step', default='', help='best, latest or a number (default: best, if kept)')
  add(
    '--range',
    default='',
    help='LOW,HIGH or P1%%,P99%%: black and white of more than 8 bits, such as --range=-1000,400 '
    'of CT (default: as in training, where that is known)',
  )
  add('--crop', help='side of sliding windows, N or HEIGHT,WIDTH; 0: whole (default: by the size)')
  add('--stride', help='from one window to the next (default: two thirds of them)')
  add('--new', action='store_true', help='delete the predictions in OUT and predict all again')
  own.add(parser)
  return parser.parse_known_args(arguments)


@exit_on_user_error
def main(arguments: list[str]) -> int:
  args, rest = parse(arguments)
  changes = configs.split_overrides(rest)
  samples = 8 if args.samples is None else args.samples
  if not 0 < samples <= MOST_SAMPLES:
    raise UserError(f'--samples cannot be {samples}\n  expected 1 to {MOST_SAMPLES:,}')
  if not 0 <= args.seed < 2**32:
    raise UserError(f'--seed cannot be {args.seed}\n  expected 0 to {2**32 - 1}')
  own.trust(args)
  from car_jax import ahead, lock, predictor, spans  # imports jax
  from car_jax.predict import run, sources, writing

  spans.parse(args.range)
  kinds = errors.parts(args.save, writing.KINDS, 'save')
  crop = sides.one_or_both(args.crop, '--crop')
  stride = sides.one_or_both(args.stride, '--stride')
  windows = predictor.Windows(crop, stride)
  ahead.use_compilation_cache()
  inputs = sources.find(args.inputs, args.out)
  model = predictor.load(args.run, step=args.step, calibrator=args.calibrator, changes=changes)
  options = run.Options(samples, args.seed, kinds, args.range, windows)
  run.check(args.out)
  with lock.exclusive(args.out, 'predicted to', '--out'):
    run.begin(args.out, run.settings(model, options, changes), args.new)
    print(model)
    if model.single and (args.samples or 1) > 1:
      print(f'--samples {samples}: this model has one answer of an image, so one sample is written')
    work = run.Run(model, inputs, args.out, options)
    try:
      work.predict()
    except KeyboardInterrupt:
      print('stopped: the same command goes on', file=sys.stderr)
      raise
    rows = work.finish(f'car-jax predict {shlex.join(arguments)}')
  return report(rows, work, args.out)


def report(rows: list[dict[str, Any]], work: Any, out: pathlib.Path) -> int:
  """What was done and what was not -> the exit status."""
  unread = work.unread()
  for line in work.problems.noted():
    print(line.strip(), file=sys.stderr)
  if unread:
    print(f'not read: {len(unread):,}', *unread, sep='\n', file=sys.stderr)
  before = f', {len(work.before):,} files were complete before' if work.before else ''
  print(f'{len(rows):,} images{before}\npage: {out / "index.html"}')
  return 1 if unread else 0
