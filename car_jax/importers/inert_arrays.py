"""numpy's arrays in a pickle, made without numpy's own unpickling.

numpy's `dtype` and `ndarray` believe their states, pointers among them, so a pickle of a stranger
could read or write memory. What stands in for the two takes plain kinds, sizes, shapes and bytes.
"""

import functools
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from car_jax.importers.inert_pickle import Budget, Inert, Named, Refused

KIND = re.compile(r'([<>|=]?)([biuf][1248]|[US]\d{1,4})', re.ASCII)


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
  """In place of numpy.ndarray; what its state says is looked at where its values are wanted."""

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


def stand_ins(budget: Budget, unknown: Callable[[str, tuple], Any] = Inert) -> dict[str, Callable]:
  """What a pickle names to make arrays, in the spelling of both numpy 1 and 2.

  unknown: what the reconstruction of another class makes.
  """

  def reconstructed(kind: Any = None, *args: Any) -> Any:
    name = kind.name if isinstance(kind, Named) else 'numpy.ndarray of no class'
    return Array(name) if name == 'numpy.ndarray' else unknown(name, args)

  made: dict[str, Callable] = {'numpy.dtype': lambda *args: Kind('numpy.dtype', args)}
  for core in ('numpy.core', 'numpy._core'):
    made[f'{core}.multiarray._reconstruct'] = reconstructed
    made[f'{core}.numeric._frombuffer'] = functools.partial(_frombuffer, budget)
  return made


def scalars(budget: Budget) -> dict[str, Callable]:
  """What a pickle names to make a single number or text."""
  scalar = functools.partial(_scalar, budget)
  return {f'{core}.multiarray.scalar': scalar for core in ('numpy.core', 'numpy._core')}


def _scalar(budget: Budget, kind: Any = None, data: Any = b'', *_: Any) -> Any:
  return array((1,), kind, _counted(budget, data), 'C')[0].item()


def _frombuffer(budget: Budget, data: Any, kind: Any, shape: Any, order: Any, *_: Any) -> Array:
  made = Array('numpy.ndarray')
  made.state = (1, shape, kind, order == 'F', _counted(budget, data))
  return made


def _counted(budget: Budget, data: Any) -> Any:
  """A text or bytes of which a copy is made; one may be named many times in a short file."""
  if not isinstance(data, str | bytes | bytearray):
    raise Refused('an array without its bytes')
  budget.take(len(data), 'an array')
  return data
