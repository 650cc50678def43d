"""A study as Markdown and CSV, and how its numbers are written."""

from typing import Any

from car_jax.evaluate import escaped
from car_jax.reliability import correlation, findings, numbers, pivot, ranks
from car_jax.reliability.legend import ARROWS, BETTER
from car_jax.reliability.numbers import Column
from car_jax.reliability.view import View

SET_COLUMNS = ('role', 'condition', 'shift', 'images', 'pixels')


def csv(study: dict[str, Any]) -> str:
  """One row per cell; each metric with the ends of its interval and its bound. Fractions."""
  view = View(study)
  head = ['model', 'set', *SET_COLUMNS, 'calibrator']
  for name in view.metrics:
    head += [name, f'{name}_low', f'{name}_high', f'{name}_bound']
  rows = []
  for model, dataset, calibrator in view.cells:
    about = view.sets[dataset]
    row = [model, dataset, *(about.get(k) for k in SET_COLUMNS), calibrator]
    for name in view.metrics:
      entry = view.entry(model, dataset, calibrator, name)
      row += [entry.get(k) for k in ('value', 'low', 'high', 'bound')]
    rows.append(row)
  return escaped.csv(head, rows)


def markdown(study: dict[str, Any]) -> str:
  """The whole study: its findings, a table per group of metrics, fits, unknown images, legend."""
  view = View(study)
  lines = [f'# {escaped.cell(study.get("title") or "Reliability study")}', '']
  lines += [f'- {escaped.prose(line)}' for line in findings.findings(view)] + ['']
  columns = numbers.columns(view)
  for group in dict.fromkeys(c.metric.group for c in columns):
    lines += _group(view, group, [c for c in columns if c.metric.group == group])
  for table in pivot.tables(view):
    lines += [f'## {table.title}', '', table.about, '', *escaped.table(table.head, table.rows), '']
  lines += _ranks(view) + _fits(study) + _image_level(study) + _correlations(study) + _legend(view)
  lines += [f'> {escaped.prose(n)}\n' for n in study.get('notes') or []]
  if study.get('command'):
    lines += ['## How to reproduce', '', *escaped.block(study['command']), '']
  versions = ', '.join(f'{k} {v}' for k, v in (study.get('versions') or {}).items())
  return '\n'.join([*lines, versions]).rstrip() + '\n'


def _group(view: View, group: str, columns: list[Column]) -> list[str]:
  rows = []
  for key in view.cells:
    cells = [_value(view, key, c) for c in columns]
    if any(c != '–' for c in cells):
      rows.append([*key, *cells])
  titles = [f'{c.metric.title} {ARROWS[c.metric.better]}'.strip() for c in columns]
  head = ['model', 'set', 'calibrator', *titles]
  return [f'## {group[:1].upper()}{group[1:]}', '', *escaped.table(head, rows), ''] if rows else []


def _value(view: View, key: tuple[str, str, str], column: Column) -> str:
  shown = column.text(view.value(*key, column.metric.name))
  ends = column.ends(*view.interval(*key, column.metric.name), ' to ')
  shown = f'**{shown}**' if key in column.winners else shown
  return f'{shown} ({ends})' if ends else shown


def _ranks(view: View) -> list[str]:
  rows = ranks.rows(view)
  about = [escaped.prose(ranks.covers(view)), ''] if rows else []
  title = f'## {ranks.QUESTION}'
  return [title, '', *escaped.table(ranks.HEAD, rows), '', *about] if rows else []


def _fits(study: dict[str, Any]) -> list[str]:
  head = ['model', 'calibrator', 'fitted on', 'temperature', 'NLL', 'ECE', 'warnings']
  rows = [*numbers.fits(study)]
  return ['## Recalibration', '', *escaped.table(head, rows), ''] if rows else []


def _image_level(study: dict[str, Any]) -> list[str]:
  rows = [*numbers.image_level(study)]
  return (
    ['## Images of another data set', '', *escaped.table(numbers.IMAGE_LEVEL, rows), '']
    if rows
    else []
  )


def _correlations(study: dict[str, Any]) -> list[str]:
  rows = correlation.rows(study)
  title = '## Does synthetic shift predict real shift?'
  return [title, '', *escaped.table(correlation.HEAD, rows), ''] if rows else []


def _legend(view: View) -> list[str]:
  rows = [[m.title, f'`{m.name}`', BETTER[m.better], m.about] for m in view.metrics.values()]
  head = ['metric', 'name', 'better', 'what it says']
  return ['## Legend', '', *escaped.table(head, rows), ''] if rows else []
