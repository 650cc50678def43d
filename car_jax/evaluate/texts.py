"""Ids and groups of a batch on their way to all processes: jax arrays hold no text."""

from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import Mesh

from car_jax import sharding
from car_jax.errors import UserError

BYTES = 256  # of an id or group


def placed(host: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
  """The ids and groups of this process's rows as global arrays of bytes; see `decoded`."""
  return sharding.place_batch(coded(host), mesh)


def coded(host: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The ids and groups of a batch, each [B, BYTES] uint8."""
  return {k: _coded(host[k]) for k in ('id', 'group') if k in host}


def decoded(rows: np.ndarray) -> np.ndarray:
  """[B, BYTES] uint8 -> [B] str."""
  return np.char.decode(np.ascontiguousarray(rows).view(f'S{BYTES}')[:, 0], 'utf-8')


def _coded(texts: np.ndarray) -> np.ndarray:
  """[B] str -> [B, BYTES] uint8, padded with zeros."""
  raw = np.char.encode(np.asarray(texts, str), 'utf-8')
  if raw.itemsize > BYTES:
    longest = max(texts, key=lambda text: len(str(text).encode()))
    raise UserError(f'an id has more than {BYTES} bytes: {longest}\n  shorten the file names')
  return raw.astype(f'S{BYTES}').view(np.uint8).reshape(len(raw), BYTES)
