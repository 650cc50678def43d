"""Results as the plain content of results.json, of which the report's page is made, and as CSV."""

import dataclasses
import itertools
import math
from typing import Any

import numpy as np

from car_jax.evaluate.predict import READERS
from car_jax.evaluate.results import Results
from car_jax.metrics import flips
from car_jax.metrics.base import Metric
from car_jax.metrics.of_samples import PARTS, counts_of
from car_jax.report import table

FORMAT = 'evaluation results, version 1'
BINS = 28  # of the histogram of an image's scores


def as_json(results: Results) -> dict[str, Any]:
  """All numbers of the report as plain data; what is not a number is None."""
  count, unit = results.units
  main = results.plan.main
  return plain(
    dict(
      format=FORMAT,
      images=len(results.ids),
      interval=f'95 % percentile bootstrap, {results.resamples} resamples of {count} {unit}',
      units=dict(count=count, name=unit),
      samples=results.plan.samples,
      remarks=results.remarks(),
      main=main.name if main else '',
      reference=results.reference.name if results.reference else '',
      floor=READERS if READERS in results.subjects else '',
      metrics=[_metric(m) for m in results.plan.metrics],
      subjects=[_subject(results, s) for s in results.subjects],
      histograms=_histograms(results, main) if main else {},
      flips=_flips(results),
      differences=_differences(results),
      comparison=results.comparison(),
      rankings=_rankings(results),
      seeds=_seeds(results),
      published=[dataclasses.asdict(s) | dict(text=s.text) for s in results.published],
      seconds=results.seconds,
    )
  )


def _metric(m: Metric) -> dict[str, Any]:
  return dict(
    name=m.name,
    kind=m.about.title,
    title=m.about.title,
    convention=m.convention,
    better=m.about.better,
    explanation=m.about.explanation,
    more=' '.join(text for mark, text in _MORE.items() if mark in m.convention),
  )


_MORE = {
  '[u,': 'With [u], no map is compared with itself: the expectation is then the same for any '
  'number of samples, and it may be negative.',
  '[own ': 'With [own], of the probabilities that a method states itself, else of its samples’ '
  'mean.',
}


def _subject(results: Results, subject: str) -> dict[str, Any]:
  out: dict[str, Any] = dict(name=subject, what=results.notes.get(subject, ''))
  out['scores'] = {
    m.name: results.interval(subject, m)._asdict()
    | dict(convention=m.convention, left_out=m.left_out(results.cells[subject].traits))
    for m in results.plan.metrics
  }
  if subject in results.costs:
    out['cost'] = dataclasses.asdict(results.costs[subject])
  out['distances'] = {k: results.means(subject, 'distances', k) for k in PARTS}
  out['ged_by_samples'] = {'n': counts_of(results.plan.samples)} | {
    k: results.means(subject, 'distances', k) for k in 'vu'
  }
  tables = {source: results.reliability(subject, source) for source in ('mean', 'own')}
  out['reliability'] = {k: t._asdict() for k, t in tables.items() if t is not None}
  if results.plan.flips:
    out['flips'] = _flip_numbers(results, subject)
  return out


def _histograms(results: Results, main: Metric) -> dict[str, Any]:
  """Counts of images by their main score: {edges, counts and median by subject}."""
  values = {s: v for s in results.subjects if (v := results.values(s, main)) is not None}
  values = {s: v[~np.isnan(v)] for s, v in values.items()}
  values = {s: v for s, v in values.items() if len(v)}
  every = np.concatenate([*values.values(), np.zeros(1)])
  low, high = float(every.min()), float(every.max())
  edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
  return dict(
    edges=edges,
    counts={s: np.histogram(v, edges)[0] for s, v in values.items()},
    medians={s: float(np.median(v)) for s, v in values.items()},
  )


def _flips(results: Results) -> dict[str, Any]:
  """The right frequencies: of each class by its names, and of each combination of flips."""
  listed = results.plan.flips
  if not listed:
    return {}
  names = results.info.class_names
  flipped = flips.mode_flips(listed)
  modes = [
    ' + '.join(names[f.base] for f, on in zip(listed, row, strict=True) if on) or 'none'
    for row in flipped
  ]
  return dict(
    classes=[dict(base=names[f.base], twin=names[f.twin], share=f.probability) for f in listed],
    modes=dict(zip(modes, flips.mode_weights(listed).tolist(), strict=True)),
  )


def _flip_numbers(results: Results, subject: str) -> dict[str, Any]:
  # Pixels of each flipping class, and the weight of its base and its twin there, summed [F, 3].
  kept = results.cells[subject].rows['flips']
  counts, rows = kept['counts'].sum(0), kept['masses']
  sums = [kept[k] for k in flips.ClassSums._fields if k in kept]
  stated = flips.class_probabilities([flips.ClassSums(*sums)]).tolist() if sums else []
  seen = rows[rows.sum(1) > 0]  # images that show every flipping class
  return dict(
    error=flips.frequency_error(counts, results.plan.flips),
    flip_rates=flips.flip_rates(counts),
    frequencies=flips.frequencies(counts),
    # where the class is and the black box is right
    stated=dict(zip(results.info.class_names, stated, strict=False)),
    mode_masses=seen.mean(0) if len(seen) else np.full(rows.shape[1], np.nan),
  )


def _differences(results: Results) -> list[dict[str, Any]]:
  """The first subject minus each other one, on the same images; by the reference each minus each
  that comes after it."""
  pairs = [*itertools.combinations(results.subjects, 2)]
  out = []
  for m in results.plan.metrics:
    for ours, other in pairs:
      if m is not results.reference and ours != results.subjects[0]:
        continue
      if difference := results.difference(ours, other, m):
        out.append(dict(metric=m.name, subject=ours, minus=other) | difference._asdict())
  return out


def _rankings(results: Results) -> list[dict[str, Any]]:
  """The order of models by each score that orders them, see order.Ranking; how alike it is to that
  by the reference, and how alike those of several trainings are."""
  orders = [(m, results.ranking(m)) for m in results.plan.metrics]
  return [
    dict(metric=m.name)
    | dataclasses.asdict(r)
    | dict(like_reference=results.agreement(m), between_seeds=results.between_seeds(m))
    for m, r in orders
    if r is not None
  ]


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
  return table.csv(['id', 'group', 'subject', *(m.name for m in metrics)], rows)
