"""One of two processes that save a large state in two folders at every step.

python -m tests.saving_worker FOLDER COORDINATOR PROCESSES PROCESS

Run by tests/test_sharding.py. Small states are written too quickly for two saves to meet.
"""

import pathlib
import sys

import numpy as np

from car_jax import checkpoints, sharding

MEGABYTES, STEPS = 210, 4


def main(folder: str, coordinator: str, processes: str, process: str) -> None:
  sharding.start_distributed(coordinator, int(processes), int(process))
  part = lambda k: np.full((MEGABYTES // 5, 250_000), k, np.float32)
  state = sharding.place_state({f'w{k}': part(k) for k in range(5)}, sharding.make_mesh())
  latest, best = pathlib.Path(folder) / 'checkpoints', pathlib.Path(folder) / 'best'
  with checkpoints.Checkpoints(latest, keep=2) as a, checkpoints.Checkpoints(best, keep=1) as b:
    for step in range(1, STEPS + 1):
      a.save(step, state, {'config': {}})
      b.save(step, state, {'config': {}})


if __name__ == '__main__':
  main(*sys.argv[1:])
