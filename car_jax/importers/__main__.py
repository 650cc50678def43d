"""python -m car_jax.importers NAME FILE --out DIR: published weights as our checkpoint.

NAME says whose format: car, mose, sac (their authors'), mmseg (mmsegmentation), detectron2 (its
projects Mask2Former and MaskFormer), huggingface, or torchvision (ImageNet's weights for a net's
encoder; its other parts as they start).

The file is read without torch and without running code in it. Every name left over on either side
is an error. `eval.py --checkpoint DIR` then scores it; config.init of train.py fine-tunes from it.
"""

import argparse
import importlib
import pathlib
from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from car_jax import config as configs
from car_jax import errors
from car_jax.errors import UserError, command_line, exit_on_user_error, nearest
from car_jax.evaluate import folders

# name -> the module that reads the format, the config it belongs to unless --config says; '' where
# the file says
IMPORTERS = {
  'car': ('carsss', 'configs/car_lidc.py'),
  'mose': ('mose', 'configs/mose_lidc_masks.py'),
  'mmseg': ('mmseg', ''),
  'detectron2': ('detectron2', ''),
  'huggingface': ('huggingface', 'configs/segformer_cityscapes.py:b0'),
  'sac': ('sac', 'configs/sac_gta5.py:resnet101'),
  'torchvision': ('torchvision', 'configs/sac_gta5.py:resnet101_base'),
}


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
  parser = errors.parser('car_jax.importers', __doc__)
  parser.add_argument('name', help=f'whose format: {", ".join(IMPORTERS)}')
  parser.add_argument('file', help='the file of weights')
  parser.add_argument('--out', required=True, help='folder for the checkpoint')
  parser.add_argument('--config', help='the config it belongs to (default: the published setting)')
  return parser.parse_known_args(arguments)


def imported(
  args: argparse.Namespace, changes: Sequence[tuple[str, str]]
) -> tuple[ConfigDict, Any, dict[str, Any]]:
  """-> config of the run, its state, what is known of its data."""
  module, published = IMPORTERS[args.name]
  importer = importlib.import_module(f'car_jax.importers.{module}')
  if published:
    config = configs.override(configs.load(args.config or published), changes)
    return config, *importer.to_state(args.file, config)
  file = importer.opened(args.file)
  if args.config:
    config = configs.load(args.config)
    file.check(config)
  else:
    config = file.config()
  config = configs.override(config, changes)
  return config, *file.state(config)


@exit_on_user_error
def main(arguments: list[str]) -> int:
  args, rest = parse(arguments)
  if args.name not in IMPORTERS:
    raise UserError(f'no importer {args.name!r}\n{nearest(args.name, IMPORTERS)}')
  out = pathlib.Path(args.out)
  if any((out / name).exists() for name in ('checkpoints', 'config.json')):
    raise UserError(f'{args.out} holds a run already; choose another --out')
  folders.check_replaceable(out, 'config.json')
  config, state, info = imported(args, configs.split_overrides(rest))
  from car_jax import checkpoints

  with folders.replaced(out, 'config.json') as part:
    with checkpoints.Checkpoints(part / 'checkpoints', keep=1) as target:
      target.save(0, state, {'config': config.to_dict(), 'data': info, 'imported': args.file})
    (part / 'config.json').write_text(configs.to_json(config))
  print(f'{args.file} -> {out}\n  score it: python eval.py --checkpoint {out}')
  return 0


if __name__ == '__main__':
  command_line(main)
