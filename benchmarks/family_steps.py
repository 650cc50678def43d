"""Training steps of four families: python -m benchmarks.family_steps

Nets of their configs/*_lidc.py in float32 at 64 x 64, batch 12, on random images of two classes.
Compiled, warm, shortest of several runs. Limits on two cores, to notice what became slower; exit
status 1 beyond one of them.
"""

import sys

import jax
import numpy as np

from benchmarks import timing
from car_jax import config as configs
from car_jax import registry

IMAGES, SIZE, REPEATS = 12, 64, 5
# by method, its config and the limit in seconds
CASES = {
  'prob_unet': ('configs/prob_unet_lidc.py:port', 2.5),
  'ssn': ('configs/ssn_lidc.py:gtr', 1.5),
  'phiseg': ('configs/phiseg_lidc.py', 2.5),
  'ccdm': ('configs/ccdm_lidc.py', 2.5),
}


def batch_of(rng: np.random.Generator, images: int, size: int) -> dict[str, np.ndarray]:
  """Grey images, each with the label of one reader."""
  return {
    'image': rng.uniform(-1, 1, (images, size, size, 3)).astype(np.float32),
    'label': rng.integers(0, 2, (images, size, size), dtype=np.int32),
  }


def main(toy: bool) -> list[str]:
  images, size, repeats = (2, 16, 0) if toy else (IMAGES, SIZE, REPEATS)
  batch, slow = batch_of(np.random.default_rng(0), images, size), []
  timing.describe()
  print(f'{size}x{size}, {images} images, float32')
  print('config                             compile s   step s    limit')
  for name, (path, limit) in CASES.items():
    path = f'configs/smoke.py:{name}' if toy else path
    spec = configs.load(path).method.to_dict()
    method = registry.method(spec, num_classes=2, steps_per_epoch=100)
    state = jax.device_put(method.init(0, batch))
    key = jax.random.key(0)
    first, step = timing.compiled(method.step, state, batch, key, repeats=repeats)
    print(f'{path:34} {first:9.1f} {step:8.3f} {limit:8.3f}', flush=True)
    slow += [f'{name} {step:.2f} s'] if step > limit else []
  return slow


if __name__ == '__main__':
  sys.exit(timing.command(main))
