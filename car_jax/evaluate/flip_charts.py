"""Charts for data with random class flips, where the right frequency of every name is known."""

from typing import Any

import numpy as np

from car_jax.evaluate.charts import colour_of, number
from car_jax.evaluate.results import Results, total
from car_jax.evaluate.svg import Axis, Drawing
from car_jax.metrics import flips

WIDTH, LEFT, RIGHT, ROW = 260, 112, 226, 19


def names(results: Results, subject: str) -> str:
  """How often do samples use each of the two names of a class? Bars, and ticks where they should
  end; a hollow dot is the probability that the method states itself."""
  said = flips.frequencies(total(results.found[subject]['flips/counts']))
  own = own_probabilities(results, subject)
  rows = [
    (name, said[k, twin], flip.probability if twin else 1 - flip.probability, own.get(name))
    for k, flip in enumerate(results.plan.flips)
    for twin, name in enumerate(results.info.class_names[i] for i in flip[:2])
  ]
  d = Drawing(WIDTH, ROW * len(rows) + 26, f'How often {subject} uses each name')
  x, bottom = Axis(0, 1, LEFT, RIGHT, ticks=2), ROW * len(rows) + 2
  for tick in (0, 0.5, 1):
    d.line(x(tick), 2, x(tick), bottom)
    d.text(x(tick), bottom + 15, f'{tick:g}', 'middle', 'var(--muted)', 11)
  for k, (name, share, truth, stated) in enumerate(rows):
    y = ROW * k + 4
    d.text(LEFT - 6, y + 11, name, 'end', size=11)
    tip = f'{name}: {number(share)} of the samples, {number(truth)} is right'
    if not np.isnan(share):
      wide = x(min(share, 1)) - x(0)
      d.rect(x(0), y, wide, ROW - 6, colour_of(results, subject), 0.6, tip)
    d.line(x(truth), y - 2, x(truth), y + ROW - 4, 'var(--ink)', 2)
    if stated is not None and not np.isnan(stated):
      d.dot(x(stated), y + ROW / 2 - 3, colour_of(results, subject), 3.5, hollow=True, tip=tip)
    d.text(WIDTH - 2, y + 11, number(share, 2), 'end', size=11)
  return d.render()


def own_probabilities(results: Results, subject: str) -> dict[str, float]:
  """Class name -> mean probability stated where the class is and the black box is right; or {}."""
  sums = results.found[subject].get('flips/classes')
  if sums is None:
    return {}
  means = flips.class_probabilities([sums])
  return dict(zip(results.info.class_names, means.tolist(), strict=True))


def masses(results: Results, subject: str) -> str:
  """Does every combination of flips get its probability? One bar per mode, ticks for the truth."""
  found, truth = mode_masses(results, subject), flips.mode_weights(results.plan.flips)
  d = Drawing(WIDTH, 132, f'Mass of every mode: {subject}')
  x = Axis(0, len(truth), 30, WIDTH - 4)
  y = Axis(0, float(max(truth.max(), np.nanmax(found, initial=0))) * 1.05, 104, 6, ticks=3)
  for tick in y.ticks:
    d.line(30, y(tick), WIDTH - 4, y(tick))
    d.text(26, y(tick) + 4, y.label(tick), 'end', 'var(--muted)', 11)
  flipped = flips.mode_flips(results.plan.flips)
  for k, (mass, right) in enumerate(zip(found, truth, strict=True)):
    which = [results.info.class_names[f.base] for f in _chosen(results.plan.flips, flipped[k])]
    tip = f'{" + ".join(which) or "none"} flipped: {number(mass)}, {number(right)} is right'
    wide = x(k + 1) - x(k)
    if not np.isnan(mass):
      top = y(mass)
      d.rect(x(k) + 0.5, top, wide - 1, 104 - top, colour_of(results, subject), 0.6, tip)
    d.line(x(k), y(right), x(k + 1), y(right), 'var(--ink)', 1.75)
  d.text((30 + WIDTH) / 2, 124, f'the {len(truth)} modes', 'middle', 'var(--muted)', 11)
  return d.render()


def _chosen(all_flips: tuple[Any, ...], which: np.ndarray) -> list[Any]:
  return [flip for flip, on in zip(all_flips, which, strict=True) if on]


def mode_masses(results: Results, subject: str) -> np.ndarray:
  """Mean weight of each mode over the images that show every flipping class; nan without one."""
  rows = results.found[subject]['flips/masses']
  seen = rows[rows.sum(1) > 0]
  return seen.mean(0) if len(seen) else np.full(rows.shape[1], np.nan)
