"""Does the host feed DA-SAC's second stage? python -m benchmarks.feeding

Batches a second of the pipeline (source windows, target views with noise, from random images in
memory, with no net beside it) and of the training step: the published first net at 128 x 256, two
source images and one target image in 4 views, and the small net of configs/sac_street_scenes.py as
it is. Exit status 1 where the pipeline makes less than 1.5 times what the net takes.

python -m benchmarks.feeding cores [CONFIG ..]: how many of this machine's cores feed one
accelerator that computes at SHARE of its peak. Measured: the CPU seconds in which a core makes a
batch of a published training, and reads its records, prepared, in bytes. Counted: a step's
operations. From data sheets: the peak (benchmarks/peaks.py).

python -m benchmarks.feeding formats: an image of 2048x1024 and its label as a prepared record, as
PNG, JPEG and WebP: how many a core reads in a second, and how large they are.
"""

import contextlib
import io
import itertools
import pathlib
import sys
import tempfile
import time
from typing import Any

import cv2
import jax
import numpy as np

from benchmarks import peaks, timing
from car_jax import config as configs
from car_jax import registry
from car_jax.data import adaptation, compact, labels, opening, pipeline
from car_jax.data import options as data_options
from car_jax.data.sources import DataInfo, Dataset, Listed
from car_jax.datasets import prepare
from car_jax.reproduce import costs

LIMIT, WARM = 1.5, 4
SHARE, FED = 0.4, ('H100 SXM', 'H200', 'TPU v5e')
CONFIGS: tuple[str, ...] = ('car_lidc', 'mose_lidc', 'car_cityscapes', 'mose_cityscapes')
CONFIGS += ('sac_gta5:resnet101_base', 'sac_gta5:resnet101', 'segformer_cityscapes:b0')
CONFIGS += ('segformer_cityscapes:b5', 'deeplabv3plus_cityscapes:r101')


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
  return Dataset(info, lambda split: Listed(records))


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


def smooth(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
  """uint8 [height, width, 3] that takes as much room as a photograph: few high frequencies."""
  down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
  weight = np.maximum(np.hypot(down, across), 1 / max(height, width)) ** -1.2
  waves = np.fft.rfft2(rng.standard_normal((3, height, width)), axes=(1, 2)) * weight
  planes = np.fft.irfft2(waves, (height, width), axes=(1, 2))
  planes = 45 * planes / planes.std() + rng.normal(110, 1.5, planes.shape)
  return np.moveaxis(np.clip(planes, 0, 255).astype(np.uint8), 0, -1)


def reading(size: tuple[int, int], count: int = 8) -> float:
  """CPU seconds of a byte of prepared records: images of `size` and their labels."""
  rng = np.random.default_rng(0)
  with tempfile.TemporaryDirectory() as temporary, contextlib.redirect_stdout(io.StringIO()):
    folder, data = pathlib.Path(temporary, 'files'), f'{temporary}/data'
    for k in range(count):
      for kind in ('images/train', 'labels/train'):
        (folder / kind).mkdir(parents=True, exist_ok=True)
      label = cv2.resize(rng.integers(0, 2, (8, 8), np.uint8), size[::-1], interpolation=0)
      cv2.imwrite(str(folder / f'images/train/{k}.png'), smooth(rng, *size))
      cv2.imwrite(str(folder / f'labels/train/{k}.png'), label)
    words = ['folder', '--source', str(folder), '--data-dir', data]
    if prepare.main([*words, '--variant', 'made', '--classes', '0:no,1:yes']):
      raise RuntimeError('the images that were made are not prepared')
    records = opening.open_dataset(dict(name='folder/made', data_dir=data))
    split = records.split('train')
    return cpu_seconds(lambda: [split[k] for k in range(count)]) / (count * bytes_of(split[0]))


def formats(toy: bool) -> list[str]:
  """Files are in memory, as in a disk's cache; the label is PNG beside a JPEG too."""
  size = (64, 128) if toy else (1024, 2048)
  rng = np.random.default_rng(0)
  label = np.kron(rng.integers(0, 19, (16, 32), np.uint8), np.ones((size[0] // 16, size[1] // 32)))
  image, label = smooth(rng, *size), label.astype(np.uint8)
  encoded = lambda a, kind, *options: cv2.imencode(kind, a, options)[1]
  labels = encoded(label, '.png')
  print('| an image with its label | MB | a second of a core (measured) |')
  print('|---|---:|---:|')
  raw = image.nbytes + label.nbytes
  print(f'| prepared record | {raw / 1e6:.1f} | {1 / (reading(size, 4) * raw):.0f} |')
  for name, data in (
    ('PNG', encoded(image, '.png')),
    ('JPEG of quality 95, label PNG', encoded(image, '.jpg', cv2.IMWRITE_JPEG_QUALITY, 95)),
    ('WebP of quality 95, label PNG', encoded(image, '.webp', cv2.IMWRITE_WEBP_QUALITY, 95)),
  ):
    seconds = cpu_seconds(lambda data=data: [cv2.imdecode(a, -1) for a in (data, labels)], 5)
    print(f'| {name} | {(len(data) + len(labels)) / 1e6:.1f} | {1 / seconds:.0f} |')
  return []


def cpu_seconds(work: Any, times: int = 2) -> float:
  """Of all threads, in a call."""
  work()
  start = time.process_time()
  for _ in range(times):
    work()
  return (time.process_time() - start) / times


def bytes_of(record: Any) -> int:
  return sum(a.nbytes for a in record.values() if isinstance(a, np.ndarray))


def batch_seconds(config: Any, dataset: Dataset) -> tuple[float, int]:
  """CPU seconds in which a batch is made of records in memory, and the bytes of these."""
  stream = dataset.split(config.data.train)
  batches = pipeline.train_batches(stream, dataset.info, config.data, seed=0)
  with contextlib.closing(batches):
    made = cpu_seconds(lambda: [next(batches) for _ in range(WARM)], 1) / WARM
  if not isinstance(stream, adaptation.TwoDomains):
    return made, config.data.batch * bytes_of(stream[0])
  domains = (stream.source, stream.batch), (stream.target, stream.groups)
  return made, sum(count * bytes_of(domain.records[0]) for domain, count in domains)


def cores(toy: bool, *names: str) -> list[str]:
  per_byte = reading((64, 128) if toy else (1024, 2048), 4 if toy else 8)
  print(f'reading: {1e9 * per_byte:.2f} CPU seconds a GB (measured)')
  print('| config | images/s of a core (measured) | GFLOP an image (counted) |', end='')
  print(''.join(f' cores for one {name} |' for name in FED))
  print('|---|---:|---:|' + '---:|' * len(FED))
  for name in ('smoke:supervised',) if toy else names or CONFIGS:
    config = configs.load(configs.path_of(name))
    config.data.update(threads=0, workers=0)  # which would have worked ahead
    dataset = opening.open_dataset(config.data) if toy else costs.published(config)
    made, size = batch_seconds(config, dataset)
    seconds, batch = made + size * per_byte, config.data.batch
    flops = costs.of(config, dataset).flops
    needed = [SHARE * peaks.NAMED[fed].flops('float32') / flops * seconds for fed in FED]
    cells = [f'`{name}`', f'{batch / seconds:,.3g}', f'{flops / batch / 1e9:,.3g}']
    print(f'| {" | ".join([*cells, *(f"{n:,.{int(n < 10)}f}" for n in needed)])} |', flush=True)
  return []


def main(toy: bool, *words: str) -> list[str]:
  timing.describe()
  if words[:1] == ('cores',):
    return cores(toy, *words[1:])
  if words[:1] == ('formats',):
    return formats(toy)
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
