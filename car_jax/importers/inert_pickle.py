"""Pickles read as plain data: nothing that they name is imported, and nothing is called.

A pickle is a program for a machine with a stack, and Python's own machine calls what the program
names. This one knows numbers, text, lists, tables and sets. A class or function that it names is a
`Named`, what the program would have made with it is an `Inert` that keeps the arguments and the
state; only a caller's own stand-ins, by exact name, build anything else.

What a file says about sizes is not believed: memory grows with the number of its instructions, of
which there may be `MOST`, and with the bytes that are there.
"""

import codecs
import io
import mmap
import pickletools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

MOST = 1_000_000  # instructions; a checkpoint of a thousand layers with its optimizer has 100,000
DIGITS = 1024  # bytes of one whole number
PLAIN_KEYS = (str, bytes, bool, type(None))


class Refused(ValueError):
  """The pickle is not what the machine reads; the message says where."""


class CutShort(ValueError):
  """The file ends inside it."""


class Named:
  """A class or function by its name."""

  __slots__ = ('name',)

  def __init__(self, name: str):
    self.name = name


class Inert:
  """What a call of something unknown would have made. Never called, hashed by identity."""

  __slots__ = ('args', 'items', 'name', 'state')

  def __init__(self, name: str, args: Any = ()):
    self.name, self.args = name, args
    self.state: Any = None
    self.items: list[Any] = []


class Budget:
  """Bytes and instructions that reading one file may take; both derive from its size."""

  def __init__(self, size: int, instructions: int = 0):
    self.bytes, self.instructions = 8 * size + 2**20, instructions or MOST

  def take(self, count: int, what: str) -> None:
    """Raises Refused if all that was taken comes to more than the file justifies."""
    self.bytes -= count
    if self.bytes < 0:
      raise Refused(f'{what} would take far more memory than the file holds')

  def step(self, count: int = 1) -> None:
    """Raises Refused after too many instructions, or parts that one of them goes through."""
    self.instructions -= count
    if self.instructions < 0:
      raise Refused('more instructions than any checkpoint or data set has')


class Machine:
  """Runs one pickle at a time from a stream in memory, or mapped into it.

  stand_ins: full name -> function of the positional arguments, checked by the function itself.
  persistent: what a reference to something outside the pickle (a storage) stands for.
  unknown: what a call of something else makes, from its name and arguments.
  """

  def __init__(
    self,
    stream: io.BytesIO | mmap.mmap,
    budget: Budget,
    stand_ins: Mapping[str, Callable],
    persistent: Callable[[Any], Any] | None = None,
    unknown: Callable[[str, tuple], Any] = Inert,
  ):
    self.stream, self.budget, self.stand_ins = stream, budget, stand_ins
    self.persistent, self.unknown = persistent, unknown
    self.stack: list[Any] = []
    self.below: list[list[Any]] = []  # the stacks under the open marks
    self.memo: dict[int, Any] = {}

  def load(self) -> Any:
    """The next pickle of the stream. Raises Refused and CutShort."""
    self.stack, self.below, self.memo = [], [], {}
    for name, arg in self._instructions():
      if name in PUSHED:
        self._check_literal(arg)
        self.stack.append(arg)
      elif name in FRESH:
        self.stack.append(FRESH[name]())
      elif name == 'STOP':
        return self._pop()
      elif (act := ACTS.get(name)) is None:
        raise Refused(f'a pickle with {name}')
      else:
        act(self, arg)
    raise CutShort

  def _instructions(self) -> Iterator[tuple[str, Any]]:
    while code := self.stream.read(1):
      self.budget.step()
      op = pickletools.code2op.get(code.decode('latin1'))  # type: ignore[attr-defined]
      if op is None:
        raise Refused(f'no pickle at byte {self.stream.tell()}')
      try:
        arg = None if op.arg is None else READERS.get(op.name, op.arg.reader)(self.stream)
      except Exception as e:
        if not self.stream.read(1):
          raise CutShort from None
        raise Refused(f'no pickle at byte {self.stream.tell()}: {e}') from None
      yield op.name, arg

  def _check_literal(self, arg: Any) -> None:
    if type(arg) is int and arg.bit_length() > 8 * DIGITS:
      raise Refused(f'a whole number of more than {DIGITS} bytes')

  def _pop(self, kind: type | tuple[type, ...] = object) -> Any:
    if not self.stack or not isinstance(self.stack[-1], kind):
      raise Refused('a pickle whose parts do not fit together')
    return self.stack.pop()

  def _pop_mark(self) -> list[Any]:
    if not self.below:
      raise Refused('a pickle whose parts do not fit together')
    items, self.stack = self.stack, self.below.pop()
    return items

  def _top(self) -> Any:
    self.stack.append(top := self._pop())
    return top

  def mark(self, _: Any) -> None:
    self.below.append(self.stack)
    self.stack = []

  def pop(self, _: Any) -> None:
    self.stack.pop() if self.stack else self._pop_mark()

  def pop_mark(self, _: Any) -> None:
    self._pop_mark()

  def duplicate(self, _: Any) -> None:
    self.stack.append(self._top())

  def put(self, index: int) -> None:
    self.memo[index] = self._top()

  def memoize(self, _: Any) -> None:
    self.memo[len(self.memo)] = self._top()

  def get(self, index: int) -> None:
    if index not in self.memo:
      raise Refused('a pickle whose parts do not fit together')
    self.stack.append(self.memo[index])

  def short_tuple(self, count: int) -> None:
    items = [self._pop() for _ in range(count)]
    self.stack.append(tuple(reversed(items)))

  def long_tuple(self, _: Any) -> None:
    items = self._pop_mark()
    self.stack.append(tuple(items))

  def to_list(self, _: Any) -> None:
    items = self._pop_mark()
    self.stack.append(items)

  def to_dict(self, _: Any) -> None:
    pairs = self._pop_mark()
    self.stack.append({})
    self._fill(pairs)

  def to_dict_of(self, pairs: Any) -> None:
    """A table from a list of pairs, as Python 2 pickled ordered ones."""
    if not all(isinstance(p, (list, tuple)) and len(p) == 2 for p in pairs):
      raise Refused('a table that is made of something other than pairs')
    self.stack.append({})
    self._fill([x for pair in pairs for x in pair])

  def frozen_set(self, _: Any) -> None:
    items = self._pop_mark()
    self.stack.append({as_key(x) for x in items})

  def append(self, _: Any) -> None:
    self._extend([self._pop()])

  def appends(self, _: Any) -> None:
    self._extend(self._pop_mark())

  def _extend(self, items: list[Any]) -> None:
    target = self._top()
    if isinstance(target, set):
      target.update(map(as_key, items))
    elif isinstance(target, (list, Inert)):
      (target if isinstance(target, list) else target.items).extend(items)
    else:
      raise Refused('a pickle whose parts do not fit together')

  def set_item(self, _: Any) -> None:
    value, key = self._pop(), self._pop()
    self._fill([key, value])

  def set_items(self, _: Any) -> None:
    self._fill(self._pop_mark())

  def _fill(self, pairs: list[Any]) -> None:
    target = self._top()
    if len(pairs) % 2 or not isinstance(target, (dict, Inert)):
      raise Refused('a pickle whose parts do not fit together')
    if isinstance(target, Inert):
      target.items.extend(pairs)
    else:
      target.update((as_key(k), v) for k, v in zip(pairs[::2], pairs[1::2], strict=True))

  def name(self, text: str) -> None:
    self.stack.append(Named('.'.join(text.split(' ', 1))))

  def name_of_stack(self, _: Any) -> None:
    name, module = self._pop(str), self._pop(str)
    self.stack.append(Named(f'{module}.{name}'))

  def call(self, _: Any) -> None:
    args = self._pop(tuple)
    self._make(self._pop(), args)

  def call_with_names(self, _: Any) -> None:
    _, args = self._pop(dict), self._pop(tuple)
    self._make(self._pop(), args)

  def call_marked(self, _: Any) -> None:
    made, *args = self._pop_mark() or [None]
    self._make(made, tuple(args))

  def call_named(self, text: str) -> None:
    args = self._pop_mark()
    self._make(Named('.'.join(text.split(' ', 1))), tuple(args))

  def _make(self, made: Any, args: tuple) -> None:
    if not isinstance(made, Named):
      raise Refused('a pickle that calls what is no function')
    known = self.stand_ins.get(made.name)
    self.stack.append(known(*args) if known else self.unknown(made.name, args))

  def build(self, _: Any) -> None:
    """The state of an Inert. That of a table, torch's note of versions, is left."""
    state, target = self._pop(), self._top()
    if isinstance(target, Inert):
      target.state = state
    elif not isinstance(target, dict):
      raise Refused(f'a pickle that changes what is no object ({type(target).__name__})')

  def refer(self, _: Any) -> None:
    if self.persistent is None:
      raise Refused('it refers to something outside the file')
    self.stack.append(self.persistent(self._pop()))


def as_key(x: Any) -> Any:
  """A key of a table: itself if it is plain, else something that equals nothing.

  Nested tuples and chosen numbers could make hashing take forever.
  """
  if type(x) is int:
    return x if abs(x) < 2**31 else Inert('int')
  return x if type(x) in PLAIN_KEYS else Inert(type(x).__name__)


def encoded(budget: Budget, text: Any, coding: Any = 'latin1', *_: Any) -> bytes:
  """Bytes as protocols 0 to 2 hold them; a stand-in for `_codecs.encode`."""
  if type(text) is not str or coding not in ('latin1', 'latin-1', 'iso-8859-1'):
    raise Refused('bytes in an unknown code')
  budget.take(len(text), 'bytes')
  return text.encode('latin1')


def _text_of_bytes(stream: Any) -> str:
  """A text of Python 2 in protocol 0, of any bytes; pickletools reads ASCII alone."""
  quoted = pickletools.read_stringnl(stream, decode=False, stripquotes=True)
  return codecs.escape_decode(quoted)[0].decode('latin1')


READERS = {'STRING': _text_of_bytes}
PUSHED = {'INT', 'BININT', 'BININT1', 'BININT2', 'LONG', 'LONG1', 'LONG4', 'FLOAT', 'BINFLOAT'}
PUSHED |= {'STRING', 'BINSTRING', 'SHORT_BINSTRING', 'UNICODE', 'BINUNICODE', 'SHORT_BINUNICODE'}
PUSHED |= {'BINUNICODE8', 'BINBYTES', 'SHORT_BINBYTES', 'BINBYTES8', 'BYTEARRAY8'}
FRESH: dict[str, Callable] = {'NONE': lambda: None, 'NEWTRUE': lambda: True, 'EMPTY_LIST': list}
FRESH |= {'NEWFALSE': lambda: False, 'EMPTY_TUPLE': tuple, 'EMPTY_DICT': dict, 'EMPTY_SET': set}
M = Machine
ACTS: dict[str, Callable] = {
  **dict.fromkeys(('PROTO', 'FRAME'), lambda machine, arg: None),
  **dict(MARK=M.mark, POP=M.pop, POP_MARK=M.pop_mark, DUP=M.duplicate),
  **dict.fromkeys(('PUT', 'BINPUT', 'LONG_BINPUT'), M.put),
  **dict.fromkeys(('GET', 'BINGET', 'LONG_BINGET'), M.get),
  **{f'TUPLE{n}': lambda machine, arg, n=n: machine.short_tuple(n) for n in (1, 2, 3)},
  **dict(
    MEMOIZE=M.memoize, TUPLE=M.long_tuple, LIST=M.to_list, DICT=M.to_dict, FROZENSET=M.frozen_set
  ),
  **dict(APPEND=M.append, APPENDS=M.appends, ADDITEMS=M.appends, BUILD=M.build, BINPERSID=M.refer),
  **dict(SETITEM=M.set_item, SETITEMS=M.set_items, GLOBAL=M.name, STACK_GLOBAL=M.name_of_stack),
  **dict(REDUCE=M.call, NEWOBJ=M.call, NEWOBJ_EX=M.call_with_names, OBJ=M.call_marked),
  **dict(INST=M.call_named),
}
