"""Compilation of segmenters and a forward pass: python -m benchmarks.segmenters

One net of each family of configs/segmenters_cityscapes.py at full size, on an image of 512 x 1024:
CPU seconds that its forward pass takes to trace and to compile, without a cache. Then SegFormer-B0,
compiled, on random images: seconds of the shortest of several runs, and CPU seconds. Limit: 30 s
for each net; exit status 1 beyond it.
"""

import functools
import sys
import time
from typing import Any

import jax
import numpy as np

from benchmarks import timing
from car_jax import config as configs
from car_jax import registry
from car_jax.importers import comparison

FAMILIES: tuple[str, ...] = ('pspnet_r50', 'deeplabv3plus_r50', 'upernet_r50', 'upernet_bit_r50')
FAMILIES += ('upernet_convnext_large', 'upernet_swin_large', 'setr_pup', 'setr_mla', 'segmenter')
FAMILIES += ('segformer_b0', 'segformer_b5', 'ann_r50', 'apcnet_r50', 'ccnet_r50', 'gcnet_r50')
FAMILIES += ('semfpn_r50', 'bisenetv1_r18', 'bisenetv2', 'icnet_r50', 'mobilenetv3')
FAMILIES += ('maskformer_r101c', 'mask2former_swin_large')
TIMED, SIZE, CLASSES, REPEATS, LIMIT = 'segformer_b0', (512, 1024), 19, 5, 30.0


def net_of(variant: str) -> Any:
  config = configs.load(f'configs/segmenters_cityscapes.py:{variant}')
  return registry.net(config.method.model.to_dict(), num_classes=CLASSES)


def preparation(net: Any, size: tuple[int, int], toy: bool) -> tuple[float, float]:
  """CPU seconds of tracing and of compilation (0 where `toy`)."""
  image = jax.ShapeDtypeStruct((1, *size, 3), np.float32)
  start = functools.partial(net.init, jax.random.key(0), train=False)
  variables = jax.eval_shape(start, image)
  began = time.process_time()
  lowered = jax.jit(functools.partial(net.apply, train=False)).lower(variables, image)
  traced = time.process_time()
  if not toy:
    lowered.compile()
  return traced - began, time.process_time() - traced


def forward(size: tuple[int, int], repeats: int) -> str:
  """A line about the shortest of several runs."""
  net, rng = net_of(TIMED), np.random.default_rng(0)
  image = rng.uniform(-1, 1, (1, *size, 3)).astype(np.float32)
  variables = net.init(jax.random.key(0), image[:, :64, :64], train=False)
  program = jax.jit(functools.partial(net.apply, train=False))
  work = lambda: program(variables, image)
  timing.shortest(work, 1)
  began = time.process_time()
  best = timing.shortest(work, repeats)
  used = (time.process_time() - began) / repeats
  return f'{TIMED} on {size[0]} x {size[1]}: {best:.2f} s, {used:.2f} s of CPU'


def main(toy: bool) -> list[str]:
  timing.describe()
  slow, names, size, limit = [], FAMILIES, SIZE, timing.allowed(LIMIT)
  if toy:
    names, size = ('bisenetv2', 'pspnet_r50'), (64, 64)
  else:
    jax.config.update('jax_enable_compilation_cache', False)
  print('family                   parameters    traced  compiled')
  for name in names:
    net = net_of(name)
    traced, compiled = preparation(net, size, toy)
    print(
      f'{name:24} {comparison.millions(net):8.2f} M {traced:7.1f} s {compiled:7.1f} s', flush=True
    )
    slow += [f'{name} {traced + compiled:.0f} s'] if traced + compiled > limit else []
  if not toy:
    print(forward(size, REPEATS))
  return slow


if __name__ == '__main__':
  sys.exit(timing.command(main))
