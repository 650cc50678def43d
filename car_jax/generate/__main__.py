"""car-jax generate COMMAND: make test data for segmenters, and look them through.

  style, ood             by diffusion: scenes in other weather, objects in scenes; see --options
  procedural style|ood   without weights: weather and pasted objects, on drawn scenes or yours
  export                 what a run of `diffusion` or `controlnet` has learnt, as diffusers' folder
  tiny                   small random weights, to try style and ood without any download
  look                   a page of what a folder holds, to strike out what is unfit

Each has --help. See docs/generate.md.
"""

import importlib

from car_jax.errors import UserError, command_line, exit_on_user_error, nearest

COMMANDS = {
  'style': 'car_jax.generate.make_style',
  'ood': 'car_jax.generate.make_objects',
  'procedural': 'car_jax.datasets.street_scenes.procedural',
  'export': 'car_jax.generate.export',
  'tiny': 'car_jax.generate.tiny',
  'look': 'car_jax.generate.look',
}
"""Name -> the module whose `main` takes the arguments after it."""


@exit_on_user_error
def main(arguments: list[str]) -> int:
  name = arguments[0] if arguments else ''
  if name in ('-h', '--help'):
    print(__doc__)
    return 0
  if name not in COMMANDS:
    raise UserError(f'no command {name!r}\n{nearest(name, COMMANDS)}')
  return importlib.import_module(COMMANDS[name]).main(arguments[1:])


if __name__ == '__main__':
  command_line(main)
