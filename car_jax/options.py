"""Options are types: dataclasses say which keys a config has, their defaults, ranges and meaning.

A field of an options class is a key of the config; its annotation says which values there are, its
default what a config leaves open, and the text below it what it is for:

  threads: Annotated[int, Range(0, 1024)] = 2
  \"\"\"How many threads read and change images.\"\"\"

A field may be a group (another dataclass), a dict of groups by names of the user's, or a `Part`: an
entry whose `name` chooses a class, and whose other keys are that class's fields. `completed` adds
what a config leaves out and refuses what no field is named; `leaves` lists every key.
"""

import ast
import contextlib
import dataclasses
import functools
import inspect
import itertools
import math
import re
import textwrap
import threading
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from car_jax import lookup, renamed
from car_jax.errors import UserError, nearest

MOST = 2**31 - 1
REQUIRED = dataclasses.MISSING
# What a method or net gets from the data set and the loop: never in a config.
CONTEXT = ('num_classes', 'ignore_label', 'steps_per_epoch', 'parent', 'name')


@dataclasses.dataclass(frozen=True)
class Range:
  """The least and the most that a number may be."""

  low: float
  high: float


@dataclasses.dataclass(frozen=True)
class Part:
  """An entry dict(name=.., ..) for a class of this kind, see lookup.TABLES."""

  kind: str


Count = Annotated[int, Range(0, MOST)]
Positive = Annotated[int, Range(1, MOST)]
Width = Annotated[int, Range(1, 2**20)]
Depth = Annotated[int, Range(0, 2**12)]
Index = Annotated[int, Range(-(2**12), 2**12)]
Share = Annotated[float, Range(0.0, 1.0)]
Factor = Annotated[float, Range(1e-3, 1e3)]
Weight = Annotated[float, Range(0.0, 1e6)]
Scale = tuple[Factor, Factor]
Size = tuple[Positive, Positive]
Net = Annotated[Mapping[str, Any], Part('net')]
Optim = Annotated[Mapping[str, Any], Part('optimizer')]
LIST_COMMAS = re.compile(r',(?![^\[{(]*[\]})])')  # between names, as of 'ged16[u,absent=1],ece'
Dtype = Literal['float32', 'bfloat16'] | None  # no float16: it needs a loss scale
Precision = Literal['high', 'highest'] | None


@dataclasses.dataclass(frozen=True)
class Option:
  """One key: its annotation, its default (REQUIRED for none) and one line about it."""

  type: Any
  default: Any
  about: str

  @functools.cached_property
  def part(self) -> str:
    """'net' for an entry that names a net; '' for one that is no part."""
    return _part_of(self.type)

  @functools.cached_property
  def group(self) -> type | None:
    """The options class that the value is, or may be."""
    return next(filter(_is_group, _choices(self.type)), None)

  @functools.cached_property
  def entries(self) -> type | None:
    """The options class of the values of dict[str, GROUP]."""
    if typing.get_origin(self.type) is dict:
      value = typing.get_args(self.type)[1]
      return value if _is_group(value) else None
    return None


@functools.cache
def declared(cls: type) -> dict[str, Option]:
  """The keys of a group, those of its base classes first."""
  unread = (*getattr(cls, 'UNREAD', ()), *(() if issubclass(cls, Group) else CONTEXT))
  read = [f for f in dataclasses.fields(cls) if f.init and f.name not in unread]
  hints, about = {f.name: f.type for f in read}, _texts(cls)
  if any(
    isinstance(hint, str) for hint in hints.values()
  ):  # of `from __future__ import annotations`
    hints = typing.get_type_hints(cls, include_extras=True)
  known = {}
  for f in read:
    made = f.default_factory() if f.default_factory is not REQUIRED else f.default
    known[f.name] = Option(hints[f.name], made, about.get(f.name, ''))
  return known


class Group:
  """Base of option classes that are no part: their fields are keys whatever their names.

  SHORT is the key that a plain text stands for, where there is one.
  """

  SHORT: ClassVar[str] = ''


def keys_but(cls: type, *kept: str) -> tuple[str, ...]:
  """All fields of a class but some: the UNREAD of a class made of it that reads no others."""
  return tuple(f.name for f in dataclasses.fields(cls) if f.name not in kept)


_PARSING = threading.Lock()  # Python 3.11 may fail where two threads parse at a time


def _texts(cls: type) -> dict[str, str]:
  """Field -> the text below it, of a class and its bases."""
  texts: dict[str, str] = {}
  for base in reversed(cls.__mro__):
    if not dataclasses.is_dataclass(base):
      continue
    try:
      with _PARSING:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
    except (OSError, TypeError, SyntaxError):  # made in a shell
      continue
    body = typing.cast(ast.ClassDef, tree).body
    for field, text in itertools.pairwise(body):
      if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
        value = getattr(text.value, 'value', None)
        if isinstance(value, str):
          texts[typing.cast(ast.Name, field.target).id] = ' '.join(value.split())
  return texts


def _type_and_note(kind: Any) -> tuple[Any, Any]:
  """An annotation -> (its plain type, the Range or Part that was noted on it or None)."""
  if typing.get_origin(kind) is Annotated:
    plain, *notes = typing.get_args(kind)
    return plain, next((n for n in notes if isinstance(n, (Range, Part))), None)
  return kind, None


def _choices(kind: Any) -> tuple[Any, ...]:
  """The members of a union, or the one type."""
  union = typing.get_origin(kind) in (typing.Union, types.UnionType)
  return typing.get_args(kind) if union else (kind,)


def _part_of(kind: Any) -> str:
  notes = (_type_and_note(k)[1] for k in _choices(kind))
  return next((n.kind for n in notes if isinstance(n, Part)), '')


def _is_group(kind: Any) -> bool:
  return isinstance(kind, type) and dataclasses.is_dataclass(kind)


def words(kind: Any) -> str:
  """An annotation as a reader of a table or a message wants it."""
  plain, note = _type_and_note(kind)
  if len(choices := _choices(plain)) > 1:
    return ' or '.join(words(k) for k in choices)
  if plain is type(None):
    return 'None'
  if dataclasses.is_dataclass(plain):
    return 'a group of keys'
  origin, inner = typing.get_origin(plain), typing.get_args(plain)
  if origin is Literal:
    return ', '.join(repr(v) for v in inner)
  if origin is tuple and inner[-1:] == (...,):
    return f'a list of: {words(inner[0])}'
  if origin is tuple and not inner:
    return '()'
  if origin is tuple:
    same = len({*inner}) == 1
    each = words(inner[0]) if same else ', '.join(map(words, inner))
    return f'a list of {len(inner)}: {each}'
  if _part_of(kind):
    return f'dict(name=.., ..) of one {_part_of(kind)}'
  if origin in (dict, Mapping):
    return 'a dict'
  name = {int: 'a whole number', float: 'a number', str: 'a text', bool: 'True or False'}
  text = name.get(plain, 'a value')
  if isinstance(note, Range):
    text += _between(note)
  return text


def _between(r: Range) -> str:
  shown = lambda x: f'{x:,}' if isinstance(x, int) else f'{x:g}'
  if r.high in (MOST, 2**20, 2**63 - 1, math.inf):
    return f', at least {shown(r.low)}'
  return f' from {shown(r.low)} to {shown(r.high)}'


def checked(key: str, kind: Any, value: Any) -> Any:
  """The value, a list as a tuple and an int as a float where the annotation wants that.

  Raises UserError that names key, value and range.
  """
  for one in _choices(kind):
    with contextlib.suppress(ValueError):
      return _as(one, value)
  wanted = words(kind)
  shown = f'{value!r:.200}'
  known = [str(v) for k in _choices(kind) for v in typing.get_args(k) if v and isinstance(v, str)]
  near = nearest(str(value), known) if known and isinstance(value, str) else f'  it is {wanted}'
  if isinstance(value, float) and not math.isfinite(value):
    near = '  it is a finite number'
  raise UserError(f'config.{key} is {shown}\n{near}')


def _as(kind: Any, value: Any) -> Any:
  """The value as the annotation has it. Raises ValueError where it is none."""
  plain, note = _type_and_note(kind)
  origin, inner = typing.get_origin(plain), typing.get_args(plain)
  if type(value).__module__ == 'numpy' and type(value).__name__ != 'ndarray':  # without numpy
    value = value.item()
  if plain is Any:
    return tuple(value) if isinstance(value, list) else value
  if len(_choices(plain)) > 1:
    return checked('', plain, value)
  if plain is type(None) and value is None:
    return None
  if dataclasses.is_dataclass(plain) and isinstance(value, Mapping):
    return value  # completed as a group
  if origin is Literal and value in inner and type(value) is type(inner[inner.index(value)]):
    return value
  if origin is tuple and inner[-1:] == (...,) and isinstance(value, (str, int, float)):
    value = (value,)
  if origin is tuple and isinstance(value, (list, tuple)):
    each = [inner[0]] * len(value) if inner[-1:] == (...,) else inner
    if len(each) == len(value):
      return tuple(_as(k, v) for k, v in zip(each, value, strict=True))
  if plain is float and type(value) is int and abs(value) < 2**63:
    value = float(value)
  if plain in (int, float, str, bool) and type(value) is plain:
    number = plain in (int, float)
    bounds = note or Range(-(2**63), 2**63 - 1)
    if not number or (math.isfinite(value) and bounds.low <= value <= bounds.high):
      return value
  if origin in (dict, Mapping) and isinstance(value, Mapping):
    return value
  raise ValueError(words(kind))


def parsed(key: str, kind: Any, text: str) -> Any:
  """What a user wrote on the command line as a value of the annotation. Raises UserError."""
  plain = [_type_and_note(k)[0] for k in _choices(kind)]
  literal = [v for k in plain if typing.get_origin(k) is Literal for v in typing.get_args(k)]
  if str in plain or text in literal:
    return None if text.lower() == 'none' and type(None) in plain else text
  try:
    value = ast.literal_eval({'true': 'True', 'false': 'False', 'none': 'None'}.get(text, text))
  except (SyntaxError, ValueError, MemoryError, RecursionError):
    value = text
  if all(typing.get_origin(k) is tuple or k is type(None) for k in plain):
    if isinstance(value, str):
      value = tuple(part.strip() for part in LIST_COMMAS.split(value))
    elif value is not None and not isinstance(value, (list, tuple)):
      value = (value,)
  return checked(key, kind, value)


def completed(cls: type, given: Any, where: str = '', part: str = '') -> dict[str, Any]:
  """A group of a config with every key that it may have; `where` is its place, such as 'data.'.

  part: whose keys they are, for a message, such as "net 'segnet'". Raises UserError for an unknown
  key, with the nearest, and for a value that cannot be.
  """
  known = declared(cls)
  if isinstance(given, str) and issubclass(cls, Group) and cls.SHORT:
    given = {cls.SHORT: given}
  if not isinstance(given, Mapping):
    raise UserError(f'config.{where[:-1]} is {given!r}\n  it is a dict of {", ".join(known)}')
  if unknown := sorted(set(given) - set(known)):
    lacks = f': {part} has no option {unknown[0]!r}' if part else ''
    near = renamed.hint(where + unknown[0]) or nearest(unknown[0], known)
    raise UserError(f'unknown config key {where + unknown[0]!r}{lacks}\n{near}')
  return {key: _value(f'{where}{key}', o, given.get(key, o.default)) for key, o in known.items()}


def _value(key: str, option: Option, value: Any) -> Any:
  if value is REQUIRED:
    raise UserError(f'config.{key} is missing\n  it is {words(option.type)}')
  if (kind := option.part) and value is not None:
    return completed_part(kind, value, key)
  if (group := option.group) and value is not None:
    optional = group is not option.type  # one that is empty is not there
    return None if optional and value == {} else completed(group, value, f'{key}.')
  if group := option.entries:
    if not isinstance(value, Mapping):
      raise UserError(f'config.{key} is {value!r}\n  it is a dict of entries by name')
    return {name: completed(group, v, f'{key}.{name}.') for name, v in value.items()}
  return checked(key, option.type, value)


def completed_part(kind: str, given: Any, where: str) -> dict[str, Any]:
  """An entry dict(name=.., ..) with every field of the class that it names."""
  if kind == 'optimizer' and isinstance(given, Mapping):
    given = {'name': 'adam', **given}
  if not isinstance(given, Mapping) or not isinstance(given.get('name'), str):
    raise UserError(f"config.{where} is {given!r}\n  it is a dict such as dict(name='..', ..)")
  name, rest = given['name'], {k: v for k, v in given.items() if k != 'name'}
  cls = lookup.find(kind, name)
  return {'name': name, **completed(cls, rest, f'{where}.', f'{kind} {name!r}')}


def _inside(option: Option, value: Any) -> dict[str, tuple[type, Any]]:
  """The groups that an option's completed value is or holds, by where they are below its key: the
  class of each, and its config. None of an option that is a value itself."""
  if value is None:
    return {}
  if kind := option.part:
    return {'': (lookup.find(kind, value['name']), value)}
  if group := option.group:
    return {'': (group, value)}
  return {f'.{k}': (option.entries, v) for k, v in value.items()} if option.entries else {}


def beyond_defaults(cls: type, full: Mapping[str, Any]) -> dict[str, Any]:
  """A completed config without what is as by default, but for the names of its parts."""
  out: dict[str, Any] = {}
  for key, option in declared(cls).items():
    value = full[key]
    if (kind := option.part) and value is not None:
      name = value['name']
      out[key] = {'name': name, **beyond_defaults(lookup.find(kind, name), value)}
    elif (group := option.group) and value is not None:
      out[key] = beyond_defaults(group, value) or value  # an empty one may mean none
    elif group := option.entries:
      out[key] = {name: beyond_defaults(group, v) for name, v in value.items()}
    elif value != option.default:
      out[key] = value
  return out


def instance(cls: type, full: Mapping[str, Any]) -> Any:
  """A completed group as an object of its class, the groups in it too."""
  fields = {}
  for key, option in declared(cls).items():
    group, value = option.group, full[key]
    fields[key] = instance(group, value) if group and isinstance(value, Mapping) else value
  return cls(**fields)


def leaves(cls: type, config: Mapping[str, Any], where: str = '') -> dict[str, Option]:
  """Dotted key -> option, of a completed config; `default` is what the config has."""
  out: dict[str, Option] = {}
  for key, option in declared(cls).items():
    value, place = config[key], f'{where}{key}'
    if (kind := option.part) and value is not None:
      chosen = words(Literal[tuple(lookup.TABLES[kind])])  # type: ignore[misc]
      about = f'{option.about} One of {chosen}, or module:Class.'.strip()
      out[f'{place}.name'] = Option(str, value['name'], about)
    groups = _inside(option, value)
    for below, (group, entry) in groups.items():
      out |= leaves(group, entry, f'{place}{below}.')
    if not groups and not option.entries:
      out[place] = Option(option.type, value, option.about)
  return out


def emptied(cls: type, config: Mapping[str, Any], where: str = '') -> Iterator[str]:
  """Dotted keys of a completed config that {} empties: dicts of groups, groups that may be None."""
  for key, option in declared(cls).items():
    value, place = config[key], f'{where}{key}'
    if option.entries or (option.group and option.group is not option.type):
      yield place
    for below, (group, entry) in _inside(option, value).items():
      yield from emptied(group, entry, f'{place}{below}.')
