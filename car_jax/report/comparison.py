"""Tables that compare the subjects of a report: costs, orders, differences, trainings.

Of the content of results.json, see evaluate/report.py.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from car_jax.report.table import Cell, Column, Table, number, span, table

Content = Mapping[str, Any]

KENDALL = 'Kendall’s tau'
COSTS = (
  'Parameters that the prediction reads, and floating-point operations for one image, of one and '
  'of 100 samples: counted by XLA in the program before it is compiled, a multiplication and an '
  'addition as two. Seconds are measured, of an image with all its samples, in batches as scored: '
  'they hold for this machine, and only if nothing else was running on it.'
)
ORDERS = (
  'The place of every model by each score, and where it stands in 95 % of the resampled sets of '
  "images. The last columns are Kendall's tau: 1 where two orders are the same, −1 reversed. "
)
AGAIN = 'Other images: two resampled sets of images, so two test sets as large as this. '
LIKE = 'As {}: the score of the row and {}. '
SEEDS = 'Other trainings: two trainings of every model that has several, on these images. '
PAIRS = (
  'The model of a row minus that of a column, by {}, with the 95 % interval on the same images. '
  'Marked: the interval leaves out 0, as of equal models one in twenty does by chance.'
)


def costs(content: Content) -> Table | None:
  """A row for each subject that computes; None where none does."""
  known = {s['name']: s['cost'] for s in content['subjects'] if 'cost' in s}
  rows = [
    (
      name,
      f'{of["parameters"] / 1e6:.3g} M',
      *(f'{flops / 1e9:.3g}' for flops in of['flops'].values()),
      _seconds(of['seconds']),
    )
    for name, of in known.items()
  ]
  counts = next(iter(known.values()))['flops'] if known else ()
  heads = (f'GFLOP, {n} sample{"s" if n != "1" else ""}' for n in counts)
  head = ('subject', 'parameters', *heads, f'seconds, {content["samples"]} samples')
  return table('costs', head, rows, about=COSTS) if rows else None


def _seconds(value: float | None) -> str:
  return '–' if value is None else f'{value:.2g}'


def orders(content: Content) -> Table | None:
  """A row for each score that orders the models, which are in the order by the reference."""
  rankings, reference = content['rankings'], content['reference']
  by_score = {r['metric']: r for r in rankings}
  if reference not in by_score or len(by_score[reference]['order']) < 3:
    return None
  models = by_score[reference]['order']
  seeds = any(r['between_seeds'] is not None for r in rankings)
  rows = []
  for r in rankings:
    places = _places(r)
    cells = [_place(places.get(m), r['places'].get(m)) for m in models]
    taus = [r['again'], r['like_reference'], *([r['between_seeds']] if seeds else [])]
    rows.append([r['metric'], *cells, *(number(tau, 2) for tau in taus)])
  alike = ('other images', f'as {reference}', *(['other trainings'] if seeds else []))
  head = [Column('score', words=True), *models, *(Column(n, group=KENDALL) for n in alike)]
  about = ORDERS + AGAIN + LIKE.format(reference, reference) + (SEEDS if seeds else '')
  return table('orders', head, rows, about=about.strip())


def _places(ranking: Mapping[str, Any]) -> dict[str, int]:
  """Of each model from 1; those that are equal in all resampled sets share one."""
  out: dict[str, int] = {}
  for k, (model, equal) in enumerate(
    zip(ranking['order'], (False, *ranking['equal']), strict=True), 1
  ):
    out[model] = out[ranking['order'][k - 2]] if equal else k
  return out


def _place(place: int | None, ends: tuple[float, float] | None) -> Cell:
  if place is None or ends is None:
    return Cell('–')
  low, high = (f'{end:g}' for end in ends)
  return Cell(f'{place}', '' if low == high else f'{low} – {high}', best=place == 1)


def pairs(content: Content) -> Table | None:
  """Differences by the reference of every two of three and more models, the best first."""
  reference = content['reference']
  order = next((r['order'] for r in content['rankings'] if r['metric'] == reference), ())
  if len(order) < 3:
    return None
  known = {(a, b): of for a, b, of in _differences(content)}
  rows = [
    [
      one,
      *(
        _difference(known.get((one, other))) if k > j else '' for j, other in enumerate(order[:-1])
      ),
    ]
    for k, one in enumerate(order)
    if k
  ]
  return table(
    'differences',
    ('', *order[:-1]),
    rows,
    about=PAIRS.format(reference),
  )


def _differences(content: Content) -> Iterator[tuple[str, str, tuple[Any, Any, Any]]]:
  """Each difference by the reference, and its reverse."""
  minus = lambda x: None if x is None else -x
  for d in content['differences']:
    if d['metric'] == content['reference']:
      mean, low, high = d['mean'], d['low'], d['high']
      yield d['subject'], d['minus'], (mean, low, high)
      yield d['minus'], d['subject'], (minus(mean), minus(high), minus(low))


def _difference(of: tuple[Any, Any, Any] | None) -> Cell:
  if of is None:
    return Cell('–')
  mean, low, high = of
  clear = low is not None and not low <= 0 <= high
  return Cell(number(mean), span((low, high), 3, ' – '), best=clear)


def trainings(content: Content) -> Table | None:
  """Mean and standard deviation of models that were trained several times."""
  names = [m['name'] for m in content['metrics']]
  models = dict.fromkeys(s['model'] for s in content['seeds'])
  by = {(s['model'], s['metric']): s for s in content['seeds']}
  rows = []
  for model in models:
    cells = [by.get((model, name)) for name in names]
    count = max(len(c['values']) for c in cells if c)
    rows.append([model, f'{count}', *(_several(c) for c in cells)])
  head = ('model', 'trainings', *names)
  about = 'Mean and standard deviation over the trainings of a model.'
  return table('trainings', head, rows, about=about) if rows else None


def _several(of: Mapping[str, Any] | None) -> Cell:
  if of is None:
    return Cell('–')
  digits = 3 if abs(of['mean']) >= 0.1 else 4
  return Cell(number(of['mean'], digits), f'± {number(of["deviation"], digits)}')


def tables(content: Content) -> dict[str, Table]:
  """Heading -> table, of those that there are."""
  made = {
    'In which order, and does it hold?': orders(content),
    'Which differences are clear?': pairs(content),
    'Do trainings differ?': trainings(content),
    'What does it cost?': costs(content),
  }
  return {name: t for name, t in made.items() if t is not None}
