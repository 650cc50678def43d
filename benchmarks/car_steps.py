"""Time of CAR's training step, and where it goes: python -m benchmarks.car_steps

The published nets at 128 x 128, batch 4, 5 samples, on random images; compiled, warm, shortest of
several runs. A step of the critic phase trains all three nets, a step of the rest phase all but the
discriminator; the published schedule has 50 of the former to 200 of the latter. Limit: 5.3 s on
two cores, to notice what became slower; exit status 1 beyond it.
"""

import functools
import sys
from typing import Any

import jax
import numpy as np

from benchmarks import timing
from car_jax import config as configs
from car_jax import registry

LIMIT = 5.3


def main(toy: bool) -> list[str]:
  path, size, repeats = 'configs/car_lidc.py', 128, 5
  if toy:
    path, size, repeats = 'configs/smoke.py:car', 32, 0
  config, rng, batch_size = configs.load(path), np.random.default_rng(0), 4
  method = registry.method(config.method.to_dict(), num_classes=2, steps_per_epoch=276)
  batch = {
    'image': rng.uniform(-1, 1, (batch_size, size, size, 3)).astype(np.float32),
    'label': (rng.random((batch_size, size, size)) < 0.1).astype(np.int32),
  }
  state = jax.device_put(method.init(0, batch))
  key = jax.random.key(0)
  latent = method.net('generator').latent
  z = rng.normal(size=(batch_size, method.samples, latent)).astype(np.float32)
  timing.describe()
  print(f'{path}, {size}x{size}, batch {batch_size}, {method.samples} samples, float32')
  print('part                               compile s   step s')
  rows: dict[str, tuple[Any, ...]] = {
    'critic phase': (functools.partial(method.update, phase='critic'), state, batch, z, key),
    'rest phase': (functools.partial(method.update, phase='rest'), state, batch, z, key),
    'of which the calibration net': (method._update_calnet, state, batch, key),
  }
  steps = {}
  for name, call in rows.items():
    first, steps[name] = timing.compiled(*call, repeats=repeats)
    print(f'{name:34} {first:9.1f} {steps[name]:8.3f}', flush=True)
  many, few = method.rest_steps, method.critic_steps
  mean = (few * steps['critic phase'] + many * steps['rest phase']) / (few + many)
  print(f'{f"schedule {few}:{many}":34} {"":9} {mean:8.3f}   limit {LIMIT}')
  print(f'peak resident memory: {timing.peak_bytes() / 2**30:.1f} GiB')
  return [f'mean step {mean:.2f} s'] if mean > LIMIT else []


if __name__ == '__main__':
  sys.exit(timing.command(main))
