"""The table of weights in what a training saved: found, said what was taken, whole or refused."""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from car_jax.errors import UserError
from car_jax.importers import torch_file
from car_jax.importers.inert_arrays import Array
from car_jax.importers.inert_pickle import Inert, Refused
from car_jax.importers.safetensors_file import read_safetensors

# what trainings call it; an average of theirs is what they evaluate
KEYS = ('average_model', 'state_dict', 'model_state_dict', 'model', 'net', 'network')
WRAPPERS = ('module.', '_orig_mod.')  # DataParallel's and torch.compile's
MOST_MODULES = 100_000
MOST_DEPTH = 5  # of tables in tables


def read(path: str | pathlib.Path, what: str) -> dict[str, np.ndarray]:
  """The weights of a file of safetensors, or of torch; see `find`. Raises UserError."""
  if pathlib.Path(path).suffix == '.safetensors':
    return read_safetensors(path)
  return find(path, torch_file.read_saved(path, 'state_dict', 'weights'), what)


def find(path: Any, content: Any, what: str) -> dict[str, np.ndarray]:
  """The weights by name, without the names of wrappers; `what` is the file they are to come from.

  They may lie in the file itself, under one of `KEYS`, or under whatever key alone has a table; a
  whole pickled module gives its state. What else lies there is named on the terminal. Raises
  UserError for none, for several, and for one with an entry that is no tensor.
  """
  way, left = [], []
  for _ in range(MOST_DEPTH):
    content = module_state(content)
    key = _key(path, content)
    if key is None:
      break
    left += [k for k in content if k != key and isinstance(k, str)]
    way.append(key)
    content = content[key]
  if isinstance(content, Inert):
    raise UserError(
      f'{path} is no {what}: it holds a {content.name}, no table of weights\n'
      f'{torch_file.way_out(path, way[-1] if way else KEYS[0])}'
    )
  if not isinstance(content, Mapping) or not any(map(_weighs, content.values())):
    raise UserError(f'{path} is no {what}: it holds no table of weights')
  if left:
    shown = ', '.join(map(ascii, left[:8])) + (f' and {len(left) - 8} more' if left[8:] else '')
    print(f'{path}: {".".join(way)!r} is taken; left: {shown}', flush=True)
  return named(path, content, way[-1] if way else KEYS[0])


def named(path: Any, table: Any, key: str) -> dict[str, np.ndarray]:
  """A table of weights without the names of wrappers. Raises UserError for any other entry."""
  for name, value in table.items():
    if not isinstance(name, str) or not name.isprintable():
      raise UserError(f'{path}: a weight is called {name!a}, which is no name')
    if isinstance(value, Array):
      continue
    if not hasattr(value, 'shape'):
      kind = value.name if isinstance(value, Inert) else f'value of type {type(value).__name__}'
      raise UserError(
        f'{path}: {name} is a {kind}, which is no tensor\n{torch_file.way_out(path, key)}'
      )
  weights = {}
  for name, value in table.items():
    while wrapper := next((w for w in WRAPPERS if name.startswith(w)), ''):
      name = name.removeprefix(wrapper)
    weights[name] = _numbers(path, name, value) if isinstance(value, Array) else value
  return weights


def _numbers(path: Any, name: str, array: Array) -> np.ndarray:
  try:
    values = array.values
  except Refused as e:
    raise UserError(f'{path} is refused: {name} is {e}') from None
  if values.dtype.kind not in 'biuf':
    raise UserError(f'{path}: {name} is an array of texts, which is no tensor')
  return values


def _key(path: Any, content: Any) -> Any:
  """Where in a table the weights lie; None if it is a table of weights, or none at all."""
  if not isinstance(content, Mapping):
    return None
  present = lambda v: isinstance(v, Inert) or (isinstance(v, Mapping) and bool(v))
  for key in KEYS:
    if key in content and present(content[key]):
      return key
  tables = [
    key
    for key, value in content.items()
    if is_module(value) or _holds(value, lambda w: hasattr(w, 'shape'))
  ]
  # numpy's arrays beside tables of tensors are facts of the training
  tables = tables or [k for k, v in content.items() if _holds(v, lambda w: isinstance(w, Array))]
  tables = tables or [k for k, v in content.items() if isinstance(v, Mapping) and {*v} & {*KEYS}]
  if len(tables) > 1:
    names = ', '.join(map(ascii, tables[:8]))
    raise UserError(
      f'{path} holds several tables of weights: {names}\n  with torch, save one of them alone:'
      f'\n{torch_file.way_out(path, str(tables[0]))}'
    )
  return tables[0] if tables else None


def _holds(x: Any, wanted: Callable[[Any], bool]) -> bool:
  return isinstance(x, Mapping) and any(map(wanted, x.values()))


def _weighs(x: Any) -> bool:
  return hasattr(x, 'shape') or isinstance(x, Inert)


def is_module(x: Any) -> bool:
  """Whether it is a whole torch.nn.Module, kept as an `Inert` with its state."""
  return isinstance(x, Inert) and isinstance(x.state, dict) and '_modules' in x.state


def module_state(x: Any) -> Any:
  """What `state_dict()` of a whole pickled module gives; anything else as it is.

  Raises UserError for modules that contain themselves.
  """
  if not is_module(x):
    return x
  tensors: dict[str, Any] = {}
  waiting, seen = [('', x)], 0
  while waiting:
    prefix, module = waiting.pop()
    seen += 1
    if seen > MOST_MODULES or prefix.count('.') > 100:
      raise UserError('a module that contains itself, or more parts than any net has')
    state = module.state
    passing = state.get('_non_persistent_buffers_set')
    passing = passing if isinstance(passing, set) else set()
    for group in ('_parameters', '_buffers'):
      entries = state.get(group)
      for name, value in entries.items() if isinstance(entries, dict) else ():
        if value is not None and not (group == '_buffers' and name in passing):
          tensors[f'{prefix}{name}'] = value
    parts = state['_modules'] if isinstance(state['_modules'], dict) else {}
    waiting += [(f'{prefix}{name}.', part) for name, part in parts.items() if is_module(part)]
  return tensors
