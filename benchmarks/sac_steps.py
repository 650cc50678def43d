"""Time of DA-SAC's two training steps: python -m benchmarks.sac_steps

The published first net, DeepLabv2 on ResNet-101, 19 classes, 128 x 256, on random images: 2 source
images, and 2 target images (first stage) or one in 4 views (second stage). Compiled, warm, shortest
of several runs. The published PyTorch code took 1.6 s for the source's part of the first stage
alone, on two undisturbed cores; exit status 1 beyond that limit, which is not for the other rows.
"""

import os
import resource
import sys

import jax
import numpy as np

from benchmarks.car_steps import seconds
from car_jax import config as configs
from car_jax import registry
from car_jax.methods.supervised import Supervised

SIZE, SOURCE, VIEWS, LIMIT = (128, 256), 2, 4, 1.6


def batch_of(rng: np.random.Generator, classes: int, target: int) -> dict[str, np.ndarray]:
  pixels = lambda n: rng.uniform(-1, 1, (n, *SIZE, 3)).astype(np.float32)
  label = lambda n: rng.integers(0, classes, (n, *SIZE), dtype=np.int32)
  still = np.broadcast_to(np.eye(2, 3, dtype=np.float32), (target, 2, 3))
  batch = {'image': pixels(SOURCE), 'label': label(SOURCE), 'target': pixels(target)}
  batch |= {'student': pixels(target), 'target_label': label(target)}
  return batch | {'affine': still, 'affine_inv': still}


def main() -> int:
  rng, key = np.random.default_rng(0), jax.random.key(0)
  device, found = jax.devices()[0], {}
  print(f'{device.platform} {device.device_kind}, {os.cpu_count()} cores, jax {jax.__version__}')
  print(f'configs/sac_gta5.py:resnet101, {SIZE[0]}x{SIZE[1]}, {SOURCE} source images, float32')
  print('part                               compile s   step s')
  for name, variant, target in (
    ('first stage', 'resnet101_base', 2),
    ('second stage', 'resnet101', VIEWS),
  ):
    config = configs.load(f'configs/sac_gta5.py:{variant}')
    context = dict(num_classes=19, steps_per_epoch=1_125, ignore_label=255)
    method = registry.method(config.method.to_dict(), **context)
    batch = batch_of(rng, 19, target)
    state = jax.device_put(method.init(0, batch))
    rows = {name: method.step}
    if target == SOURCE:
      rows['its source alone'] = lambda s, b, k, m=method: Supervised.step(m, s, b, k)
    for part, call in rows.items():
      first, found[part] = seconds(call, state, batch, key)
      print(f'{part:34} {first:9.1f} {found[part]:8.3f}', flush=True)
  print(f'{"limit of the source alone":34} {"":9} {LIMIT:8.3f}')
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
  print(f'peak resident memory: {peak:.1f} GiB')
  return int(found['its source alone'] > LIMIT)


if __name__ == '__main__':
  sys.exit(main())
