"""The tables of the study's page, as HTML that its script can sort and filter."""

import math
from collections.abc import Collection, Iterable, Sequence
from html import escape
from itertools import groupby
from typing import Any

from car_jax.metrics.of_pixels import OBJECT_NAMES
from car_jax.reliability import charts, legend, numbers, pivot
from car_jax.reliability import objects as object_scores
from car_jax.reliability.legend import ARROWS, BETTER
from car_jax.reliability.numbers import Column, columns, share
from car_jax.reliability.view import View, number


def attributes(**labels: Any) -> str:
  """' data-item data-model="..."': what the page's controls show or hide."""
  return ' data-item' + ''.join(
    f' data-{k}="{escape(str(v), quote=True)}"' for k, v in labels.items()
  )


def scores(view: View, groups: Sequence[str] = ()) -> str:
  """A row per cell, columns grouped; with `groups` only these, and rows that have a value."""
  chosen = [c for c in columns(view) if not groups or c.metric.group in groups]
  edges = {i for i, c in enumerate(chosen) if i and c.metric.group != chosen[i - 1].metric.group}
  rows: list[str] = []
  for key in view.cells:
    cells = [_score(view, key, c, i in edges) for i, c in enumerate(chosen)]
    if not groups or any('data-v' in c for c in cells):
      rows.append(_row(view, key, len(rows), cells))
  if not rows or not chosen:
    return ''
  spans = [(g, len([*cs])) for g, cs in groupby(chosen, lambda c: c.metric.group)]
  top = ''.join(f'<th colspan="{n}" scope="colgroup">{escape(g)}</th>' for g, n in spans)
  head = ''.join(_head(c, i + 1, i in edges) for i, c in enumerate(chosen))
  first = '<th scope="col" data-column="0" data-name="name">model, set, calibrator</th>'
  label = 'scores' if not groups else ' and '.join(groups)
  return (
    f'<div class="scroll tall" tabindex="0" role="group" aria-label="{escape(label)}"><table>'
    f'<thead><tr class="groups"><th></th>{top}</tr><tr>{first}{head}</tr></thead>'
    f'<tbody>{"".join(rows)}</tbody></table></div>'
  )


def _head(column: Column, index: int, edge: bool) -> str:
  m = column.metric
  kind = ' class="edge"' if edge else ''
  about = escape(f'{BETTER[m.better]}. {m.about}', quote=True)
  return (
    f'<th scope="col"{kind} data-column="{index}" data-name="{escape(m.name, quote=True)}" '
    f'data-better="{m.better}"><abbr title="{about}">{escape(m.title)}</abbr> '
    f'{ARROWS[m.better]}</th>'
  )


def _score(view: View, key: tuple[str, str, str], column: Column, edge: bool) -> str:
  name, kind = column.metric.name, ' class="edge"' if edge else ''
  value = view.value(*key, name)
  if not math.isfinite(value):
    return f'<td{kind}>–</td>'
  shown = column.text(value)
  shown = f'<b>{shown}</b>' if key in column.winners else shown
  ends = column.ends(*view.interval(*key, name), ' – ')
  bound = number(view.entry(*key, name).get('bound'))
  tip = f' title="read from histograms: off by at most {bound:.2g}"' if bound > 0 else ''
  small = f'<small>{ends}</small>' if ends else ''
  return f'<td{kind} data-v="{value:.6g}"{tip}>{shown}{small}</td>'


def _row(view: View, key: tuple[str, str, str], place: int, cells: Iterable[str]) -> str:
  model, dataset, calibrator = key
  marks = attributes(model=model, set=dataset, calibrator=calibrator)
  note = escape(dataset) + ('' if calibrator == view.plain else f' · {escape(calibrator)}')
  return (
    f'<tr data-place="{place}"{marks}><th scope="row">{escape(model)}<small>{note}</small></th>'
    f'{"".join(cells)}</tr>'
  )


def plain(
  head: Sequence[str],
  rows: Sequence[tuple[str, Sequence[str]]],
  *,
  label: str,
  words: Collection[int] = (0,),
) -> str:
  """A simple table of escaped HTML; rows: (attributes, cells); the columns `words` hold text."""
  if not rows:
    return ''
  kinds = [' class="word"' if i in words else '' for i in range(len(head))]
  titles = ''.join(f'<th scope="col"{k}>{h}</th>' for k, h in zip(kinds, head, strict=True))
  body = ''
  for marks, cells in rows:
    inside = ''.join(
      c if c.startswith('<td') else f'<td{k}>{c}</td>' for k, c in zip(kinds, cells, strict=True)
    )
    body += f'<tr{marks}>{inside}</tr>'
  return (
    f'<div class="scroll tall" tabindex="0" role="group" aria-label="{escape(label)}"><table>'
    f'<thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'
  )


def by_set(view: View) -> str:
  """The tables of papers, a row for each model and a column for each set."""
  out = ''
  for t in pivot.tables(view):
    rows = [('', [*map(escape, row)]) for row in t.rows]
    head = [*map(escape, t.head)]
    table = plain(head, rows, label=t.title, words=range(t.names))
    out += f'<h3>{escape(t.title)}</h3><p class="note">{escape(t.about)}.</p>{table}'
  return f'<p>* is the best of a column.</p>{out}' if out else ''


def class_iou(view: View) -> str:
  """IoU of every class by model and set, without recalibration; the deeper, the higher."""
  names = [str(n) for n in view.study.get('classes') or []]
  rows = []
  for (model, dataset, calibrator), cell in view.cells.items():
    values = [number(v) for v in cell.get('iou') or []]
    if calibrator != view.plain or len(values) != len(names) or not names:
      continue
    cells = [
      f'<td class="heat" style="--h:{45 * v:.0f}%">{share(v)}</td>' if math.isfinite(v) else '–'
      for v in values
    ]
    who = f'<strong>{escape(model)}</strong><br><small>{escape(dataset)}</small>'
    rows.append((attributes(model=model, set=dataset), [who, *cells]))
  return plain(['model, set', *map(escape, names)], rows, label='IoU by class')


def scenes(view: View) -> str:
  """The spread over the scenes of each set, of accuracy and calibration error."""
  metrics = [view.metrics[m] for m in (view.accuracy, 'ece') if m in view.metrics]
  rows = []
  for (model, dataset, calibrator), cell in view.cells.items():
    by_scene = cell.get('scenes') or {}
    if calibrator != view.plain or len(by_scene) < 2:
      continue
    cells = [escape(model), escape(dataset), f'{len(by_scene)}']
    for m in metrics:
      values = {s: number((v or {}).get(m.name)) for s, v in by_scene.items()}
      values = {s: v for s, v in values.items() if math.isfinite(v)}
      for pick in (min, max):
        end = pick(values, key=values.__getitem__) if values else ''
        shown = f'{share(values[end])}<small>{escape(end)}</small>' if values else '–'
        cells.append(shown)
    rows.append((attributes(model=model, set=dataset), cells))
  ends = [f'{end} {escape(m.title)}' for m in metrics for end in ('lowest', 'highest')]
  head = ['model', 'set', 'scenes', *ends]
  return plain(head, rows, label='spread over scenes', words=(0, 1))


def fits(view: View) -> str:
  """What fitting each calibrator did, with its warnings."""
  rows = []
  for *cells, warnings in numbers.fits(view.study):
    mark = f'<span class="warn">⚠ {escape(warnings)}</span>' if warnings else '–'
    cells = [*map(escape, cells), f'<td class="word{" long" if warnings else ""}">{mark}</td>']
    rows.append((attributes(model=cells[0], calibrator=cells[1]), cells))
  head = ['model', 'calibrator', 'fitted on', 'temperature', 'NLL (nats)', 'ECE', 'warnings']
  return plain(head, rows, label='calibrator fits', words=(0, 1, 2, 6))


def image_level(view: View) -> str:
  """Known images against those of another set, by one score per image; best of a pair bold."""
  rows, comparisons = [], view.study.get('image_ood') or []
  pair = lambda r: (r.get('known'), r.get('other'))
  tops: dict[Any, float] = {}
  for r in comparisons:
    value = number(r.get('auroc'))
    tops[pair(r)] = max(tops.get(pair(r), -math.inf), value if math.isfinite(value) else -math.inf)
  for r, (*who, auroc, aupr, fpr) in zip(comparisons, numbers.image_level(view.study), strict=True):
    auroc = f'<b>{auroc}</b>' if r.get('auroc') == tops[pair(r)] else auroc
    cells = [*map(escape, who), auroc, aupr, fpr]
    rows.append((attributes(model=r.get('model'), calibrator=r.get('calibrator')), cells))
  return plain(numbers.IMAGE_LEVEL, rows, label='images of another data set', words=range(5))


def objects(view: View) -> str:
  """A row for each model, set and unknown object, without recalibration."""
  entries = [e for e in view.study.get('objects') or [] if e['calibrator'] == view.plain]
  shown = [m for m in OBJECT_NAMES if any(m in e['values'] for e in entries)]
  metrics = [legend.of_score(m) for m in shown]
  rows = []
  for e in entries:
    values = [number((e['values'].get(m.name) or {}).get('value')) for m in metrics]
    texts = [
      numbers.text(m, v, 1 if m.percent else 3) for m, v in zip(metrics, values, strict=True)
    ]
    name = escape(object_scores.title(e))
    name = name if e.get('object') is not None else f'<strong>{name}</strong>'
    who = f'{name}<small>{escape(str(e["model"]))}, {escape(str(e["set"]))}</small>'
    rows.append((attributes(model=e['model'], set=e['set']), [who, f'{e["images"]:,}', *texts]))
  # without what the table says already
  short = lambda title: title.replace(' of objects', '').replace(', per image', '')
  tip = lambda m: f'<abbr title="{escape(m.about, quote=True)}">{escape(short(m.title))}</abbr>'
  head = ['object', 'images', *(f'{tip(m)} {ARROWS[m.better]}' for m in metrics)]
  return plain(head, rows, label='scores of each object')


def compared(view: View) -> str:
  """The sets, models and calibrators of the study."""
  rows = []
  for name, about in view.sets.items():
    shift, count = view.shift(name), [number(about.get(k)) for k in ('images', 'pixels')]
    words = (name, about.get('role') or '', view.condition(name))
    numbers = [f'{shift:g}' if math.isfinite(shift) else '–']
    numbers += [f'{n:,.0f}' if math.isfinite(n) else '–' for n in count]
    note = f'<td class="word long">{escape(str(about.get("about") or ""))}</td>'
    rows.append(('', [*map(escape, words), *numbers, note]))
  head = ['set', 'role', 'condition', 'shift', 'images', 'pixels', 'what it is']
  lists = ''
  for title, entries in (('Models', view.models), ('Calibrators', view.calibrators)):
    look = charts.styles(entries)
    items = ''.join(
      f'<div><dt>{charts.swatch(look[n])}{escape(n)}</dt>'
      f'<dd>{escape(str(e.get("about") or ""))}</dd></div>'
      for n, e in entries.items()
    )
    lists += f'<h3>{title}</h3><dl class="metrics">{items}</dl>'
  return plain(head, rows, label='sets', words=(0, 1, 2, 6)) + lists
