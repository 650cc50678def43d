"""Lists the configs that ship: car-jax configs [NAME [--copy FILE]].

NAME prints one; with --copy it becomes a file of yours, to be changed and given to --config.
"""

import ast
import pathlib

from car_jax import config as configs
from car_jax import errors, paths
from car_jax.errors import UserError, exit_on_user_error


@exit_on_user_error
def main(arguments: list[str]) -> int:
  parser = errors.parser('configs', __doc__)
  parser.add_argument('name', nargs='?', help='such as car_lidc')
  parser.add_argument('--copy', type=paths.local, help='the file to write')
  args = parser.parse_args(arguments)
  if args.copy and not args.name:
    raise UserError('--copy needs a name\n  such as car-jax configs demo --copy my.py')
  if not args.name:
    width = max(map(len, configs.shipped()))
    for name, file in configs.shipped().items():
      print(f'{name:{width}}  {about(file)}')
    return 0
  text = (file := configs.find(args.name)).read_text()
  if not args.copy:
    print(text, end='')
    return 0
  if args.copy.exists():
    raise UserError(f'{args.copy} is there already; choose another --copy')
  args.copy.parent.mkdir(parents=True, exist_ok=True)
  args.copy.write_text(text)
  use = configs.command(configs.read(str(file)))
  place = '--workdir runs/mine' if use == 'train' else '--out runs/mine'
  print(f'{args.name} -> {args.copy}\n  car-jax {use} --config {args.copy} {place}')
  return 0


def about(file: pathlib.Path) -> str:
  """The first line of a config's docstring."""
  return (ast.get_docstring(ast.parse(file.read_text())) or '').partition('\n')[0]
