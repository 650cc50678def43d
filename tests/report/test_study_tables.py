"""Markdown, CSV and the findings agree with the study's numbers."""

import copy
import csv
import io
import re

import pytest

from car_jax.metrics.base import BETTER
from car_jax.metrics.texts import ABOUT, GROUPS
from car_jax.reliability import findings
from car_jax.reliability.view import Metric, View
from car_jax.report import study as tables
from car_jax.report import table
from tests.reliability import fake_study

STUDY = fake_study.study()


def test_csv_has_a_row_per_cell_with_exact_numbers():
  rows = [*csv.DictReader(io.StringIO(tables.to_csv(STUDY)))]
  assert len(rows) == len(STUDY['cells']) == 72
  for row, cell in zip(rows, STUDY['cells'], strict=True):
    assert [row[k] for k in ('model', 'set', 'calibrator')] == [
      cell[k] for k in ('model', 'set', 'calibrator')
    ]
    for name, found in cell['values'].items():
      for end in ('value', 'low', 'high', 'bound'):
        shown = row.get(name if end == 'value' else f'{name}_{end}', '')
        assert shown == '' if found is None else float(shown) == found[end]
  at = {(r['model'], r['set'], r['calibrator']): r for r in rows}
  for entry in STUDY['guarantee_results']:
    row, name = at[entry['model'], entry['set'], entry['calibrator']], entry['guarantee']
    loss = entry['loss']
    numbers = dict(loss=loss['value'], loss_low=loss['low'], loss_high=loss['high'])
    numbers |= {k: entry[k] for k in ('threshold', 'size', 'above', 'images')}
    for column, value in numbers.items():
      shown = row[f'guarantee_{name}_{column}']
      assert shown == '' if value is None else float(shown) == value
    assert row[f'guarantee_{name}_verdict'] == entry['verdict']
  assert rows[4]['condition'] == 'fog'
  assert float(rows[4]['shift']) == 0.3
  assert rows[-1]['shift'] == ''
  assert 'disagreement_auroc' not in rows[0]  # defined nowhere


def test_markdown_tables_are_whole_and_mark_the_best():
  study = copy.deepcopy(STUDY)
  study['models'][0]['name'] = 'a|b'
  for cell in study['cells']:
    cell['model'] = 'a|b' if cell['model'] == 'SegFormer-B0' else cell['model']
  text = tables.markdown(study)
  widths = set()
  for block in re.findall(r'(?:^\|.*\n)+', text, re.M):
    widths = {len(re.findall(r'(?<!\\)\|', line)) for line in block.splitlines()}
    assert len(widths) == 1
  assert '| a\\|b | fog 1.0 | none | 38.0 (36.5 to 39.1) |' in text
  assert '**42.0**' in text
  assert '<shift>' not in text
  assert 'edge of the grid' in text


def test_names_of_strangers_stay_text():
  study = copy.deepcopy(STUDY)
  study['command'] = 'car-jax eval "<b>" ```'
  for cell in study['cells']:
    cell['model'] = '=1+1' if cell['model'] == 'SegFormer-B0' else cell['model']
  study['models'][0]['name'] = '=1+1'
  rows = [*csv.reader(io.StringIO(tables.to_csv(study)))]
  assert "'=1+1" in {row[0] for row in rows}
  assert not any(cell[:1] in ('=', '@') for row in rows for cell in row)
  text = tables.markdown(study)
  assert '<pre>\ncar-jax eval &quot;&lt;b&gt;&quot; ```\n</pre>' in text
  assert '<b' not in text


def test_best_is_per_set_and_follows_the_direction():
  view = View(STUDY)
  for metric, pick in (('miou', max), ('ece', min)):
    won = view.best(view.metrics[metric])
    for dataset in view.sets:
      values = {k: view.value(*k, metric) for k in view.cells if k[1] == dataset}
      top = pick(values.values())
      assert {k for k in won if k[1] == dataset} == {k for k, v in values.items() if v == top}
  assert view.best(view.metrics['miou']._replace(better='')) == set()


@pytest.mark.parametrize(
  ('percent', 'value', 'digits', 'shown'),
  [
    (True, 0.123, 1, '12.3 %'),
    (True, -0.02, 2, '−2.00 %'),
    (False, 0.5, 3, '0.500'),
    (True, float('nan'), 1, '–'),
  ],
)
def test_numbers(percent, value, digits, shown):
  metric = Metric.of('ece')._replace(percent=percent)
  assert metric.text(value, digits) == shown


def test_findings_draw_on_the_numbers():
  view = View(STUDY)
  lines = findings.findings(view)
  mean = lambda s, c, m: sum(view.value(k, s, c, m) for k in view.models) / len(view.models)
  percent = lambda v: f'{100 * v:.1f} %'
  ends = [percent(mean(s, 'none', 'miou')) for s in ('Cityscapes val', 'fog 1.0')]
  assert f'mIoU (mean of 3 models) falls from {ends[0]} to {ends[1]}' in lines[0]
  ends = [percent(mean(s, 'none', 'ece')) for s in ('Cityscapes val', 'fog 1.0')]
  assert f'ECE (mean of 3 models) rises from {ends[0]} to {ends[1]}' in lines[0]
  text = ' '.join(lines)
  after = [percent(mean(s, 'local', 'ece')) for s in ('Cityscapes val', 'fog 1.0')]
  assert f'Recalibration by local lowers the ECE from {ends[0]} to {after[0]} in-domain' in text
  assert f'and from {ends[1]} to {after[1]} on fog 1.0' in text
  assert 'In-domain well, shifted partly' in text
  assert 'Poorly: their pixels' in text
  assert (
    '1 of 9 calibrator fits came with a warning: SETR-PUP, temperature: the best temperature 0.50 '
    'is at the edge of the grid.'
  ) in text


def test_a_study_of_before_lacks_what_came_later_alone():
  """How alike orders on other images are is told since; the sentence needs no such number."""
  study = copy.deepcopy(STUDY)
  names = [model['name'] for model in study['models']]
  study['rankings'] = [
    dict(
      set=study['cells'][0]['set'],
      metric='miou',
      order=names,
      best=dict(zip(names, (0.7, 0.3, 0.0), strict=True)),
      places={name: [1, 3] for name in names},
      held=0.6,
      equal=[False, False],
    )
  ]
  (line,) = [x for x in findings.findings(View(study)) if 'resampled sets' in x]
  assert f'{names[0]} is the best in 70 %' in line
  study['rankings'][0]['again'] = 0.5
  assert line in findings.findings(View(study))


def test_a_pool_counts_in_no_mean_over_sets_beside_its_sets():
  study = copy.deepcopy(STUDY)
  study['sets'].append(dict(name='pool', role='shifted', pool=True))
  idd = [c for c in study['cells'] if c['set'] == 'IDD']
  for cell in idd:
    high = {'unknown_auroc': dict(value=0.99)}
    study['cells'].append(copy.deepcopy(cell) | {'set': 'pool', 'values': cell['values'] | high})
  study['image_ood'] += [r | dict(other='pool', auroc=0.99) for r in study['image_ood']]
  assert findings.findings(View(study)) == findings.findings(View(STUDY))


@pytest.mark.parametrize(
  ('auroc', 'said'),
  [
    (0.208, 'Worse than chance (it is surer of images from elsewhere): AUROC 20.8 %'),
    (0.44, 'Worse than chance (it is surer'),
    (0.46, 'Hardly better than chance: AUROC 46.0 %'),
    (0.8, 'Partly: AUROC 80.0 %'),
  ],
)
def test_images_from_elsewhere_that_look_surer_are_worse_than_chance(auroc, said):
  study = copy.deepcopy(STUDY)
  for row in study['image_ood']:
    row['auroc'] = auroc
  [line] = [x for x in findings.findings(View(study)) if 'whole image' in x]
  assert said in line


def test_findings_say_where_recalibration_does_harm():
  study = copy.deepcopy(STUDY)
  for cell in study['cells']:
    if cell['set'] == 'fog 1.0' and cell['calibrator'] == 'local':
      cell['values']['ece']['value'] = 0.5
  text = ' '.join(findings.findings(View(study)))
  assert re.search(
    r'by local lowers the ECE from .* in-domain and raises the ECE from .* 50.0 %', text
  )
  assert 'On fog 1.0 clusters does best' in text


def test_nothing_but_names():
  for study in (
    {},
    {'title': 'x', 'models': [{'name': 'a'}], 'metrics': [Metric.of('ece')._asdict()]},
  ):
    assert findings.findings(View(study)) == []
    assert tables.markdown(study).startswith('# ')
    assert len(tables.to_csv(study).splitlines()) == 1


def test_names_and_metrics_that_only_cells_know():
  cell = dict(model='m', set='s', calibrator='c', values={'ece': dict(value=0.1), 'own': 2.0})
  view = View({'cells': [cell]})
  assert ([*view.models], [*view.sets], [*view.calibrators]) == (['m'], ['s'], ['c'])
  assert view.metrics['own'].title == 'own'  # in no words but its name
  assert view.value('m', 's', 'c', 'own') == 2
  assert '| m | s | c | 0.100 |' in tables.markdown({'cells': [cell]})


def test_every_known_metric_is_explained():
  for m in map(Metric.of, ABOUT):
    assert m.group in GROUPS
    assert m.better in BETTER
    assert 40 < len(m.about) < 330


def test_all_columns_of_names_stand_beside_every_part_of_a_wide_table():
  head = ['model', 'calibrator', *(f'set {k}' for k in range(12))]
  made = table.table('wide', head, [['a', 'none', *['12.3'] * 12]], words=(0, 1))
  lines = made.terminal(60)
  parts = [line for line in lines if line.startswith('a ')]
  assert len(parts) > 1
  assert all(line.split()[:2] == ['a', 'none'] for line in parts)
  assert max(map(len, lines)) <= 60
