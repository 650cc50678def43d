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
  return np.array([bytes(row).rstrip(b'\0').decode() for row in rows], str)


def _coded(texts: np.ndarray) -> np.ndarray:
  """[B] str -> [B, BYTES] uint8, padded with zeros."""
  out = np.zeros((len(texts), BYTES), np.uint8)
  for row, text in zip(out, texts, strict=True):
    raw = np.frombuffer(str(text).encode(), np.uint8)
    if len(raw) > BYTES:
      raise UserError(f'an id has more than {BYTES} bytes: {text}\n  shorten the file names')
    row[: len(raw)] = raw
  return out
