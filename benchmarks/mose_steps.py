"""Time and memory of MoSE's training step: python -m benchmarks.mose_steps [lidc | cityscapes]

The released nets at 128 x 128 on random images, compiled, warm, shortest of several runs; each
shape in a process of its own, since memory is the peak of a process. Limits: LIDC, batch 4, 16
samples: 3.5 s (the published PyTorch code: 4.0 s on two cores); Cityscapes, batch 2, 35 samples, 32
modes: 15 s and 4 GB (there 37 s on one core and 9.5 GB). Exit status 1 beyond one of them.
"""

import os
import resource
import subprocess
import sys

import jax
import numpy as np

from benchmarks.car_steps import seconds
from car_jax import config as configs
from car_jax import registry
from car_jax.metrics.flips import FLIPS, mode_weights

SIZE, GB = 128, 1e9
# config, data classes, ignored class, batch, labels, limits in seconds and bytes
CASES = {
  'lidc': ('mose_lidc', 2, None, 4, 4, 3.5, None),
  'cityscapes': ('mose_cityscapes', 25, 24, 2, 2 ** len(FLIPS), 15.0, 4 * GB),
}


def measure(case: str) -> int:
  name, classes, ignore, images, labels, limit, most = CASES[case]
  config, rng = configs.load(f'configs/{name}.py'), np.random.default_rng(0)
  context = dict(num_classes=classes, ignore_label=ignore, steps_per_epoch=100)
  method = registry.method(config.method.to_dict(), **context)
  weight = mode_weights() if labels == 32 else np.full(labels, 1 / labels)
  batch = {
    'image': rng.uniform(-1, 1, (images, SIZE, SIZE, 3)).astype(np.float32),
    'labels': rng.integers(0, classes, (images, labels, SIZE, SIZE)).astype(np.int32),
    'label_weight': np.tile(weight, (images, 1)).astype(np.float32),
    'black_box': rng.integers(0, 19, (images, SIZE, SIZE)).astype(np.int32),
  }
  state = jax.device_put(method.init(0, batch))
  first, step = seconds(method.step, state, batch, jax.random.key(0))
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux
  samples = method.samples[0] * method.net.experts
  limits = f'limits {limit} s' + (f', {most / GB:.0f} GB' if most else '')
  print(f'configs/{name}.py, batch {images}, {samples} samples, {labels} labels:')
  told = f'compile {first:.1f} s, step {step:.2f} s, peak memory {peak / GB:.2f} GB'
  print(f'  {told} ({limits})', flush=True)
  return int(step > limit or (most is not None and peak > most))


def main(arguments: list[str]) -> int:
  if arguments:
    return measure(arguments[0])
  device = jax.devices()[0]
  print(f'{device.platform} {device.device_kind}, {os.cpu_count()} cores, jax {jax.__version__}')
  command = [sys.executable, '-m', 'benchmarks.mose_steps']
  return max(subprocess.run([*command, case]).returncode for case in CASES)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
