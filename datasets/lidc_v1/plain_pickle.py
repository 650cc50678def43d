"""Pickles of plain values and numpy arrays, read without numpy's own unpickling.

A pickle names functions and hands them arguments and states. numpy's `dtype` and `ndarray` believe
their states, pointers among them, so a file of a stranger could read or write memory. Here every
name stands for a function of this module, which takes plain kinds, sizes, shapes and bytes, and
every other name is refused. The pure-Python unpickler is the base: it has a table of operations to
take some away from, and what it allocates is never more than what lies in the file.
"""

import math
import os
import pathlib
import pickle
import re
import struct
from typing import Any, BinaryIO

import numpy as np

from car_jax import files
from car_jax.errors import reading

KIND = re.compile(r'([<>|=]?)([biuf][1248]|[US]\d{1,4})', re.ASCII)
COPIES = 2  # bytes that may be made for each byte of the file: a text's, and then an array's
PLAIN_KEYS = (str, bytes)  # whose hash and whose repr cannot be made to fail


class Refused(ValueError):
  """What a pickle of plain arrays does not hold; `reading` puts the path before it."""


class Kind:
  """In place of numpy.dtype: numbers, bits and texts of a fixed size."""

  def __init__(self, text: Any, *_: Any) -> None:
    match = KIND.fullmatch(text) if isinstance(text, str) else None
    if not match or match[2] in ('b2', 'b4', 'b8', 'f1'):
      raise Refused(f'an array of kind {str(text)[:20]!r}; expected plain numbers')
    self.dtype = np.dtype(match[0])

  def set(self, state: Any) -> None:
    """(version, byte order, no part, no names, no fields, size, alignment, flags)."""
    if not isinstance(state, tuple) or len(state) < 6 or any(s is not None for s in state[2:5]):
      raise Refused('an array of a structured kind; expected plain numbers')
    if not isinstance(state[1], str) or state[1] not in ('<', '>', '|', '='):
      raise Refused('an array of no known byte order')
    if not isinstance(state[5], int) or state[5] not in (-1, self.dtype.itemsize):
      raise Refused('an array whose kind has two sizes')
    self.dtype = self.dtype.newbyteorder(state[1])


class Array:
  """In place of numpy.ndarray: `values` once its state is known."""

  def __init__(self) -> None:
    self.values: np.ndarray | None = None

  def set(self, state: Any) -> None:
    """(version, shape, kind, whether columns come first, bytes)."""
    if not isinstance(state, tuple) or len(state) != 5:
      raise Refused('an array whose state has another form')
    self.fill(*state[1:3], state[4], columns_first=bool(state[3]))

  def fill(self, shape: Any, kind: Any, data: Any, *, columns_first: bool) -> None:
    if not isinstance(kind, Kind) or not isinstance(shape, tuple) or len(shape) > 8:
      raise Refused('an array whose state has another form')
    if not all(type(n) is int and n > 0 for n in shape):
      raise Refused(f'an array of shape {str(shape)[:40]}')
    data = data.encode('latin1') if isinstance(data, str) else data
    if not isinstance(data, bytes | bytearray):
      raise Refused('an array without its bytes')
    if len(data) != math.prod(shape) * kind.dtype.itemsize:
      raise Refused(f'{len(data)} bytes for an array {kind.dtype} {shape}')
    flat = np.frombuffer(data, kind.dtype)
    if kind.dtype.kind == 'b' and flat.view(np.uint8).max() > 1:
      raise Refused('bits that are neither 0 nor 1')
    self.values = flat.reshape(shape, order='F' if columns_first else 'C')


NDARRAY = object()  # the class itself, only ever an argument


class Unpickler(pickle._Unpickler):  # type: ignore[name-defined, misc]
  """Raises Refused, or nearly anything where a file is damaged."""

  def __init__(self, file: BinaryIO, size: int) -> None:
    super().__init__(_Bounded(file, size), encoding='latin1')
    self._left = COPIES * size
    self._known = {
      ('numpy', 'ndarray'): NDARRAY,
      ('numpy', 'dtype'): Kind,
      ('numpy.core.multiarray', '_reconstruct'): self._reconstruct,
      ('numpy.core.multiarray', 'scalar'): self._scalar,
      ('numpy.core.numeric', '_frombuffer'): self._frombuffer,
      ('_codecs', 'encode'): self._encode,
    }

  def find_class(self, module: str, name: str) -> Any:
    home = module.replace('numpy._core', 'numpy.core')
    if (home, name) not in self._known:
      raise Refused(f'it asks for {module}.{name}'[:120])
    return self._known[home, name]

  def _spend(self, data: Any) -> Any:
    """A text or bytes of which a copy is made; one may be named many times in a short file."""
    self._left -= len(data)
    if self._left < 0:
      raise Refused('it makes more of itself than it holds')
    return data

  def _reconstruct(self, kind: Any, *_: Any) -> Array:
    if kind is not NDARRAY:
      raise Refused('it makes something other than an array')
    return Array()

  def _scalar(self, kind: Any, data: Any) -> Any:
    made = Array()
    made.fill((1,), kind, self._spend(data), columns_first=False)
    return made.values[0].item()

  def _frombuffer(self, data: Any, kind: Any, shape: Any, order: Any) -> Array:
    made = Array()
    made.fill(shape, kind, self._spend(data), columns_first=order == 'F')
    return made

  def _encode(self, text: Any, coding: Any = 'latin1') -> bytes:
    if not isinstance(text, str) or coding not in ('latin1', 'latin-1', 'iso-8859-1'):
      raise Refused('a text in another coding')
    return self._spend(text).encode('latin1')

  def _reduce(self) -> None:
    arguments, function = self.stack.pop(), self.stack[-1]
    if function not in self._known.values() or not isinstance(arguments, tuple):
      raise Refused('it calls something that is no function')
    self.stack[-1] = function(*arguments)

  def _build(self) -> None:
    state, made = self.stack.pop(), self.stack[-1]
    if not isinstance(made, Kind | Array):
      raise Refused('it changes something other than an array')
    if isinstance(made, Array) and isinstance(state, tuple) and len(state) == 5:
      self._spend(state[4] if isinstance(state[4], str | bytes | bytearray) else b'')
    made.set(state)

  def _bytes8(self) -> None:
    (size,) = struct.unpack('<Q', self.read(8))
    self.append(bytearray(self.read(size)))

  def _set(self, made: Any, items: list[Any]) -> None:
    if not isinstance(made, dict) or not all(isinstance(k, PLAIN_KEYS) for k in items[::2]):
      raise Refused('a table whose keys are no names')
    made.update(zip(items[::2], items[1::2], strict=True))

  def _dict(self) -> None:
    items: list[Any] = self.pop_mark()
    self.append({})
    self._set(self.stack[-1], items)

  def _setitem(self) -> None:
    value, key = self.stack.pop(), self.stack.pop()
    self._set(self.stack[-1], [key, value])

  def _setitems(self) -> None:
    items = self.pop_mark()
    self._set(self.stack[-1], items)

  def _refuse(self) -> None:
    raise Refused('it holds something other than texts, numbers, lists, tables and arrays')

  dispatch = dict(pickle._Unpickler.dispatch)  # type: ignore[attr-defined]
  dispatch |= {
    pickle.REDUCE[0]: _reduce,
    pickle.BUILD[0]: _build,
    pickle.BYTEARRAY8[0]: _bytes8,
    pickle.DICT[0]: _dict,
    pickle.SETITEM[0]: _setitem,
    pickle.SETITEMS[0]: _setitems,
  }
  dispatch |= dict.fromkeys(
    (
      op[0]
      for op in (
        *(pickle.PERSID, pickle.BINPERSID, pickle.INST, pickle.OBJ, pickle.NEWOBJ),
        *(pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.EMPTY_SET),
        *(pickle.ADDITEMS, pickle.FROZENSET, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
      )
    ),
    _refuse,
  )


class _Bounded:
  """A file that is never asked for more than it has, so that nothing is allocated for it."""

  def __init__(self, file: BinaryIO, size: int) -> None:
    self._file, self._left = file, size

  def read(self, count: int) -> bytes:
    if not 0 <= count <= self._left:
      raise Refused('truncated, or a size that is more than the file has')
    self._left -= count
    return self._file.read(count)

  def readline(self) -> bytes:
    line = self._file.readline()
    self._left -= len(line)
    return line


def read(path: pathlib.Path, what: str) -> Any:
  """What the pickle holds, `Array`s in place of arrays. Raises UserError, by path."""
  files.check_regular(path)
  with reading(path, what), path.open('rb') as file:
    size = os.fstat(file.fileno()).st_size
    return Unpickler(file, size).load()
