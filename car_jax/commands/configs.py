"""Lists the configs that ship: car-jax configs [NAME[:VARIANT] [--copy FILE]].

NAME prints one; with --copy it becomes a file of yours, to be changed and given to --config. Of
NAME:VARIANT, and in the copy of a config that is made of another one, every value stands there.
"""

import ast
import pathlib
from typing import Any

from car_jax import config as configs
from car_jax import errors, paths
from car_jax.errors import UserError, exit_on_user_error

PUBLISHED = 'car_jax.configs._published'


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
  name, _, variant = args.name.partition(':')
  text = (file := configs.find(name)).read_text()
  if variant or (args.copy and is_made_of_another(text)):
    text = written_out(text, configs.read(f'{file}:{variant}').to_dict())
  if not args.copy:
    print(text, end='')
    return 0
  if args.copy.exists():
    raise UserError(f'{args.copy} is there already; choose another --copy')
  args.copy.parent.mkdir(parents=True, exist_ok=True)
  args.copy.write_text(text)
  use = configs.command(configs.read(f'{file}:{variant}'))
  place = '--workdir runs/mine' if use == 'train' else '--out runs/mine'
  print(f'{args.name} -> {args.copy}\n  car-jax {use} --config {args.copy} {place}')
  return 0


def is_made_of_another(text: str) -> bool:
  """Whether a config's source takes more from other configs than what is published."""
  imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
  modules = {node.module for node in imports}
  return any((m or '').startswith('car_jax.configs') for m in modules - {PUBLISHED})


def written_out(text: str, values: dict[str, Any]) -> str:
  """The source of a config that says these values, and imports none; text: one with its docs."""
  lines = ['from ml_collections import ConfigDict', '', '', 'def get_config():']
  lines += ['  c = ConfigDict()']
  for key, value in values.items():
    lines.append(f'  c.{key} = {_laid_out(value)}')
  docs = ast.get_docstring(ast.parse(text), clean=False) or ''
  return '\n'.join([f'r"""{docs}"""', '', *lines, '  return c', ''])


def _laid_out(value: Any, indent: str = '  ') -> str:
  """A value as Python, the entries of a long dict on lines of their own."""
  if not isinstance(value, dict) or len(indent) + len(repr(value)) < 80:
    return repr(value)
  inner = indent + '  '
  entries = ''.join(f'{inner}{k!r}: {_laid_out(v, inner)},\n' for k, v in value.items())
  return f'{{\n{entries}{indent}}}'


def about(file: pathlib.Path) -> str:
  """The first line of a config's docstring."""
  return (ast.get_docstring(ast.parse(file.read_text())) or '').partition('\n')[0]
