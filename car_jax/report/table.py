"""A table as data, written as HTML (by the page's macro), Markdown, CSV or for a terminal.

Names that somebody else chose are shown as they are, and are never markup or a formula.
"""

import csv as csv_module
import dataclasses
import html
import io
import math
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from car_jax.metrics.base import ARROWS

WIDTH = 80  # of a terminal
NAMES = 30  # most of its columns for names, which are wrapped


def number(value: Any, digits: int = 3) -> str:
  """'0.123' with a true minus sign, none of a zero; a dash for what is None or not finite."""
  if value is None or not math.isfinite(value):
    return '–'
  return f'{float(value):z.{digits}f}'.replace('-', '−')


def share(value: Any, digits: int = 1, *, unit: bool = True) -> str:
  """A fraction in per cent: '12.3 %'."""
  shown = number(None if value is None else 100 * value, digits)
  return f'{shown} %' if unit and shown != '–' else shown


def span(ends: Sequence[Any], digits: int, joint: str = ' to ', *, scale: float = 1.0) -> str:
  """'0.110 to 0.135', or nothing where an end is undefined."""
  texts = [number(None if v is None else scale * v, digits) for v in ends]
  return '' if '–' in texts else joint.join(texts)


@dataclasses.dataclass(frozen=True)
class Cell:
  """text with a note below it, such as an interval. best: of its column.

  heat: depth of its background from 0 to 1. colour: of a swatch before the text.
  """

  text: str
  note: str = ''
  best: bool = False
  heat: float | None = None
  colour: str = ''
  strong: bool = False


@dataclasses.dataclass(frozen=True)
class Column:
  """words: holds text. note: below the name. tip: shown on pointing. key: what #sort=KEY names."""

  name: str
  words: bool = False
  better: str = ''
  note: str = ''
  tip: str = ''
  group: str = ''
  key: str = ''

  @property
  def title(self) -> str:
    return f'{self.name} {ARROWS[self.better]}'.strip()


@dataclasses.dataclass(frozen=True)
class Row:
  """labels: what the page's controls choose it by. floor: competes with no other row."""

  cells: tuple[Cell, ...]
  labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
  floor: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
  """title: of the whole, also for who cannot see it. sortable: by a script, where there is one."""

  title: str
  columns: tuple[Column, ...]
  rows: tuple[Row, ...]
  sortable: bool = False
  about: str = ''

  @property
  def groups(self) -> list[tuple[str, int]]:
    """The columns' groups with their widths; none where no column has one."""
    out: list[tuple[str, int]] = []
    for c in self.columns:
      if out and out[-1][0] == c.group:
        out[-1] = (c.group, out[-1][1] + 1)
      else:
        out.append((c.group, 1))
    return out if any(name for name, _ in out) else []

  def markdown(self) -> list[str]:
    """Lines; the best of a column in bold, notes in brackets."""
    line = lambda cells: f'| {" | ".join(cells)} |'
    rule = ''.join('---|' if c.words else '---:|' for c in self.columns)
    rows = [line(map(_markdown, row.cells)) for row in self.rows]
    return [line(cell(c.title) for c in self.columns), f'|{rule}', *rows]

  def terminal(self, width: int = WIDTH) -> list[str]:
    """Lines; as many columns side by side as fit, the others below, all beside the columns of names
    that come first; * is beside the best."""
    names = [textwrap.wrap(_printable(row.cells[0].text), NAMES) or [''] for row in self.rows]
    first = max(len(part) for name in (*names, [self.columns[0].name]) for part in name)
    texts = [
      [_printable(c.title), *(_plain(r.cells[k]) for r in self.rows)]
      for k, c in enumerate(self.columns)
    ]
    aligned = [_aligned(t, c) for t, c in zip(texts, self.columns, strict=True)]
    lead = next((k for k, c in enumerate(self.columns) if k and not c.words), 1)
    beside, columns = aligned[1:lead], aligned[lead:] or [[''] * len(texts[0])]
    lines: list[str] = []
    while columns:
      taken, used = 1, first + sum(2 + len(c[0]) for c in (*beside, columns[0]))
      while taken < len(columns) and used + 2 + len(columns[taken][0]) <= width:
        used += 2 + len(columns[taken][0])
        taken += 1
      lines += [''] if lines else []
      shown = [*beside, *columns[:taken]]
      lines.append('  '.join([self.columns[0].name.ljust(first), *(c[0] for c in shown)]))
      for row, name in enumerate(names, 1):
        lines.append('  '.join([name[0].ljust(first), *(c[row] for c in shown)]))
        lines += name[1:]
      columns = columns[taken:]
    return [line.rstrip() for line in lines]


def table(
  title: str,
  head: Sequence[str | Column],
  rows: Iterable[Sequence[Any] | Row],
  *,
  words: Collection[int] = (0,),
  about: str = '',
  sortable: bool = False,
) -> Table:
  """A table of texts, cells or rows; the columns `words` hold text."""
  columns = tuple(h if isinstance(h, Column) else Column(h, k in words) for k, h in enumerate(head))
  as_cell = lambda c: c if isinstance(c, Cell) else Cell(str(c))
  made = tuple(r if isinstance(r, Row) else Row(tuple(map(as_cell, r))) for r in rows)
  return Table(title, columns, made, sortable, about)


def _aligned(texts: Sequence[str], column: Column) -> list[str]:
  width = max(map(len, texts))
  return [
    t.ljust(width) if column.words or '(' in ''.join(texts) else t.rjust(width) for t in texts
  ]


def _plain(c: Cell) -> str:
  shown = _printable(c.text) + ('*' if c.best else ' ')
  return (shown + (f'({_printable(c.note)})' if c.note else '')).rstrip()


def _printable(text: str) -> str:
  """One line without codes that a terminal would obey."""
  return ' '.join(''.join(c if c.isprintable() else ' ' for c in text).split())


def _markdown(c: Cell) -> str:
  text = cell(c.text)
  text = f'**{text}**' if c.best or c.strong else text
  return f'{text} ({cell(c.note)})' if c.note else text


def joined(names: Sequence[str]) -> str:
  """'A, B and C'."""
  return ' and '.join(filter(None, (', '.join(names[:-1]), names[-1])))


def prose(value: Any) -> str:
  """A line of Markdown's running text: neither HTML nor a link begins in it."""
  return ' '.join(str(value).replace('<', '&lt;').replace('](', ']\\(').split())


def cell(value: Any) -> str:
  """As prose, in a table: a bar does not end it."""
  return prose(value).replace('|', '\\|')


def block(text: str) -> list[str]:
  """Lines of a block of code in Markdown; a fence of backticks would end at those of the text."""
  return ['<pre>', html.escape(text), '</pre>']


def csv(head: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
  """A file of CSV; what is None or not finite is left empty."""
  out = io.StringIO()
  writer = csv_module.writer(out, lineterminator='\n')
  writer.writerow(map(_csv_cell, head))
  writer.writerows(map(_csv_cell, row) for row in rows)
  return out.getvalue()


def _csv_cell(value: Any) -> Any:
  """A spreadsheet takes a text that begins with a sign for a formula, so it gets a quote."""
  if isinstance(value, float | np.floating):
    return float(value) if math.isfinite(value) else None
  if isinstance(value, str) and value[:1] in ('=', '+', '-', '@', '\t', '\r'):
    return value if _is_number(value) else f"'{value}"
  return value


def _is_number(text: str) -> bool:
  try:
    float(text)
  except ValueError:
    return False
  return True
