"""Curves of one model on one set: reliability diagrams, rejection curves, ROC."""

import math
from collections.abc import Sequence
from typing import Any

from car_jax.evaluate.svg import Axis
from car_jax.reliability.charts import Chart, Style
from car_jax.reliability.view import number

MOST = 80  # points of a curve that are drawn
MUTED = 'var(--muted)'


def points(first: Sequence[Any] | None, second: Sequence[Any] | None) -> list[tuple[float, float]]:
  """Pairs of two lists, thinned to MOST, ends kept; a pair with an undefined value is left out."""
  pairs = [(number(a), number(b)) for a, b in zip(first or (), second or (), strict=True)]
  pairs = [p for p in pairs if math.isfinite(p[0]) and math.isfinite(p[1])]
  step = max(1, math.ceil((len(pairs) - 1) / (MOST - 1)))
  return pairs[:-1:step] + pairs[-1:]


def reliability(table: dict[str, Any], style: Style) -> str:
  """Does 80 % mean 80 %? Mean confidence of each bin against the share that is right.

  Below it the pixels of each bin on a logarithmic scale; bins are as wide as they are many.
  """
  chart = Chart(260, 326, f'reliability diagram, {style.name}')
  x, y = Axis(0, 100, 40, 250, ticks=4), Axis(0, 100, 216, 26, ticks=4)
  for tick in (0, 25, 50, 75, 100):
    chart.line(x(tick), 26, x(tick), 216)
    chart.line(40, y(tick), 250, y(tick))
    chart.text(34, y(tick) + 4, tick, 'end', MUTED, 11)
    chart.text(x(tick), 292, tick, 'middle' if tick < 100 else 'end', MUTED, 11)
  chart.text(4, 14, 'right (% of pixels)', colour=MUTED)
  chart.text(145, 310, 'confidence (%)', 'middle', MUTED)
  chart.line(x(0), y(0), x(100), y(100), MUTED, 1.25, '2 4')
  columns = [table.get(k) or [] for k in ('confidence', 'frequency', 'pixels')]
  rows = [tuple(map(number, row)) for row in zip(*columns, strict=True)]
  known = [r for r in rows if all(map(math.isfinite, r)) and r[2] > 0]
  chart.path([(x(100 * c), y(100 * f)) for c, f, _ in known], style.colour, 1.75, style.dash)
  for confidence, frequency, pixels in known:
    tip = f'confidence {confidence:.1%}, right {frequency:.1%}, {pixels:,.0f} pixels'
    chart.mark(x(100 * confidence), y(100 * frequency), style, radius=3.5, tip=tip)
  _pixel_bars(chart, [r[2] for r in rows], style.colour)
  return chart.render()


def _pixel_bars(chart: Chart, pixels: Sequence[float], colour: str) -> None:
  known = [n for n in pixels if math.isfinite(n) and n > 0]
  most, wide = math.log10(max([10.0, *known])), 210 / max(1, len(pixels))
  chart.line(40, 276, 250, 276, MUTED, 0.75)
  columns = []
  for k, n in enumerate(pixels):
    if math.isfinite(n) and n > 0:
      # One pixel must not vanish: its logarithm is 0.
      tall = max(1.5, 42 * math.log10(n) / most)
      columns.append((40.75 + wide * k, 276 - tall, wide - 1.5, tall))
  chart.columns(columns, colour)
  chart.text(34, 250, 'pixels', 'end', MUTED, 10)
  chart.text(34, 262, '(log)', 'end', MUTED, 10)


def rejection(curves: dict[Style, dict[str, Any]]) -> str:
  """Error of the kept pixels over the share rejected, least confident first, one line each.

  The best possible order and a random one, whose error stays as it is, are those of the first.
  """
  lines = {s: points(c.get('rejected'), c.get('risk')) for s, c in curves.items()}
  first = next(iter(curves.values()), {})
  best = points(first.get('rejected'), first.get('best'))
  highest = max((v for line in (*lines.values(), best) for _, v in line), default=0.0)
  chart = Chart(360, 272, 'rejection curves')
  x, y = Axis(0, 100, 40, 350), Axis(0, 108 * highest or 1, 222, 34, ticks=4)
  chart.axes(x, y, 'pixels rejected (%)', 'error of the kept pixels (%), ↓ lower is better')
  chart.path([(x(100 * a), y(100 * b)) for a, b in best], MUTED, 3)
  start = next((line[0][1] for line in lines.values() if line), float('nan'))
  if not math.isnan(start):
    chart.line(40, y(100 * start), 350, y(100 * start), MUTED, 1.75, '1 5')
    chart.text(348, y(100 * start) - 5, 'random', 'end', MUTED, 11)
  _lines(chart, lines, x, y)
  return chart.render()


def roc(curves: dict[Style, dict[str, Any]], wanted: str, others: str) -> str:
  """Share of `wanted` pixels flagged over the share of `others` flagged with them."""
  lines = {s: points(c.get('fpr'), c.get('tpr')) for s, c in curves.items()}
  chart = Chart(360, 272, f'ROC, {wanted} against {others} pixels')
  x, y = Axis(0, 100, 40, 350), Axis(0, 100, 222, 34, ticks=4)
  chart.axes(x, y, f'{others} pixels flagged too (%)', f'{wanted} pixels flagged (%)')
  chart.line(x(0), y(0), x(100), y(100), MUTED, 1.25, '1 5')
  _lines(chart, lines, x, y)
  return chart.render()


def _lines(chart: Chart, lines: dict[Style, list], x: Axis, y: Axis) -> None:
  for k, (style, line) in enumerate(lines.items()):
    drawn = [(x(100 * a), y(100 * b)) for a, b in line]
    chart.path(drawn, style.colour, 1.75, style.dash)
    # Two or three markers tell lines apart; each series puts them elsewhere.
    step = max(1, len(drawn) // 3)
    for point in drawn[min(k * 2 % step, len(drawn) - 1) :: step] if drawn else ():
      chart.mark(*point, style, radius=3)
