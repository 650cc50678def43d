"""Does the host feed DA-SAC's second stage? python -m benchmarks.feeding

Batches a second of the pipeline (source windows, target views with noise, from random images in
memory, with no net beside it) and of the training step: the published first net at 128 x 256, two
source images and one target image in 4 views, and the small net of configs/sac_street_scenes.py as
it is. Exit status 1 where the pipeline makes less than 1.5 times what the net takes.
"""

import itertools
import os
import sys
import time

import jax
import numpy as np

from benchmarks.car_steps import seconds
from car_jax import config as configs
from car_jax import registry
from car_jax.data import adaptation, labels
from car_jax.data.sources import DataInfo, Dataset

LIMIT, WARM, COUNT = 1.5, 4, 24


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


def rates(config, shape: tuple[int, int]) -> tuple[float, float]:
  """Batches a second of the pipeline and of the step, for images of `shape`."""
  data, images = config.data.to_dict(), pictures(shape)
  own = {k: v for k, v in data['source'].items() if k not in adaptation.OPENS}
  stream = adaptation.opened(images, images, own, dict(data['target']), data)
  batches = stream.train_batches(seed=0)
  batch, *_ = itertools.islice(batches, WARM)  # threads have begun
  start = time.perf_counter()
  for _ in itertools.islice(batches, COUNT):
    pass
  made = COUNT / (time.perf_counter() - start)
  batches.close()
  context = dict(num_classes=labels.SCORED, steps_per_epoch=50, ignore_label=255)
  method = registry.method(config.method.to_dict(), **context)
  batch = {k: v for k, v in batch.items() if v.dtype.kind != 'U'}
  _, step = seconds(method.step, jax.device_put(method.init(0, batch)), batch, jax.random.key(0))
  return made, 1 / step


def main() -> int:
  device, short = jax.devices()[0], False
  print(f'{device.platform} {device.device_kind}, {os.cpu_count()} cores, jax {jax.__version__}')
  print(f'load {os.getloadavg()[0]:.1f}; batches a second')
  large = configs.load('configs/sac_gta5.py:resnet101')
  large.data.update(batch=2)
  large.data.source.update(size=(128, 256))
  large.data.target.update(size=(128, 256), groups=1)
  small = configs.load('configs/sac_street_scenes.py:sac')
  for name, config, shape in (
    ('ResNet-101, 128x256', large, (256, 512)),
    ('small net, 64x128', small, (64, 128)),
  ):
    made, taken = rates(config, shape)
    short |= made < LIMIT * taken
    print(f'{name:22} made {made:6.2f}  taken {taken:6.2f}  {made / taken:5.1f} times', flush=True)
  return int(short)


if __name__ == '__main__':
  sys.exit(main())
