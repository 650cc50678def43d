"""The config that a checkpoint of mmsegmentation carries as text: read, never executed.

It is Python of assignments, `key = value`, of literals, lists, tuples, `dict(..)` and names that
were assigned before. What else stands there becomes `UNREAD`, which only matters where it is asked
for.
"""

import ast
from collections.abc import Mapping
from typing import Any

from car_jax.errors import UserError
from car_jax.importers.settings import UNREAD

MOST_CHARACTERS = 2**20


def read(text: Any, path: Any) -> dict[str, Any]:
  """The values by name. Raises UserError for what is no such text."""
  if not isinstance(text, str) or len(text) > MOST_CHARACTERS:
    raise UserError(f'{path}: its config is no text of at most {MOST_CHARACTERS:,} characters')
  try:
    tree = ast.parse(text)
    _check_keywords(tree)
    values: dict[str, Any] = {}
    for line in tree.body:
      if isinstance(line, ast.Assign):
        value = _value(line.value, values)
        values |= {t.id: value for t in line.targets if isinstance(t, ast.Name)}
    return values
  except (SyntaxError, ValueError, MemoryError, RecursionError, TypeError) as e:
    raise UserError(f'{path}: its config cannot be read ({type(e).__name__}: {e})') from None


def _check_keywords(tree: ast.AST) -> None:
  """Raises SyntaxError for a call with a keyword twice: Python's compiler does, `ast.parse` not."""
  for call in ast.walk(tree):
    if isinstance(call, ast.Call):
      names = [k.arg for k in call.keywords if k.arg]
      if twice := [name for name in names if names.count(name) > 1]:
        raise SyntaxError(f'keyword argument repeated: {twice[0]}, line {call.lineno}')


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:
  each = lambda nodes: [_value(n, names) for n in nodes]
  match node:
    case ast.Constant():
      return node.value
    case ast.List():
      return each(node.elts)
    case ast.Tuple():
      return tuple(each(node.elts))
    case ast.Dict() if all(isinstance(k, ast.Constant) for k in node.keys):
      return dict(zip((k.value for k in node.keys), each(node.values), strict=True))  # type: ignore[union-attr]
    case ast.Call(func=ast.Name(id='dict')) if all(k.arg for k in node.keywords):
      first = each(node.args)
      if all(isinstance(x, dict) for x in first):
        inner = {k.arg: _value(k.value, names) for k in node.keywords}
        return {key: x for part in (*first, inner) for key, x in part.items()}
    case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
      return -number
    case ast.Name():
      return names.get(node.id, UNREAD)
  return UNREAD
