"""One table, four renderings: each shows every cell, and no name is markup or a formula."""

import csv
import io
import re

import numpy as np
import pytest

from car_jax.report import page
from car_jax.report.table import Cell, Column, Row, block, number, prose, share, table
from car_jax.report.table import csv as as_csv
from tests.report.document import Document

HOSTILE = '<script>alert(1)</script>"\'|a](http://c)\n=cmd\x1b[31m'
TABLE = table(
  'a title',
  [Column('name', words=True), Column('ECE, %', better='low', tip='why', key='ece'), 'more'],
  [
    Row((Cell('a'), Cell('1.5', '1.0 – 2.0', best=True), Cell('x')), dict(model='a')),
    [HOSTILE, Cell('2.5'), Cell('–')],
  ],
  sortable=True,
)


def html(t):
  text = page.ENVIRONMENT.from_string("{% import 'macros.html.j2' as m %}{{ m.table(t) }}").render(
    t=t
  )
  assert '<script' not in text
  return Document(text), text


def test_html_has_every_cell_and_what_the_script_needs():
  found, text = html(TABLE)
  assert found.rows[0] == ['name', 'ECE, % ↓', 'more']
  assert found.rows[1] == ['a', '1.5 1.0 – 2.0', 'x']
  assert ' '.join(found.rows[2][0].split()) == ' '.join(HOSTILE.split())
  assert '<b>1.5</b>' in text
  assert 'data-item data-model="a"' in text
  assert 'data-name="ece" data-better="low"' in text
  assert 'role="group" aria-label="a title"' in text
  assert 'tabindex="0"' in text


def test_markdown_is_a_whole_table():
  lines = TABLE.markdown()
  assert lines[:3] == [
    '| name | ECE, % ↓ | more |', '|---|---:|---:|', '| a | **1.5** (1.0 – 2.0) | x |',
  ]  # fmt: skip
  assert len(lines) == 4
  assert len({len(re.findall(r'(?<!\\)\|', line)) for line in lines}) == 1
  assert '<' not in lines[3]
  assert '](' not in lines[3]


def test_a_terminal_has_as_many_columns_as_fit_and_no_codes():
  wide = table(
    'w', ['name', *(f'column {k}' for k in range(9))], [['a'] + [f'{k}.000' for k in range(9)]]
  )
  lines = wide.terminal(40)
  assert max(map(len, lines)) <= 40
  assert re.findall(r'\d\.000', '\n'.join(lines)) == [f'{k}.000' for k in range(9)]
  assert [line.startswith('a ') for line in lines].count(True) == lines.count('') + 1
  text = '\n'.join(TABLE.terminal())
  assert '\x1b' not in text
  assert '1.5*(1.0 – 2.0)' in text
  assert 'alert(1)' in text


def test_csv_has_no_formula_and_nothing_for_what_is_no_number():
  rows = [
    ['=a', np.float32('nan'), np.float32(0.5)],
    ['-1.5', float('inf'), 3],
    [HOSTILE, None, ''],
  ]
  found = [*csv.reader(io.StringIO(as_csv(['name', '=x', 'y'], rows)))]
  assert found == [['name', "'=x", 'y'], ["'=a", '', '0.5'], ['-1.5', '', '3'], [HOSTILE, '', '']]


def test_prose_and_code_are_text():
  assert prose('a <b>\n[c](d)') == 'a &lt;b> [c]\\(d)'
  assert block('```</pre>') == ['<pre>', '```&lt;/pre&gt;', '</pre>']


@pytest.mark.parametrize(
  ('value', 'digits', 'shown'),
  [
    (0.1234, 3, '0.123'),
    (-2.0, 1, '−2.0'),
    (-2e-4, 3, '0.000'),
    (None, 3, '–'),
    (float('nan'), 3, '–'),
  ],
)
def test_numbers(value, digits, shown):
  assert number(value, digits) == shown


def test_shares():
  assert share(0.1234) == '12.3 %'
  assert share(0.1234, 2, unit=False) == '12.34'
  assert share(None) == '–'
