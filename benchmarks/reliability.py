"""Time and memory of reliability measures and temperature fits: python -m benchmarks.reliability

20 M pixels x 19 float32 logits, as chunks of 1024 x 2048: every measure of a study from one pass,
and a plain read of the same memory beside it. Then temperatures for 2 M pixels. Limits: 7 s and
300 MB beyond the chunk for the pass, 30 s for a fit; exit status 1 beyond them.
"""

import os
import resource
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from car_jax.calibrate import base
from car_jax.metrics import onepass
from car_jax.reliability import measures
from car_jax.reliability.tally import Tally

PIXELS, CHUNK, CLASSES, REPEATS = 20_000_000, 1024 * 2048, 19, 3
ALL = ('miou', 'ece', 'adaptive_ece', 'ks', 'mce', 'nll', 'brier', 'auroc', 'aupr_error')
ALL += ('fpr95', 'prr', 'aurc', 'auroc[entropy]', 'prr[entropy]', 'auroc[energy]')
LIMITS = dict(seconds=7.0, megabytes=300.0, fit=30.0)


def chunk(rng: np.random.Generator, pixels: int) -> tuple[np.ndarray, np.ndarray]:
  """Logits [1, N, C] of an overconfident model and labels [1, N], 5 % of them void."""
  logits = rng.standard_normal((1, pixels, CLASSES), np.float32)
  labels = rng.integers(0, CLASSES, (1, pixels)).astype(np.int32)
  np.put_along_axis(logits, labels[..., None], 3.0, -1)
  wrong = rng.random((1, pixels)) < 0.15
  labels = np.where(wrong, rng.integers(0, CLASSES, (1, pixels)), labels)
  labels[rng.random((1, pixels)) < 0.05] = 255
  return logits * rng.uniform(0.5, 4, (1, pixels, 1)).astype(np.float32), labels.astype(np.int32)


def peak() -> float:
  """Of this process, in MB (Linux)."""
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def one_pass(logits: jax.Array, labels: np.ndarray, times: int) -> dict[str, float]:
  counted, tally = np.ones(labels.shape, bool), Tally()
  for k in range(times):
    tally.add(onepass.counts(logits, labels, counted), [str(k)], [''], [True])
  pooled = tally.pooled()
  return {name: measures.measure(name).of(pooled) for name in ALL}


def shortest(work: Callable[[], object], repeats: int = REPEATS) -> float:
  best = float('inf')
  for _ in range(repeats):
    start = time.perf_counter()
    work()
    best = min(best, time.perf_counter() - start)
  return best


def passes() -> list[str]:
  rng = np.random.default_rng(0)
  logits, labels = chunk(rng, CHUNK)
  logits = jax.block_until_ready(jnp.asarray(logits))
  times = round(PIXELS / CHUNK)
  total = times * logits.nbytes
  read = jax.jit(jnp.sum)
  jax.block_until_ready(read(logits))
  plain = shortest(lambda: [jax.block_until_ready(read(logits)) for _ in range(times)])
  before = peak()
  found = one_pass(logits, labels, 1)
  more = peak() - before
  seconds = shortest(lambda: one_pass(logits, labels, times))
  print(f'{times} x {CHUNK:,} pixels x {CLASSES} float32 logits, {total / 1e9:.2f} GB')
  print(f'one pass, {len(ALL)} measures: {seconds:.2f} s (limit {LIMITS["seconds"]:g})')
  print(f'plain read of the logits: {plain:.2f} s; ratio {seconds / plain:.1f}')
  print(f'memory beyond the chunk: {more:.0f} MB (limit {LIMITS["megabytes"]:g})')
  half = shortest(lambda: one_pass(logits, labels, times // 2))
  print(f'half the pixels: {half:.2f} s')
  print('  '.join(f'{k} {v:.4f}' for k, v in found.items()))
  wrong = [f'one pass {seconds:.1f} s'] if seconds > LIMITS['seconds'] else []
  return wrong + ([f'{more:.0f} MB'] if more > LIMITS['megabytes'] else [])


def fits() -> list[str]:
  logits, labels = chunk(np.random.default_rng(1), 2_000_000)
  sample = base.Sample(logits, np.where(labels == 255, -1, labels).astype(np.int32))
  slow = []
  for kind in ('temperature', 'ece_grid'):
    start = time.perf_counter()
    fit = base.fit(kind, sample)
    seconds = time.perf_counter() - start
    told = {
      k: round(fit.about[k], 4) for k in ('nll_before', 'nll_after', 'ece_before', 'ece_after')
    }
    print(
      f'{kind}, 2 M pixels, compilation included: {seconds:.1f} s (limit {LIMITS["fit"]:g}), {told}'
    )
    slow += [f'{kind} {seconds:.1f} s'] if seconds > LIMITS['fit'] else []
  return slow


def main() -> int:
  device = jax.devices()[0]
  print(f'{device.platform} {device.device_kind}, {os.cpu_count()} cores, jax {jax.__version__}')
  slow = passes() + fits()
  print(f'load {os.getloadavg()[0]:.1f}')
  for what in slow:
    print(f'beyond the limit: {what}', file=sys.stderr)
  return int(bool(slow))


if __name__ == '__main__':
  sys.exit(main())
