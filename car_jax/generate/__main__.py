"""python -m car_jax.generate COMMAND: make test data for segmenters, and look them through.

  export   what a run of `diffusion` or `controlnet` has learnt, as a folder in diffusers' layout

Each has --help. See docs/generate.md.
"""

import importlib

from car_jax.errors import UserError, command_line, exit_on_user_error, nearest

COMMANDS = {
  'export': 'car_jax.generate.export',
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
