"""Arrays of safetensors files, by the format's own library, which checks sizes and places."""

import pathlib

import ml_dtypes
import numpy as np
import safetensors

from car_jax import files
from car_jax.errors import UserError, reading
from car_jax.importers import foreign

DTYPES = {'F64': np.float64, 'F32': np.float32, 'F16': np.float16, 'BF16': ml_dtypes.bfloat16}
DTYPES |= {'I64': np.int64, 'I32': np.int32, 'I16': np.int16, 'I8': np.int8, 'BOOL': np.bool_}
DTYPES |= {'U64': np.uint64, 'U32': np.uint32, 'U16': np.uint16, 'U8': np.uint8}
DTYPES |= {'F8_E4M3': ml_dtypes.float8_e4m3fn, 'F8_E5M2': ml_dtypes.float8_e5m2}


def read_safetensors(path: str | pathlib.Path) -> dict[str, np.ndarray]:
  """The arrays by name, read-only. Raises UserError by path: damaged, cut short, another format."""
  data = files.read_bytes(path, 'a safetensors file')
  with reading(path, 'a safetensors file', 'where it is cut short, download it again'):
    try:
      parts = safetensors.deserialize(data)
    except safetensors.SafetensorError as e:
      raise ValueError(foreign.described(data[:32]) or str(e)) from e
  arrays = {}
  for name, part in parts:
    if part['dtype'] not in DTYPES:
      raise UserError(f'{path}: {name!a} is of the number type {part["dtype"]}, which is not read')
    with reading(path, 'a safetensors file'):
      arrays[name] = np.frombuffer(part['data'], DTYPES[part['dtype']]).reshape(part['shape'])
  return arrays
