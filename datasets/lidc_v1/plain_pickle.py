"""Pickles of plain values and numpy arrays; every other name is refused. See inert_arrays."""

import functools
import mmap
import os
import pathlib
from typing import Any

from car_jax import files
from car_jax.errors import reading
from car_jax.importers import inert_arrays
from car_jax.importers.inert_pickle import Budget, CutShort, Machine, Refused, encoded

MOST = 50_000_000  # instructions: a pickle of 15,000 crops has about 3 million


def _unknown(name: str, _: Any) -> Any:
  raise Refused(f'it asks for {name}'[:120])


def read(path: pathlib.Path, what: str) -> Any:
  """What the pickle holds, `inert_arrays.Array`s in place of arrays. Raises UserError, by path."""
  files.check_regular(path)
  with reading(path, what), path.open('rb') as file:
    size = os.fstat(file.fileno()).st_size
    if not size:
      raise CutShort('an empty file')
    budget = Budget(size, MOST)
    stand_ins = inert_arrays.stand_ins(budget, _unknown) | inert_arrays.scalars(budget)
    stand_ins['_codecs.encode'] = functools.partial(encoded, budget)
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
      try:
        return Machine(stream, budget, stand_ins, unknown=_unknown).load()
      except CutShort:
        raise Refused('truncated') from None
