"""Names and colours of the classes of predictions made elsewhere."""

from typing import Any

from car_jax.errors import UserError

MOST_CLASSES = 254  # 254 and 255 mean something else


def check(classes: Any, palette: Any) -> None:
  """Raises UserError for what config.classes and config.palette cannot be."""
  names = classes if isinstance(classes, (tuple, list)) else ()
  if any(type(n) is not str or not n for n in names) or not 2 <= len(names) <= MOST_CLASSES:
    raise UserError(
      f"config.classes is {classes!r:.200}\n  expected 2 to {MOST_CLASSES} names, ('sky', 'sea')"
    )
  if twice := [n for n in names if list(names).count(n) > 1]:
    raise UserError(f'config.classes names {twice[0]!r} twice\n  rename one of them')
  colours = palette if isinstance(palette, (tuple, list)) else ()
  if len(colours) < len(names):
    raise UserError(
      f'config.palette has {len(colours)} colours for {len(names)} classes\n'
      '  give it a (red, green, blue) for each'
    )
  for row in colours:
    known = isinstance(row, (tuple, list)) and len(row) == 3
    if not known or any(type(v) is not int or not 0 <= v <= 255 for v in row):
      raise UserError(f'config.palette holds {row!r}\n  expected (red, green, blue) from 0 to 255')
