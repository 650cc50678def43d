"""The figures of a study hold its numbers: every point is compared with its cell."""

import copy
import math

import pytest

from car_jax.reliability.view import View
from car_jax.report import study_figures as figures
from car_jax.report import svg
from tests.reliability import fake_study

STUDY = fake_study.study()


def points(figure, name):
  return next(s for s in figure.series if s.name == name).points


def test_scatter_places_every_model_and_set():
  view = View(STUDY)
  figure = next(f for f in figures.scatters(view) if f.labels['calibrator'] == 'clusters')
  assert len(figure.series) == 3
  for (model, dataset, calibrator), cell in view.cells.items():
    if calibrator == 'clusters':
      [p] = [p for p in points(figure, model) if p.label == dataset]
      assert p.x == pytest.approx(100 * cell['values']['miou']['value'])
      assert p.y == pytest.approx(100 * cell['values']['ece']['value'])
      assert p.hollow == (dataset != 'Cityscapes val')


def test_scatter_arrows_lead_from_in_domain_to_the_strongest_shift():
  view = View(STUDY)
  assert (view.reference, view.strongest) == ('Cityscapes val', 'fog 1.0')
  for figure in figures.scatters(view):
    for series in figure.series:
      assert series.arrow
      assert [series.points[k].label for k in (0, -1)] == ['Cityscapes val', 'fog 1.0']
  study = copy.deepcopy(STUDY)
  for cell in study['cells']:
    if (cell['model'], cell['set']) == ('SETR-PUP', 'fog 1.0'):
      cell['values']['ece'] = None
  plain = figures.scatters(View(study))[0]
  assert [s.arrow for s in plain.series] == [True, False, True]


def test_lines_by_shift_with_intervals():
  view = View(STUDY)
  by = {(f.labels['condition'], f.labels['metric']): f for f in figures.models_by_shift(view)}
  figure = by['fog', 'ece']
  for model in view.models:
    sets = ['Cityscapes val', 'fog 0.3', 'fog 1.0']
    assert [p.label for p in points(figure, model)] == sets
    assert [p.x for p in points(figure, model)] == [0, 0.3, 1]
    for p, dataset in zip(points(figure, model), sets, strict=True):
      entry = view.entry(model, dataset, 'none', 'ece')
      wanted = [100 * entry[k] for k in ('value', 'low', 'high')]
      assert [p.y, p.low, p.high] == pytest.approx(wanted)
  [one] = {(f.y.low, f.y.high) for (_, m), f in by.items() if m == 'ece'}
  assert one[1] > 100 * max(view.values('ece'))  # every figure of a metric has its axis


def test_calibrators_are_compared_for_each_model():
  view = View(STUDY)
  figure = next(
    f for f in figures.calibrators_by_shift(view)
    if f.labels == dict(condition='night', model='SETR-PUP')
  )  # fmt: skip
  assert [s.name for s in figure.series] == [*view.calibrators]
  p = points(figure, 'local')[-1]
  assert p.y == pytest.approx(100 * view.value('SETR-PUP', 'night 1.0', 'local', 'ece'))


def test_many_lines_have_no_bands():
  view = View(fake_study.study(models=30))
  assert not any(s.band for f in figures.models_by_shift(view) for s in f.series)


def test_rows_of_sets_have_every_calibrator():
  view = View(STUDY)
  figure = next(f for f in figures.by_set(view) if f.labels == dict(model='SETR-PUP', metric='ece'))
  assert {*figure.rows} == {*view.sets}
  assert figure.rows[0] == view.reference
  for calibrator in view.calibrators:
    for p in points(figure, calibrator):
      key = ('SETR-PUP', figure.rows[p.y], calibrator)
      ends = [100 * v for v in view.interval(*key, 'ece')]
      assert [p.x, p.left, p.right] == pytest.approx([100 * view.value(*key, 'ece'), *ends])


def test_reliability_diagrams_and_counts():
  view = View(STUDY)
  drawn = {tuple(f.labels.values()): f for f in figures.reliability(view)}
  assert len(drawn) == 18
  for (model, dataset, calibrator), entry in view.curves.items():
    table = entry['reliability']
    rows = zip(table['confidence'], table['frequency'], table['pixels'], strict=True)
    wanted = [(100 * c, 100 * f, n) for c, f, n in rows if n]
    found = [(p.x, p.y, p.counted) for p in points(drawn[model, dataset], calibrator)]
    assert found == [pytest.approx(row) for row in wanted]


def test_curves_of_errors_are_the_models_own():
  view = View(STUDY)
  drawn = {f.title: f for f in figures.errors(view)}
  assert len(drawn) == 6 * 2 + 1
  for model in view.models:
    entry = view.curves[model, 'fog 1.0', 'none']
    risk = dict(zip(entry['rejection']['rejected'], entry['rejection']['risk'], strict=True))
    found = points(drawn['Rejection, fog 1.0'], model)
    assert len(found) > 3
    assert {round(p.x / 100, 6): p.y / 100 for p in found} == pytest.approx(
      {round(x, 6): risk[x] for x in risk if any(abs(100 * x - p.x) < 1e-6 for p in found)}
    )
  unknown = drawn['Finding the unknown (ROC), IDD']
  assert points(unknown, 'SETR-PUP')[-1][:2] == (100, 100)


@pytest.mark.parametrize('values', [[], [0.5], [None, None], [float('nan'), 0.2]])
def test_degenerate_curves_do_not_break(values):
  entry = dict(
    model='m', set='s', calibrator='none',
    reliability=dict(confidence=values, frequency=values, pixels=[3.0] * len(values)),
    rejection=dict(rejected=values, risk=values, best=values),
    roc=dict(misclassification=dict(fpr=values, tpr=values), unknown=None),
  )  # fmt: skip
  view = View({'curves': [entry], 'models': [{'name': 'm'}]})
  for figure in (*figures.reliability(view), *figures.errors(view)):
    assert 'nan' not in svg.svg(figure)


def test_undefined_values_are_left_out_of_figures():
  study = copy.deepcopy(STUDY)
  for k, cell in enumerate(study['cells']):
    if cell['model'] == 'SETR-PUP':
      cell['values']['ece'] = [None, dict(value=None), dict(value=float('nan'))][k % 3]
  view = View(study)
  assert [len(s.points) for s in figures.scatters(view)[0].series] == [6, 0, 6]
  assert not any(f.labels == dict(model='SETR-PUP', metric='ece') for f in figures.by_set(view))
  for f in (*figures.scatters(view), *figures.models_by_shift(view), *figures.by_set(view)):
    assert 'nan' not in svg.svg(f)
    assert not any(math.isnan(p.x + p.y) for s in f.series for p in s.points)


def test_losses_under_a_guarantee_are_drawn_with_alpha():
  figure = next(f for f in figures.guarantees(View(STUDY)) if f.labels['condition'] == 'fog')
  assert {p.y for p in points(figure, 'alpha')} == {10}
  at = {(e['model'], e['set'], e['calibrator']): e['loss'] for e in STUDY['guarantee_results']}
  for model in View(STUDY).models:
    assert [p.label for p in points(figure, model)] == ['Cityscapes val', 'fog 0.3', 'fog 1.0']
    for p in points(figure, model):
      loss = at[model, p.label, 'none']
      assert (p.y, p.low, p.high) == pytest.approx(
        [100 * loss[k] for k in ('value', 'low', 'high')]
      )
