"""Evaluates the outputs of a traced function by numpy, random numbers included, compiling nothing.

`jit(model.init)` compiles a random kernel for every parameter's shape: 55 s for the calibration
net of the demo on two cores. Here the traced program of an initialiser is carried out on the host:
the operations that initialisers are made of by numpy, any other by jax, one at a time; random bits
come from numpy's generator, keyed by what jax's key was made of. So values have the distribution
that the initialiser states, though not the numbers that a device would draw.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun
from scipy import special

Array = np.ndarray


def evaluate(closed: ClosedJaxpr, arguments: Sequence[Any], wanted: Sequence[int]) -> list[Array]:
  """The outputs numbered `wanted` of a program; a key among the arguments is a np.uint64."""
  jaxpr = closed.jaxpr
  known = dict(zip(jaxpr.constvars, closed.consts, strict=True))
  known |= dict(zip(jaxpr.invars, arguments, strict=True))
  read = lambda v: v.val if isinstance(v, Literal) else known[v]
  outputs = [jaxpr.outvars[i] for i in wanted]
  needed = {v for v in outputs if not isinstance(v, Literal)}
  steps = []
  for eqn in reversed(jaxpr.eqns):
    if needed.intersection(eqn.outvars):
      steps.append(eqn)
      needed.update(v for v in eqn.invars if not isinstance(v, Literal))
  for eqn in reversed(steps):
    results = _step(eqn, [read(v) for v in eqn.invars], jaxpr.debug_info)
    known |= dict(zip(eqn.outvars, results, strict=True))
  return [read(v) for v in outputs]


def _step(eqn: Any, inputs: list[Any], debug_info: Any) -> list[Any]:
  name, params = eqn.primitive.name, eqn.params
  inner = params.get('jaxpr', params.get('call_jaxpr'))
  if isinstance(inner, ClosedJaxpr) and name not in ('scan', 'while', 'cond'):
    return evaluate(inner, inputs, range(len(eqn.outvars)))
  (out, *_) = eqn.outvars
  if name in KEYS:
    return [KEYS[name](*inputs, **params)]
  if name in PLAIN:
    value = PLAIN[name](*map(np.asarray, inputs))
  elif name in SHAPED:
    value = SHAPED[name](*map(np.asarray, inputs), **params)
  else:
    return _by_jax(eqn, inputs, debug_info)
  dtype = np.uint64 if _is_key(out.aval) else out.aval.dtype
  return [np.broadcast_to(np.asarray(value).astype(dtype), out.aval.shape)]


def _is_key(x: Any) -> bool:
  return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _by_jax(eqn: Any, inputs: list[Any], debug_info: Any) -> list[Any]:
  """One operation as jax has it; keys become jax's and back."""
  pairs = zip(eqn.invars, inputs, strict=True)
  real = {v: _jax_key(x) if _is_key(v.aval) else x for v, x in pairs if not isinstance(v, Literal)}
  alone = ClosedJaxpr(Jaxpr([], [*real], eqn.outvars, [eqn], debug_info=debug_info), [])
  results = jaxpr_as_fun(alone)(*real.values())
  return [_wrap(jax.random.key_data(x)) if _is_key(x) else np.asarray(x) for x in results]


def mixed(*parts: Any) -> np.uint64:
  """A key made of numbers, the same on every machine."""
  text = ' '.join(str(int(p)) for p in parts)
  return np.uint64(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), 'little'))


def _fold(key: Any, data: Any, **_: Any) -> Array:
  pairs = np.broadcast(np.asarray(key), np.asarray(data))
  return np.array([mixed(*pair) for pair in pairs], np.uint64).reshape(pairs.shape)


def _split(key: Array, *, shape: tuple[int, ...], **_: Any) -> Array:
  rows = [[mixed(k, 0, i) for i in range(int(np.prod(shape)))] for k in np.ravel(key)]
  return np.array(rows, np.uint64).reshape(*np.shape(key), *shape)


def _bits(key: Array, *, bit_width: int, shape: tuple[int, ...], **_: Any) -> Array:
  draw = lambda k: np.random.default_rng(int(k)).integers(
    0, 2**bit_width, shape, np.dtype(f'uint{bit_width}')
  )
  return np.stack([draw(k) for k in np.ravel(key)]).reshape(*np.shape(key), *shape)


def _wrap(data: Any, **_: Any) -> Array:
  pairs = np.asarray(data).reshape(-1, np.shape(data)[-1])
  return np.array([mixed(*p) for p in pairs], np.uint64).reshape(np.shape(data)[:-1])


def _unwrap(key: Array, **_: Any) -> Array:
  key = np.asarray(key, np.uint64)
  return np.stack([key >> np.uint64(32), key & np.uint64(2**32 - 1)], -1).astype(np.uint32)


def _jax_key(key: Array) -> jax.Array:
  data: Any = _unwrap(key)
  return jax.random.wrap_key_data(data, impl='threefry2x32')


KEYS: dict[str, Callable[..., Any]] = {
  'random_seed': lambda seed, **_: _fold(seed, 1),
  'random_wrap': _wrap,
  'random_unwrap': _unwrap,
  'random_clone': lambda key, **_: key,
  'random_fold_in': _fold,
  'random_split': _split,
  'random_bits': _bits,
}
PLAIN: dict[str, Callable[..., Any]] = {
  **dict(add=np.add, add_any=np.add, sub=np.subtract, mul=np.multiply, neg=np.negative),
  'div': lambda a, b: a / b if a.dtype.kind == 'f' else np.trunc(a / b),
  **dict(max=np.maximum, min=np.minimum, sqrt=np.sqrt, log=np.log, exp=np.exp, log1p=np.log1p),
  **dict(abs=np.abs, sign=np.sign, cos=np.cos, sin=np.sin, floor=np.floor, square=np.square),
  **dict(lt=np.less, le=np.less_equal, gt=np.greater, ge=np.greater_equal, eq=np.equal),
  **dict(ne=np.not_equal, **{'and': np.bitwise_and, 'or': np.bitwise_or, 'xor': np.bitwise_xor}),
  'shift_right_logical': np.right_shift,
  'shift_left': np.left_shift,
  'erf_inv': special.erfinv,
  'erf': special.erf,
  'stop_gradient': lambda x: x,
}


def _broadcast(x: Array, *, shape: Any, broadcast_dimensions: Any, **_: Any) -> Array:
  sides = [1] * len(shape)
  for axis, side in zip(broadcast_dimensions, x.shape, strict=True):
    sides[axis] = side
  return np.broadcast_to(x.reshape(sides), shape)


SHAPED: dict[str, Callable[..., Any]] = {
  'broadcast_in_dim': _broadcast,
  'convert_element_type': lambda x, *, new_dtype, **_: x.astype(new_dtype),
  'bitcast_convert_type': lambda x, *, new_dtype: x.view(new_dtype),
  'reshape': lambda x, *, new_sizes, **_: x.reshape(new_sizes),
  'squeeze': lambda x, *, dimensions: np.squeeze(x, dimensions),
  'transpose': lambda x, *, permutation: np.transpose(x, permutation),
}
