"""Drawings are read back: what they show is where it should be, and is what their CSV says."""

import csv
import io
import itertools
import math
import re
import xml.etree.ElementTree as ElementTree

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from car_jax.report import svg
from car_jax.report.figure import (
  DOTTED,
  TICK,
  Axis,
  Figure,
  Point,
  Series,
  Style,
  of_values,
  styles,
  thinned,
)
from tests.report.drawing import Drawing

ONE = styles(['one', 'two'])
SMALL = Axis('x', 0, 10), Axis('y, %')


def plane(*series, **how):
  return Figure('a title', *SMALL, tuple(series), **how)


def line(name='one', **how):
  points = (Point(1, 20, 18, 23), Point(4, 35.5, 30, 41), Point(9, 12.25, 9, 14))
  return Series(name, ONE[name], points, **how)


def test_points_are_where_their_values_are():
  drawing = Drawing(svg.svg(plane(line(), line('two'))))
  for name in ('one', 'two'):
    found = [(drawing.x(x), drawing.y(y)) for x, y in drawing.marks(name)]
    expected = [(p.x, p.y) for p in line().points]
    np.testing.assert_allclose(found, expected, atol=0.15)
  joined = drawing.line('one')
  np.testing.assert_allclose([(drawing.x(x), drawing.y(y)) for x, y in joined], expected, atol=0.15)


def test_bands_and_whiskers_reach_the_ends_of_intervals():
  drawing = Drawing(svg.svg(plane(line(band=True), line('two'))))
  low_then_high = drawing.path('one', 'b')
  ends = [18, 30, 9, 14, 41, 23]
  np.testing.assert_allclose([drawing.y(y) for _, y in low_then_high], ends, atol=0.15)
  spans = re.findall(r'M[\d.]+ ([\d.]+)V([\d.]+)', drawing.shape('two', 'w'))
  found = [[drawing.y(float(v)) for v in pair] for pair in spans]
  np.testing.assert_allclose(found, [(18, 23), (30, 41), (9, 14)], atol=0.15)


def test_a_logarithmic_axis_has_its_ticks_at_equal_steps():
  x = Axis('samples', 1, 16, (1, 2, 4, 8, 16), log=True)
  series = Series('one', ONE['one'], of_values([1, 4, 16], [1, 2, 3]))
  drawing = Drawing(svg.svg(Figure('n', x, Axis('y'), (series,))))
  (first, _), (middle, _), (last, _) = drawing.marks('one')
  assert middle - first == pytest.approx(last - middle, abs=0.2)
  assert [t for t in ('1', '2', '4', '8', '16') if t in drawing.texts] == ['1', '2', '4', '8', '16']


def test_rows_hold_a_mark_for_each_series_one_below_the_other():
  names = ('a & b', 'c')
  marks = [
    Series(n, ONE[n], (Point(3, 0, left=2, right=5), Point(6 + k, 1)), line=False)
    for k, n in enumerate(ONE)
  ]
  right = Series('as it should be', TICK, (Point(4, 0), Point(5, 1)))
  drawing = Drawing(svg.svg(Figure('rows', Axis('x', 0, 10), None, (right, *marks), rows=names)))
  assert {*names} < {*drawing.texts}
  (x0, y0), (x1, y1) = drawing.marks('one')
  (u0, v0), (u1, v1) = drawing.marks('two')
  np.testing.assert_allclose([drawing.x(v) for v in (x0, x1, u0, u1)], [3, 6, 3, 7], atol=0.05)
  assert y0 < v0 < y1 < v1
  assert drawing.shape('as it should be', 'l') == ''  # nothing joins them
  span = re.findall(r'M([\d.]+) [\d.]+H([\d.]+)', drawing.shape('one', 'w'))
  np.testing.assert_allclose([drawing.x(float(v)) for v in span[0]], [2, 5], atol=0.05)
  ticks = [float(v) for v in re.findall(r'M([\d.]+) ', drawing.shape('as it should be', 'm'))]
  np.testing.assert_allclose([drawing.x(v) for v in ticks], [4, 5], atol=0.05)


@pytest.mark.parametrize(
  ('ends', 'shown'),
  [
    ((0.03, 40), ['0.1', '1', '10']),
    ((0.15, 2.5), ['0.2', '0.5', '1', '2']),
    ((0.15, 0.45), ['0.2', '0.3', '0.4']),
  ],
)
def test_a_logarithmic_axis_finds_round_ticks_of_its_own(ends, shown):
  scale = svg.Scale(Axis('GFLOP', *ends, log=True), ends, 0, 100)
  assert [*scale.ticks.values()] == shown
  share = lambda v: np.log(v / ends[0]) / np.log(ends[1] / ends[0])
  np.testing.assert_allclose([scale(t) for t in scale.ticks], [100 * share(t) for t in scale.ticks])


def test_counts_are_columns_on_a_logarithmic_scale():
  points = of_values([2, 5, 8], [1, 2, 3], counted=[10, 1000, 0])
  drawing = Drawing(svg.svg(plane(Series('one', ONE['one'], points), counted='pixels')))
  tall = [float(v) for v in re.findall(r'v-([\d.]+)', drawing.shape('one', 'c'))]
  assert len(tall) == 2  # nothing has no column
  assert tall[1] / tall[0] == pytest.approx(3, abs=0.05)
  assert {'pixels', '(log)'} <= {*drawing.texts}


def test_an_arrow_leads_from_the_first_to_the_last():
  points = (Point(1, 10), Point(5, 30), Point(9, 20))
  series = Series('one', ONE['one'], points, line=False, arrow=True)
  drawing = Drawing(svg.svg(plane(series)))
  start, *_, end = drawing.line('one')
  first, _, last = drawing.marks('one')
  assert math.dist(start, first) == pytest.approx(7, abs=0.2)
  assert math.dist(end, last) == pytest.approx(7, abs=0.2)


def test_the_csv_has_a_row_for_each_mark_in_the_order_of_the_drawing():
  points = (Point(1, 20, hollow=True, label='later'), Point(4, 35), Point(float('nan'), 3))
  figure = plane(Series('one', ONE['one'], points), line('two'))
  rows = [*csv.DictReader(io.StringIO(figure.csv()))]
  drawing = Drawing(svg.svg(figure))
  for name in ('one', 'two'):
    own = [r for r in rows if r['series'] == name]
    found = [(drawing.x(x), drawing.y(y)) for x, y in drawing.marks(name)]
    np.testing.assert_allclose(found, [(float(r['x']), float(r['y, %'])) for r in own], atol=0.2)
  assert [r['label'] for r in rows[:2]] == ['', 'later']
  assert 'from' not in rows[0]  # no point has it


HOSTILE = '<script>alert(1)</script>"\'|\n=cmd'


def test_names_are_text_in_drawings_and_their_csv():
  series = Series(HOSTILE, ONE['one'], (Point(1, 0, label=HOSTILE),))
  figure = Figure(HOSTILE, Axis(HOSTILE), None, (series,), rows=('=1+1',))
  for text in (svg.svg(figure), svg.standalone(figure)):
    assert '<script' not in text
    ElementTree.fromstring(text)
  [row] = csv.DictReader(io.StringIO(figure.csv()))
  assert row['series'] == HOSTILE
  assert row['row'] == "'=1+1"


def test_a_file_of_its_own_has_its_colours_for_light_and_dark():
  text = svg.standalone(plane(line()))
  root = ElementTree.fromstring(text)
  assert root.tag == '{http://www.w3.org/2000/svg}svg'
  assert 'prefers-color-scheme:dark' in text
  used = {*re.findall(r'var\(--(\w+)\)', text)} - {'c'}
  assert all(f'--{name}:' in text for name in used)


def test_many_names_differ_in_colour_or_marker_and_the_floor_competes_with_none():
  names = [f'm{k}' for k in range(45)]
  look = styles([*names[:3], 'readers', *names[3:]], floor='readers')
  assert len({(look[n].colour, look[n].shape) for n in names}) == 45
  assert look['readers'].colour == 'ink'
  assert look['m3'] == styles(names)['m3']


def test_a_long_legend_stays_within_the_drawing():
  series = [Series(f'a model with a name {k}', s, ()) for k, s in enumerate([DOTTED] * 12)]
  drawing = Drawing(svg.svg(plane(*series, line())))
  places = [float(t.get('x')) + 6 * len(t.text) for t in drawing.legend]
  assert max(places) <= 440
  assert len(drawing.legend) == 13


def test_nothing_to_draw_is_a_drawing():
  nothing = Series('one', ONE['one'], (Point(float('nan'), 1),))
  figures = [plane(), plane(nothing), Figure('t', Axis('x'), None, (nothing,), rows=('a',))]
  for figure in figures:
    assert figure.empty
    assert 'nan' not in svg.svg(figure)
    ElementTree.fromstring(svg.svg(figure))


@hypothesis.given(
  st.lists(st.tuples(*[st.floats(-1e6, 1e6)] * 3, st.floats(0, 1e9)), min_size=1, max_size=20)
)
@hypothesis.settings(max_examples=60, deadline=None)
def test_any_values_are_drawn_inside(values):
  points = tuple(Point(x, y, low=y - abs(r), high=y + abs(r), counted=n) for x, y, r, n in values)
  series = Series('one', Style('s0', 'circle'), points, band=True)
  drawing = Drawing(svg.svg(Figure('t', Axis('x'), Axis('y'), (series,), counted='pixels')))
  assert len(drawing.marks('one')) == len(points)
  places = np.array(drawing.marks('one'))
  assert (places >= 0).all()
  assert (places <= [440, 400]).all()


@hypothesis.given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=60))
@hypothesis.settings(max_examples=60, deadline=None)
def test_a_thinned_curve_keeps_its_ends_and_misses_no_point(values):
  xs = sorted({round(x, 3) for x, _ in values})
  points = [Point(x, y) for x, (_, y) in zip(xs, values, strict=False)]
  kept = thinned(points, 0.01)
  assert kept[0] == points[0]
  assert kept[-1] == points[-1]
  assert {*kept} <= {*points}
  if len(points) > 1:
    tall = max(p.y for p in points) - min(p.y for p in points) or 1
    # off a line by at most as far along y as a point is off it at right angles, over its slope
    wide = points[-1].x - points[0].x or 1
    for p in points:
      near = min(_distance(p, a, b, wide, tall) for a, b in itertools.pairwise(kept))
      assert near <= 0.01 + 1e-9


def _distance(p, a, b, wide, tall):
  at = lambda q: np.array([q.x / wide, q.y / tall])
  along, off = at(b) - at(a), at(p) - at(a)
  t = np.clip(off @ along / max(along @ along, 1e-12), 0, 1)
  return float(np.linalg.norm(off - t * along))


def test_a_straight_curve_is_its_ends():
  x = np.linspace(0, 1, 5000)
  assert len(thinned(of_values(x, 2 * x), 0.001)) == 2
  assert of_values([0, None], [None, 2])[0].x == 0
  assert thinned(of_values([], []), 0.1) == ()
