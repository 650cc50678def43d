"""Reads a pickle as data: an interpreter of its own for the instructions of pickle, which calls,
imports and constructs nothing that the file names.

What a file may have made are plain values, lists, tables, and what `Machine.functions` builds.
Every other class or function that it names, whatever is made of it and put into it, is an
`Unknown`: a name and nothing else, for the caller to refuse or to leave.
"""

import pickletools
import sys
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

PLAIN = (str, int, float, bool, bytes, type(None))
# Of the standard library, what trainings save; whoever names another part of it asks for code.
DATA_MODULES = ('datetime', 'collections', 'pathlib', 'argparse', 'types', 'enum', 'fractions')
DATA_MODULES += ('copyreg', 'copy_reg', 'uuid', 'decimal')
BUILTINS = ('set', 'frozenset', 'object', 'list', 'dict', 'tuple', 'bytearray', 'complex', 'slice')
BUILTINS += ('range', 'str', 'int', 'float', 'bool', 'bytes', 'type')


class Refused(ValueError):
  """The file asks for something other than data."""


class Unknown:
  """Stands for what a file names and we do not have: never called, never anything but its name."""

  __slots__ = ('name',)

  def __init__(self, name: str):
    self.name = name

  def __repr__(self) -> str:
    return f'<{self.name}>'


class Budget:
  """How many bytes a file may become in memory; `spend` raises Refused beyond."""

  def __init__(self, size: int):
    self.left = 4 * size + 2**16

  def spend(self, size: int) -> None:
    self.left -= size
    if self.left < 0:
      raise Refused('it would become many times its size in memory')


class Function:
  """What a file may call: one of ours, by its arguments as data."""

  __slots__ = ('call',)

  def __init__(self, call: Callable[..., Any]):
    self.call = call


class Table(dict):
  """An ordered dict of the file."""


MARK = object()
SKIPPED = ('PROTO', 'FRAME')
LITERALS = ('INT', 'BININT', 'BININT1', 'BININT2', 'LONG', 'LONG1', 'LONG4', 'FLOAT', 'BINFLOAT')
LITERALS += ('STRING', 'BINSTRING', 'SHORT_BINSTRING', 'UNICODE', 'BINUNICODE', 'SHORT_BINUNICODE')
LITERALS += ('BINUNICODE8', 'BINBYTES', 'SHORT_BINBYTES', 'BINBYTES8', 'BYTEARRAY8')
CONSTANTS = {'NONE': None, 'NEWTRUE': True, 'NEWFALSE': False}
TUPLES = {'EMPTY_TUPLE': 0, 'TUPLE1': 1, 'TUPLE2': 2, 'TUPLE3': 3}
EMPTY: dict[str, Callable[[], Any]] = {'EMPTY_LIST': list, 'EMPTY_DICT': dict, 'EMPTY_SET': list}


class Machine:
  """Runs the pickle at a stream's place and leaves the stream behind it.

  functions: (module, name) -> a value, or a Function; `persistent` gives what a reference to
  something outside stands for. The stream must hold its bytes already (BytesIO, mmap), so that a
  declared length beyond its end costs nothing. Raises Refused, EOFError and ValueError.
  """

  def __init__(self, functions: Mapping[tuple[str, str], Any], persistent: Callable[[Any], Any]):
    self.functions, self.persistent = functions, persistent
    self.stack: list[Any] = []
    self.memo: dict[int, Any] = {}

  def load(self, stream: BinaryIO | Any) -> Any:
    try:
      for op, arg, _ in pickletools.genops(stream):
        if op.name == 'STOP':
          return self._pop()
        self._step(op.name, arg)
    except (IndexError, KeyError):
      raise ValueError('a damaged pickle') from None
    except ValueError as e:
      short = ('pickle exhausted', 'expected', 'not enough data', 'no newline found')
      if not isinstance(e, Refused) and str(e).startswith(short):
        raise EOFError from None
      raise
    raise EOFError

  def _pop(self) -> Any:
    value = self.stack.pop()
    if value is MARK:
      raise ValueError('a damaged pickle')
    return value

  def _since_mark(self) -> list[Any]:
    at = len(self.stack) - 1
    while self.stack[at] is not MARK:
      at -= 1
      if at < 0:
        raise ValueError('a damaged pickle')
    items = self.stack[at + 1 :]
    del self.stack[at:]
    return items

  def _step(self, name: str, arg: Any) -> None:
    push = self.stack.append
    if name in LITERALS:
      push(bytes(arg) if isinstance(arg, bytearray) else arg)
    elif name in ('BINPUT', 'LONG_BINPUT', 'PUT'):
      self.memo[arg] = self._top()
    elif name == 'MEMOIZE':
      self.memo[len(self.memo)] = self._top()
    elif name in ('BINGET', 'LONG_BINGET', 'GET'):
      push(self.memo[arg])
    elif name in TUPLES:
      push(tuple(reversed([self._pop() for _ in range(TUPLES[name])])))
    elif name in CONSTANTS:
      push(CONSTANTS[name])
    elif name == 'MARK':
      push(MARK)
    elif name not in SKIPPED:
      self._compose(name, arg)

  def _top(self) -> Any:
    if self.stack[-1] is MARK:
      raise ValueError('a damaged pickle')
    return self.stack[-1]

  def _compose(self, name: str, arg: Any) -> None:
    """The instructions that put values together."""
    push = self.stack.append
    if name in EMPTY:
      push(EMPTY[name]())
    elif name in ('TUPLE', 'LIST', 'FROZENSET', 'DICT'):
      items = self._since_mark()
      push(tuple(items) if name == 'TUPLE' else items if name != 'DICT' else put({}, items))
    elif name in ('APPENDS', 'ADDITEMS', 'SETITEMS'):
      items = self._since_mark()
      (put if name == 'SETITEMS' else _extend)(self._top(), items)
    elif name == 'SETITEM':
      value, key = self._pop(), self._pop()
      put(self._top(), [key, value])
    elif name == 'APPEND':
      value = self._pop()
      _extend(self._top(), [value])
    elif name == 'POP':
      self.stack.pop()
    elif name == 'POP_MARK':
      self._since_mark()
    elif name == 'DUP':
      push(self._top())
    else:
      self._call(name, arg)

  def _call(self, name: str, arg: Any) -> None:
    """The instructions that name or call something."""
    push = self.stack.append
    if name == 'GLOBAL':
      push(self._named(*arg.split(' ', 1)))
    elif name == 'STACK_GLOBAL':
      attribute, module = self._pop(), self._pop()
      push(self._named(module, attribute))
    elif name in ('REDUCE', 'NEWOBJ'):
      arguments, function = self._pop(), self._pop()
      push(_result(function, arguments))
    elif name == 'NEWOBJ_EX':
      _, arguments, function = self._pop(), self._pop(), self._pop()
      push(_result(function, arguments))
    elif name == 'OBJ':
      function, *arguments = self._since_mark()
      push(_result(function, tuple(arguments)))
    elif name == 'INST':
      push(_result(self._named(*arg.split(' ', 1)), tuple(self._since_mark())))
    elif name == 'BUILD':
      self._pop()
      if not isinstance(self._top(), (Unknown, Table)):
        raise Refused(f'it sets the state of a {type(self._top()).__name__}')
    elif name in ('BINPERSID', 'PERSID'):
      push(self.persistent(self._pop() if name == 'BINPERSID' else arg))
    else:
      raise Refused(f'it has the instruction {name}, which no file of weights needs')

  def _named(self, module: Any, name: Any) -> Any:
    if not (isinstance(module, str) and isinstance(name, str)):
      raise ValueError('a damaged pickle')
    if (module, name) in self.functions:
      return self.functions[module, name]
    root = module.partition('.')[0]
    data = root in DATA_MODULES and '.' not in name
    data |= root in ('builtins', '__builtin__') and name in BUILTINS
    if not data and (root in sys.stdlib_module_names or root in ('__builtin__', 'os', 'nt')):
      raise Refused(f'it names {module}.{name}, which is no part of a tensor')
    return Unknown(f'{module}.{name}')


def _extend(target: Any, items: list[Any]) -> None:
  if isinstance(target, list):
    target.extend(items)
  elif not isinstance(target, Unknown):
    raise ValueError('a damaged pickle')


def put(target: Any, items: list[Any]) -> Any:
  """A table with keys and values in turn set; Unknowns swallow them."""
  if isinstance(target, Unknown):
    return target
  if not isinstance(target, dict) or len(items) % 2:
    raise ValueError('a damaged pickle')
  for key, value in zip(items[::2], items[1::2], strict=True):
    flat = isinstance(key, tuple) and all(isinstance(k, PLAIN) for k in key)
    if not (flat or isinstance(key, (*PLAIN, Unknown))):
      raise Refused(f'a table has a {type(key).__name__} as key')
    target[key] = value
  return target


def _result(function: Any, arguments: Any) -> Any:
  if isinstance(function, Unknown):
    return Unknown(function.name)
  if not isinstance(function, Function) or not isinstance(arguments, tuple):
    raise Refused('it calls what is no function')
  return function.call(*arguments)
