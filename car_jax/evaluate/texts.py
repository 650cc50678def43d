"""Ids and groups of a batch on their way to all processes: jax arrays hold no text."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from car_jax.errors import UserError

BYTES = 256  # of an id or group


def gathered(
  host: Mapping[str, np.ndarray], place: Callable[[Any], Any], fetch: Callable[[Any], Any]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Ids, groups [B] str ('' where there are none) and valid [B] bool of all processes' rows.

  place: this process's rows -> global arrays; fetch: these -> numpy, the same on every process.
  """
  arrays = {'valid': host['valid'], **coded(host)}
  if jax.process_count() > 1:
    arrays = fetch(place(arrays))
  ids = decoded(arrays['id'])
  groups = decoded(arrays['group']) if 'group' in arrays else np.full(len(ids), '')
  return ids, groups, np.asarray(arrays['valid'], bool)


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
