"""Time of CAR's training step, and where it goes: python -m benchmarks.car_steps

The published nets at 128 x 128, batch 4, 5 samples, on random images; compiled, warm, shortest of
several runs. A step of the critic phase trains all three nets, a step of the rest phase all but the
discriminator; the published schedule has 50 of the former to 200 of the latter. Limit: 5.3 s, the
shortest time of the published PyTorch code on two cores; exit status 1 beyond it.
"""

import functools
import os
import resource
import sys
import time

import jax
import numpy as np

from car_jax import config as configs
from car_jax import registry

SIZE, BATCH, REPEATS, LIMIT = 128, 4, 5, 5.3


def seconds(function, *arguments) -> tuple[float, float]:
  """-> (compilation with the first call, shortest of the calls after it)."""
  compiled, times = jax.jit(function), []
  for _ in range(1 + REPEATS):
    start = time.perf_counter()
    jax.block_until_ready(compiled(*arguments))
    times.append(time.perf_counter() - start)
  return times[0], min(times[1:])


def main() -> int:
  config, rng = configs.load('configs/car_lidc.py'), np.random.default_rng(0)
  method = registry.method(config.method.to_dict(), num_classes=2, steps_per_epoch=276)
  batch = {
    'image': rng.uniform(-1, 1, (BATCH, SIZE, SIZE, 3)).astype(np.float32),
    'label': (rng.random((BATCH, SIZE, SIZE)) < 0.1).astype(np.int32),
  }
  state = jax.device_put(method.init(0, batch))
  key = jax.random.key(0)
  latent = method.net('generator').latent
  z = rng.normal(size=(BATCH, method.samples, latent)).astype(np.float32)
  device = jax.devices()[0]
  print(f'{device.platform} {device.device_kind}, {os.cpu_count()} cores, jax {jax.__version__}')
  print(f'configs/car_lidc.py, {SIZE}x{SIZE}, batch {BATCH}, {method.samples} samples, float32')
  print('part                               compile s   step s')
  rows = {
    'critic phase': (functools.partial(method.update, phase='critic'), state, batch, z, key),
    'rest phase': (functools.partial(method.update, phase='rest'), state, batch, z, key),
    'of which the calibration net': (method._update_calnet, state, batch, key),
  }
  found = {}
  for name, call in rows.items():
    first, found[name] = seconds(*call)
    print(f'{name:34} {first:9.1f} {found[name]:8.3f}', flush=True)
  critic, rest = found['critic phase'], found['rest phase']
  many, few = method.rest_steps, method.critic_steps
  mean = (few * critic + many * rest) / (few + many)
  print(f'{f"schedule {few}:{many}":34} {"":9} {mean:8.3f}   limit {LIMIT}')
  print(
    f'peak resident memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB'
  )
  return int(mean > LIMIT)


if __name__ == '__main__':
  sys.exit(main())
