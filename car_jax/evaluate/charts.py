"""The report's charts: each answers one question. Results in, SVG text out."""

import math
from typing import Any

import numpy as np

from car_jax.evaluate.predict import READERS
from car_jax.evaluate.results import Results
from car_jax.evaluate.svg import Axis, Drawing, subject_colour
from car_jax.metrics.base import Metric
from car_jax.metrics.of_samples import PARTS, counts_of

WIDTH, LEFT, RIGHT = 440, 12, 428
ROW = 46


def colour_of(results: Results, subject: str) -> str:
  ranked = [s for s in results.subjects if s != READERS]
  return subject_colour(None if subject == READERS else ranked.index(subject))


def number(value: float, digits: int = 3) -> str:
  return '–' if math.isnan(value) else f'{value:.{digits}f}'.replace('-', '−')


def intervals(results: Results, metric: Metric) -> str:
  """How good is each subject, and how sure is that? A dot with its 95 % interval per row."""
  spans = {s: results.interval(s, metric) for s in results.subjects}
  spans = {s: v for s, v in spans.items() if not math.isnan(v.mean)}
  rows = len(spans)
  d = Drawing(WIDTH, ROW * rows + 48, f'{metric.name} with 95 % intervals')
  ends = [v for i in spans.values() for v in i[:3] if not math.isnan(v)] or [0.0, 1.0]
  margin = 0.06 * (max(ends) - min(ends) or 1)
  lo = 0.0 if 0 <= min(ends) < 0.6 * max(ends) else min(ends) - margin
  axis, bottom = Axis(lo, max(ends) + margin, LEFT + 6, RIGHT - 6), ROW * rows + 4
  d.x_axis(axis, 4, bottom, metric.convention)
  if READERS in spans:
    x = axis(spans[READERS].mean)
    d.line(x, 4, x, bottom, 'var(--muted)', 1.5, '2 4')
  for k, (subject, i) in enumerate(spans.items()):
    y, colour = ROW * k + 32, colour_of(results, subject)
    d.text(LEFT, y - 13, subject, weight=600, size=12)
    d.text(RIGHT, y - 13, number(i.mean), 'end', size=12, weight=600)
    tip = f'{subject}: {number(i.mean)}'
    if not math.isnan(i.low):
      d.line(axis(i.low), y, axis(i.high), y, colour, 4)
      tip += f' ({number(i.low)} to {number(i.high)})'
    d.dot(axis(i.mean), y, colour, 5.5, hollow=subject == READERS, tip=tip)
  return d.render()


def histogram(results: Results, metric: Metric, bins: int = 28) -> str:
  """Is it good everywhere? The values of all images, one band per subject on a common axis."""
  values = {s: v for s in results.subjects if (v := results.values(s, metric)) is not None}
  values = {s: v[~np.isnan(v)] for s, v in values.items()}
  values = {s: v for s, v in values.items() if len(v)}
  every = np.concatenate([*values.values()]) if values else np.zeros(1)
  lo, hi = float(min(0, every.min())), float(every.max())
  edges = np.linspace(lo, hi if hi > lo else lo + 1, bins + 1)
  band, rows = 62, len(values)
  d = Drawing(WIDTH, band * rows + 48, f'Distribution of {metric.name} over images')
  axis, bottom = Axis(edges[0], edges[-1], LEFT + 6, RIGHT - 6), band * rows + 4
  d.x_axis(axis, 4, bottom, f'{metric.name} of an image')
  shares = {s: np.histogram(v, edges)[0] / len(v) for s, v in values.items()}
  for k, (subject, share) in enumerate(shares.items()):
    base, colour = band * k + 60, colour_of(results, subject)
    d.text(LEFT, base - 44, subject, weight=600)
    # Each band has its own height: a net that is always equally bad would flatten all others.
    for j in np.flatnonzero(share):
      tall = 36 * share[j] / share.max()
      x, wide = axis(edges[j]), axis(edges[j + 1]) - axis(edges[j])
      tip = f'{edges[j]:.3f} to {edges[j + 1]:.3f}: {share[j]:.1%} of the images'
      d.rect(x + 0.5, base - tall, wide - 1, tall, colour, 0.75, tip)
    d.line(LEFT, base, RIGHT, base, 'var(--muted)', 0.75)
    median = axis(float(np.median(values[subject])))
    d.line(median, base - 40, median, base + 4, 'var(--ink)', 1.75)
  return d.render()


def decomposition(results: Results) -> str:
  """Do samples disagree as readers do? The three mean distances behind the GED, per subject."""
  parts = {
    s: [float(v) for v in means]  # type: ignore[arg-type]
    for s in results.subjects
    if None not in (means := [results.means(s, 'distances', name) for name in PARTS])
  }
  rows = len(parts)
  d = Drawing(WIDTH, ROW * rows + 74, 'Mean distances between samples and readers')
  highest = max([v for p in parts.values() for v in p if not math.isnan(v)] or [1.0])
  axis, bottom = Axis(0, highest * 1.06, LEFT + 8, RIGHT - 8), ROW * rows + 30
  d.x_axis(axis, 26, bottom, 'mean distance, 1 − IoU')
  d.dot(LEFT + 8, 10, 'var(--ink)')
  d.text(LEFT + 18, 14, 'sample to reader', size=11)
  d.diamond(LEFT + 132, 10, 'var(--ink)')
  d.text(LEFT + 143, 14, 'sample to sample', size=11)
  d.line(LEFT + 262, 3, LEFT + 262, 17, 'var(--ink)', 3)
  d.text(LEFT + 271, 14, 'reader to reader', size=11)
  for k, (subject, (ys, ss, yy)) in enumerate(parts.items()):
    y, colour = ROW * k + 60, colour_of(results, subject)
    d.text(LEFT, y - 15, subject, weight=600)
    known = [v for v in (ys, ss, yy) if not math.isnan(v)] or [0.0]
    d.line(axis(min(known)), y, axis(max(known)), y, colour, 1.5)
    d.line(axis(yy), y - 9, axis(yy), y + 9, 'var(--ink)', 3)
    d.diamond(axis(ss), y, colour, tip=f'{subject}, sample to sample: {ss:.3f}')
    d.dot(axis(ys), y, colour, tip=f'{subject}, sample to reader: {ys:.3f}')
  return d.render()


def curve(results: Results) -> str:
  """Does the score depend on the number of samples? GED over N, both estimators."""
  counts = counts_of(results.plan.samples)
  lines = {
    (s, e): v
    for s in results.subjects
    for e in ('v', 'u')
    if (v := results.means(s, 'distances', e)) is not None
  }
  subjects = [*dict.fromkeys(s for s, _ in lines)]
  high = max([x for v in lines.values() for x in v if not math.isnan(x)] or [1.0])
  low = min([x for v in lines.values() for x in v if not math.isnan(x)] or [0.0])
  legend = 18 * (len(subjects) + 1)
  d = Drawing(WIDTH, 262 + legend, 'GED by number of samples')
  x = Axis(0, math.log2(counts[-1]) or 1, 52, RIGHT - 10)
  y = Axis(min(0, low * 1.05), high * 1.05, 216, 8)
  d.y_axis(y, 52, RIGHT)
  for n in counts:
    d.text(x(math.log2(n)), 233, n, 'middle', 'var(--muted)', 11)
  d.text((52 + RIGHT) / 2, 250, 'samples per image', 'middle', 'var(--muted)')
  for (subject, estimator), values in lines.items():
    points = [(x(math.log2(n)), y(v)) for n, v in zip(counts, values, strict=True)]
    colour, dash = colour_of(results, subject), '' if estimator == 'v' else '2 5'
    d.path(points, colour, 2.25, dash)
    for n, v, (px, py) in zip(counts, values, points, strict=True):
      tip = f'{subject}, N = {n}, estimator {estimator}: {v:.3f}'
      d.dot(px, py, colour, 2.5, hollow=estimator == 'u', tip=tip)
  for k, subject in enumerate(subjects):
    at = 272 + 18 * k
    d.line(54, at - 4, 78, at - 4, colour_of(results, subject), 3)
    d.text(86, at, subject, size=11)
  at = 272 + 18 * len(subjects)
  d.line(54, at - 4, 78, at - 4, 'var(--muted)', 2.25)
  d.text(86, at, 'as published (v)', size=11, colour='var(--muted)')
  d.line(214, at - 4, 238, at - 4, 'var(--muted)', 2.25, '2 5')
  d.text(246, at, 'without self pairs (u)', size=11, colour='var(--muted)')
  return d.render()


def reliability(results: Results, subject: str) -> str:
  """Does 30 % mean 30 %? Predicted probability against the share of readers, with pixel counts."""
  d = Drawing(260, 322, f'Reliability of {subject}')
  x, y = Axis(0, 1, 40, 250, ticks=4), Axis(0, 1, 216, 8, ticks=4)
  for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
    d.line(x(tick), 8, x(tick), 216)
    d.line(40, y(tick), 250, y(tick))
    d.text(34, y(tick) + 4, f'{tick:g}', 'end', 'var(--muted)', 11)
    d.text(x(tick), 288, f'{tick:g}', 'middle', 'var(--muted)', 11)
  d.line(x(0), y(0), x(1), y(1), 'var(--muted)', 1.25, '2 4')
  top_label = results.info.num_classes > 2
  d.text(145, 306, 'predicted probability', 'middle', 'var(--muted)')
  d.text(
    50,
    22,
    'readers agreeing' if top_label else 'readers marking it',
    size=11,
    colour='var(--muted)',
  )
  colour = colour_of(results, subject)
  for source, dash in (('own', '2 5'), ('mean', '')):
    table = results.reliability(subject, source)
    if table is None:
      continue
    points = [
      (x(c), y(f))
      for c, f in zip(table.confidence, table.frequency, strict=True)
      if not math.isnan(c)
    ]
    d.path(points, colour, 1.75, dash)
    for k in range(len(table.pixels)):
      if not table.pixels[k]:
        continue
      tip = (
        f'{_SOURCES[source]}: predicted {table.confidence[k]:.3f}, readers '
        f'{table.frequency[k]:.3f}, {table.pixels[k]:,} pixels'
      )
      at = x(table.confidence[k]), y(table.frequency[k])
      d.dot(*at, colour, 3.5, hollow=source == 'own', tip=tip)
  _pixel_counts(d, results.reliability(subject, 'mean'), x, colour)
  return d.render()


_SOURCES = {'mean': 'mean of the samples', 'own': 'own probabilities'}


def _pixel_counts(d: Drawing, table: Any, x: Axis, colour: str) -> None:
  """Bars below the diagram: pixels per bin on a logarithmic scale, one pixel having no height."""
  d.line(40, 272, 250, 272, 'var(--muted)', 0.75)
  if table is None:
    return
  most = math.log10(max(10, table.pixels.max()))
  for upper, pixels in zip(table.upper, table.pixels, strict=True):
    if pixels:
      tall, wide = 38 * math.log10(pixels) / most, 1 / len(table.upper)
      tip = f'{pixels:,} pixels predicted at {upper - wide:.2f} to {upper:.2f}'
      left = x(upper - wide) + 0.75
      d.rect(left, 272 - tall, x(upper) - left - 0.75, tall, colour, 0.55, tip)
  d.text(34, 244, 'pixels', 'end', 'var(--muted)', 10)
  d.text(34, 256, '(log)', 'end', 'var(--muted)', 10)
