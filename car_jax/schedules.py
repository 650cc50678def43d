"""Values that change when a loss stops falling, as pure functions: they live in a training state.

All are told one loss per epoch and compare it with the best so far.
"""

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from car_jax.typing import Array


class Plateau(flax.struct.PyTreeNode):
  """best: the lowest loss so far; bad: epochs since then; index: place in the list of values."""

  best: Array
  bad: Array
  index: Array

  @classmethod
  def start(cls) -> 'Plateau':
    return cls(best=np.float32(np.inf), bad=np.int32(0), index=np.int32(0))


def next_on_plateau(state: Plateau, loss: Array, count: int, patience: int) -> Plateau:
  """One of `count` values after the other, each left after over `patience` bad epochs in a row.

  A new value starts with a clean slate; the last one stays. A loss that is nan is a bad one.
  """
  better = loss < state.best
  bad = jnp.where(better, 0, state.bad + 1)
  moves = bad > patience
  best = jnp.where(moves, jnp.inf, jnp.where(better, loss, state.best))
  after = Plateau(best, jnp.where(moves, 0, bad), state.index + moves)
  done = state.index >= count - 1
  return jax.tree.map(lambda old, new: jnp.where(done, old, new).astype(old.dtype), state, after)


def value_of(state: Plateau, values: Sequence[float]) -> Array:
  return jnp.asarray(values, jnp.float32)[state.index]


class ReducingRate(flax.struct.PyTreeNode):
  """What torch's ReduceLROnPlateau keeps: a rate that falls by a factor, and what it has seen."""

  rate: Array
  best: Array
  bad: Array

  @classmethod
  def start(cls, rate: float) -> 'ReducingRate':
    return cls(rate=np.float32(rate), best=np.float32(np.inf), bad=np.int32(0))


REDUCED, LEAST = 0.5, 1e-5  # a rate is halved, down to this one, as in MoSE's release


def reduce_on_plateau(state: ReducingRate, loss: Array, patience: int = 10) -> ReducingRate:
  """The rate after an epoch of this loss; better means lower by more than one in 10,000."""
  better = loss < state.best * (1 - 1e-4)
  bad = jnp.where(better, 0, state.bad + 1)
  lower = jnp.maximum(state.rate * REDUCED, LEAST)
  reduces = bad > patience
  rate = jnp.where(reduces & (state.rate - lower > 1e-8), lower, state.rate)
  return ReducingRate(
    rate=rate,
    best=jnp.where(better, loss, state.best).astype(jnp.float32),
    bad=jnp.where(reduces, 0, bad).astype(jnp.int32),
  )
