"""The study's charts, as SVG text: accuracy against calibration, lines by shift, bars by set.

Every series has a colour, a marker and a dash of its own, so that a chart reads in black and white
too. Values are drawn in percent where their metric is one. What is not a number is left out.
"""

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, NamedTuple

from car_jax.evaluate.svg import Axis, Drawing, subject_colour
from car_jax.reliability.legend import ARROWS, BETTER, Metric
from car_jax.reliability.numbers import text
from car_jax.reliability.view import View

SHAPES = ('circle', 'square', 'triangle', 'diamond', 'down')
DASHES = ('', '7 4', '2 4', '9 3 2 3')
BANDS = 8  # with more series than this, bands would only hide each other


Key = tuple[str, str, str]  # model, set, calibrator


class Style(NamedTuple):
  name: str
  colour: str
  shape: str
  dash: str


def styles(names: Iterable[str]) -> dict[str, Style]:
  """Name -> how it is drawn; colour and marker together repeat after 45 names."""
  return {
    n: Style(n, subject_colour(k), SHAPES[k % len(SHAPES)], DASHES[k % len(DASHES)])
    for k, n in enumerate(names)
  }


class Chart(Drawing):
  """A drawing with markers of several shapes and bands."""

  def mark(self, x, y, style: Style, *, hollow=False, radius=4.0, tip='') -> None:
    """A marker centred on (x, y), which its `transform` states; nothing where either is nan."""
    if math.isnan(x) or math.isnan(y):
      return
    fill = 'var(--paper)' if hollow else style.colour
    self.parts.append(
      f'<path class="mark" transform="translate({x:.1f} {y:.1f})" d="{_outline(style, radius)}" '
      f'style="fill:{fill};stroke:{style.colour}" stroke-width="1.75">'
      + (f'<title>{escape(tip)}</title></path>' if tip else '</path>')
    )

  def columns(self, boxes: Iterable[tuple[float, float, float, float]], colour: str) -> None:
    """Boxes (left, top, width, height) as one shape."""
    shape = ''.join(f'M{x:.1f} {y:.1f}h{w:.1f}v{h:.1f}h{-w:.1f}z' for x, y, w, h in boxes)
    self.parts.append(f'<path class="columns" d="{shape}" style="fill:{colour}" opacity="0.55"/>')

  def band(self, low: Sequence[tuple], high: Sequence[tuple], colour: str) -> None:
    """The area between two lines over the same abscissae; points with a nan are left out."""
    both = [p for p in zip(low, high, strict=True) if not any(map(math.isnan, (*p[0], *p[1])))]
    if len(both) < 2:
      return
    corners = [a for a, _ in both] + [b for _, b in reversed(both)]
    shape = 'L'.join(f'{x:.1f} {y:.1f}' for x, y in corners)
    self.parts.append(f'<path class="band" d="M{shape}z" style="fill:{colour}" opacity="0.15"/>')

  def arrow(self, start, end, colour, dash='') -> None:
    """A line that ends short of `end` in a head, so that the marker there stays visible."""
    length = math.dist(start, end)
    if math.isnan(length) or length < 16:
      return
    dx, dy = (end[0] - start[0]) / length, (end[1] - start[1]) / length
    tip = end[0] - 7 * dx, end[1] - 7 * dy
    self.line(start[0] + 7 * dx, start[1] + 7 * dy, *tip, colour, 1.5, dash)
    for side in (-1, 1):
      back = tip[0] - 7 * dx + side * 4 * dy, tip[1] - 7 * dy - side * 4 * dx
      self.line(*back, *tip, colour, 1.5)

  def axes(self, x: Axis, y: Axis, x_name: str, y_name: str) -> None:
    """Grid and numbers; the name of y stands above the plot, where it needs no turning."""
    self.y_axis(y, x.start, x.end)
    self.x_axis(x, y.end, y.start, x_name)
    self.text(4, y.end - 9, y_name, colour='var(--muted)', size=12)


def _outline(style: Style, r: float) -> str:
  if style.shape == 'circle':
    return f'M{-r:g} 0a{r:g} {r:g} 0 1 0 {2 * r:g} 0a{r:g} {r:g} 0 1 0 {-2 * r:g} 0z'
  if style.shape == 'square':
    return f'M{-r:g} {-r:g}h{2 * r:g}v{2 * r:g}h{-2 * r:g}z'
  if style.shape == 'diamond':
    return f'M0 {-1.3 * r:g}L{1.3 * r:g} 0L0 {1.3 * r:g}L{-1.3 * r:g} 0z'
  up = 1.2 * r if style.shape == 'down' else -1.2 * r
  return f'M0 {up:g}L{1.2 * r:g} {-up * 0.8:g}L{-1.2 * r:g} {-up * 0.8:g}z'


def swatch(style: Style, *, line: bool = True) -> str:
  """The marker, on a bit of its line, for a key beside the charts."""
  chart = Chart(34, 14, style.name)
  if line:
    chart.line(2, 7, 32, 7, style.colour, 2, style.dash)
  chart.mark(17, 7, style)
  size = '<svg class="sign" width="34" height="14"'
  return chart.render().replace('<svg xmlns="http://www.w3.org/2000/svg"', size, 1)


def unit(m: Metric) -> str:
  """'ECE (%), ↓ lower is better'"""
  share = ' (%)' if m.percent else ''
  return f'{m.title}{share}' + (f', {ARROWS[m.better]} {BETTER[m.better]}' if m.better else '')


def scale(m: Metric) -> float:
  return 100.0 if m.percent else 1.0


def reach(view: View, m: Metric) -> tuple[float, float]:
  """The range of an axis that holds all values of a metric, the same in all its charts."""
  known = [scale(m) * v for v in view.values(m.name)] or [0.0, 1.0]
  low, high = min(known), max(known)
  margin = 0.05 * (high - low or 1)
  return (0.0 if 0 <= low < 0.5 * high else low - margin), high + margin


def _tip(view: View, m: Metric, key: Key) -> str:
  low, high = view.interval(*key, m.name)
  ends = '' if math.isnan(low) else f' ({text(m, low, 2)} to {text(m, high, 2)})'
  return f'{key[0]}, {key[1]}, {key[2]}: {m.title} {text(m, view.value(*key, m.name), 2)}{ends}'


def scatter(view: View, calibrator: str, across: Metric, up: Metric) -> str:
  """Accuracy against calibration error: a point per model and set (RELIS, arXiv 2303.11298).

  Filled: in-domain; hollow: shifted, the strongest shift larger and at the end of an arrow.
  """
  chart = Chart(420, 350, f'{across.title} against {up.title}, calibrator {calibrator}')
  x = Axis(*reach(view, across), 42, 408, ticks=5)
  y = Axis(*reach(view, up), 300, 34, ticks=5)
  chart.axes(x, y, unit(across), unit(up))

  def place(model: str, dataset: str) -> tuple[float, float]:
    both = [view.value(model, dataset, calibrator, m.name) for m in (across, up)]
    return x(scale(across) * both[0]), y(scale(up) * both[1])

  look = styles(view.models)
  for model, style in look.items():
    if view.strongest:
      ends = place(model, view.reference), place(model, view.strongest)
      chart.arrow(*ends, style.colour, style.dash)
  for model, style in look.items():
    for dataset in view.sets:
      key = (model, dataset, calibrator)
      tip = f'{_tip(view, across, key)}; {_tip(view, up, key).rpartition(": ")[2]}'
      hollow = view.sets[dataset].get('role') != 'in-domain'
      radius = 5.0 if dataset in (view.reference, view.strongest) else 3.0
      chart.mark(*place(model, dataset), style, hollow=hollow, radius=radius, tip=tip)
  return chart.render()


def by_shift(view: View, m: Metric, sets: Sequence[str], rows: dict[Style, tuple[str, str]]) -> str:
  """One metric over the shift of `sets`: a line per style, of its model and calibrator."""
  chart = Chart(360, 272, f'{m.title} by shift')
  x, y = Axis(0, 1, 40, 350), Axis(*reach(view, m), 222, 34, ticks=5)
  chart.axes(x, y, 'shift (0 none, 1 strongest)', unit(m))
  for style, (model, calibrator) in rows.items():
    keys = [(model, s, calibrator) for s in sets]
    at = [x(view.shift(s)) for s in sets]
    values = [view.value(*k, m.name) for k in keys]
    ends = [view.interval(*k, m.name) for k in keys]
    points, low, high = (
      [(a, y(scale(m) * v)) for a, v in zip(at, column, strict=True)]
      for column in (values, [e[0] for e in ends], [e[1] for e in ends])
    )
    if len(rows) <= BANDS:
      chart.band(low, high, style.colour)
    chart.path(points, style.colour, 1.75, style.dash)
    for k, point in zip(keys, points, strict=True):
      chart.mark(*point, style, radius=3.5, tip=_tip(view, m, k))
  return chart.render()


def bars(view: View, model: str, m: Metric, calibrators: Sequence[str]) -> str:
  """One metric on every set: a bar per calibrator with its 95 % interval."""
  look = styles(view.calibrators)
  seen = [*dict.fromkeys(map(view.condition, view.sets))]
  place = lambda s: (s != view.reference, seen.index(view.condition(s)), _known(view, s))
  order = sorted(view.sets, key=place)
  there = lambda s, c: not math.isnan(view.value(model, s, c, m.name))
  rows = [(s, [c for c in calibrators if there(s, c)]) for s in order]
  rows = [(s, shown) for s, shown in rows if shown]
  tall = sum(24 + 12 * len(shown) for _, shown in rows)
  chart = Chart(360, tall + 48, f'{m.title} of {model} by set')
  low, high = reach(view, m)
  x = Axis(min(0.0, low), high, 12, 306)
  chart.x_axis(x, 4, tall + 4, unit(m))
  top = 4.0
  for dataset, shown in rows:
    chart.text(12, top + 14, _set_name(view, dataset), size=12, weight=600)
    for k, calibrator in enumerate(shown):
      _bar(chart, view, (model, dataset, calibrator), m, x, top + 24 + 12 * k, look[calibrator])
    top += 24 + 12 * len(shown)
  return chart.render()


def _bar(chart: Chart, view: View, key: Key, m: Metric, x: Axis, y: float, style: Style) -> None:
  value, (low, high) = view.value(*key, m.name), view.interval(*key, m.name)
  end, tip = x(scale(m) * value), _tip(view, m, key)
  left, right = sorted((x(0), end))
  chart.rect(left, y - 3.5, right - left, 7, style.colour, 0.45, tip)
  chart.line(x(scale(m) * low), y, x(scale(m) * high), y, 'var(--ink)', 1.25)
  chart.mark(end, y, style, radius=3, tip=tip)
  chart.text(314, y + 4, text(m, value, 1 if m.percent else 3), size=11)


def _set_name(view: View, dataset: str) -> str:
  shift = view.shift(dataset)
  extra = '' if math.isnan(shift) else f', shift {shift:g}'
  condition = view.condition(dataset)
  return dataset + (f' ({condition}{extra})' if condition not in dataset else '')


def _known(view: View, dataset: str) -> float:
  shift = view.shift(dataset)
  return 2.0 if math.isnan(shift) else shift


def rows_of(view: View, names: Sequence[str], other: Any) -> dict[Style, tuple[str, str]]:
  """For `by_shift`: models with `other` a calibrator, or calibrators with `other` a model."""
  look = styles(names)
  if other in view.calibrators:
    return {look[n]: (n, other) for n in names}
  return {look[n]: (other, n) for n in names}
