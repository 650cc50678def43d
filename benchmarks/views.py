"""Target views and source windows, host against device: python -m benchmarks.views

DA-SAC's shapes: four views of 512 x 1024 of a Cityscapes frame with noise, and a window of 512 x
1024 of a GTA5 frame. Images per second of one host process and of the jitted device functions, on
whatever device jax has; warm, shortest of a few runs. No limits: hosts run several processes.
"""

import sys

import jax
import numpy as np

from benchmarks import timing
from car_jax.data import device_views, views


def seconds(run, repeats: int) -> float:
  jax.block_until_ready(run())
  return timing.shortest(run, repeats)


def main(toy: bool) -> list[str]:
  rng, repeats = np.random.default_rng(0), 1 if toy else 3
  size, target, source = (512, 1024), (1024, 2048), (1052, 1914)
  if toy:
    size, target, source = (16, 32), (32, 64), (32, 64)  # and no compilation of four views
  timing.describe()
  print(f'views or windows a second, shortest of {repeats} runs')
  cases = {
    'four views with noise': ('group', target, {}, 4),
    'four views without noise': ('group', target, dict(blur=(), jitter=0.0, greyscale=0.0), 4),
    'source window': ('source', source, {}, 1),
    'source window with jitter': ('source', source, dict(jitter=0.4), 1),
  }
  for name, (function, shape, options, count) in [*cases.items()][2 if toy else 0 :]:
    image = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    label = rng.integers(0, 19, shape, dtype=np.int32)
    host, there = getattr(views, function), getattr(device_views, function)
    batch = jax.device_put((image[None], label[None], jax.random.split(jax.random.key(0), 1)))
    slow = seconds(
      lambda f=host, x=image, y=label, o=options: f(x, y, rng, size=size, **o), repeats
    )
    fast = seconds(lambda f=there, b=batch, o=options: f(*b, size=size, **o), repeats)
    print(f'{name:26} host {count / slow:6.1f}  device {count / fast:6.1f}', flush=True)
  return []


if __name__ == '__main__':
  sys.exit(timing.command(main))
