"""Charts for data with random class flips, where the right frequency of every name is known."""

from typing import Any

import numpy as np

from car_jax.evaluate.charts import colour_of, number
from car_jax.evaluate.predict import READERS
from car_jax.evaluate.results import Results
from car_jax.evaluate.svg import Axis, Drawing
from car_jax.metrics import flips

WIDTH, LEFT, RIGHT, ROW = 260, 112, 226, 19


def rates(results: Results) -> str:
  """How often does a class bear its twin's name? One row a class, one dot a subject, a tick for the
  probability with which it was flipped."""
  row, left = 40, 96
  subjects, listed = results.subjects, results.plan.flips
  top = 18 * len(subjects) + 8
  d = Drawing(440, top + row * len(listed) + 44, 'How often each class is flipped')
  x, bottom = Axis(0, 1, left, 428, ticks=5), top + row * len(listed)
  for k, subject in enumerate(subjects):
    d.dot(left + 6, 18 * k + 10, colour_of(results, subject), 5, hollow=subject == READERS)
    error = flips.frequency_error(counts(results, subject), listed)
    d.text(left + 18, 18 * k + 14, f'{subject}: mean error {number(error)}', size=11)
  d.x_axis(x, top, bottom, 'share of flips')
  for k, flip in enumerate(listed):
    y = top + row * k + row / 2
    d.text(left - 8, y + 4, results.info.class_names[flip.base], 'end', size=12)
    d.line(x(flip.probability), y - 17, x(flip.probability), y + 17, 'var(--ink)', 2)
    for j, subject in enumerate(subjects):
      rate = flips.flip_rates(counts(results, subject))[k]
      at = y + (j - (len(subjects) - 1) / 2) * min(6, 30 / len(subjects))
      tip = f'{subject}: {number(rate)}, {number(flip.probability)} is right'
      d.dot(x(rate), at, colour_of(results, subject), 4, hollow=subject == READERS, tip=tip)
  return d.render()


def required(results: Results, subject: str, key: str) -> np.ndarray:
  """[I, ..] of each image."""
  return results.cells[subject].rows['flips'][key]


def counts(results: Results, subject: str) -> np.ndarray:
  """Pixels of each flipping class, and the weight of its base and its twin there, summed [F, 3]."""
  return required(results, subject, 'counts').sum(0)


def names(results: Results, subject: str) -> str:
  """How often do samples use each of the two names of a class? Bars, and ticks where they should
  end; a hollow dot is the probability that the method states itself."""
  frequencies = flips.frequencies(counts(results, subject))
  own = own_probabilities(results, subject)
  rows = [
    (name, frequencies[k, twin], flip.probability if twin else 1 - flip.probability, own.get(name))
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
    wide = x(np.minimum(share, 1)) - x(0)
    d.rect(x(0), y, wide, ROW - 6, colour_of(results, subject), 0.6, tip)
    d.line(x(truth), y - 2, x(truth), y + ROW - 4, 'var(--ink)', 2)
    if stated is not None:
      d.dot(x(stated), y + ROW / 2 - 3, colour_of(results, subject), 3.5, hollow=True, tip=tip)
    d.text(WIDTH - 2, y + 11, number(share, 2), 'end', size=11)
  return d.render()


def own_probabilities(results: Results, subject: str) -> dict[str, float]:
  """Class name -> mean probability stated where the class is and the black box is right; or {}."""
  stated = [results.rows(subject, 'flips', k) for k in flips.ClassSums._fields]
  if stated[0] is None:
    return {}
  means = flips.class_probabilities([flips.ClassSums(*stated)])
  return dict(zip(results.info.class_names, means.tolist(), strict=True))


def masses(results: Results, subject: str) -> str:
  """Does every combination of flips get its probability? One bar per mode, ticks for the truth."""
  means, truth = mode_masses(results, subject), flips.mode_weights(results.plan.flips)
  d = Drawing(WIDTH, 132, f'Mass of every mode: {subject}')
  x = Axis(0, len(truth), 30, WIDTH - 4)
  y = Axis(0, float(max(truth.max(), np.nanmax(means, initial=0))) * 1.05, 104, 6, ticks=3)
  d.y_axis(y, 30, WIDTH - 4)
  flipped = flips.mode_flips(results.plan.flips)
  for k, (mass, right) in enumerate(zip(means, truth, strict=True)):
    which = [results.info.class_names[f.base] for f in _chosen(results.plan.flips, flipped[k])]
    tip = f'{" + ".join(which) or "none"} flipped: {number(mass)}, {number(right)} is right'
    wide = x(k + 1) - x(k)
    top = y(mass)
    d.rect(x(k) + 0.5, top, wide - 1, 104 - top, colour_of(results, subject), 0.6, tip)
    d.line(x(k), y(right), x(k + 1), y(right), 'var(--ink)', 1.75)
  d.text((30 + WIDTH) / 2, 124, f'the {len(truth)} modes', 'middle', 'var(--muted)', 11)
  return d.render()


def as_json(results: Results, subject: str) -> dict[str, Any]:
  """What the charts show, as numbers."""
  totals = counts(results, subject)
  return dict(
    flip_rates=flips.flip_rates(totals),
    frequencies=flips.frequencies(totals),
    stated=own_probabilities(results, subject),
    mode_masses=mode_masses(results, subject),
  )


def _chosen(all_flips: tuple[Any, ...], which: np.ndarray) -> list[Any]:
  return [flip for flip, on in zip(all_flips, which, strict=True) if on]


def mode_masses(results: Results, subject: str) -> np.ndarray:
  """Mean weight of each mode over the images that show every flipping class; nan without one."""
  rows = required(results, subject, 'masses')
  seen = rows[rows.sum(1) > 0]
  return seen.mean(0) if len(seen) else np.full(rows.shape[1], np.nan)
