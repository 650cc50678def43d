"""The options of another library's config, every one of which is read or refused."""

from collections.abc import Mapping
from typing import Any

from car_jax.errors import UserError, nearest

REQUIRED = object()
UNREAD = object()  # what a config computes, where nothing of it is run


class Settings:
  """The options of one part of a foreign config. Every one is taken, or the config refused.

  where: how the part is called in messages, such as 'decode_head'.
  """

  def __init__(self, given: Mapping[str, Any], where: str):
    self.given, self.where, self.taken = given, where, {'type'}

  def __call__(self, key: str, default: Any = REQUIRED) -> Any:
    """The option's value, lists as tuples. Raises UserError where it has none and no default."""
    self.taken.add(key)
    value = self.given.get(key, default)
    if value is REQUIRED:
      raise UserError(f'its config has no {self.where}.{key}')
    if value is UNREAD:
      raise UserError(
        f'its config computes {self.where}.{key}, and no config is run\n'
        '  keep its weights alone, and name the net: '
        '--config configs/segmenters_cityscapes.py:VARIANT'
      )
    return _tuples(value)

  def part(self, key: str, default: Any = REQUIRED) -> 'Settings':
    """The options of a part in it."""
    value = self(key, default)
    if not isinstance(value, Mapping):
      raise UserError(f'its config has {self.where}.{key} = {value!r}\n  it is a dict')
    return Settings(value, f'{self.where}.{key}')

  def flag(self, key: str, default: bool = False) -> bool:
    """An option that is True or False. Raises UserError."""
    value = self(key, default)
    if not isinstance(value, bool):
      raise UserError(f'its config has {self.where}.{key} = {value!r}\n  it is True or False')
    return value

  def size(self, key: str, default: int) -> int:
    """An option that is a whole number from 1 on. Raises UserError."""
    value = self(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
      raise UserError(
        f'its config has {self.where}.{key} = {value!r}\n  it is a whole number from 1 on'
      )
    return value

  def only(self, key: str, *values: Any, **default: Any) -> None:
    """The option has one of these values. Raises UserError.

    Where it is not there, it counts as the first, or as `default=`.
    """
    value = self(key, default.get('default', values[0]))
    if value not in values:
      raise UserError(
        f'its config has {self.where}.{key} = {value!r}, which no net here has\n'
        f'  what can be read: {", ".join(map(repr, values))}'
      )

  def passed(self, *keys: str) -> None:
    """These say nothing of what the net computes."""
    self.taken.update(keys)

  def finish(self) -> None:
    """Raises UserError for an option that was not taken."""
    if left := sorted(set(self.given) - self.taken):
      raise UserError(
        f'its config has {self.where}.{left[0]}, which no net here has\n'
        f'{nearest(left[0], self.taken)}'
      )


def _tuples(x: Any) -> Any:
  return tuple(map(_tuples, x)) if isinstance(x, (list, tuple)) else x
