"""Time and memory of the set metrics: python -m benchmarks.metrics

Scores 32 images of 128 x 128 with 4 readers: GED, HM-IoU and D_max from one pass over the pixels,
compiled, warm, in the shortest of several runs (other work on the machine only ever adds time).
Limits: 150 ms for 16 samples, 2 s for 100; exit status 1 beyond them.
"""

import functools
import os
import resource
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from car_jax.metrics import stochastic

IMAGES, READERS, SIZE, REPEATS = 32, 4, 128, 9
LIMITS = {16: 150.0, 32: None, 50: None, 100: 2000.0}  # samples -> milliseconds


def discs(rng, count: int) -> np.ndarray:
  """Discs about one centre per image, some of them missing: [IMAGES, count, SIZE, SIZE] int32."""
  centre = rng.uniform(40, 88, (IMAGES, 1, 2)) + rng.normal(0, 3, (IMAGES, count, 2))
  radius = rng.uniform(4, 30, (IMAGES, 1)) * rng.uniform(0.7, 1.3, (IMAGES, count))
  radius[rng.random(radius.shape) < 0.15] = 0
  y, x = np.mgrid[:SIZE, :SIZE]
  found = np.empty((IMAGES, count, SIZE, SIZE), np.int32)
  for image, n in np.ndindex(IMAGES, count):
    (a, b), r = centre[image, n], radius[image, n]
    found[image, n] = (y - a) ** 2 + (x - b) ** 2 < r**2
  return found


@functools.partial(jax.jit, static_argnames='parts')
def score(samples, readers, parts):
  compared = stochastic.compare(samples, readers, classes=(1,))
  found = {}
  if 'ged' in parts:
    found['ged'] = stochastic.ged(compared).ged
  if 'hm' in parts:
    found['hm'] = stochastic.hm_iou(compared)
  if 'dice' in parts:
    found['dice'] = stochastic.max_dice(compared)
  return found


def milliseconds(samples, readers, parts) -> float:
  jax.block_until_ready(score(samples, readers, parts))
  best = float('inf')
  for _ in range(REPEATS):
    start = time.perf_counter()
    jax.block_until_ready(score(samples, readers, parts))
    best = min(best, time.perf_counter() - start)
  return 1e3 * best


def main() -> int:
  rng, slow = np.random.default_rng(0), []
  readers = jnp.asarray(discs(rng, READERS))
  device = jax.devices()[0]
  print(f'{device.platform} {device.device_kind}, {os.cpu_count()} cores, jax {jax.__version__}')
  print(f'{IMAGES} images {SIZE}x{SIZE}, {READERS} readers, int32, shortest of {REPEATS} runs, ms')
  print('samples     GED  HM-IoU     all   limit  working MiB  input MiB  load')
  for n, limit in LIMITS.items():
    samples = jnp.asarray(discs(rng, n))
    ged, hm, both = (milliseconds(samples, readers, p) for p in ('ged', 'hm', 'ged+hm+dice'))
    compiled = score.lower(samples, readers, 'ged+hm+dice').compile()
    memory = compiled.memory_analysis()
    working = memory.temp_size_in_bytes / 2**20 if memory else float('nan')
    load = os.getloadavg()[0]
    print(
      f'{n:7d} {ged:7.1f} {hm:7.1f} {both:7.1f} {limit or "-":>7} {working:12.1f}'
      f' {samples.nbytes / 2**20:10.1f} {load:5.1f}'
    )
    slow += [n] if limit and both > limit else []
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
  print(f'peak resident memory of the process: {peak:.0f} MiB')
  for n in slow:
    print(f'slower than the limit: {n} samples', file=sys.stderr)
  return 1 if slow else 0


if __name__ == '__main__':
  sys.exit(main())
