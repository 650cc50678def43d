"""Pickles of plain values and numpy arrays, read without numpy's own unpickling.

numpy's `dtype` and `ndarray` believe their states, pointers among them, so a pickle of a stranger
could read or write memory. Here the project's own machine runs the pickle, and what stands in for
the two takes plain kinds, sizes, shapes and bytes; every other name is refused.
"""

import functools
import math
import mmap
import os
import pathlib
import re
from typing import Any

import numpy as np

from car_jax import files
from car_jax.errors import reading
from car_jax.importers.inert_pickle import Budget, CutShort, Inert, Machine, Named, Refused

KIND = re.compile(r'([<>|=]?)([biuf][1248]|[US]\d{1,4})', re.ASCII)
MOST = 50_000_000  # instructions: a pickle of 15,000 crops has about 3 million


class Kind(Inert):
  """In place of numpy.dtype: numbers, bits and texts of a fixed size."""

  @property
  def dtype(self) -> np.dtype:
    """By name; its state is (version, byte order, no part, no names, no fields, size, ..)."""
    text, state = self.args[0] if self.args else None, self.state
    match = KIND.fullmatch(text) if isinstance(text, str) else None
    if not match or match[2] in ('b2', 'b4', 'b8', 'f1'):
      raise Refused(f'an array of kind {str(text)[:20]!r}; expected plain numbers')
    dtype = np.dtype(match[0])
    if state is None:
      return dtype
    if not isinstance(state, tuple) or len(state) < 6 or any(s is not None for s in state[2:5]):
      raise Refused('an array of a structured kind; expected plain numbers')
    if state[1] not in ('<', '>', '|', '='):
      raise Refused('an array of no known byte order')
    if type(state[5]) is not int or state[5] not in (-1, dtype.itemsize):
      raise Refused('an array whose kind has two sizes')
    return dtype.newbyteorder(state[1])


class Array(Inert):
  """In place of numpy.ndarray."""

  @property
  def values(self) -> np.ndarray:
    """From the state: (version, shape, kind, whether columns come first, bytes)."""
    if not isinstance(self.state, tuple) or len(self.state) != 5:
      raise Refused('an array whose state has another form')
    _, shape, kind, columns_first, data = self.state
    return array(shape, kind, data, 'F' if columns_first else 'C')


def array(shape: Any, kind: Any, data: Any, order: Any) -> np.ndarray:
  """A view of the bytes. Raises Refused for what is no plain array."""
  if not isinstance(kind, Kind) or not isinstance(shape, tuple) or len(shape) > 8:
    raise Refused('an array whose state has another form')
  if not all(type(n) is int and n > 0 for n in shape):
    raise Refused(f'an array of shape {str(shape)[:40]}')
  data = data.encode('latin1') if isinstance(data, str) else data  # Python 2's bytes
  if not isinstance(data, bytes | bytearray):
    raise Refused('an array without its bytes')
  dtype = kind.dtype
  if len(data) != math.prod(shape) * dtype.itemsize:
    raise Refused(f'{len(data)} bytes for an array {dtype} {shape}')
  flat = np.frombuffer(data, dtype)
  if dtype.kind == 'b' and flat.view(np.uint8).max() > 1:
    raise Refused('bits that are neither 0 nor 1')
  return flat.reshape(shape, order='F' if order == 'F' else 'C')


def _reconstruct(kind: Any = None, *_: Any) -> Array:
  if not isinstance(kind, Named) or kind.name != 'numpy.ndarray':
    raise Refused('it makes something other than an array')
  return Array('numpy.ndarray')


def _scalar(budget: Budget, kind: Any = None, data: Any = b'', *_: Any) -> Any:
  return array((1,), kind, _counted(budget, data), 'C')[0].item()


def _frombuffer(budget: Budget, data: Any, kind: Any, shape: Any, order: Any, *_: Any) -> Array:
  made = Array('numpy.ndarray')
  made.state = (1, shape, kind, order == 'F', _counted(budget, data))
  return made


def _encode(budget: Budget, text: Any, coding: Any = 'latin1', *_: Any) -> bytes:
  if not isinstance(text, str) or coding not in ('latin1', 'latin-1', 'iso-8859-1'):
    raise Refused('a text in another coding')
  return _counted(budget, text).encode('latin1')


def _counted(budget: Budget, data: Any) -> Any:
  """A text or bytes of which a copy is made; one may be named many times in a short file."""
  if not isinstance(data, str | bytes | bytearray):
    raise Refused('an array without its bytes')
  budget.take(len(data), 'an array')
  return data


def _unknown(name: str, _: Any) -> Any:
  raise Refused(f'it asks for {name}'[:120])


def read(path: pathlib.Path, what: str) -> Any:
  """What the pickle holds, `Array`s in place of arrays. Raises UserError, by path."""
  files.check_regular(path)
  with reading(path, what), path.open('rb') as file:
    size = os.fstat(file.fileno()).st_size
    if not size:
      raise CutShort('an empty file')
    budget = Budget(size, MOST)
    stand_ins: dict[str, Any] = {'numpy.dtype': lambda *args: Kind('numpy.dtype', args)}
    for core in ('numpy.core', 'numpy._core'):
      stand_ins |= {
        f'{core}.multiarray._reconstruct': _reconstruct,
        f'{core}.multiarray.scalar': functools.partial(_scalar, budget),
        f'{core}.numeric._frombuffer': functools.partial(_frombuffer, budget),
      }
    stand_ins['_codecs.encode'] = functools.partial(_encode, budget)
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
      try:
        return Machine(stream, budget, stand_ins, unknown=_unknown).load()
      except CutShort:
        raise Refused('truncated') from None
