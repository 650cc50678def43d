"""Time and memory of the set metrics: python -m benchmarks.metrics

Scores 32 images of 128 x 128 with 4 readers: GED, HM-IoU, D_max both ways, Dice_match and the CRPS
of areas from one pass over the pixels, compiled, warm, in the shortest of several runs (other work
on the machine only ever adds time). Limits: 100 ms for 16 samples, 450 ms for 100; exit status 1
beyond them.
"""

import functools
import math
import os
import sys

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from car_jax.metrics import readers as reader_scores
from car_jax.metrics import stochastic

IMAGES, READERS, SIZE = 32, 4, 128
LIMITS = {16: 100.0, 32: math.inf, 50: math.inf, 100: 450.0}  # samples -> milliseconds


def discs(rng, images: int, count: int) -> np.ndarray:
  """Discs about one centre per image, some of them missing: [images, count, SIZE, SIZE] int32."""
  centre = rng.uniform(40, 88, (images, 1, 2)) + rng.normal(0, 3, (images, count, 2))
  radius = rng.uniform(4, 30, (images, 1)) * rng.uniform(0.7, 1.3, (images, count))
  radius[rng.random(radius.shape) < 0.15] = 0
  y, x = np.mgrid[:SIZE, :SIZE]
  masks = np.empty((images, count, SIZE, SIZE), np.int32)
  for image, n in np.ndindex(images, count):
    (a, b), r = centre[image, n], radius[image, n]
    masks[image, n] = (y - a) ** 2 + (x - b) ** 2 < r**2
  return masks


@functools.partial(jax.jit, static_argnames='parts')
def score(samples, readers, parts):
  compared = stochastic.compare(samples, readers, classes=(1,))
  scores = {}
  if 'ged' in parts:
    scores['ged'] = stochastic.ged(compared).ged
  if 'hm' in parts:
    scores['hm'] = stochastic.hm_iou(compared)
  if 'dice' in parts:
    scores['dice'] = stochastic.max_dice(compared)
  if 'rest' in parts:
    scores['reverse'] = stochastic.max_dice(compared, best='readers')
    scores['match'] = reader_scores.dice_match(compared)
    scores['area'] = reader_scores.crps_area(compared)
  return scores


def milliseconds(samples, readers, parts, repeats) -> float:
  jax.block_until_ready(score(samples, readers, parts))
  return 1e3 * timing.shortest(lambda: score(samples, readers, parts), repeats)


def main(toy: bool) -> list[str]:
  rng, slow, images = np.random.default_rng(0), [], 2 if toy else IMAGES
  repeats, limits = (1, {16: math.inf}) if toy else (9, LIMITS)
  readers = jnp.asarray(discs(rng, images, READERS))
  timing.describe()
  print(f'{images} images {SIZE}x{SIZE}, {READERS} readers, int32, shortest of {repeats} runs, ms')
  print('samples     GED  HM-IoU     all   limit  working MiB  input MiB  load')
  for n, of in limits.items():
    limit = timing.allowed(of)
    samples = jnp.asarray(discs(rng, images, n))
    ged, hm, both = (
      milliseconds(samples, readers, p, repeats) for p in ('ged', 'hm', 'ged+hm+dice+rest')
    )
    compiled = score.lower(samples, readers, 'ged+hm+dice+rest').compile()
    memory = compiled.memory_analysis()
    working = memory.temp_size_in_bytes / 2**20 if memory else float('nan')
    load = os.getloadavg()[0]
    print(
      f'{n:7d} {ged:7.1f} {hm:7.1f} {both:7.1f} {limit:7.0f} {working:12.1f}'
      f' {samples.nbytes / 2**20:10.1f} {load:5.1f}'
    )
    slow += [f'{n} samples {both:.0f} ms'] if both > limit else []
  print(f'peak resident memory of the process: {timing.peak_bytes() / 2**20:.0f} MiB')
  return slow


if __name__ == '__main__':
  sys.exit(timing.command(main))
