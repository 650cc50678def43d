"""Tables of models by sets: the values are the study's, and nothing without a value is shown."""

import pytest

from car_jax.reliability import page, pivot, tables
from car_jax.reliability.view import View
from tests.reliability import fake_study


@pytest.fixture
def study():
  return fake_study.study()


def by_title(study):
  return {t.title: t for t in pivot.tables(View(study))}


def test_each_value_is_that_of_its_cell(study):
  table = by_title(study)['Calibration before and after']
  cells = {(c['model'], c['calibrator'], c['set']): c for c in study['cells']}
  assert len(table.rows) == 3 * 4
  assert table.head[:2] == ('model', 'calibrator')
  for model, calibrator, *values in table.rows:
    for name, value in zip(table.head[2:], values, strict=True):
      actual = cells[model, calibrator, name]['values']['ece']
      ece = actual['value'] if isinstance(actual, dict) else actual
      assert value.rstrip('*') == f'{100 * ece:.1f}'


def test_the_best_of_a_column_is_marked(study):
  table = by_title(study)['Robustness']
  for column in list(zip(*table.rows, strict=True))[1:]:
    numbers = [float(v.rstrip('*')) for v in column]
    marked = [n for n, v in zip(numbers, column, strict=True) if v.endswith('*')]
    assert {*marked} == {max(numbers)}


def test_equal_values_and_a_single_model_are_not_marked():
  study = fake_study.study(models=1)
  rows = [row for t in pivot.tables(View(study)) if t.names == 1 for row in t.rows]
  assert rows
  assert not any('*' in cell for row in rows for cell in row)


def test_models_and_sets_without_a_value_are_left_out(study):
  gone = study['cells'][0]['model']
  for cell in study['cells']:
    if cell['model'] == gone or cell['set'] == 'fog 0.3':
      cell['values'].pop('prr')
  table = by_title(study)['Errors found by rejecting unsure pixels']
  assert gone not in [row[0] for row in table.rows]
  assert 'fog 0.3' not in table.head
  assert len(table.rows) == 2


def test_a_published_score_stands_beside(study):
  study['models'][0]['published_miou'] = 76.54
  table = by_title(study)['Robustness']
  assert table.head[:2] == ('model', 'published')
  assert [row[1] for row in table.rows] == ['76.54', '–', '–']


def test_page_markdown_and_terminal_have_the_tables(study):
  html, markdown = page.page(study, {}), tables.markdown(study)
  for table in pivot.tables(View(study)):
    assert f'<h3>{table.title}</h3>' in html
    assert f'## {table.title}' in markdown
    first, head, *rows = pivot.lines(table)
    assert table.title in first
    assert len(rows) == len(table.rows)
    assert head.split()[0] == 'model'


def test_a_hostile_name_is_text(study):
  study['models'][0]['name'] = hostile = '<script>alert(1)</script>|'
  for part in ('cells', 'image_ood', 'curves', 'fits', 'worst'):
    for entry in study[part]:
      entry['model'] = hostile if entry['model'] == fake_study.MODELS[0] else entry['model']
  assert '<script>alert(1)' not in page.page(study, {})


def test_a_study_without_scores_has_no_tables(study):
  for part in ('cells', 'curves', 'image_ood'):
    study[part] = []
  assert not pivot.tables(View(study))
