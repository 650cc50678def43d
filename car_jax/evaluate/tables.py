"""Results as JSON, CSV and Markdown."""

import dataclasses
import math
from typing import Any

import numpy as np

from car_jax.evaluate import escaped, flip_charts
from car_jax.evaluate.charts import number
from car_jax.evaluate.predict import READERS
from car_jax.evaluate.results import Results
from car_jax.metrics.base import ARROWS, BETTER, Metric
from car_jax.metrics.bootstrap import Interval
from car_jax.metrics.of_samples import PARTS, counts_of

FORMAT = 'evaluation results, version 1'


def as_json(results: Results) -> dict[str, Any]:
  """All numbers of the report as plain data; what is not a number is None."""
  count, unit = results.units
  return plain(
    dict(
      format=FORMAT,
      images=len(results.ids),
      interval=f'95 % percentile bootstrap, {results.resamples} resamples of {count} {unit}',
      samples=results.plan.samples,
      remarks=results.remarks(),
      metrics=[_metric(m) for m in results.plan.metrics],
      subjects=[_subject(results, s) for s in results.subjects],
      differences=_differences(results),
      rankings=_rankings(results),
      seeds=_seeds(results),
      seconds=results.seconds,
    )
  )


def _metric(m: Metric) -> dict[str, Any]:
  return dict(
    name=m.name,
    title=m.about.title,
    convention=m.convention,
    better=m.about.better,
    explanation=m.about.text,
  )


def _subject(results: Results, subject: str) -> dict[str, Any]:
  out: dict[str, Any] = dict(name=subject, what=results.notes.get(subject, ''))
  out['scores'] = {
    m.name: results.interval(subject, m)._asdict() | {'convention': m.convention}
    for m in results.plan.metrics
  }
  out['distances'] = {k: results.means(subject, 'distances', k) for k in PARTS}
  out['ged_by_samples'] = {'n': counts_of(results.plan.samples)} | {
    k: results.means(subject, 'distances', k) for k in 'vu'
  }
  tables = {source: results.reliability(subject, source) for source in ('mean', 'own')}
  out['reliability'] = {k: t._asdict() for k, t in tables.items() if t is not None}
  if results.plan.flips:
    out['flips'] = flip_charts.as_json(results, subject)
  return out


def _differences(results: Results) -> list[dict[str, Any]]:
  """The first subject minus each other one, on the same images."""
  ours, *others = results.subjects
  out = []
  for m in results.plan.metrics:
    for other in others:
      if difference := results.difference(ours, other, m):
        out.append(dict(metric=m.name, subject=ours, minus=other) | difference._asdict())
  return out


def _rankings(results: Results) -> list[dict[str, Any]]:
  """The order of models by each score that orders them, see ranking.Ranking."""
  orders = [(m, results.ranking(m)) for m in results.plan.metrics]
  return [dict(metric=m.name) | dataclasses.asdict(r) for m, r in orders if r is not None]


def _seeds(results: Results) -> list[dict[str, Any]]:
  """Each score of models that were trained several times."""
  return [
    dict(metric=m.name, model=s.name, values=s.values, mean=s.mean, deviation=s.deviation)
    for m in results.plan.metrics
    for s in results.over_seeds(m)
  ]


def plain(value: Any) -> Any:
  """Nested data -> what JSON can hold: arrays as lists, nan and infinities as None."""
  if isinstance(value, dict):
    return {str(k): plain(v) for k, v in value.items()}
  if isinstance(value, (list, tuple)):
    return [plain(v) for v in value]
  if isinstance(value, (np.ndarray, np.generic)):
    return plain(value.tolist())
  if isinstance(value, float):
    return value if math.isfinite(value) else None
  if value is None or isinstance(value, (bool, int, str)):
    return value
  return str(value)


def as_csv(results: Results) -> str:
  """One row per image and subject; a column per metric that has a value per image."""
  metrics = [m for m in results.plan.metrics if m.per_image]
  rows = []
  groups = results.groups if results.groups is not None else results.ids
  for subject in results.subjects:
    columns = [results.values(subject, m) for m in metrics]
    for i, (name, group) in enumerate(zip(results.ids, groups, strict=True)):
      rows.append([name, group, subject, *(None if c is None else c[i] for c in columns)])
  return escaped.csv(['id', 'group', 'subject', *(m.name for m in metrics)], rows)


def digits(results: Results, metric: Metric) -> int:
  """Decimals that show a column: a small score such as an ECE gets one more."""
  values = [results.interval(s, metric).mean for s in results.subjects]
  size = max([abs(v) for v in values if not math.isnan(v)], default=1.0)
  return 3 if size >= 0.1 else 4


def ends(interval: Interval, places: int, joint: str) -> str:
  """'0.110 to 0.135', or nothing for an interval without ends, such as that of one image."""
  if math.isnan(interval.low) or math.isnan(interval.high):
    return ''
  return f'{number(interval.low, places)}{joint}{number(interval.high, places)}'


def cell(
  results: Results, subject: str, metric: Metric, joint: str = ' to '
) -> tuple[str, str, bool]:
  """The score, the ends of its interval ('' without any), and whether it is the best."""
  i, places = results.interval(subject, metric), digits(results, metric)
  return number(i.mean, places), ends(i, places, joint), subject in best(results, metric)


def best(results: Results, metric: Metric) -> set[str]:
  """Subjects with the best score (all of them in a tie); the readers' floor does not compete."""
  values = {s: results.interval(s, metric).mean for s in results.subjects}
  floor = values.pop(READERS, float('nan'))
  values = {s: v for s, v in values.items() if not math.isnan(v)}
  if metric.about.better == 'match' and math.isnan(floor):
    return set()
  rank = {'low': lambda v: v, 'high': lambda v: -v, 'match': lambda v: abs(v - floor)}
  ranks = {s: rank[metric.about.better](v) for s, v in values.items()}
  return {s for s, r in ranks.items() if r == min(ranks.values())} if len(ranks) > 1 else set()


def findings(results: Results) -> list[str]:
  """The main score in sentences: the first subject, against each other one, and the floor."""
  main = results.plan.main
  if main is None:
    return []
  ours, *others = results.subjects
  interval, places = results.interval(ours, main), digits(results, main)
  span = ends(interval, places, ' to ')
  few = f'no interval: fewer than two {results.units[1]} with this score'
  sure = f'95 % interval {span}' if span else few
  comparison = results.comparison()
  lines = [f'{ours}: {main.name} {number(interval.mean, places)} ({sure}).']
  for other in others:
    gap = results.difference(ours, other, main)
    if gap is None or math.isnan(gap.low):
      continue
    size = number(abs(gap.mean), places)
    if gap.low <= 0 <= gap.high:
      lines.append(f'No clear difference to {other}: the interval of the difference holds 0.')
    elif other == READERS:
      word = 'above' if gap.mean > 0 else 'below'
      lines.append(f"{size} {word} the readers' own floor.")
    else:
      word = 'Better' if gap.mean < 0 else 'Worse'
      near, far = sorted((abs(gap.low), abs(gap.high)))
      span = f'{number(near, places)} to {number(far, places)}'
      lines.append(f'{word} than {other} by {size} ({span}, on the same images).')
  return lines + comparison


def markdown_scores(results: Results) -> str:
  """Subjects by metrics with 95 % intervals, the best in bold, conventions below."""
  metrics = results.plan.metrics
  head, rows = ['', *(f'{m.name} {ARROWS[m.about.better]}' for m in metrics)], []
  for subject in results.subjects:
    cells = []
    for m in metrics:
      mean, span, top = cell(results, subject, m)
      mean = f'**{mean}**' if top else mean
      cells.append(f'{mean} ({span})' if span else mean)
    rows.append([subject, *cells])
  legend = [[m.name, f'`{m.convention}`', BETTER[m.about.better], m.about.text] for m in metrics]
  below = escaped.table(['score', 'exactly', 'better', 'what it says'], legend)
  return '\n'.join([*escaped.table(head, rows), '', *below]) + '\n'
