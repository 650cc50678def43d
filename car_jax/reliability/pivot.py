"""A study's scores as papers print them: a row for each model, a column for each set.

The tables of RELIS (arXiv 2303.11298) and GenVal (arXiv 2312.09231): robustness, calibration before
and after recalibration, unknown pixels, images of another data set, errors found by rejection.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence

from car_jax.reliability import legend, numbers
from car_jax.reliability.legend import ARROWS, Metric
from car_jax.reliability.view import View, number

NAME = 16  # columns of a name on the terminal
Row = tuple[tuple[str, ...], Sequence[float]]  # names, and a value for each set


@dataclasses.dataclass(frozen=True)
class Table:
  """head has a name for each column; the first `names` cells of a row name it, others are values.

  The best value of a column ends in *.
  """

  title: str
  about: str
  head: tuple[str, ...]
  rows: tuple[tuple[str, ...], ...]
  names: int


def tables(view: View) -> list[Table]:
  """Those that the study has numbers for."""
  made = (
    _accuracy(view),
    _calibration(view),
    _plain(view, 'unknown_auroc', 'Pixels of unknown objects'),
    _whole_images(view),
    _plain(view, 'prr', 'Errors found by rejecting unsure pixels'),
  )
  return [t for t in made if t is not None and t.rows]


def lines(table: Table) -> Iterator[str]:
  """The table for a terminal, where long names are cut."""
  rows = [[c[:NAME] for c in row] for row in (table.head, *table.rows)]
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  yield f'{table.title}: {table.about}'
  for row in rows:
    pairs = [*zip(row, widths, strict=True)]
    cells = [c.ljust(w) for c, w in pairs[: table.names]]
    yield '  '.join(cells + [c.rjust(w) for c, w in pairs[table.names :]]).rstrip()


def _accuracy(view: View) -> Table | None:
  """With the published score beside, where a model has one."""
  published = {m: about.get('published_miou') for m, about in view.models.items()}
  if view.accuracy != 'miou' or not any(published.values()):
    return _plain(view, view.accuracy, 'Robustness')
  shown = {m: '–' if v is None else f'{v:g}' for m, v in published.items()}
  rows = [((m, shown[m]), _values(view, m, view.plain, 'miou')) for m in view.models]
  return _table('Robustness', view.metrics['miou'], ('model', 'published'), view.sets, rows)


def _plain(view: View, name: str, title: str) -> Table | None:
  """One score before recalibration."""
  if name not in view.metrics:
    return None
  rows = [((m,), _values(view, m, view.plain, name)) for m in view.models]
  return _table(title, view.metrics[name], ('model',), view.sets, rows)


def _calibration(view: View) -> Table | None:
  if 'ece' not in view.metrics:
    return None
  rows = [((m, c), _values(view, m, c, 'ece')) for m in view.models for c in view.calibrators]
  title = 'Calibration before and after' if len(view.calibrators) > 1 else 'Calibration'
  return _table(title, view.metrics['ece'], ('model', 'calibrator'), view.sets, rows)


def _whole_images(view: View) -> Table | None:
  """Images of each other set against those of the in-domain one, before recalibration."""
  entries = [e for e in view.study.get('image_ood') or [] if e['calibrator'] == view.plain]
  if not entries:
    return None
  first = entries[0]['score']
  auroc = {(e['model'], e['other']): number(e['auroc']) for e in entries if e['score'] == first}
  sets = [*dict.fromkeys(other for _, other in auroc)]
  rows = [((m,), [auroc.get((m, s), math.nan) for s in sets]) for m in view.models]
  metric = legend.KNOWN['image_auroc']
  return _table('Images of another data set', metric, ('model',), sets, rows)


def _values(view: View, model: str, calibrator: str, name: str) -> list[float]:
  return [view.value(model, s, calibrator, name) for s in view.sets]


def _table(
  title: str, metric: Metric, names: tuple[str, ...], sets: Iterable[str], rows: Sequence[Row]
) -> Table:
  """Without rows and columns that have no value."""
  sets, rows = [*sets], [row for row in rows if any(map(math.isfinite, row[1]))]
  kept = [i for i in range(len(sets)) if any(math.isfinite(values[i]) for _, values in rows)]
  best = {i: _best(metric, [values[i] for _, values in rows]) for i in kept}
  digits = 1 if metric.percent else 3

  def cell(i: int, value: float) -> str:
    shown = numbers.text(metric, value, digits, unit=False)
    return f'{shown}*' if value == best[i] else shown

  return Table(
    title=title,
    about=f'{metric.title} {ARROWS[metric.better]}{", in %" if metric.percent else ""}',
    head=(*names, *(sets[i] for i in kept)),
    rows=tuple((*who, *(cell(i, values[i]) for i in kept)) for who, values in rows),
    names=len(names),
  )


def _best(metric: Metric, values: Sequence[float]) -> float:
  """nan for values that are all equal, or alone."""
  known = {v for v in values if math.isfinite(v)}
  pick = {'high': max, 'low': min}.get(metric.better)
  return pick(known) if pick and len(known) > 1 else math.nan
