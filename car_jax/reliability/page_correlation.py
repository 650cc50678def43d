"""The page's section on what synthetic shift predicts: a table, and scatters with names."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from car_jax.evaluate.svg import Axis
from car_jax.reliability import charts, correlation, legend, page_tables
from car_jax.reliability.correlation import COEFFICIENTS, SIDES
from car_jax.reliability.page_plots import slim
from car_jax.reliability.view import View, number

WIDTH, HEIGHT = 420, 360
TALL = 11  # pixels of a name
LETTER = 6.4  # pixels of a letter of a name, about


def section(view: View) -> str:
  """'' for a study that correlates nothing."""
  entries = view.study.get('correlations') or []
  if not entries:
    return ''
  drawn = ''.join(
    f'<figure><h3>{escape(_title(c))}</h3>{slim(scatter(view, c))}</figure>'
    for c in entries
    if c['models']
  )
  sides = ''.join(
    f'<p class="note">{escape(name)}: from {escape(", ".join(c["synthetic"]))} '
    f'to {escape(", ".join(c["real"]))}.</p>'
    for name, c in {c['name']: c for c in entries}.items()
  )
  return (
    '<p>Each model is a point: its score on the synthetic sets across, on the real ones up, before '
    'recalibration. Near a rising line, the models that do best on generated images do best on '
    'real ones; on the dotted diagonal the scores agree themselves.</p>'
    f'{sides}{_table(entries)}<p class="note">Pearson: how close to a line. Spearman and Kendall: '
    'how alike the orders. 1 is the same, 0 none, −1 reversed. Below each: the 95 % interval if '
    'images are drawn again, and if models are too. A few models say little: the second interval '
    f'tells how little.</p><div class="wide">{drawn}</div>'
  )


def _title(entry: Mapping[str, Any]) -> str:
  return f'{entry["name"]}: {legend.of_score(entry["measure"]).title}'


def _table(entries: Sequence[Mapping[str, Any]]) -> str:
  rows = []
  for c in entries:
    cells = [escape(c['name']), escape(legend.of_score(c['measure']).title), str(len(c['models']))]
    cells += [_coefficient(c['coefficients'][k]) for k in COEFFICIENTS]
    rows.append(('', [*cells, f'<td class="word">{escape(correlation.remarks(c))}</td>']))
  head = ['sets', 'score', 'models', *(k.title() for k in COEFFICIENTS), '']
  return page_tables.plain(head, rows, label='correlations', words=(0, 1, 6))


def _coefficient(of: Mapping[str, Any]) -> str:
  spans = ((kind, correlation.ends(of[kind], ' – ')) for kind in ('images', 'models'))
  small = ''.join(f'<small>{kind} {span}</small>' for kind, span in spans if span)
  return f'{correlation.number(of["value"])}{small}'


def scatter(view: View, entry: Mapping[str, Any]) -> str:
  """A point per model with its name and the intervals of its two scores."""
  metric = legend.of_score(entry['measure'])
  chart = charts.Chart(WIDTH, HEIGHT, _title(entry))
  scale = charts.scale(metric)
  at = lambda m, side, key='value': scale * number(m[side].get(key))
  x, y = (Axis(*_reach(entry, side, at), *ends) for side, ends in zip(SIDES, _PLACES, strict=True))
  chart.axes(x, y, f'{metric.title}, synthetic{_unit(metric)}', f'real{_unit(metric)}')
  low, high = max(x.lo, y.lo), min(x.hi, y.hi)
  if high > low:
    chart.line(x(low), y(low), x(high), y(high), 'var(--muted)', 1.5, '2 4')
  look = charts.styles(view.models)
  points = []
  for m in entry['models']:
    style = look[m['model']]
    px, py = x(at(m, 'synthetic')), y(at(m, 'real'))
    across, up = (
      [axis(at(m, side, end)) for end in ('low', 'high')]
      for axis, side in ((x, SIDES[0]), (y, SIDES[1]))
    )
    chart.line(across[0], py, across[1], py, style.colour, 0.75)
    chart.line(px, up[0], px, up[1], style.colour, 0.75)
    chart.mark(px, py, style, radius=4.5, tip=_tip(entry, m))
    points.append((px, py, m['model'], style))
  names = [name for _, _, name, _ in points]
  places = name_places([(px, py) for px, py, _, _ in points], names)
  for (left, base), name, (*_, style) in zip(places, names, points, strict=True):
    chart.parts.append(
      f'<text x="{left:.1f}" y="{base:.1f}" font-size="11" style="fill:{style.colour};'
      f'stroke:var(--paper);stroke-width:3px;paint-order:stroke">{escape(name)}</text>'
    )
  return chart.render()


_PLACES = ((42, WIDTH - 12), (HEIGHT - 50, 34))


def _unit(metric: legend.Metric) -> str:
  return ' (%)' if metric.percent else ''


def _reach(entry: Mapping[str, Any], side: str, at: Any) -> tuple[float, float]:
  """The range of an axis: all scores of a side and the ends of their intervals."""
  values = [at(m, side, k) for m in entry['models'] for k in ('value', 'low', 'high')]
  values = [v for v in values if not math.isnan(v)]
  margin = 0.08 * (max(values) - min(values) or 1)
  return min(values) - margin, max(values) + margin


def name_places(
  points: Sequence[tuple[float, float]], names: Sequence[str]
) -> list[tuple[float, float]]:
  """Where each name begins (left, base line): beside its point, least over others and the rim."""
  taken = [(px - 6, py - 6, px + 6, py + 6) for px, py in points]
  out = []
  for (px, py), name in zip(points, names, strict=True):
    wide = LETTER * len(name)
    steps = [(dx, dy) for dx in (8, -8 - wide) for dy in (-5, 14)]
    steps += [(-wide / 2, -9), (-wide / 2, 18), (12, -14), (-12 - wide, 23)]
    corners = [(px + dx, py + dy) for dx, dy in steps]
    boxes = [(left, base - TALL, left + wide, base) for left, base in corners]
    best = min(range(len(boxes)), key=lambda i: _hidden(boxes[i], taken))
    taken.append(boxes[best])
    out.append(corners[best])
  return out


def _hidden(box: Sequence[float], taken: Sequence[Sequence[float]]) -> float:
  """Pixels that a box shares with others, and ten times those that are out of the drawing."""
  left, top, right, base = box
  area = lambda w, h: max(0.0, w) * max(0.0, h)
  shared = sum(
    area(min(right, r) - max(left, l), min(base, b) - max(top, t)) for l, t, r, b in taken
  )
  inside = area(min(right, WIDTH) - max(left, 0), min(base, HEIGHT) - max(top, 0))
  return shared + 10 * (area(right - left, base - top) - inside)


def _tip(entry: Mapping[str, Any], m: Mapping[str, Any]) -> str:
  scores = (
    f'{side} {correlation.point_text(entry["measure"], m[side]["value"])}' for side in SIDES
  )
  return f'{m["model"]}: {", ".join(scores)}'
