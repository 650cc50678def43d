"""car-jax import NAME FILE --out DIR: published weights as our checkpoint.

NAME says whose format: car, mose, sac, ccdm (their authors'), prob_unet, phiseg, ssn (ports of
these), flow_matching (MedFM's), atfm (see docs/families.md), mmseg (mmsegmentation), detectron2
(its projects Mask2Former and MaskFormer), huggingface (transformers; a folder or a file in it),
torchvision or timm. ImageNet's weights of the last three are a start for any net that has such an
encoder, which --config names; its other parts are as they start.

The file is read without torch and without running code in it. Every name left over on either side
is an error. `car-jax eval --checkpoint DIR` then scores it; config.init fine-tunes from it.

car-jax import registry STUDY --weights DIR: the files of a study's models.

STUDY is a config such as configs/relis.py, which names the published file of each model. What lies
in the folder and is not imported yet is imported; what is missing is named. A file whose net has
another size than the study says is refused; where it computes something else, the lines say so.
"""

import argparse
import importlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from car_jax import config as configs
from car_jax import errors, folders, paths, saved_steps
from car_jax.errors import UserError, command_line, exit_on_user_error, nearest

# name -> the module that reads the format, the config it belongs to unless --config says; '' where
# the file says
IMPORTERS = {
  'car': ('carsss', 'configs/car_lidc.py'),
  'mose': ('mose', 'configs/mose_lidc_masks.py'),
  'prob_unet': ('ambiguous', 'configs/prob_unet_lidc.py:port'),
  'phiseg': ('ambiguous', 'configs/phiseg_lidc.py'),
  'ssn': ('ambiguous', 'configs/ssn_lidc.py:gtr'),
  'ccdm': ('ambiguous', 'configs/ccdm_lidc.py'),
  'flow_matching': ('ambiguous', 'configs/flow_matching_lidc.py'),
  'atfm': ('ambiguous', 'configs/atfm_lidc.py'),
  'mmseg': ('mmseg', ''),
  'detectron2': ('detectron2', ''),
  'huggingface': ('huggingface', ''),
  'sac': ('sac', 'configs/sac_gta5.py:resnet101'),
  'torchvision': ('torchvision', 'configs/sac_gta5.py:resnet101_base'),
  'timm': ('timm', ''),
}


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
  parser = errors.parser('import', __doc__)
  parser.add_argument('name', help=f'whose format: {", ".join(IMPORTERS)}; or registry')
  parser.add_argument('file', help='the file of weights; of registry the config of a study')
  parser.add_argument('--out', help='folder for the checkpoint')
  parser.add_argument('--config', help='the config it belongs to, where the file does not say')
  parser.add_argument('--weights', help="of registry: the folder of the models' files")
  return parser.parse_known_args(arguments)


def imported(
  name: str, path: str, given: str, changes: Sequence[tuple[str, str]], fallback: str = ''
) -> tuple[ConfigDict, Any, dict[str, Any]]:
  """-> config of the run, its state, what is known of its data.

  given: the path of the config that a user names; fallback: of the one for a segmenter whose file
  does not say what it is.
  """
  from car_jax.importers.encoders import Encoder  # imports jax

  module, published = IMPORTERS[name]
  importer = importlib.import_module(f'car_jax.importers.{module}')
  if published:
    config = configs.override(configs.load(given or published), changes)
    return config, *importer.to_state(path, config)
  file = importer.opened(path)
  given = given or ('' if file.described or isinstance(file, Encoder) else fallback)
  if given:
    config = configs.load(given)
    file.check(config)
  else:
    config = file.config()
  config = configs.override(config, changes)
  return config, *file.state(config)


def write(
  path: str, out: pathlib.Path, config: ConfigDict, state: Any, info: Mapping[str, Any]
) -> None:
  """A run in the folder `out`, whole or not at all."""
  from car_jax import checkpoints

  with folders.replaced(out, 'config.json') as part:
    with checkpoints.Checkpoints(part / saved_steps.LATEST, keep=1) as target:
      target.save(0, state, {'config': config.to_dict(), 'data': info, 'imported': path})
    (part / 'config.json').write_text(configs.to_json(config))


def of_study(study: str, weights: str) -> int:
  """Imports what a folder holds of a study's models."""
  from car_jax.importers import registry

  def importing(published: Mapping[str, Any], file: pathlib.Path, out: pathlib.Path) -> None:
    run = imported(published['importer'], str(file), '', (), published['config'])
    config, _, info = run
    registry.check_size(file, config, info['num_classes'], published)
    write(str(file), out, *run)

  print('\n'.join(registry.run(study, weights, importing)))
  return 0


@exit_on_user_error
def main(arguments: list[str]) -> int:
  args, rest = parse(arguments)
  if args.name == 'registry':
    if not args.weights or args.out or args.config or rest:
      raise UserError('registry takes a study and a folder of files\n  --weights FOLDER')
    return of_study(args.file, args.weights)
  if args.name not in IMPORTERS:
    raise UserError(f'no importer {args.name!r}\n{nearest(args.name, (*IMPORTERS, "registry"))}')
  if not args.out or args.weights:
    raise UserError('give the folder for the checkpoint\n  --out FOLDER')
  out = paths.local(args.out)
  if saved_steps.is_run(out) or (out / 'config.json').exists():
    raise UserError(f'{args.out} holds a run already; choose another --out')
  folders.check_replaceable(out, 'config.json')
  changes = configs.split_overrides(rest)
  write(args.file, out, *imported(args.name, args.file, args.config or '', changes))
  print(f'{args.file} -> {out}\n  score it: car-jax eval --checkpoint {out}')
  return 0


if __name__ == '__main__':
  command_line(main)
