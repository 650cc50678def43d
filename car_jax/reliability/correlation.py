"""Does one score predict another, over models? With intervals.

First of all the score on generated images that on real ones; ranks.py has another pair.

The claim of GenVal (arXiv 2312.09231): models that lose most on generated shift lose most on real
shift. Each model gives a point (its score on the synthetic sets, on the real ones); Pearson's,
Spearman's and Kendall's (tau-b) coefficients of these points say how well the one orders the other.

Two intervals. `images`: images (or scenes) of every set are drawn anew, the same ones for all
models, which stay. `models`: models are drawn anew as well, and images within each draw; so it says
what other models might show. Draws in which a coefficient is undefined are left out.

Letters: M models, R resamples, I images.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from car_jax.evaluate.cell import SHIFT
from car_jax.metrics import ranking
from car_jax.reliability.plan import PLAIN, Plan
from car_jax.reliability.study import Cell, merged
from car_jax.reliability.view import View
from car_jax.report import table

QUESTION = 'Does synthetic shift predict real shift?'
LEAST = 3  # models for a coefficient
LEAST_DRAWN = 4  # for an interval over models: of three, hardly a draw has three
SIDES = ('synthetic', 'real')
COEFFICIENTS = ('pearson', 'spearman', 'kendall')
NAN = float('nan')


class Scores(NamedTuple):
  """One model's score on one side: over all images, and over resamples of them [R]."""

  value: float
  draws: np.ndarray

  @property
  def interval(self) -> tuple[float, float]:
    return interval(self.draws)


def of_study(plan: Plan, cells: Sequence[Cell]) -> list[dict[str, Any]]:
  """For each of the plan's pairs of sets and each of its measures what study.json has of it."""
  at = {(c.model, c.set): c for c in cells if c.calibrator == PLAIN}
  out = []
  for name, pair in plan.correlations.items():
    chosen, sets = pair.measures, dict(zip(SIDES, (pair.synthetic, pair.real), strict=True))
    sides = {
      side: {m: scored([at[m, s] for s in sets[side]], chosen, plan, k) for m in plan.models}
      for k, side in enumerate(SIDES)
    }
    for measure in chosen:
      points = {m: tuple(sides[side][m][measure] for side in SIDES) for m in plan.models}
      entry = dict(name=name, measure=measure, **{side: [*sets[side]] for side in SIDES})
      out.append(entry | correlated(points, seed=plan.config.seed))
  return out


def scored(
  cells: Sequence[Cell], chosen: Sequence[str], plan: Plan, side: int = 0
) -> dict[str, Scores]:
  """By measure, of one model on the images of all these sets together.

  Measures and models of one `side` are of the same resamples, if their sets are the same.
  """
  counts, metrics = merged(cells)
  exact = cells[0].exact if len(cells) == 1 else {}
  used = [metrics[name] for name in chosen if counts.has(metrics[name])]
  draws = counts.draws(used, resamples=plan.config.resamples, seed=[plan.config.seed, side])
  out = dict.fromkeys(chosen, Scores(NAN, np.full(plan.config.resamples, NAN)))
  for m in used:
    value = exact.get(m.name, counts.value(m))
    shift = value - m.compute(counts.total(m.source, np.arange(len(counts.ids))))
    column = draws[m.name]  # of the coarser histograms that are kept of each image
    column = column + shift if abs(shift) <= SHIFT else np.full_like(column, NAN)
    out[m.name] = Scores(value, column)
  return out


def correlated(
  points: Mapping[str, tuple[Scores, ...]], *, sides: Sequence[str] = SIDES, seed: int = 0
) -> dict[str, Any]:
  """Model -> its two scores -> coefficients with intervals, the points, what is missing.

  A coefficient is nan where fewer than LEAST models have both scores, and where all have the same
  on a side; `note` then says why.
  """
  known = {m: p for m, p in points.items() if not any(math.isnan(s.value) for s in p)}
  x, y = (np.array([p[k].value for p in known.values()]) for k in (0, 1))
  note = _why_not(x, y, sides)
  values = coefficients(x, y)
  over_images: dict[str, tuple[float, float]] = dict.fromkeys(COEFFICIENTS, (NAN, NAN))
  over_models = over_images
  if not note:
    xs, ys = (np.stack([p[k].draws for p in known.values()], -1) for k in (0, 1))  # [R, M]
    over_images = _ends([coefficients(*xy) for xy in zip(xs, ys, strict=True)])
    if len(known) >= LEAST_DRAWN:
      over_models = _ends(_models_drawn(xs, ys, np.random.default_rng([seed, 2])))
    else:
      note = f'no interval over models: it needs {LEAST_DRAWN}'
  return dict(
    models=[
      dict(model=m) | {side: _estimate(s) for side, s in zip(sides, p, strict=True)}
      for m, p in known.items()
    ],
    left_out=[m for m in points if m not in known],
    coefficients={
      k: dict(value=values[k], images=over_images[k], models=over_models[k]) for k in COEFFICIENTS
    },
    note=note,
  )


def _why_not(x: np.ndarray, y: np.ndarray, sides: Sequence[str]) -> str:
  """Why there is no coefficient; '' where there is one."""
  if len(x) < LEAST:
    models = 'no model has' if not len(x) else 'one model has' if len(x) == 1 else 'two models have'
    return f'{models} both scores; a correlation needs {LEAST}'
  for side, values in zip(sides, (x, y), strict=True):
    if not np.ptp(values):
      return f'all models have the same {side} score'
  return ''


def coefficients(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
  """x, y [M] -> each coefficient; nan for fewer than LEAST models, a nan, or a constant side."""
  if len(x) < LEAST or np.isnan([*x, *y]).any() or not np.ptp(x) or not np.ptp(y):
    return dict.fromkeys(COEFFICIENTS, NAN)
  return dict(
    pearson=float(stats.pearsonr(x, y).statistic),
    spearman=float(ranking.spearman(x, y)),
    kendall=float(stats.kendalltau(x, y).statistic),
  )


def _models_drawn(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> list[dict[str, float]]:
  """x, y [R, M] -> of each resample the coefficients over models drawn with replacement.

  Draws of fewer than LEAST different models are undefined: any two points lie on a line.
  """
  out = []
  for xs, ys in zip(x, y, strict=True):
    rows = rng.integers(len(xs), size=len(xs))
    few = len({*rows.tolist()}) < LEAST
    out.append(dict.fromkeys(COEFFICIENTS, NAN) if few else coefficients(xs[rows], ys[rows]))
  return out


def _ends(drawn: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, float]]:
  return {k: interval(np.array([d[k] for d in drawn])) for k in COEFFICIENTS}


def interval(draws: np.ndarray) -> tuple[float, float]:
  """Where 95 % of the defined draws lie; nan where fewer than half are defined."""
  seen = draws[~np.isnan(draws)]
  if not len(seen) or len(seen) < len(draws) / 2:
    return NAN, NAN
  low, high = np.percentile(seen, [2.5, 97.5])
  return float(low), float(high)


def _estimate(scores: Scores) -> dict[str, float]:
  low, high = scores.interval
  return dict(value=scores.value, low=low, high=high)


def as_table(view: View) -> table.Table | None:
  """A row for each pair and measure, with both intervals; none for a study that has none."""
  rows = [
    [
      c['name'],
      view.about(c['measure']).title,
      str(len(c['models'])),
      *(_coefficient(c['coefficients'][k]) for k in COEFFICIENTS),
      remarks(c),
    ]
    for c in view.study.get('correlations') or []
  ]
  head = ('sets', 'score', 'models', *(k.title() for k in COEFFICIENTS), 'remarks')
  return table.table(QUESTION, head, rows, words=(0, 1, 6)) if rows else None


def _coefficient(of: Mapping[str, Any]) -> table.Cell:
  spans = ((kind, table.span(of[kind], 2)) for kind in ('images', 'models'))
  note = ', '.join(f'{kind} {span}' for kind, span in spans if span)
  return table.Cell(table.number(of['value'], 2), note)


def remarks(entry: Mapping[str, Any]) -> str:
  """What is missing of a correlation, and which models it is without."""
  left = entry['left_out'] if entry['models'] else ()
  without = [f'without {m}, which has no such score' for m in left]
  return '; '.join(filter(None, [entry['note'], *without]))
