"""Time and memory of reliability measures and temperature fits: python -m benchmarks.reliability

20 M pixels x 19 float32 logits, as chunks of 1024 x 2048: every measure of a study from one pass,
and a plain read of the same memory beside it; what the sets of a guarantee add to a chunk. Then
temperatures for 2 M pixels. Limits: 7 s and 300 MB beyond the chunk for the pass, 20 % more for
the sets of any loss, 30 s for a fit; exit status 1 beyond them.
"""

import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from car_jax.calibrate import base
from car_jax.evaluate import engine
from car_jax.evaluate.cell import Cell
from car_jax.metrics import catalogue, onepass
from car_jax.metrics.base import Metric, Traits
from car_jax.metrics.pixel_counts import PixelCounts
from car_jax.metrics.prediction_sets import LOSSES, SetKind, SetLoss, SetSize

PIXELS, CHUNK, FITTED, CLASSES, REPEATS = 20_000_000, 1024 * 2048, 2_000_000, 19, 3
ALL: tuple[str, ...] = ('miou', 'ece', 'adaptive_ece', 'ks', 'mce', 'nll', 'brier', 'auroc')
ALL += ('aupr_error', 'fpr95', 'prr', 'aurc', 'auroc[entropy]', 'prr[entropy]', 'auroc[energy]')
LIMITS = dict(seconds=7.0, megabytes=300.0, sets=1.2, fit=30.0)


def chunk(rng: np.random.Generator, pixels: int) -> tuple[np.ndarray, np.ndarray]:
  """Logits [1, N, C] of an overconfident model and labels [1, N], 5 % of them void."""
  logits = rng.standard_normal((1, pixels, CLASSES), np.float32)
  labels = rng.integers(0, CLASSES, (1, pixels)).astype(np.int32)
  np.put_along_axis(logits, labels[..., None], 3.0, -1)
  wrong = rng.random((1, pixels)) < 0.15
  labels = np.where(wrong, rng.integers(0, CLASSES, (1, pixels)), labels)
  labels[rng.random((1, pixels)) < 0.05] = 255
  return logits * rng.uniform(0.5, 4, (1, pixels, 1)).astype(np.float32), labels.astype(np.int32)


def one_pass(logits: jax.Array, labels: np.ndarray, times: int) -> dict[str, float]:
  counted, cell, source = np.ones(labels.shape, bool), Cell(Traits(logits=True)), PixelCounts()
  for k in range(times):
    counts = jax.device_get(onepass.counts(logits, labels, counted))._asdict()
    cell.add([source], [{k: v for k, v in counts.items() if v is not None}], [str(k)], [''])
  setting = catalogue.Setting(class_names=('',) * CLASSES, one_label=True)
  return {m.name: cell.value(m) for m in catalogue.metrics(ALL, setting)}


def passes(pixels: int, size: int) -> list[str]:
  """One pass over about `pixels`, in chunks of `size`."""
  logits, labels = chunk(np.random.default_rng(0), size)
  logits = jax.block_until_ready(jnp.asarray(logits))
  times = round(pixels / size)
  total = times * logits.nbytes
  read = jax.jit(jnp.sum)
  jax.block_until_ready(read(logits))
  plain = timing.shortest(lambda: [read(logits) for _ in range(times)], REPEATS)
  before = timing.peak_bytes()
  values = one_pass(logits, labels, 1)
  more = (timing.peak_bytes() - before) / 1e6
  seconds = timing.shortest(lambda: one_pass(logits, labels, times), REPEATS)
  limit = timing.allowed(LIMITS['seconds'])
  print(f'{times} x {size:,} pixels x {CLASSES} float32 logits, {total / 1e9:.2f} GB')
  print(f'one pass, {len(ALL)} measures: {seconds:.2f} s (limit {limit:.1f})')
  print(f'plain read of the logits: {plain:.2f} s; ratio {seconds / plain:.1f}')
  print(f'memory beyond the chunk: {more:.0f} MB (limit {LIMITS["megabytes"]:g})')
  half = timing.shortest(lambda: one_pass(logits, labels, times // 2), REPEATS)
  print(f'half the pixels: {half:.2f} s')
  print('  '.join(f'{k} {v:.4f}' for k, v in values.items()))
  wrong = [f'one pass {seconds:.1f} s'] if seconds > limit else []
  return wrong + ([f'{more:.0f} MB'] if more > LIMITS['megabytes'] else [])


def sets(size: int) -> list[str]:
  """What loss and size of the sets of one guarantee add to a chunk, in seconds of all cores."""
  logits, labels = chunk(np.random.default_rng(0), size)
  shown = engine.of_logits(
    jnp.asarray(logits.reshape(1, size, 1, CLASSES)),
    labels.reshape(1, size, 1),
    ['image'],
    thresholds={'g': np.float32(0.3)},
  )
  scored: dict[str, tuple[Metric, ...]] = {'': ()}
  for loss in LOSSES:
    foreground = tuple(range(1, CLASSES)) if loss == 'fnr' else ()
    of: dict[str, Any] = dict(guarantee='g', kind=SetKind(loss, foreground, 255))
    scored[loss] = SetLoss(name='loss', **of), SetSize(name='size', **of)
  details = lambda *_: (PixelCounts(ignore=255),)
  spent: dict[str, list[float]] = {loss: [] for loss in scored}
  for _ in range(4 * REPEATS):  # in turn, since others share the cores
    for loss, metrics in scored.items():
      start = time.process_time()
      engine.count([shown], metrics, details=details)
      spent[loss].append(time.process_time() - start)
  ratios = {loss: min(spent[loss]) / min(spent['']) for loss in LOSSES}
  shares = ', '.join(f'{loss} {ratio:.2f}' for loss, ratio in ratios.items())
  print(f'sets of a guarantee, times the rest: {shares} (limit {LIMITS["sets"]:g})')
  slow = [f'sets of {loss} {x:.2f}' for loss, x in ratios.items() if x > LIMITS['sets']]
  return slow if size >= CHUNK else []


def fits(pixels: int) -> list[str]:
  logits, labels = chunk(np.random.default_rng(1), pixels)
  sample = base.Sample(logits, np.where(labels == 255, -1, labels).astype(np.int32))
  slow, limit = [], timing.allowed(LIMITS['fit'])
  for kind in ('temperature', 'ece_grid'):
    start = time.perf_counter()
    fit = base.fit(kind, sample)
    seconds = time.perf_counter() - start
    scores = {
      k: round(fit.about[k], 4) for k in ('nll_before', 'nll_after', 'ece_before', 'ece_after')
    }
    print(
      f'{kind}, {pixels / 1e6:g} M pixels, compilation included: {seconds:.1f} s '
      f'(limit {limit:.0f}), {scores}'
    )
    slow += [f'{kind} {seconds:.1f} s'] if seconds > limit else []
  return slow


def main(toy: bool) -> list[str]:
  timing.describe()
  if toy:
    return passes(2 * 4096, 4096) + sets(4096) + fits(4096)
  return passes(PIXELS, CHUNK) + sets(CHUNK) + fits(FITTED)


if __name__ == '__main__':
  sys.exit(timing.command(main))
