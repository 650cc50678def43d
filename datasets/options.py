"""How a builder declares what it can be asked: one place for types, defaults, ranges and help."""

import dataclasses
import math
from typing import Any

from car_jax.errors import UserError, nearest

INT64 = 2**63 - 1


@dataclasses.dataclass(frozen=True)
class Option:
  """One option; its type is that of its default: a number, a text, or a switch.

  low, high: the range of a number, both included. choices: what a text may be, all where empty.
  """

  default: Any
  help: str
  low: float = -INT64
  high: float = INT64
  choices: tuple[str, ...] = ()

  @property
  def expected(self) -> str:
    """What a value must be, in words."""
    if self.choices:
      return f'{", ".join(self.choices[:-1])} or {self.choices[-1]}'
    if isinstance(self.default, str):
      return 'text'
    kind = 'a whole number' if isinstance(self.default, int) else 'a number'
    low, high = (f'{v}' if isinstance(v, int) else f'{v:g}' for v in (self.low, self.high))
    return f'{kind} from {low} to {high}'

  @property
  def told(self) -> str:
    """The line of `--help`."""
    if isinstance(self.default, bool):
      return self.help
    default = f'default {self.default}' if self.default != '' else ''
    text = isinstance(self.default, str) and not self.choices
    about = '; '.join(part for part in ('' if text else self.expected, default) if part)
    return f'{self.help} ({about})' if about else self.help


def parsed(key: str, text: Any, option: Option) -> Any:
  """What was typed after --key, as the option's type and in its range. Raises UserError."""
  try:
    return checked(key, type(option.default)(text), option)
  except ValueError:
    raise _refused(key, text, option) from None


def checked(key: str, value: Any, option: Option) -> Any:
  """The value, if it is in the option's range. Raises UserError."""
  if isinstance(option.default, bool):
    good = isinstance(value, bool)
  elif isinstance(option.default, str):
    good = isinstance(value, str) and (not option.choices or value in option.choices)
  else:
    good = math.isfinite(value) and option.low <= value <= option.high
  if not good:
    raise _refused(key, value, option)
  return value


def _refused(key: str, value: Any, option: Option) -> UserError:
  name = key.replace('_', '-')
  hint = f'\n{nearest(value, option.choices)}' if option.choices else ''
  return UserError(f'--{name} cannot be {value!r}\n  expected {option.expected}{hint}')
