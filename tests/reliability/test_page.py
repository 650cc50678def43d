"""The page is whole, safe and complete, for a full study and for one with holes."""

import copy
import html.parser
import re

import pytest

from car_jax.reliability import page, page_plots
from tests.reliability import fake_study

STUDY = fake_study.study()
PICTURES = fake_study.images(STUDY)
VOID = {'meta', 'br', 'img', 'path', 'line', 'rect'}


class Document(html.parser.HTMLParser):
  """Fails on tags that do not match; collects ids, links, sources, texts of table cells."""

  def __init__(self, text):
    super().__init__()
    self.open, self.ids, self.links, self.sources, self.rows = [], [], [], [], []
    self.figures = 0
    self.feed(text)
    assert self.open == []

  def handle_starttag(self, tag, attrs):
    attrs = dict(attrs)
    self.ids += [attrs['id']] if 'id' in attrs else []
    self.links += [attrs['href']] if 'href' in attrs else []
    self.sources += [attrs['src']] if 'src' in attrs else []
    self.figures += tag == 'figure'
    if tag == 'tr':
      self.rows.append([])
    if tag in ('td', 'th') and self.rows:
      self.rows[-1].append('')
    if tag not in VOID or (tag in ('path', 'rect') and not self.get_starttag_text().endswith('/>')):
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    pass

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if self.rows and self.rows[-1] and self.open and self.open[-1] not in ('style', 'script'):
      self.rows[-1][-1] += data


@pytest.fixture(scope='module')
def text():
  return page.page(STUDY, PICTURES)


def test_page_is_one_whole_file(text):
  found = Document(text)
  assert found.ids == [
    'accuracy', 'tables', 'shift', 'scores', 'confidence', 'recalibration', 'unknown', 'worst',
    'legend', 'reproduce',
  ]  # fmt: skip
  assert found.links == [f'#{i}' for i in found.ids]
  assert len(found.sources) == len(PICTURES) == 30
  assert all(s.startswith('data:image/png;base64,') for s in found.sources)
  assert not re.search(r'(?:src|href)="(?!data:|#)|url\(|@import|http', text)


def test_scores_table_holds_every_cell(text):
  rows = Document(text).rows
  [row] = [r for r in rows if r and r[0] == 'SETR-PUPfog 1.0 · local' and len(r) > 10]
  assert row[1] == '40.0 %38.4 – 41.2'
  assert sum(len(r) == len(row) for r in rows) >= 72


def test_names_are_escaped(text):
  assert '<shift>' not in text
  study = copy.deepcopy(STUDY)
  bad = '"><script>x</script>'
  for part in ('models', 'sets', 'calibrators'):
    study[part][1]['name'] = part + bad
  for entry in (*study['cells'], *study['curves'], *study['worst']):
    for key, part in (('model', 'models'), ('set', 'sets'), ('calibrator', 'calibrators')):
      if entry.get(key) == STUDY[part][1]['name']:
        entry[key] = part + bad
  study['fits'][0]['warnings'] = [bad]
  study['worst'][0]['id'] = study['notes'][0] = study['command'] = study['classes'][0] = bad
  text = page.page(study, PICTURES)
  Document(text)
  assert '<script>x' not in text


def test_text_in_charts_keeps_its_digits():
  drawing = '<text x="3.0" style="fill:var(--muted)">2.0 %</text><title>a 1.0 (3.0 to 4.0)</title>'
  assert (
    page_plots.slim(drawing)
    == '<text x="3" class="m">2.0 %</text><title>a 1.0 (3.0 to 4.0)</title>'
  )


def test_warnings_look_like_warnings(text):
  assert re.search(r'class="warning">.*⚠ Warning.*SETR-PUP, temperature.*edge of the grid', text)


def test_a_study_with_holes():
  study = fake_study.study(models=2, sets=3, calibrators=2, points=5)
  for key in study:
    Document(page.page({k: v for k, v in study.items() if k != key}, {}))
  for cell in study['cells']:
    cell['values'] = dict.fromkeys(cell['values'])
    cell['iou'], cell['scenes'] = None, None
  for curve in study['curves']:
    curve['reliability'], curve['rejection'], curve['roc'] = None, None, None
  for fit in study['fits']:
    fit.update(temperatures=None, nll_before=None, warnings=None)
  text = page.page(study, {})
  Document(text)
  assert 'nan' not in re.sub(r'<script>.*?</script>', '', text, flags=re.S)
  Document(page.page({}, {}))


def test_one_model_one_set_has_no_idle_controls():
  text = page.page(fake_study.study(models=1, sets=1, calibrators=1), {})
  Document(text)
  assert re.findall('<select data-axis="([a-z]*)"', text) == ['metric']
