"""A figure as data: what its drawing (svg.py), its CSV and its page entry are all made of.

Two kinds: points on two axes, and points in named rows over one axis. Values are in the units that
the axis names, so a share of an axis in per cent is 12.3 and not 0.123.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from car_jax.report import table

COLOURS = 9
SHAPES = ('circle', 'square', 'triangle', 'diamond', 'down')
DASHES = ('', '7 4', '2 4', '9 3 2 3')
NAN = float('nan')


class Style(NamedTuple):
  """colour: 's0'..'s8', 'ink' or 'muted'. shape: of SHAPES, 'tick' (upright), or '' for none."""

  colour: str
  shape: str = ''
  dash: str = ''
  width: float = 1.5
  hollow: bool = False


FLOOR = Style('ink', 'circle', hollow=True)
DOTTED = Style('muted', dash='2 4')
TICK = Style('ink', 'tick', width=2)


def styles(names: Iterable[str], *, floor: str = '') -> dict[str, Style]:
  """Name -> how it is drawn everywhere; colour and shape together repeat after 45 names.

  The name `floor`, which competes with none, is drawn in ink.
  """
  ranked = [n for n in names if n != floor]
  look = {
    n: Style(f's{k % COLOURS}', SHAPES[k % len(SHAPES)], DASHES[k % len(DASHES)])
    for k, n in enumerate(ranked)
  }
  return {n: look.get(n, FLOOR) for n in names}


class Point(NamedTuple):
  """y is the place of a row in a figure of rows. low and high are ends of an interval of y, left
  and right of x. counted: pixels or images, drawn as a column. label: what the point is."""

  x: float
  y: float
  low: float = NAN
  high: float = NAN
  left: float = NAN
  right: float = NAN
  counted: float = NAN
  label: str = ''
  hollow: bool = False


@dataclasses.dataclass(frozen=True)
class Series:
  """Points of one name and style; those without a place are left out, hollow ones come last.

  line: they are joined. band: intervals of y are an area. arrow: from the first to the last.
  """

  name: str
  style: Style
  points: tuple[Point, ...]
  line: bool = True
  band: bool = False
  arrow: bool = False

  def __post_init__(self) -> None:
    known = [p for p in self.points if math.isfinite(p.x) and math.isfinite(p.y)]
    object.__setattr__(self, 'points', tuple(sorted(known, key=lambda p: p.hollow)))


@dataclasses.dataclass(frozen=True)
class Axis:
  """low and high: nan for what the points need. ticks: () for round ones. log: of base 2."""

  name: str
  low: float = NAN
  high: float = NAN
  ticks: tuple[float, ...] = ()
  log: bool = False


@dataclasses.dataclass(frozen=True)
class Figure:
  """rows: names of the rows of y, or none for an axis y. labels: what controls choose it by.

  counted: what the counts of its points are, '' where they have none. background: a PNG over the
  plane of both axes.
  """

  title: str
  x: Axis
  y: Axis | None
  series: tuple[Series, ...]
  rows: tuple[str, ...] = ()
  caption: str = ''
  counted: str = ''
  legend: bool = True
  labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
  size: tuple[int, int] = (440, 300)
  background: bytes = b''

  @property
  def empty(self) -> bool:
    return not any(s.points for s in self.series)

  def csv(self) -> str:
    """A row for each point, in the order of the drawing; columns that hold nothing are left out."""
    columns: dict[str, list[Any]] = {'series': [], 'label': []}
    y = self.y.name if self.y else 'row'
    names = (self.x.name, 'from', 'to', y, f'{y}, low', f'{y}, high', self.counted or 'count')
    columns |= {name: [] for name in names}
    for s in self.series:
      for p in s.points:
        place = p.y if self.y else self.rows[round(p.y)]
        values = (s.name, p.label, p.x, p.left, p.right, place, p.low, p.high, p.counted)
        for column, value in zip(columns.values(), values, strict=True):
          column.append(_short(value))
    kept = {k: v for k, v in columns.items() if any(x not in ('', None) for x in v)}
    return table.csv([*kept], zip(*kept.values(), strict=True))


def _short(value: Any) -> Any:
  """Four digits, more than a drawing shows; counts are whole."""
  if isinstance(value, str):
    return value
  if not math.isfinite(value):
    return None
  return f'{value:.0f}' if value == round(value) else f'{value:.4g}'


def of_values(x: Iterable[Any], y: Iterable[Any], counted: Iterable[Any] = ()) -> tuple[Point, ...]:
  """Points of columns of plain content, in which a missing number is None."""
  rows = itertools.zip_longest(zip(x, y, strict=True), counted)
  return tuple(Point(value(a), value(b), counted=value(n)) for (a, b), n in rows)


def value(number: Any) -> float:
  """None, as plain content has it, as nan."""
  return NAN if number is None else float(number)


def thinned(points: Sequence[Point], tolerance: float) -> tuple[Point, ...]:
  """Points of a curve without those that its line misses by less than `tolerance` of its range.

  By Douglas and Peucker; both ends stay.
  """
  known = [p for p in points if math.isfinite(p.x) and math.isfinite(p.y)]
  if len(known) < 3:
    return tuple(known)
  wide, tall = (max(c) - min(c) or 1.0 for c in zip(*((p.x, p.y) for p in known), strict=True))
  kept, spans = {0, len(known) - 1}, [(0, len(known) - 1)]
  while spans:
    first, last = spans.pop()
    a, b = known[first], known[last]
    line = (b.x - a.x) / wide, (b.y - a.y) / tall
    off = [_off(((p.x - a.x) / wide, (p.y - a.y) / tall), line) for p in known[first + 1 : last]]
    if off and max(off) > tolerance:
      middle = first + 1 + off.index(max(off))
      kept.add(middle)
      spans += [(first, middle), (middle, last)]
  return tuple(known[k] for k in sorted(kept))


def _off(p: tuple[float, float], line: tuple[float, float]) -> float:
  """How far a point is off the line from (0, 0), beyond its ends off these."""
  length = line[0] ** 2 + line[1] ** 2
  share = (p[0] * line[0] + p[1] * line[1]) / length if length else 0.0
  share = min(1.0, max(0.0, share))
  return math.hypot(p[0] - share * line[0], p[1] - share * line[1])
