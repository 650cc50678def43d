"""car-jax COMMAND: segmentation whose uncertainty can be trusted.

  train       a config: continues where it stopped
  eval        checkpoints against several readers, or a study of reliability
  score       anybody's predictions, in files, against any number of readers
  predict     masks and their uncertainty for pictures of yours
  prepare     files as they come -> the data that training reads
  import      published weights -> a run
  export      a run -> a folder for jax alone, or for the Hugging Face hub
  calibrate   a run and labelled images of its data -> a calibrator
  generate    test data: scenes in other weather, objects in scenes
  reproduce   the published experiments, step by step, beside the published values
  zoo         trained models that ship, zoo:NAME wherever a run is taken
  configs     those that ship, and copies of them to change
  options     of a config

Each has --help. In a checkout `python train.py` is `car-jax train`, `python eval.py` is
`car-jax eval` and `python -m datasets.prepare` is `car-jax prepare`.
"""

import importlib

from car_jax import __version__
from car_jax.errors import UserError, command_line, exit_on_user_error, nearest

COMMANDS = {
  'train': 'car_jax.commands.train',
  'eval': 'car_jax.commands.eval',
  'score': 'car_jax.commands.score',
  'predict': 'car_jax.commands.predict',
  'prepare': 'car_jax.datasets.prepare',
  'import': 'car_jax.importers.__main__',
  'export': 'car_jax.commands.export',
  'calibrate': 'car_jax.calibrate.__main__',
  'generate': 'car_jax.generate.__main__',
  'reproduce': 'car_jax.commands.reproduce',
  'zoo': 'car_jax.commands.zoo',
  'configs': 'car_jax.commands.configs',
  'options': 'car_jax.commands.options',
}
"""Name -> the module whose `main` takes the arguments after it."""


@exit_on_user_error
def main(arguments: list[str]) -> int:
  name, *rest = arguments or ['--help']
  if name in ('-h', '--help'):
    print(__doc__)
    return 0
  if name == '--version':
    print(f'car-jax {__version__}')
    return 0
  if name not in COMMANDS:
    raise UserError(f'no command {name!r}\n{nearest(name, COMMANDS)}')
  return importlib.import_module(COMMANDS[name]).main(rest)


def cli() -> None:
  """The program `car-jax`."""
  command_line(main)


if __name__ == '__main__':
  cli()
