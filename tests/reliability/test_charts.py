"""Numbers land where they should: positions are read back from the SVG by its own tick labels."""

import copy
import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from car_jax.reliability import charts, curves
from car_jax.reliability.view import View
from tests.reliability import fake_study

STUDY = fake_study.study()
SVG = '{http://www.w3.org/2000/svg}'


def marks(drawing):
  """[(x, y, tip)] of all markers, in pixels."""
  out = []
  for e in ElementTree.fromstring(drawing).iter(f'{SVG}path'):
    if e.get('class') == 'mark':
      x, y = map(float, re.findall(r'[-\d.]+', e.get('transform')))
      tip = e.find(f'{SVG}title')
      out.append((x, y, '' if tip is None else tip.text))
  return out


def scales(drawing, y_at):
  """x and y as functions of pixels, fitted to the tick labels; those of y end at `y_at`."""
  across, up = [], []
  for e in ElementTree.fromstring(drawing).iter(f'{SVG}text'):
    if not re.fullmatch(r'−?[\d.]+', e.text):
      continue
    x, y, value = float(e.get('x')), float(e.get('y')), float(e.text.replace('−', '-'))
    up.append((y - 4, value)) if x == y_at else across.append((x, value))
  return [np.poly1d(np.polyfit(*zip(*pairs, strict=True), 1)) for pairs in (across, up)]


def test_scatter_places_every_model_and_set():
  view = View(STUDY)
  miou, ece = view.metrics['miou'], view.metrics['ece']
  drawing = charts.scatter(view, 'clusters', miou, ece)
  x, y = scales(drawing, 36)
  found = marks(drawing)
  assert len(found) == 3 * 6
  for (model, dataset, calibrator), cell in view.cells.items():
    if calibrator == 'clusters':
      [(px, py, _)] = [m for m in found if m[2].startswith(f'{model}, {dataset}, ')]
      assert x(px) == pytest.approx(100 * cell['values']['miou']['value'], abs=0.1)
      assert y(py) == pytest.approx(100 * cell['values']['ece']['value'], abs=0.05)


def test_scatter_arrows_lead_from_in_domain_to_the_strongest_shift():
  view = View(STUDY)
  assert (view.reference, view.strongest) == ('Cityscapes val', 'fog 1.0')
  drawing = charts.scatter(view, 'none', view.metrics['miou'], view.metrics['ece'])
  at = {tip.split(': ')[0]: (x, y) for x, y, tip in marks(drawing)}
  lines = [
    tuple(float(e.get(k)) for k in ('x1', 'y1', 'x2', 'y2'))
    for e in ElementTree.fromstring(drawing).iter(f'{SVG}line')
    if 'var(--s1)' in e.get('style')
  ]
  shaft, *head = lines
  start, end = at['SETR-PUP, Cityscapes val, none'], at['SETR-PUP, fog 1.0, none']
  assert math.dist(shaft[:2], start) == pytest.approx(7, abs=0.2)
  assert math.dist(shaft[2:], end) == pytest.approx(7, abs=0.2)
  assert len(head) == 2


def test_lines_by_shift_with_bands():
  view = View(STUDY)
  m, sets = view.metrics['ece'], view.lines()['fog']
  assert sets == ['Cityscapes val', 'fog 0.3', 'fog 1.0']
  rows = charts.rows_of(view, [*view.models], 'none')
  drawing = charts.by_shift(view, m, sets, rows)
  x, y = scales(drawing, 34)
  found = marks(drawing)
  assert len(found) == 9
  assert [round(x(p[0]), 2) for p in found[:3]] == [0, 0.3, 1]
  values = [100 * view.value('SegFormer-B0', s, 'none', 'ece') for s in sets]
  np.testing.assert_allclose([y(p[1]) for p in found[:3]], values, atol=0.05)
  bands = re.findall(r'class="band" d="M([^"]*)z"', drawing)
  assert len(bands) == 3
  corners = np.array([[float(v) for v in c.split()] for c in bands[0].split('L')])
  ends = [100 * view.interval('SegFormer-B0', s, 'none', 'ece')[0] for s in sets]
  np.testing.assert_allclose(y(corners[:3, 1]), ends, atol=0.05)


def test_many_lines_have_no_bands_and_differ_in_colour_or_marker():
  view = View(fake_study.study(models=30))
  rows = charts.rows_of(view, [*view.models], 'none')
  assert 'class="band"' not in charts.by_shift(view, view.metrics['ece'], view.lines()['fog'], rows)
  assert len({(s.colour, s.shape) for s in rows}) == 30


def test_bars_reach_their_values():
  view = View(STUDY)
  drawing = charts.bars(view, 'SETR-PUP', view.metrics['ece'], ['none', 'local'])
  root = ElementTree.fromstring(drawing)
  ticks = [
    (float(e.get('x')), float(e.text))
    for e in root.iter(f'{SVG}text')
    if e.get('text-anchor') == 'middle' and re.fullmatch(r'[\d.]+', e.text)
  ]
  x = np.poly1d(np.polyfit(*zip(*ticks, strict=True), 1))
  found = {e.find(f'{SVG}title').text.split(':')[0]: e for e in root.iter(f'{SVG}rect')}
  assert len(found) == 12
  for dataset in view.sets:
    bar = found[f'SETR-PUP, {dataset}, local']
    end = float(bar.get('x')) + float(bar.get('width'))
    assert x(end) == pytest.approx(100 * view.value('SETR-PUP', dataset, 'local', 'ece'), abs=0.1)


def test_reliability_diagram():
  style = charts.styles(['none'])['none']
  table = dict(confidence=[None, 0.4, 0.9], frequency=[None, 0.3, 0.5], pixels=[0, 10, 1000])
  drawing = curves.reliability(table, style)
  x = lambda px: (px - 40) / 210
  y = lambda py: (216 - py) / 190
  found = [(round(x(a), 3), round(y(b), 3)) for a, b, _ in marks(drawing)]
  assert found == [(0.4, 0.3), (0.9, 0.5)]
  assert '1,000 pixels' in drawing
  [shape] = re.findall(r'class="columns" d="([^"]*)"', drawing)
  tall = [float(v) for v in re.findall(r'v(\d[\d.]*)', shape)]
  assert tall == pytest.approx([14, 42], abs=0.1)  # log 10 : log 1000


def test_points_are_thinned_and_keep_their_ends():
  x = np.linspace(0, 1, 5000).tolist()
  found = curves.points(x, x)
  assert len(found) <= curves.MOST + 1
  assert found[0] == (0, 0)
  assert found[-1] == (1, 1)
  assert curves.points([0, 0.5, 1], [None, float('nan'), 2]) == [(1, 2)]
  assert curves.points(None, None) == []


@pytest.mark.parametrize('values', [[], [0.5], [None, None], [float('nan'), 0.2]])
def test_degenerate_curves_do_not_break(values):
  style = charts.styles(['none'])['none']
  drawn = [
    curves.reliability(
      dict(confidence=values, frequency=values, pixels=[3.0] * len(values)), style
    ),
    curves.rejection({style: dict(rejected=values, risk=values, best=values)}),
    curves.roc({style: dict(fpr=values, tpr=values)}, 'wrong', 'right'),
  ]
  for drawing in (*drawn, curves.rejection({}), curves.reliability({}, style)):
    ElementTree.fromstring(drawing)
    assert 'nan' not in drawing


def test_undefined_values_are_left_out_of_charts():
  study = copy.deepcopy(STUDY)
  for k, cell in enumerate(study['cells']):
    if cell['model'] == 'SETR-PUP':
      cell['values']['ece'] = [None, dict(value=None), dict(value=float('nan'))][k % 3]
  view = View(study)
  ece = view.metrics['ece']
  rows = charts.rows_of(view, [*view.models], 'none')
  drawn = [
    charts.scatter(view, 'none', view.metrics['miou'], ece),
    charts.by_shift(view, ece, view.lines()['fog'], rows),
    charts.bars(view, 'SETR-PUP', ece, ['none']),
  ]
  assert not any('nan' in d for d in drawn)
  assert [len(marks(d)) for d in drawn] == [12, 6, 0]
