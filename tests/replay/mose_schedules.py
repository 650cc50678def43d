"""MoSE's schedules of the learning rate, gamma, G and S against the recorded traces."""

import jax
import jax.numpy as jnp
import numpy as np

from car_jax import schedules
from tests.replay import Replay, replays

LATER = {'gamma': (1.0,), 'G': (0.95, 0.925, 0.9), 'S': (2.0,)}
FIRST = {'gamma': 0.5, 'G': 1.0, 'S': 1.0}


def trace(losses: np.ndarray, patience: dict[str, int]) -> np.ndarray:
  """[T] losses -> [T, 4]: rate, gamma, G, S after each epoch."""
  lists = {k: (FIRST[k], *LATER[k]) for k in FIRST}

  def epoch(state, loss):
    rate, plateaus = state
    rate = schedules.reduce_on_plateau(rate, loss, patience['lr'])
    plateaus = {
      k: schedules.next_on_plateau(p, loss, len(lists[k]), patience[k]) for k, p in plateaus.items()
    }
    now = [rate.rate, *(schedules.value_of(plateaus[k], lists[k]) for k in lists)]
    return (rate, plateaus), jnp.stack(now)

  start = schedules.ReducingRate.start(1e-3), {k: schedules.Plateau.start() for k in lists}
  return np.asarray(jax.lax.scan(epoch, jax.tree.map(jnp.asarray, start), losses)[1])


@replays('mose', 'schedulers')
def schedulers(r: Replay) -> None:
  patience = {'lr': 10} | {k: int(r[f'patience_{k}']) for k in FIRST}
  for key in [k for k in r.arrays if k.endswith('/loss')]:
    losses = np.asarray(r[key], np.float32)
    running = np.cumsum(r[key], dtype=np.float64) / np.arange(1, len(losses) + 1)
    for kind, seen in (('epoch', losses), ('cumulative', running.astype(np.float32))):
      name = f'{key.removesuffix("/loss")}/{kind}/trace'
      r.check(name, trace(seen, patience), 1e-7)
