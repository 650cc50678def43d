"""The page is whole, safe and complete, for a full study and for one with holes."""

import copy
import itertools
import re

import numpy as np
import pytest

from car_jax.report import study as page
from tests.reliability import fake_study
from tests.report.document import Document, network, weight

STUDY = fake_study.study()
PICTURES = fake_study.images(STUDY)


@pytest.fixture(scope='module')
def text():
  return page.page(STUDY, PICTURES)


def test_page_is_one_whole_file(text):
  found = Document(text)
  assert found.ids == [
    'accuracy', 'tables', 'shift', 'scores', 'confidence', 'failing', 'recalibration', 'guarantees',
    'unknown', 'worst', 'legend', 'reproduce',
  ]  # fmt: skip
  assert found.links == [f'#{i}' for i in found.ids]
  assert len(found.sources) == len(PICTURES) == 30
  assert all(s.startswith('data:image/png;base64,') for s in found.sources)
  assert network(text) == []


def test_a_page_of_a_small_study_is_small(text):
  assert weight(text) < 400_000  # 3 models on 6 sets through 4 calibrators


def test_every_figure_has_a_title_its_data_and_names_that_need_no_script(text):
  drawn = re.findall('<figure data-item.*?</figure>', text, re.S)
  assert len(drawn) > 50
  for figure in drawn:
    title = re.search('<h[34]>(.+?)</h[34]>', figure).group(1)
    assert f'role="img" aria-label="{title}"' in figure
    assert 'href="data:text/csv' in figure
    keys = re.findall('<g class="k.*?<text[^>]*>(.+?)</text>', figure)
    assert keys == re.findall('<g class="s[^>]*><title>(.+?)</title>', figure)
    assert 'noscript' not in figure


def test_data_of_a_figure_are_the_studys(text):
  rows = Document(text).figures['Recalibrated: local']
  cells = {(c['model'], c['set'], c['calibrator']): c['values'] for c in STUDY['cells']}
  assert len(rows) == 18
  for row in rows:
    values = cells[row['series'], row['label'], 'local']
    assert float(row['mIoU, %, ↑ higher is better']) == pytest.approx(
      100 * values['miou']['value'], rel=1e-3
    )
    assert float(row['ECE, %, ↓ lower is better']) == pytest.approx(
      100 * values['ece']['value'], rel=1e-3
    )


def test_scores_table_holds_every_cell(text):
  rows = Document(text).rows
  [row] = [r for r in rows if r and r[0] == 'SETR-PUP fog 1.0 · local' and len(r) > 10]
  assert row[1] == '40.0 38.4 – 41.2'
  assert sum(len(r) == len(row) for r in rows) >= 72


def test_risk_over_the_images_kept_is_the_studys(text):
  drawn = Document(text).figures
  for dataset in ('Cityscapes val', 'fog 1.0'):
    rows = [r for r in drawn[f'Images kept, {dataset}'] if r['series'] == 'SETR-PUP']
    (entry,) = [e for e in STUDY['failing'] if (e['model'], e['set']) == ('SETR-PUP', dataset)]
    risk = np.interp(
      [float(r['images kept, the surest first, %']) / 100 for r in rows],
      entry['coverage'],
      entry['risk'],
    )
    shown = [float(v) for r in rows for k, v in r.items() if k.startswith('mean risk')]
    np.testing.assert_allclose(shown, 100 * risk, rtol=1e-3)
  assert 'one minus Dice goes from 11.0 to' in Document(text).text


def test_names_are_escaped(text):
  assert '<shift>' not in text
  study = copy.deepcopy(STUDY)
  bad = '"><script>x</script>\'|\n=cmd'
  for part in ('models', 'sets', 'calibrators'):
    study[part][1]['name'] = part + bad
  listed = (study[k] for k in ('cells', 'curves', 'guarantee_results', 'failing', 'worst'))
  for entry in itertools.chain.from_iterable(listed):
    for key, part in (('model', 'models'), ('set', 'sets'), ('calibrator', 'calibrators')):
      if entry.get(key) == STUDY[part][1]['name']:
        entry[key] = part + bad
  for entry in (*study['guarantees'], *study['guarantee_results']):
    entry['name' if 'name' in entry else 'guarantee'] = bad
  study['fits'][0]['warnings'] = [bad]
  study['worst'][0]['id'] = study['notes'][0] = study['command'] = study['classes'][0] = bad
  text = page.page(study, PICTURES)
  Document(text)
  assert '<script>x' not in text


def test_warnings_look_like_warnings(text):
  assert re.search(
    r'class="warning"><b>⚠ Warning</b> SETR-PUP, temperature.*edge of the grid', text
  )


def test_a_study_with_holes():
  study = fake_study.study(models=2, sets=3, calibrators=2, points=5)
  for key in study:
    Document(page.page({k: v for k, v in study.items() if k != key}, {}))
  for cell in study['cells']:
    cell['values'] = dict.fromkeys(cell['values'])
    cell['iou'], cell['scenes'] = None, None
  for curve in study['curves']:
    curve['reliability'], curve['rejection'], curve['roc'] = None, None, None
  for entry in study['guarantee_results']:
    entry.update(threshold=None, size=None, above=None, loss=dict.fromkeys(entry['loss']))
  for fit in study['fits']:
    fit.update(temperatures=None, nll_before=None, warnings=None)
  text = page.page(study, {})
  Document(text)
  assert 'nan' not in Document(text).text
  assert 'NaN' not in text.partition('<main>')[2].partition('</main>')[0]
  Document(page.page({}, {}))


def test_one_model_one_set_has_no_idle_controls():
  text = page.page(fake_study.study(models=1, sets=1, calibrators=1), {})
  Document(text)
  assert re.findall('<select data-axis="([a-z]*)"', text) == ['metric']
