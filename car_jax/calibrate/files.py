"""Calibrators on disk: one .npz of arrays and a JSON text, nothing that runs code when read."""

import dataclasses
import hashlib
import importlib
import json
import pathlib
import zipfile
from typing import Any

import flax.serialization
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from car_jax.calibrate.base import Fit
from car_jax.errors import UserError
from car_jax.evaluate import folders

FORMAT = 'car_jax calibrator 1'
TYPES = {
  'Temperature': 'temperature',
  'PerClass': 'temperature',
  'Clusters': 'clusters',
  'Selective': 'selective',
  'Local': 'local',
}
AGAIN = '  fit it again, or name another file'


def save(path: str | pathlib.Path, fit: Fit) -> None:
  """Writes a fit; a reader never sees a part of it."""
  path = pathlib.Path(path)
  arrays, head = _parts(fit.calibrator)
  text = json.dumps(head | {'about': fit.about})
  try:
    with folders.whole(path) as part, part.open('wb') as file:
      np.savez(file, json=text, **arrays)
  except OSError as e:
    raise UserError(f'{path}: {e.strerror}\n  name another file') from None


def _parts(calibrator: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
  """A calibrator's arrays by name, and the rest of it."""
  arrays = flatten_dict(flax.serialization.to_state_dict(calibrator), sep='/')
  static = {
    f.name: getattr(calibrator, f.name)
    for f in dataclasses.fields(calibrator)
    if not f.metadata.get('pytree_node', True)
  }
  head = dict(format=FORMAT, type=type(calibrator).__name__, static=static)
  return {k: np.asarray(a) for k, a in arrays.items()}, head


def digest(calibrator: Any) -> str:
  """A short text that changes when anything that `apply` uses changes."""
  arrays, head = _parts(calibrator)
  out = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
  for name, a in sorted(arrays.items()):
    out.update(f'{name} {a.dtype} {a.shape}'.encode() + a.tobytes())
  return out.hexdigest()[:16]


def load(path: str | pathlib.Path, *, classes: int | None = None) -> Fit:
  """What `save` wrote; `classes`: how many it must be for.

  Raises UserError for a file that is not there, damaged, of another kind or of other classes.
  """
  arrays = _arrays(pathlib.Path(path))
  try:
    head = json.loads(str(arrays.pop('json')))
    known = head['format'] == FORMAT and head['type'] in TYPES
  except (KeyError, TypeError, ValueError):
    known = False
  if not known:
    raise UserError(f'{path} holds no calibrator of this version\n{AGAIN}')
  about = head['about']
  if classes is not None and about['classes'] != classes:
    raise UserError(
      f'{path} was fitted to {about["classes"]} classes, not {classes}\n'
      '  fit one to the data set that is evaluated'
    )
  module = importlib.import_module(f'car_jax.calibrate.{TYPES[head["type"]]}')
  parts = unflatten_dict(arrays, sep='/')
  try:
    return Fit(getattr(module, head['type'])(**parts, **head['static']), about)
  except TypeError:
    raise UserError(f'{path} lacks arrays of a calibrator\n{AGAIN}') from None


def _arrays(path: pathlib.Path) -> dict[str, Any]:
  try:
    with np.load(path, allow_pickle=False) as file:
      return dict(file)
  except FileNotFoundError:
    raise UserError(f'no calibrator {path}\n  fit one, or name another file') from None
  except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile):
    raise UserError(f'{path} is damaged, or no calibrator\n{AGAIN}') from None
