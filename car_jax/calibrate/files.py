"""Calibrators on disk: one .npz of arrays and a JSON text, nothing that runs code when read."""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from car_jax import arrays as array_files
from car_jax import folders, lookup, paths
from car_jax.calibrate.base import Fit, needs
from car_jax.errors import UserError, reading

FORMAT = 'car_jax calibrator 1'
TYPES = {
  'Temperature': 'temperature',
  'PerClass': 'temperature',
  'Clusters': 'clusters',
  'Selective': 'selective',
  'Local': 'local',
}
MEND = 'fit it again, or name another file'
LEAST, MOST = 1e-3, 1e3  # of temperatures


def save(path: str | pathlib.Path, fit: Fit) -> None:
  """Writes a fit; a reader never sees a part of it."""
  path = paths.of(path)
  arrays, head = _parts(fit.calibrator)
  text = json.dumps(head | {'about': fit.about})
  try:
    with folders.whole(path) as part, part.open('wb') as file:
      np.savez(file, json=text, **arrays)
  except OSError as e:
    raise UserError(f'{path}: {e.strerror}\n  name another file') from None


def _parts(calibrator: Any) -> tuple[dict[str, Any], dict[str, Any]]:
  """A calibrator's arrays by name, and the rest of it."""
  arrays = flatten_dict(flax.serialization.to_state_dict(calibrator), sep='/')
  static = {
    f.name: getattr(calibrator, f.name)
    for f in dataclasses.fields(calibrator)
    if not f.metadata.get('pytree_node', True)
  }
  cls = type(calibrator)
  ours = TYPES.get(cls.__name__) == cls.__module__.removeprefix('car_jax.calibrate.')
  name = cls.__name__ if ours else f'{cls.__module__}:{cls.__name__}'
  head = dict(format=FORMAT, type=name, static=static)
  return {k: np.asarray(a) for k, a in arrays.items()}, head


def digest(calibrator: Any) -> str:
  """A short text that changes when anything that `apply` uses changes."""
  arrays, head = _parts(calibrator)
  out = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
  for name, a in sorted(arrays.items()):
    out.update(f'{name} {a.dtype} {a.shape}'.encode() + a.tobytes())
  return out.hexdigest()[:16]


def load(path: str | pathlib.Path, *, classes: int | None = None, mend: str = MEND) -> Fit:
  """What `save` wrote; `classes`: how many it must be for. mend: what helps against damage.

  Raises UserError for a file that is not there, damaged, of another kind or of other classes, and
  for temperatures that none can be: below LEAST, above MOST or not a number.
  """
  path = paths.of(path)
  if not path.exists():
    raise UserError(f'no calibrator {path}\n  {mend}')
  arrays = array_files.read(path, mend)
  with reading(path, 'a calibrator of this version', mend):
    head = json.loads(str(arrays.pop('json')))
    known = head['type'] in TYPES or ':' in str(head['type'])
    if head['format'] != FORMAT or not known:
      raise ValueError(f'format {head["format"]!r:.60}, type {head["type"]!r:.60}')
    about, static, kind = dict(head['about']), dict(head['static']), head['type']
    fitted = about['classes']
    if type(fitted) is not int or fitted < 2:
      raise ValueError(f'classes are {fitted!r:.60}')
    lookup.check_known([kind])
    where = kind if ':' in kind else f'car_jax.calibrate.{TYPES[kind]}:{kind}'
    cls: Any = lookup.own('calibrator', where)
    if not (hasattr(cls, '__dataclass_fields__') and hasattr(cls, 'apply')):
      raise ValueError(f'{kind:.60} is no calibrator')
    calibrator = cls(**_parts_of(arrays), **static)
    _check(calibrator, kind, fitted)
  if classes is not None and fitted != classes:
    raise UserError(
      f'{path} was fitted to {fitted} classes, not {classes}\n'
      '  fit one to the data set that is evaluated'
    )
  return Fit(calibrator, about)


def _parts_of(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
  """Arrays by their names in the file -> those of a calibrator. Raises ValueError."""
  for name, a in arrays.items():
    if a.dtype.kind not in 'fiu' or not a.size or not np.isfinite(a).all():
      raise ValueError(f'{name} holds {a.dtype} numbers, not all of them finite')
    if any(other.startswith(f'{name}/') for other in arrays):
      raise ValueError(f'{name} is both an array and a group')
  return unflatten_dict(arrays, sep='/')


def _check(calibrator: Any, kind: str, classes: int) -> None:
  """Raises ValueError for temperatures of another number or range, and for a calibrator that does
  not apply to logits of its classes."""
  if calibrator.temperatures is not None:
    table = calibrator.temperatures
    wanted = dict(Temperature=(), PerClass=(classes,), Selective=(2,)).get(kind, table.shape)
    if not isinstance(table, np.ndarray) or table.shape != wanted:
      raise ValueError(f'temperatures {np.shape(table)}, {wanted} are expected')
    if (wrong := table[(table < LEAST) | (table > MOST)]).size:
      raise ValueError(f'a temperature of {wrong.flat[0]:g}; expected {LEAST:g} to {MOST:g}')
  spec = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
  more = dict(image=spec(1, 16, 16, 3)) if needs(calibrator) == 'image' else {}
  if needs(calibrator) == 'features':
    more = dict(features=spec(1, calibrator.centroids.shape[-1]))
  logits = spec(1, 16, 16, classes)
  if jax.eval_shape(calibrator.apply, logits, **more).shape != logits.shape:
    raise ValueError('it changes the shape of logits')
