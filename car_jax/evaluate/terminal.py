"""The summary that eval.py prints: tables that fit a terminal, what they mean below."""

import textwrap
from collections.abc import Sequence

from car_jax.evaluate.results import Results
from car_jax.evaluate.tables import cell
from car_jax.metrics.base import ARROWS, BETTER, Metric

WIDTH = 80
NAMES = 30  # most columns for the subjects' names, which are wrapped


def scores(results: Results, width: int = WIDTH) -> str:
  """Subjects by metrics with 95 % intervals, as many metrics side by side as `width` allows.

  A * is beside the best of a column. The conventions come below, one metric after the other.
  """
  columns = [_column(results, m) for m in results.plan.metrics]
  names = [textwrap.wrap(s, NAMES) for s in results.subjects]
  first = max(len(line) for name in names for line in name)
  lines: list[str] = []
  while columns:
    taken, used = 1, first + 2 + _width(columns[0])
    while taken < len(columns) and used + 2 + _width(columns[taken]) <= width:
      used += 2 + _width(columns[taken])
      taken += 1
    lines += [*_table(names, first, columns[:taken]), '']
    columns = columns[taken:]
  return '\n'.join(lines + _legend(results, width)) + '\n'


def _column(results: Results, metric: Metric) -> list[str]:
  """Title, then a cell of each subject."""
  cells = [f'{metric.name} {ARROWS[metric.about.better]}']
  for subject in results.subjects:
    mean, span, top = cell(results, subject, metric)
    cells.append(mean + ('*' if top else ' ') + (f'({span})' if span else ''))
  return cells


def _width(column: Sequence[str]) -> int:
  return max(map(len, column))


def _table(names: list[list[str]], first: int, columns: list[list[str]]) -> list[str]:
  def line(name: str, row: int | None) -> str:
    cells = [('' if row is None else c[row]).ljust(_width(c)) for c in columns]
    return '  '.join([name.ljust(first), *cells]).rstrip()

  lines = [line('', 0)]
  for row, name in enumerate(names, 1):
    lines += [line(part, row if k == 0 else None) for k, part in enumerate(name)]
  return lines


def _legend(results: Results, width: int) -> list[str]:
  count, unit = results.units
  lines = [f'* the best; in brackets 95 % bootstrap intervals over {count:,} {unit}.']
  if count < 2:
    lines = [f'* the best; one of the {unit} alone says nothing of others: no intervals.']
  seen: set[str] = set()
  for m in results.plan.metrics:
    line = f'{m.name} is {m.convention}, {BETTER[m.about.better]}.'
    line += '' if m.about.text in seen else f' {m.about.text}'
    seen.add(m.about.text)
    lines += textwrap.wrap(line, width, subsequent_indent='  ', break_on_hyphens=False)
  return lines
