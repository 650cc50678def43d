"""The page of a reliability study, its tables, and the whole of it as Markdown and CSV.

Of the content of study.json, looked up by reliability/view.py.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from car_jax.metrics.base import BETTER
from car_jax.reliability import correlation, findings, pivot, ranks, survival
from car_jax.reliability import objects as object_scores
from car_jax.reliability.view import Metric, View, number
from car_jax.report import study_figures as figures
from car_jax.report.figure import styles
from car_jax.report.page import Card, Select, Strip, Tile, render, select
from car_jax.report.table import (
  Cell,
  Column,
  Row,
  Table,
  block,
  cell,
  csv,
  prose,
  share,
  span,
  table,
)

MANY = 60  # with more rows the table starts with one calibrator
PICTURES = ('image', 'label', 'prediction', 'error', 'uncertainty')


def page(study: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
  """The whole document. pictures: PNG bytes by the file names that `study['worst']` holds."""
  view = View(dict(study))
  ranked, correlated = ranks.as_table(view), correlation.as_table(view)
  title = str(study.get('title') or 'Reliability study')
  return render(
    'study.html.j2',
    kicker='Reliability study',
    title=title,
    view=view,
    study=study,
    findings=findings.findings(view),
    facts=_facts(view),
    controls=_controls(view),
    styles=dict(models=styles(view.models), calibrators=styles(view.calibrators)),
    scatters=figures.scatters(view),
    ranks=ranked,
    ranks_about=ranks.covers(view) if ranked else '',
    pivots=pivot.tables(view),
    models_by_shift=figures.models_by_shift(view),
    calibrators_by_shift=figures.calibrators_by_shift(view),
    by_set=figures.by_set(view),
    reliability=figures.reliability(view),
    near_borders=figures.near_borders(view),
    errors=figures.errors(view),
    failing=figures.failing(view),
    failing_scores=pivot.failing(view),
    tables=dict(
      sets=sets(view),
      scores=scores(view),
      class_iou=class_iou(view),
      scenes=scenes(view),
      fits=fits(view),
      objects=objects(view),
    ),
    guarantees=survival.tables(view),
    guarantees_about=survival.covers(view),
    guarantees_by_shift=figures.guarantees(view),
    sets_of_classes=survival.details(view),
    unknown=pivot.unknown(view),
    image_level=pivot.image_level(view),
    correlations=correlated,
    correlation_sides={c['name']: c for c in study.get('correlations') or []},
    correlation_figures=figures.correlations(view),
    worst=_worst(view, pictures),
    metrics=[
      dict(title=m.title, better=m.better, about=m.about, exact=[m.name])
      for m in view.metrics.values()
    ],
    took=[f'It took {float(study["seconds"]):,.0f} s.'] if study.get('seconds') else [],
  )


def _facts(view: View) -> dict[str, Any]:
  images = sum(int(s.get('images') or 0) for s in view.sets.values())
  pixels = sum(int(s.get('pixels') or 0) for s in view.sets.values())
  return {
    'models': f'{len(view.models)}',
    'sets': (f'{len(view.sets)}', f'{len(view.shifted())} shifted'),
    'calibrators': f'{len(view.calibrators)}',
    'images': (f'{images:,}', f'{pixels:,} pixels'),
    'made': str(view.study.get('created') or ''),
  }


def _controls(view: View) -> dict[str, list[Select]]:
  """What each section is chosen by."""
  plain, ways, lines = view.plain, [*view.calibrators], figures.lines(view)
  first = next(iter(view.models), '*')
  other = ways[1] if len(ways) > 1 else '*'
  strongest = next((c for c, sets in lines.items() if view.strongest in sets), '*')
  return dict(
    accuracy=[select('calibrator', ways, chosen=other, keep=plain, label='beside it')],
    shift=[
      select('model', view.models, chosen=first),
      select('condition', lines, chosen=strongest),
      select('metric', [m.name for m in figures.shown(view)]),
    ],
    scores=[
      select('model', view.models),
      select('set', view.sets),
      select('calibrator', ways, chosen=plain if len(view.cells) > MANY else '*'),
    ],
    confidence=[
      select('model', [m for m, _, _ in view.curves], chosen=first),
      select('set', view.sets, chosen=view.reference),
      select('set', view.sets, chosen=view.strongest or view.reference, label='second set'),
    ],
    fits=[select('model', view.models), select('calibrator', ways)],
    guarantees=[select('model', view.models), select('set', view.sets), select('calibrator', ways)],
    unknown=[select('model', view.models)],
    worst=[select('model', view.models, chosen=first), select('set', view.sets)],
  )


def _worst(view: View, pictures: Mapping[str, bytes]) -> list[Card]:
  return [_card(view, entry, pictures) for entry in view.study.get('worst') or []]


def _card(view: View, entry: Mapping[str, Any], pictures: Mapping[str, bytes]) -> Card:
  files = entry.get('pictures') or {}
  order = [*(p for p in PICTURES if p in files), *(p for p in files if p not in PICTURES)]
  tiles = tuple(
    Tile(pictures[files[p]], p, f'{p} of {entry.get("id")}') for p in order if files[p] in pictures
  )
  values = (figures.named(view, name, v) for name, v in (entry.get('values') or {}).items())
  note = ': '.join(filter(None, [str(entry.get('why') or ''), ', '.join(values)]))
  labels = dict(model=str(entry.get('model')), set=str(entry.get('set')))
  return Card(str(entry.get('id')), (Strip('', '', tiles),), note=note, labels=labels)


SET_COLUMNS = ('role', 'condition', 'shift', 'images', 'pixels')


def scores(view: View) -> Table | None:
  """A row per cell, columns grouped."""
  rows = []
  for (model, dataset, calibrator), cells in _scores(view, view.metrics.values(), ' – '):
    note = dataset if calibrator == view.plain else f'{dataset} · {calibrator}'
    labels = dict(model=model, set=dataset, calibrator=calibrator)
    rows.append(Row((Cell(model, note), *cells), labels))
  columns = [Column('model, set, calibrator', words=True, key='name')]
  columns += [_column(view, m) for m in view.metrics.values()]
  if not rows or not view.metrics:
    return None
  return Table('scores', tuple(columns), tuple(rows), sortable=True)


def _group(view: View, group: str) -> Table | None:
  """The scores of a group, where a cell has any; names in columns of their own."""
  metrics = [m for m in view.metrics.values() if m.group == group]
  rows = [
    (*key, *cells)
    for key, cells in _scores(view, metrics, ' to ')
    if any(c.text != '–' for c in cells)
  ]
  head = [*(Column(n, words=True) for n in ('model', 'set', 'calibrator'))]
  head += [_column(view, m) for m in metrics]
  return table(group, head, rows) if rows else None


def _scores(
  view: View, metrics: Iterable[Metric], joint: str
) -> Iterator[tuple[tuple[str, str, str], list[Cell]]]:
  shown = {m: (view.places(m), view.best(m)) for m in metrics}
  for key in view.cells:
    yield key, [_score(view, key, m, *how, joint) for m, how in shown.items()]


def _column(view: View, m: Metric) -> Column:
  bounds = [number(view.entry(*key, m.name).get('bound')) for key in view.cells]
  bound = max((b for b in bounds if b > 0), default=0.0)
  off = f' Read from histograms: off by at most {m.scale * bound:.2g}.' if bound else ''
  about = f'{BETTER[m.better]}. {m.about}{off}'
  return Column(m.heading, better=m.better, tip=about, group=m.group, key=m.name)


def _score(
  view: View, key: tuple[str, str, str], m: Metric, digits: int, best: set, joint: str
) -> Cell:
  value = view.value(*key, m.name)
  if not math.isfinite(value):
    return Cell('–')
  ends = span(view.interval(*key, m.name), digits, joint, scale=m.scale)
  return Cell(m.text(value, digits, unit=False), ends, key in best)


def class_iou(view: View) -> Table | None:
  """IoU of every class by model and set, without recalibration; the deeper, the higher."""
  names = [str(n) for n in view.study.get('classes') or []]
  rows = []
  for (model, dataset, calibrator), measured in view.cells.items():
    values = [number(v) for v in measured.get('iou') or []]
    if calibrator != view.plain or len(values) != len(names) or not names:
      continue
    cells = (Cell(share(v, unit=False), heat=v if math.isfinite(v) else None) for v in values)
    rows.append(Row((Cell(model, dataset), *cells), dict(model=model, set=dataset)))
  return table('IoU by class', ['model, set', *names], rows) if rows else None


def scenes(view: View) -> Table | None:
  """The spread over the scenes of each set, of accuracy and calibration error."""
  metrics = [view.metrics[m] for m in (view.accuracy, 'ece') if m in view.metrics]
  rows = []
  for (model, dataset, calibrator), measured in view.cells.items():
    by_scene = measured.get('scenes') or {}
    if calibrator != view.plain or len(by_scene) < 2:
      continue
    cells = [Cell(model), Cell(dataset), Cell(f'{len(by_scene)}')]
    for m in metrics:
      values = {s: number((v or {}).get(m.name)) for s, v in by_scene.items()}
      values = {s: v for s, v in values.items() if math.isfinite(v)}
      for pick in (min, max):
        end = pick(values, key=values.__getitem__) if values else ''
        cells.append(Cell(share(values[end]), end) if values else Cell('–'))
    rows.append(Row(tuple(cells), dict(model=model, set=dataset)))
  head = ['model', 'set', 'scenes']
  head += [f'{m.title}, {end}' for m in metrics for end in ('lowest', 'highest')]
  return table('spread over scenes', head, rows, words=(0, 1)) if rows else None


def fits(view: View) -> Table | None:
  """What each calibrator was fitted on, and its scores there before and after."""
  nats = lambda value: f'{number(value):.4f}' if math.isfinite(number(value)) else '–'
  percent = lambda value: share(number(value), 2)
  rows = []
  for fit in view.study.get('fits') or []:
    who = [str(fit.get(k) or '') for k in ('model', 'calibrator', 'set')]
    change = [
      ' → '.join(show(fit.get(f'{k}_{when}')) for when in ('before', 'after'))
      for k, show in (('nll', nats), ('ece', percent))
    ]
    warnings = '; '.join(map(str, fit.get('warnings') or []))
    cells = map(Cell, (*who, _temperatures(fit), *change, f'⚠ {warnings}' if warnings else ''))
    rows.append(Row(tuple(cells), dict(model=who[0], calibrator=who[1])))
  head = ['model', 'calibrator', 'fitted on', 'temperature', 'NLL', 'ECE', 'warnings']
  return table('calibrators', head, rows, words=(0, 1, 2, 6)) if rows else None


def _temperatures(fit: Mapping[str, Any]) -> str:
  """'1.52', or the range of several: '0.91 – 2.30 (8)'."""
  values = [number(t) for t in fit.get('temperatures') or [] if t is not None]
  if len(values) > 1:
    return f'{min(values):.2f} – {max(values):.2f} ({len(values)})'
  return f'{values[0]:.2f}' if values else '–'


def objects(view: View) -> Table | None:
  """A row for each model, set and unknown object, without recalibration."""
  entries = [e for e in view.study.get('objects') or [] if e['calibrator'] == view.plain]
  names = dict.fromkeys(name for e in entries for name in e['values'])
  metrics = [view.about(name) for name in names]
  rows = []
  for e in entries:
    values = [number((e['values'].get(m.name) or {}).get('value')) for m in metrics]
    texts = [
      Cell(m.text(v, 1 if m.percent else 3, unit=False))
      for m, v in zip(metrics, values, strict=True)
    ]
    name = object_scores.title(e)
    who = Cell(name, f'{e["model"]}, {e["set"]}', strong=e.get('object') is None)
    labels = dict(model=str(e['model']), set=str(e['set']))
    rows.append(Row((who, Cell(f'{e["images"]:,}'), *texts), labels))
  # without what the table says already
  short = lambda text: text.replace(' of objects', '').replace(', per image', '')
  head = [Column('object', words=True), Column('images')]
  head += [Column(short(m.heading), better=m.better, tip=m.about) for m in metrics]
  return table('scores of each object', head, rows) if rows else None


def sets(view: View) -> Table | None:
  """What the sets of the study are."""
  rows = []
  for name, about in view.sets.items():
    shift, count = view.shift(name), [number(about.get(k)) for k in ('images', 'pixels')]
    words = [name, str(about.get('role') or ''), view.condition(name)]
    words.append(f'{shift:g}' if math.isfinite(shift) else '–')
    words += [f'{n:,.0f}' if math.isfinite(n) else '–' for n in count]
    rows.append([*words, str(about.get('about') or '')])
  head = ['set', 'role', 'condition', 'shift', 'images', 'pixels', 'what it is']
  return table('sets', head, rows, words=(0, 1, 2, 6)) if rows else None


def to_csv(study: Mapping[str, Any]) -> str:
  """One row per cell; each metric with the ends of its interval and its bound, and what became of
  each guarantee. Fractions."""
  view = View(dict(study))
  head = ['model', 'set', *SET_COLUMNS, 'calibrator']
  for name in view.metrics:
    head += [name, f'{name}_low', f'{name}_high', f'{name}_bound']
  tried = {g['name']: survival.columns(view, g['name']) for g in study.get('guarantees') or []}
  head += [f'guarantee_{name}_{column}' for name in tried for column in survival.COLUMNS]
  nothing = (None,) * len(survival.COLUMNS)
  rows = []
  for model, dataset, calibrator in view.cells:
    about = view.sets[dataset]
    row = [model, dataset, *(about.get(k) for k in SET_COLUMNS), calibrator]
    for name in view.metrics:
      entry = view.entry(model, dataset, calibrator, name)
      row += [entry.get(k) for k in ('value', 'low', 'high', 'bound')]
    for of in tried.values():
      row += of.get((model, calibrator, dataset), nothing)
    rows.append(row)
  return csv(head, rows)


def markdown(study: Mapping[str, Any]) -> str:
  """The whole study: its findings, all tables, what the scores mean, how to make it again."""
  view = View(dict(study))
  lines = [f'# {cell(study.get("title") or "Reliability study")}', '']
  lines += [f'- {prose(line)}' for line in findings.findings(view)] + ['']
  groups = dict.fromkeys(m.group for m in view.metrics.values())
  parts = [(f'{group[:1].upper()}{group[1:]}', _group(view, group), '') for group in groups]
  parts += [(t.title, t, t.about) for t in pivot.tables(view)]
  ranked = ranks.as_table(view)
  parts += [
    (ranks.QUESTION, ranked, ranks.covers(view) if ranked else ''),
    ('Recalibration', fits(view), ''),
    *((t.title, t, t.about) for t in survival.tables(view)),
    (survival.QUESTION, survival.details(view), ' '.join(survival.covers(view))),
    *((t.title, t, t.about) for t in pivot.failing(view)[1:]),
    *((t.title, t, t.about) for t in pivot.image_level(view)),
    (correlation.QUESTION, correlation.as_table(view), ''),
    ('Legend', _legend(view), ''),
  ]
  for title, part, about in parts:
    if part:
      lines += [f'## {title}', '', *([prose(about), ''] if about else []), *part.markdown(), '']
  lines += [f'> {prose(n)}\n' for n in study.get('notes') or []]
  if study.get('command'):
    lines += ['## How to reproduce', '', *block(study['command']), '']
  versions = ', '.join(f'{k} {v}' for k, v in (study.get('versions') or {}).items())
  return '\n'.join([*lines, versions]).rstrip() + '\n'


def _legend(view: View) -> Table | None:
  rows = [[m.title, f'`{m.name}`', BETTER[m.better], m.about] for m in view.metrics.values()]
  head = ('metric', 'name', 'better', 'what it says')
  return table('legend', head, rows, words=range(4)) if rows else None
