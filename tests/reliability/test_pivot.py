"""Tables of models by sets: the values are the study's, and nothing without a value is shown."""

import pytest

from car_jax.reliability import pivot
from car_jax.reliability.view import View
from car_jax.report import study
from tests.reliability import fake_study


@pytest.fixture
def content():
  return fake_study.study()


def by_title(content):
  return {t.title: t for t in pivot.tables(View(content))}


def texts(table):
  return [[c.text for c in row.cells] for row in table.rows]


def head(table):
  return [c.name for c in table.columns]


def test_each_value_is_that_of_its_cell(content):
  table = by_title(content)['Calibration before and after']
  cells = {(c['model'], c['calibrator'], c['set']): c for c in content['cells']}
  assert len(table.rows) == 3 * 4
  assert head(table)[:2] == ['model', 'calibrator']
  for model, calibrator, *values in texts(table):
    for name, value in zip(head(table)[2:], values, strict=True):
      actual = cells[model, calibrator, name]['values']['ece']
      ece = actual['value'] if isinstance(actual, dict) else actual
      assert value == f'{100 * ece:.1f}'


def test_scores_of_failing_images_have_a_row_for_each_model_and_confidence(content):
  first, other = pivot.failing(View(content))
  assert [first.title, other.title] == ['AURC of images', 'AUROC of failures [risk=0.3]']
  assert head(first) == ['model', 'confidence', *(s['name'] for s in content['sets'])]
  assert [row[:2] for row in texts(first)][:2] == [
    [content['models'][0]['name'], c] for c in ('mean', 'soft_dice')
  ]
  cells = {(c['model'], c['set'], c['calibrator']): c['values'] for c in content['cells']}
  for model, confidence, *values in texts(first):
    name = 'image_aurc' if confidence == 'mean' else 'image_aurc[soft_dice]'
    of = [cells[model, s, 'none'][name]['value'] for s in head(first)[2:]]
    assert values == [f'{100 * v:.1f}' for v in of]


def test_the_best_of_a_column_is_marked(content):
  table = by_title(content)['Robustness']
  for column in [*zip(*(row.cells for row in table.rows), strict=True)][1:]:
    assert {float(c.text) for c in column if c.best} == {max(float(c.text) for c in column)}


def test_equal_values_and_a_single_model_are_not_marked():
  content = fake_study.study(models=1)
  tables = pivot.tables(View(content))
  rows = [r for t in tables if not {'calibrator', 'confidence'} & {*head(t)} for r in t.rows]
  assert rows
  assert not any(c.best for row in rows for c in row.cells)


def test_models_and_sets_without_a_value_are_left_out(content):
  gone = content['cells'][0]['model']
  for cell in content['cells']:
    if cell['model'] == gone or cell['set'] == 'fog 0.3':
      cell['values'].pop('prr')
  table = by_title(content)['Errors found by rejecting unsure pixels']
  assert gone not in [row[0] for row in texts(table)]
  assert 'fog 0.3' not in head(table)
  assert len(table.rows) == 2


def test_a_published_score_stands_beside(content):
  content['models'][0]['published_miou'] = 76.54
  table = by_title(content)['Robustness']
  assert head(table)[:2] == ['model', 'published']
  assert [row[1] for row in texts(table)] == ['76.54', '–', '–']


def test_page_markdown_and_terminal_have_the_tables(content):
  html, markdown = study.page(content, {}), study.markdown(content)
  for table in pivot.tables(View(content)):
    assert f'<h3>{table.title}</h3>' in html
    assert f'## {table.title}' in markdown
    first, *_ = lines = table.terminal()
    assert first.split()[0] == 'model'
    assert max(map(len, lines)) <= 80
    assert any(line.startswith('DeepLabV3+') for line in lines)


def test_a_hostile_name_is_text(content):
  content['models'][0]['name'] = hostile = '<script>alert(1)</script>|'
  for part in ('cells', 'image_ood', 'curves', 'failing', 'fits', 'worst'):
    for entry in content[part]:
      entry['model'] = hostile if entry['model'] == fake_study.MODELS[0] else entry['model']
  assert '<script>alert(1)' not in study.page(content, {})


def test_a_study_without_scores_has_no_tables(content):
  for part in ('cells', 'curves', 'image_ood'):
    content[part] = []
  assert not pivot.tables(View(content))
