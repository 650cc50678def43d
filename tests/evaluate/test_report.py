"""The report: files that agree with the results, a page that needs nothing but itself."""

import csv
import html.parser
import json
import re
import shutil
import subprocess

import cv2
import jax
import numpy as np
import pytest

from car_jax.errors import UserError
from car_jax.evaluate import (
  charts,
  escaped,
  gallery,
  harness,
  page,
  predict,
  report,
  tables,
  terminal,
)
from tests.evaluate import scene

RNG = jax.random.key(0)
SPEC = dict(samples=4, metrics=('ged4', 'ged4[u]', 'hm_iou4', 'diversity4', 'ece', 'nll'))
VOID = {'meta', 'br', 'img', 'circle', 'path', 'line', 'rect'}


def evaluated(num_classes=2, images=6, spec=SPEC):
  """What a report is written of."""
  subjects = predict.subjects(scene.Fake(num_classes), scene.STATE)
  evaluator = harness.Evaluator(spec, scene.info(num_classes), detail=True, readers=True)
  batches = lambda: scene.batches(images, 4, num_classes=num_classes)
  results = evaluator(subjects, batches(), rng=RNG)
  choice = gallery.choose(results, results.subjects[0])
  cases = gallery.collect(evaluator, subjects, batches(), results, choice.indices, rng=RNG)
  about = report.About(
    title='A <b> & c', split='test', models=('one, step 3',), command='python eval.py', config={}
  )
  return results, about, choice, cases


@pytest.fixture(scope='module')
def of_six():
  return evaluated()


@pytest.fixture(scope='module')
def written(of_six, tmp_path_factory):
  results, _, choice, _ = of_six
  folder = tmp_path_factory.mktemp('written') / 'report'
  return results, choice, report.write(folder, *of_six)


class Document(html.parser.HTMLParser):
  """Fails on tags that do not match; collects ids, links, sources and the text of table rows."""

  def __init__(self, text):
    super().__init__()
    self.open, self.ids, self.links, self.sources, self.tags = [], [], [], [], set()
    self.rows, self.texts = [], []
    self.feed(text)
    assert self.open == []

  def handle_starttag(self, tag, attrs):
    attrs = dict(attrs)
    self.tags.add(tag)
    self.ids += [attrs['id']] if 'id' in attrs else []
    self.links += [attrs['href']] if 'href' in attrs else []
    self.sources += [attrs['src']] if 'src' in attrs else []
    if tag == 'tr':
      self.rows.append('')
    if tag not in VOID or tag in ('circle', 'path', 'rect'):
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.tags.add(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.texts.append(data)
    if self.rows:
      self.rows[-1] += data + ' '


def test_the_page_needs_nothing_else_and_its_links_lead_somewhere(written):
  page = Document(written[2].read_text())
  assert not page.tags & {'script', 'link', 'iframe', 'object'}
  assert page.sources
  assert all(s.startswith('data:image/png;base64,') for s in page.sources)
  assert page.links
  assert all(link[0] == '#' and link[1:] in page.ids for link in page.links)
  assert len(page.ids) == len(set(page.ids))
  assert 'url(' not in written[2].read_text()
  assert 'A <b> & c' in page.texts  # escaped in the source, so it reads as it was given


def test_every_score_stands_in_the_table_with_its_interval_and_convention(written):
  results, _, path = written
  page = Document(path.read_text())
  assert len(page.rows) == 1 + len(results.subjects)
  for row, subject in zip(page.rows[1:], results.subjects, strict=True):
    assert subject in row
    for m in results.plan.metrics:
      found = results.interval(subject, m)
      if np.isfinite(found.mean):
        numbers = [float(x.replace('−', '-')) for x in re.findall(r'[−]?\d+\.\d+', row)]
        for value in (found.mean, found.low, found.high):
          assert min(abs(n - value) for n in numbers) < 6e-4
  for m in results.plan.metrics:
    assert m.convention in page.texts


def test_one_patient_has_scores_without_intervals(written):
  results = scene.changed(written[0], groups=['p'] * len(written[0].ids))
  texts = tables.markdown_scores(results) + page._scores(results) + terminal.scores(results)
  texts += charts.intervals(results, results.plan.main) + '\n'.join(tables.findings(results))
  assert 'nan' not in texts
  assert ' to –' not in texts
  assert 'no intervals' in texts
  assert 'no interval: fewer than two patients' in texts


def test_the_summary_fits_a_terminal_and_says_below_what_it_means(written):
  results, *_ = written
  named = lambda s: f'a model whose name is longer than a terminal likes: {s}'
  longer = scene.changed(results, {s: named(s) for s in results.subjects})
  for found in (results, longer):
    lines = terminal.scores(found).splitlines()
    assert max(map(len, lines)) <= 80
    end = next(i for i, line in enumerate(lines) if line.startswith('* the best'))
    table, legend = ' '.join(lines[:end]), ' '.join(' '.join(lines[end:]).split())
    for subject in found.subjects:
      assert subject.split()[-1] in table
      for m in found.plan.metrics:
        if np.isfinite(value := found.value(subject, m)):
          assert charts.number(value, tables.digits(found, m)) in table
    for m in found.plan.metrics:
      assert f'{m.name} {tables.ARROWS[m.about.better]}' in table
      assert m.convention in legend
      assert m.about.text in legend


def test_numbers_in_json_and_csv_are_those_of_the_results(written):
  results, choice, path = written
  numbers = json.loads((path.parent / 'results.json').read_text())
  rows = [*csv.DictReader((path.parent / 'per_image.csv').read_text().splitlines())]
  assert {r['id'] for r in rows} == set(results.ids)
  for subject in numbers['subjects']:
    ged = [float(r['ged4']) for r in rows if r['subject'] == subject['name']]
    np.testing.assert_allclose(ged, scene.values(results, subject['name'], 'ged4'))
    np.testing.assert_allclose(np.mean(ged), subject['scores']['ged4']['mean'], rtol=1e-6)
  assert numbers['data']['patients'] == 3
  assert [c['id'] for c in numbers['cases']] == [results.ids[i] for _, i in choice.cases]


def test_names_of_others_are_neither_markup_nor_formulas(written):
  results, _, path = written
  first = results.subjects[0]
  bad = '<i>a|b](http://c)'
  renamed = scene.changed(results, {first: bad}, ids=['=1+1', *results.ids[1:]])
  table = tables.markdown_scores(renamed).split('\n\n')[0].splitlines()
  assert len({len(re.findall(r'(?<!\\)\|', line)) for line in table}) == 1
  assert '&lt;i>a\\|b]\\(http://c)' in table[2]
  row = next(csv.DictReader(tables.as_csv(renamed).splitlines()))
  assert row['id'] == "'=1+1"
  assert row['subject'] == bad
  text = (path.parent / 'report.md').read_text()
  assert text.startswith('# A &lt;b> & c')
  assert re.findall(r'<(?!/?pre>)', text) == []


def test_markdown_shows_every_picture_that_is_there(written):
  folder = written[2].parent
  shown = set(re.findall(r'\(pictures/([^)]+)\)', (folder / 'report.md').read_text()))
  assert shown == {p.name for p in (folder / 'pictures').iterdir()}
  assert {'scores.svg', 'per-image.svg', 'distances.svg', 'samples.svg'} <= shown
  for name in shown:
    if name.endswith('.png'):
      assert cv2.imread(str(folder / 'pictures' / name)).std() > 0


def test_worst_and_best_cases_are_the_ends_of_the_scores(written):
  results, choice, _ = written
  ged = scene.values(results, results.subjects[0], 'ged4')
  differ = results.rows(results.subjects[0], 'distances', 'd_yy') > 0
  whys = dict(reversed([(why.split()[0].lower(), i) for why, i in choice.cases]))
  assert ged[whys['worst']] == ged[differ].max()
  assert ged[whys['best']] == ged[differ].min()


def test_a_report_replaces_a_report_and_nothing_else(of_six, tmp_path):
  path = report.write(
    tmp_path / 'report', *evaluated(num_classes=4, images=3, spec=SPEC | dict(metrics=('ged4',)))
  )
  (path.parent / 'stale.txt').write_text('of an older report')
  report.write(tmp_path / 'report', *of_six)
  assert not (path.parent / 'stale.txt').exists()
  assert [p.name for p in tmp_path.iterdir()] == ['report']
  (tmp_path / 'mine').mkdir()
  (tmp_path / 'mine' / 'thesis.tex').write_text('years of work')
  with pytest.raises(UserError, match='holds other files'):
    report.write(tmp_path / 'mine', *of_six)
  assert [p.name for p in (tmp_path / 'mine').iterdir()] == ['thesis.tex']


@pytest.mark.skipif(not shutil.which('chromium'), reason='no chromium on the PATH')
def test_a_browser_shows_the_page(written, tmp_path):
  width = 1280
  shot = tmp_path / 'shot.png'
  flags = ['--headless', '--no-sandbox', '--disable-gpu', f'--user-data-dir={tmp_path / "user"}']
  flags += ['--hide-scrollbars', f'--window-size={width},1600', f'--screenshot={shot}']
  done = subprocess.run(
    ['chromium', *flags, f'file://{written[2]}'], capture_output=True, timeout=90
  )
  assert done.returncode == 0, done.stderr[-500:]
  picture = cv2.imread(str(shot), 0)
  assert picture.shape == (1600, width)
  assert np.median(picture) > 220
  assert (picture < 100).mean() > 0.01
  assert (picture[:, -4:] > 200).all()  # nothing runs over the edge


def test_a_csv_has_no_formula_and_nothing_for_what_is_no_number():
  rows = [['=a', np.float32('nan'), np.float32(0.5)], ['b', float('inf'), 3]]
  assert escaped.csv(['name', 'x', 'y'], rows) == "name,x,y\n'=a,,0.5\nb,,3\n"
