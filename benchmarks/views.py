"""Target views and source windows, host against device: python -m benchmarks.views

DA-SAC's shapes: four views of 512 x 1024 of a Cityscapes frame with noise, and a window of 512 x
1024 of a GTA5 frame. Images per second of one host process and of the jitted device functions, on
whatever device jax has; warm, shortest of a few runs. No limits: hosts run several processes.
"""

import os
import sys
import time

import jax
import numpy as np

from car_jax.data import device_views, views

SIZE, TARGET, SOURCE, REPEATS = (512, 1024), (1024, 2048), (1052, 1914), 3


def seconds(run) -> float:
  jax.block_until_ready(run())
  found = []
  for _ in range(REPEATS):
    start = time.perf_counter()
    jax.block_until_ready(run())
    found.append(time.perf_counter() - start)
  return min(found)


def main() -> int:
  rng, device = np.random.default_rng(0), jax.devices()[0]
  print(f'{device.platform} {device.device_kind}, {os.cpu_count()} cores, jax {jax.__version__}')
  print(f'load {os.getloadavg()[0]:.1f}; views or windows a second, shortest of {REPEATS} runs')
  cases = {
    'four views with noise': ('group', TARGET, {}, 4),
    'four views without noise': ('group', TARGET, dict(blur=(), jitter=0.0, greyscale=0.0), 4),
    'source window': ('source', SOURCE, {}, 1),
    'source window with jitter': ('source', SOURCE, dict(jitter=0.4), 1),
  }
  for name, (function, shape, options, count) in cases.items():
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    label = rng.integers(0, 19, shape, dtype=np.int32)
    host, there = getattr(views, function), getattr(device_views, function)
    batch = jax.device_put((image[None], label[None], jax.random.split(jax.random.key(0), 1)))
    slow = seconds(lambda f=host, x=image, y=label, o=options: f(x, y, rng, size=SIZE, **o))
    fast = seconds(lambda f=there, b=batch, o=options: f(*b, size=SIZE, **o))
    print(f'{name:26} host {count / slow:6.1f}  device {count / fast:6.1f}', flush=True)
  return 0


if __name__ == '__main__':
  sys.exit(main())
