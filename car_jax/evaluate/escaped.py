"""Names that somebody else chose, in Markdown and CSV: they are shown, and are never markup."""

import csv as csv_module
import html
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


def prose(value: Any) -> str:
  """A line of Markdown's running text: neither HTML nor a link begins in it."""
  return ' '.join(str(value).replace('<', '&lt;').replace('](', ']\\(').split())


def cell(value: Any) -> str:
  """As prose, in a table: a bar does not end it."""
  return prose(value).replace('|', '\\|')


def table(
  head: Sequence[Any], rows: Iterable[Sequence[Any]], *, numbers: bool = False
) -> list[str]:
  """Lines of a Markdown table; numbers: all columns but the first are flush right."""
  line = lambda cells: f'| {" | ".join(map(cell, cells))} |'
  rule = '|---' + ('|---:' if numbers else '|---') * (len(head) - 1) + '|'
  return [line(head), rule, *map(line, rows)]


def block(text: str) -> list[str]:
  """Lines of a block of code; a fence of backticks would end at those of the text."""
  return ['<pre>', html.escape(text), '</pre>']


def csv(head: Sequence[Any], rows: Iterable[Sequence[Any]]) -> str:
  """A file of CSV; what is None or not finite is left empty."""
  out = io.StringIO()
  writer = csv_module.writer(out, lineterminator='\n')
  writer.writerow(head)
  writer.writerows(map(_csv_cell, row) for row in rows)
  return out.getvalue()


def _csv_cell(value: Any) -> Any:
  """A spreadsheet takes a text that begins with a sign for a formula, so it gets a quote."""
  if isinstance(value, float | np.floating):
    return float(value) if math.isfinite(value) else None
  signed = isinstance(value, str) and value[:1] in ('=', '+', '-', '@', '\t', '\r')
  return f"'{value}" if signed else value
