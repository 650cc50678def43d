"""The page that compares several models, trained several times: its tables by other means."""

import itertools
import json
import re

import numpy as np
import pytest
from scipy import stats

from car_jax.evaluate import cost, harness, predict, report
from car_jax.report import comparison
from tests.evaluate import scene
from tests.report.document import Document

SPEC = dict(samples=4, metrics=('ged4', 'ged4[u]', 'hm_iou4', 'diversity4', 'ece'))
MODELS = {'near': (0.1, 0.14), 'off': (0.3, 0.2), 'far': (0.5, 0.55)}  # shifts, by seed
RUNS = {f'{m}/seed{k}': s for m, shifts in MODELS.items() for k, s in enumerate(shifts)}


def number(text):
  return float(re.search(r'−?\d+\.?\d*', text)[0].replace('−', '-'))


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """(results, content of results.json, headings -> rows of the page, subjects)."""
  first = scene.predictors()['samples']
  subjects = [
    predict.Subject(name, first, scene.STATE | {'shift': np.float32(shift)})
    for name, shift in RUNS.items()
  ]
  evaluator = harness.Evaluator(SPEC, scene.info(), detail=True, readers=True)
  results, page = report.evaluate(
    evaluator,
    subjects,
    lambda: scene.batches(16, 8),
    tmp_path_factory.mktemp('compared') / 'report',
    report.About(title='all', split='test'),
    images=16,
    seed=0,
    trainings={m: [r for r in RUNS if r.startswith(m)] for m in MODELS},
  )
  content = json.loads((page.parent / 'results.json').read_text())
  return results, content, Document(page.read_text()), subjects


def rows(page, first, *heads):
  """Name of a row -> its other cells, of the table whose head begins so."""
  start = next(k for k, row in enumerate(page.rows) if row[:1] == [first] and {*heads} <= {*row})
  body = itertools.takewhile(lambda row: len(row) == len(page.rows[start]), page.rows[start + 1 :])
  return {row[0]: dict(zip(page.rows[start][1:], row[1:], strict=True)) for row in body}


SIGNS = {'ged4': 1, 'ged4[u]': 1, 'hm_iou4': -1, 'ece': 1}  # diversity has no good end


def test_places_and_agreement_are_those_of_the_scores(made):
  results, _, page, _ = made
  metrics = {m.name: m for m in results.plan.metrics}
  value = lambda run, name: SIGNS[name] * results.value(run, metrics[name])
  table = rows(page, 'score', 'other images', 'as ged4', 'other trainings')
  assert {*table} == {*SIGNS}
  for name, cells in table.items():
    by_score = [value(run, name) for run in RUNS]
    places = [number(cells[run]) for run in RUNS]
    np.testing.assert_allclose(places, stats.rankdata(by_score, 'min'))
    like = stats.kendalltau(by_score, [value(run, 'ged4') for run in RUNS]).statistic
    assert number(cells['as ged4']) == pytest.approx(like, abs=0.006)
    seeds = [[value(f'{m}/seed{k}', name) for m in MODELS] for k in (0, 1)]
    between = stats.kendalltau(*seeds).statistic
    assert number(cells['other trainings']) == pytest.approx(between, abs=0.006)
    assert -1 <= number(cells['other images']) <= 1


def test_differences_are_of_the_same_images_and_marked_where_they_are_clear(made):
  results, content, page, _ = made
  ged = results.plan.main
  order = next(r['order'] for r in content['rankings'] if r['metric'] == 'ged4')
  assert order == sorted(RUNS, key=lambda run: results.value(run, ged))
  table = rows(page, '', *order[:-1])
  assert [*table] == order[1:]
  marked = {
    (row.cells[0].text, other): cell.best
    for row in comparison.pairs(content).rows
    for other, cell in zip(order, row.cells[1:], strict=False)
  }
  for better, worse in itertools.combinations(order, 2):
    cell = table[worse][better]
    gap = results.values(worse, ged) - results.values(better, ged)
    assert number(cell) == pytest.approx(gap.mean(), abs=6e-4)
    low, high = (float(x.replace('−', '-')) for x in re.findall(r'−?\d+\.\d{3}', cell)[1:])
    reverse = results.difference(better, worse, ged)
    np.testing.assert_allclose((low, high), (-reverse.high, -reverse.low), atol=6e-4)
    assert marked[worse, better] == (not reverse.low <= 0 <= reverse.high)
    assert not table.get(better, {}).get(worse)  # each pair once
  assert {*marked.values()} == {True, False}


def test_models_trained_several_times_have_means_and_deviations(made):
  results, _, page, _ = made
  table = rows(page, 'model', 'trainings')
  assert [*table] == [*MODELS]
  for model, cells in table.items():
    assert cells['trainings'] == '2'
    for m in results.plan.metrics:
      of = [results.value(f'{model}/seed{k}', m) for k in (0, 1)]
      mean, deviation = (number(part) for part in cells[m.name].split('±'))
      assert mean == pytest.approx(np.mean(of), abs=6e-4)
      assert deviation == pytest.approx(np.std(of, ddof=1), abs=6e-4)


def test_every_model_has_its_costs_and_the_readers_none(made):
  _, content, page, subjects = made
  table = rows(page, 'subject', 'GFLOP, 1 sample', 'GFLOP, 100 samples')
  assert [*table] == [*RUNS]
  batch = next(scene.batches(4, 4))
  batch = {k: v for k, v in batch.items() if v.dtype.kind in 'biuf'}
  counted = cost.of(subjects[0], batch, None)
  for subject in content['subjects']:
    if subject['name'] in RUNS:
      assert subject['cost']['flops'] == {str(n): f for n, f in counted.flops.items()}
      assert subject['cost']['parameters'] == 2  # the numbers of scene.STATE
      assert subject['cost']['seconds'] > 0
      shown = table[subject['name']]['GFLOP, 100 samples']
      assert float(shown) == pytest.approx(counted.flops[100] / 1e9, rel=0.01)
    else:
      assert 'cost' not in subject


def test_the_same_images_show_every_model(made):
  _, content, page, _ = made
  text = page.text
  for run in RUNS:
    assert text.count(run) >= len(content['cases'])
