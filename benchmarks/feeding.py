"""Does the host feed DA-SAC's second stage? python -m benchmarks.feeding

Batches a second of the pipeline (source windows, target views with noise, from random images in
memory, with no net beside it) and of the training step: the published first net at 128 x 256, two
source images and one target image in 4 views, and the small net of configs/sac_street_scenes.py as
it is. Exit status 1 where the pipeline makes less than 1.5 times what the net takes.
"""

import itertools
import sys
import time

import jax
import numpy as np

from benchmarks import timing
from car_jax import config as configs
from car_jax import registry
from car_jax.data import adaptation, compact, labels
from car_jax.data import options as data_options
from car_jax.data.sources import DataInfo, Dataset

LIMIT, WARM = 1.5, 4


def pictures(shape: tuple[int, int], count: int = 16) -> Dataset:
  """Random ones of Cityscapes' classes."""
  rng, scored = np.random.default_rng(0), labels.SCORED
  info = DataInfo('random', scored, labels.CLASS_NAMES[:scored], (), 1, labels.IGNORED_TRAIN_ID)
  records = [
    {
      'image': rng.integers(0, 256, (*shape, 3), dtype=np.uint8),
      'labels': rng.integers(0, scored, (1, *shape), dtype=np.uint8),
      'id': str(k),
    }
    for k in range(count)
  ]
  return Dataset(info, lambda split: records)


def rates(config, shape: tuple[int, int], count: int, repeats: int) -> tuple[float, float]:
  """Batches a second of the pipeline and of the step, for images of `shape`."""
  data, images = config.data.to_dict(), pictures(shape)
  stream = adaptation.joined(data_options.of(data), images, images)
  batches = stream.train_batches(seed=0)
  batch, *_ = itertools.islice(batches, WARM)  # threads have begun
  start = time.perf_counter()
  for _ in itertools.islice(batches, count):
    pass
  made = count / (time.perf_counter() - start)
  batches.close()
  context = dict(num_classes=labels.SCORED, steps_per_epoch=50, ignore_label=255)
  method = registry.method(config.method.to_dict(), **context)
  batch = {k: v for k, v in compact.expanded(batch).items() if v.dtype.kind != 'U'}
  state = jax.device_put(method.init(0, batch))
  _, step = timing.compiled(method.step, state, batch, jax.random.key(0), repeats=repeats)
  return made, 1 / step if step else float('nan')


def main(toy: bool) -> list[str]:
  timing.describe()
  print('batches a second')
  if toy:
    made, taken = rates(configs.load('configs/smoke.py:sac'), (32, 32), 2, 0)
    print(f'toy: made {made:.2f}  taken {taken:.2f}')
    return []
  large = configs.load('configs/sac_gta5.py:resnet101')
  large.data.update(batch=2)
  large.data.source.update(size=(128, 256))
  large.data.target.update(size=(128, 256), groups=1)
  small = configs.load('configs/sac_street_scenes.py:sac')
  short = []
  for name, config, shape in (
    ('ResNet-101, 128x256', large, (256, 512)),
    ('small net, 64x128', small, (64, 128)),
  ):
    made, taken = rates(config, shape, 24, 5)
    short += [f'{name}: {made / taken:.1f} times'] if made < LIMIT * taken else []
    print(f'{name:22} made {made:6.2f}  taken {taken:6.2f}  {made / taken:5.1f} times', flush=True)
  return short


if __name__ == '__main__':
  sys.exit(timing.command(main))
