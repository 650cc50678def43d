"""A folder as transformers saves a model: its config, how images are prepared, its weights.

config.json               what the net is
preprocessor_config.json  normalisation and sizes of images
model.safetensors or pytorch_model.bin, or an index of several parts, NAME.index.json
"""

import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from car_jax import files
from car_jax.errors import UserError, reading
from car_jax.importers import prefixes, tables

CONFIG, PROCESSOR = 'config.json', 'preprocessor_config.json'
INDEX = '.index.json'
WHOLE = ('model.safetensors', 'pytorch_model.bin')
WEIGHTS = tuple(name + end for name in WHOLE for end in ('', INDEX))
WHAT = 'file of transformers'
PART = re.compile(r'(.+)-\d{5}-of-\d{5}(\.\w+)')


class Model(NamedTuple):
  """config and processor are {} where there is no such file."""

  path: pathlib.Path
  weights: Mapping[str, np.ndarray]
  config: Mapping[str, Any]
  processor: Mapping[str, Any]


def opened(path: str | pathlib.Path) -> Model:
  """Of a folder, or any file in it. Raises UserError."""
  path = pathlib.Path(path)
  if path.name in (CONFIG, PROCESSOR):
    path = path.parent
  is_folder = path.is_dir()
  folder = path if is_folder else path.parent
  config = _json(folder / CONFIG)
  if 'model_type' not in config:
    if is_folder and config:
      raise UserError(f'{folder / CONFIG} has no model_type: it is none of transformers')
    config = {}  # of something else that lies beside the file
  if is_folder and not config:
    raise UserError(f'{folder} has no {CONFIG}, which says what the net is\n  put it there')
  processor = _json(folder / PROCESSOR) if config else {}
  file = weights_file(folder) if is_folder else path
  return Model(path, prefixes.unwrapped(path, _read(file)), config, processor)


def _json(path: pathlib.Path) -> dict[str, Any]:
  return files.read_json(path) if path.exists() else {}


def weights_file(folder: pathlib.Path) -> pathlib.Path:
  """The first of WEIGHTS that is there. Raises UserError."""
  file = next((folder / name for name in WEIGHTS if (folder / name).exists()), None)
  if file is None:
    raise UserError(f'{folder} has no weights\n  it would have one of {", ".join(WEIGHTS)}')
  return file


def _read(path: pathlib.Path) -> Mapping[str, np.ndarray]:
  if part := PART.fullmatch(path.name):
    index = path.with_name(part[1] + part[2] + INDEX)
    if not index.exists():
      raise UserError(f'{path} is one of several parts, and {index.name} is not there\n  add it')
    path = index
  return _merged(path) if path.name.endswith(INDEX) else tables.read(path, WHAT)


def _merged(index: pathlib.Path) -> dict[str, np.ndarray]:
  """Of all parts that an index lists. Raises UserError for one that is missing or lacks a name."""
  places = files.read_json(index, keys=('weight_map',))['weight_map']
  with reading(index, 'an index of weights'):
    wanted = {name: str(part) for name, part in places.items()}
  parts = sorted(set(wanted.values()))
  if strange := [p for p in parts if pathlib.Path(p).name != p]:
    raise UserError(f'{index} names a part {strange[0]!a}, which is no file beside it')
  if missing := [p for p in parts if not index.with_name(p).exists()]:
    raise UserError(
      f'{index.parent} has {len(parts) - len(missing)} of {len(parts)} parts of the weights: '
      f'{missing[0]} is missing\n  {index.name} lists them all'
    )
  weights: dict[str, np.ndarray] = {}
  for part in parts:
    inside = tables.read(index.with_name(part), WHAT)
    lacking = [n for n, p in wanted.items() if p == part and n not in inside]
    if lacking or (twice := sorted(set(inside) & set(weights))):
      what = f'lacks {lacking[0]}' if lacking else f'has {twice[0]}, as another part has'
      raise UserError(f'{index.with_name(part)} {what}\n  {index.name} says otherwise')
    weights |= inside
  return weights
