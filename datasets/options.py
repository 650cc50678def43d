"""Options of a builder's config on the command line: how one is read, refused and explained."""

import typing
from typing import Any

from car_jax import options
from car_jax.errors import UserError, nearest


def parsed(key: str, option: options.Option, text: str) -> Any:
  """What was typed after --key as a number or text; its range is the config's to check."""
  try:
    return type(option.default)(text)
  except ValueError:
    raise refused(key, text, option) from None


def refused(key: str, value: Any, option: options.Option) -> UserError:
  """The message for a value that the option cannot have, with those that it can."""
  choices = _choices(option)
  hint = f'\n{nearest(value, choices)}' if choices else ''
  return UserError(f'{flag(key)} cannot be {value!r}\n  expected {_expected(option)}{hint}')


def flag(key: str) -> str:
  """black_box -> --black-box."""
  return f'--{key.replace("_", "-")}'


def help_line(option: options.Option) -> str:
  """The line of --help: what it is for, which values there are, and the default."""
  about = option.about.removesuffix('.')
  if isinstance(option.default, bool):
    return about
  parts = [_expected(option)] if option.type is not str else []
  parts += [f'default {option.default}'] if option.default != '' else []
  return f'{about} ({"; ".join(parts)})' if parts else about


def _choices(option: options.Option) -> tuple[str, ...]:
  return typing.get_args(option.type) if isinstance(option.default, str) else ()


def _expected(option: options.Option) -> str:
  """Which values there are, in words."""
  if choices := _choices(option):
    return f'{", ".join(choices[:-1])} or {choices[-1]}'
  return options.words(option.type)
