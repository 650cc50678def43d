"""Time and memory of MoSE's training step: python -m benchmarks.mose_steps [lidc | cityscapes]

The released nets at 128 x 128 on random images, compiled, warm, shortest of several runs; each
shape in a process of its own, since memory is the peak of a process. Limits: LIDC, batch 4, 16
samples: 3.5 s; Cityscapes, batch 2, 35 samples, 32 modes: 15 s and 4 GB (the published PyTorch code
needs 9.5 GB). Exit status 1 beyond one of them.
"""

import subprocess
import sys

import jax
import numpy as np

from benchmarks import timing
from car_jax import config as configs
from car_jax import registry
from car_jax.metrics.flips import FLIPS, mode_weights

GB = 1e9
# config, data classes, ignored class, batch, labels, limits in seconds and bytes
CASES = {
  'lidc': ('configs/mose_lidc.py', 2, None, 4, 4, 3.5, None),
  'cityscapes': ('configs/mose_cityscapes.py', 25, 24, 2, 2 ** len(FLIPS), 15.0, 4 * GB),
}


def measure(case: str, toy: bool) -> list[str]:
  path, classes, ignore, images, labels, limit, most = CASES[case]
  size, repeats = 128, 5
  if toy:
    path, size, repeats = 'configs/smoke.py:mose', 16, 0
  config, rng = configs.load(path), np.random.default_rng(0)
  context = dict(num_classes=classes, ignore_label=ignore, steps_per_epoch=100)
  method = registry.method(config.method.to_dict(), **context)
  weight = mode_weights() if labels == 32 else np.full(labels, 1 / labels)
  batch = {
    'image': rng.uniform(-1, 1, (images, size, size, 3)).astype(np.float32),
    'labels': rng.integers(0, classes, (images, labels, size, size)).astype(np.int32),
    'label_weight': np.tile(weight, (images, 1)).astype(np.float32),
    'black_box': rng.integers(0, 19, (images, size, size)).astype(np.int32),
  }
  state = jax.device_put(method.init(0, batch))
  first, step = timing.compiled(method.step, state, batch, jax.random.key(0), repeats=repeats)
  peak = timing.peak_bytes()
  samples = method.samples[0] * method.net.experts
  limits = f'limits {limit} s' + (f', {most / GB:.0f} GB' if most else '')
  print(f'{path}, batch {images}, {samples} samples, {labels} labels:')
  times = f'compile {first:.1f} s, step {step:.2f} s, peak memory {peak / GB:.2f} GB'
  print(f'  {times} ({limits})', flush=True)
  slow = [f'{case}: step {step:.2f} s'] if step > limit else []
  return slow + ([f'{case}: {peak / GB:.2f} GB'] if most and peak > most else [])


def main(toy: bool, *cases: str) -> list[str]:
  if cases:
    return [line for case in cases for line in measure(case, toy)]
  timing.describe()
  if toy:
    return main(toy, *CASES)
  command = [sys.executable, '-m', 'benchmarks.mose_steps']
  return [case for case in CASES if subprocess.run([*command, case]).returncode]


if __name__ == '__main__':
  sys.exit(timing.command(main))
