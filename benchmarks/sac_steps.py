"""Time of DA-SAC's two training steps: python -m benchmarks.sac_steps

The published first net, DeepLabv2 on ResNet-101, 19 classes, 128 x 256, on random images: 2 source
images, and 2 target images (first stage) or one in 4 views (second stage). Compiled, warm, shortest
of several runs. Limit: 1.6 s on two cores for the source's part of the first stage, to notice
what became slower; exit status 1 beyond it.
"""

import sys

import jax
import numpy as np

from benchmarks import timing
from car_jax import config as configs
from car_jax import registry
from car_jax.methods.supervised import Supervised

SOURCE, VIEWS, LIMIT = 2, 4, 1.6
CLASSES = 19
ALONE = 'its source alone'


def batch_of(rng: np.random.Generator, size: tuple[int, int], views: int) -> dict[str, np.ndarray]:
  """Of the first stage, or with `views` of one target image of the second."""
  pixels = lambda n: rng.uniform(-1, 1, (n, *size, 3)).astype(np.float32)
  label = lambda n: rng.integers(0, CLASSES, (n, *size), dtype=np.int32)
  target = views or SOURCE
  batch = {'image': pixels(SOURCE), 'label': label(SOURCE)}
  batch |= {'target': pixels(target), 'target_label': label(target)}
  if not views:
    return batch
  still = np.broadcast_to(np.eye(2, 3, dtype=np.float32), (target, 2, 3))
  return batch | {'student': pixels(target), 'affine': still, 'affine_inv': still}


def main(toy: bool) -> list[str]:
  rng, key, steps = np.random.default_rng(0), jax.random.key(0), {}
  size, repeats = ((16, 32), 0) if toy else ((128, 256), 5)
  stages = dict(base='configs/sac_gta5.py:resnet101_base', sac='configs/sac_gta5.py:resnet101')
  stages = dict(base='configs/smoke.py:abn', sac='configs/smoke.py:sac') if toy else stages
  timing.describe()
  print(f'{stages["sac"]}, {size[0]}x{size[1]}, {SOURCE} source images, float32')
  print('part                               compile s   step s')
  for name, path, views in (
    ('first stage', stages['base'], 0),
    ('second stage', stages['sac'], VIEWS),
  ):
    context = dict(num_classes=CLASSES, steps_per_epoch=1_125, ignore_label=255)
    method = registry.method(configs.load(path).method.to_dict(), **context)
    batch = batch_of(rng, size, views)
    state = jax.device_put(method.init(0, batch))
    rows = {name: method.step}
    if not views:
      rows[ALONE] = lambda s, b, k, m=method: Supervised.step(m, s, b, k)
    for part, call in rows.items():
      first, steps[part] = timing.compiled(call, state, batch, key, repeats=repeats)
      print(f'{part:34} {first:9.1f} {steps[part]:8.3f}', flush=True)
  print(f'{"limit of the source alone":34} {"":9} {LIMIT:8.3f}')
  print(f'peak resident memory: {timing.peak_bytes() / 2**30:.1f} GiB')
  return [f'{ALONE} {steps[ALONE]:.2f} s'] if steps[ALONE] > LIMIT else []


if __name__ == '__main__':
  sys.exit(timing.command(main))
