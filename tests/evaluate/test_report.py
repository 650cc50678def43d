"""The report: files that agree with the results, a page that needs nothing but itself."""

import csv
import dataclasses
import io
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree

import cv2
import jax
import numpy as np
import pytest

from car_jax.errors import UserError
from car_jax.evaluate import gallery, harness, predict, report, tables
from car_jax.metrics.base import ARROWS
from car_jax.report import evaluation
from car_jax.report.table import number
from tests.evaluate import scene
from tests.report.document import Document, network, weight

RNG = jax.random.key(0)
SPEC = dict(samples=4, metrics=('ged4', 'ged4[u]', 'hm_iou4', 'diversity4', 'ece', 'nll'))


def evaluated(num_classes=2, images=6, spec=SPEC):
  """What a report is written of."""
  subjects = predict.subjects(scene.Fake(num_classes), scene.STATE)
  evaluator = harness.Evaluator(spec, scene.info(num_classes), detail=True, readers=True)
  batches = lambda: scene.batches(images, 4, num_classes=num_classes)
  results = evaluator(subjects, batches(), rng=RNG)
  choice = gallery.choose(results, results.subjects[0])
  cases = gallery.collect(evaluator, subjects, batches(), results, choice.indices, rng=RNG).cases
  about = report.About(
    title='A <b> & c', split='test', models=('one, step 3',), command='car-jax eval', config={}
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


def renamed(content, names):
  """The content with other names of subjects."""
  new = lambda s: names.get(s, s)
  histograms = content['histograms']
  return content | dict(
    subjects=[s | dict(name=new(s['name'])) for s in content['subjects']],
    differences=[
      d | dict(subject=new(d['subject']), minus=new(d['minus'])) for d in content['differences']
    ],
    histograms=histograms
    | {k: {new(s): v for s, v in histograms[k].items()} for k in ('counts', 'medians')},
  )


def test_what_is_shown_is_predicted_again_by_batches_of_what_is_shown(of_six, monkeypatch):
  results, _, _, cases = of_six
  subjects = predict.subjects(scene.Fake(), scene.STATE)
  evaluator = harness.Evaluator(SPEC, scene.info(), detail=True, readers=True)
  seen, predicted = [], evaluator.predict
  monkeypatch.setattr(
    evaluator, 'predict', lambda s, b, rng: seen.append(len(b['image'])) or predicted(s, b, rng)
  )
  wanted = (5, 0, 3, 2)  # of both batches
  got = gallery.collect(evaluator, subjects, scene.batches(6, 4), results, wanted, rng=RNG).cases
  assert seen == [4] * len(subjects)
  assert [*got] == sorted(wanted)
  everything = gallery.collect(
    evaluator, subjects, scene.batches(6, 4), results, range(6), rng=RNG
  ).cases
  assert len(seen) == 3 * len(subjects)
  for i in wanted:
    jax.tree.map(np.testing.assert_array_equal, got[i].predictions, everything[i].predictions)
    np.testing.assert_array_equal(got[i].image, everything[i].image)
    assert got[i].id == results.ids[i]
  assert cases.keys() <= everything.keys()


def test_the_page_needs_nothing_else_and_its_links_lead_somewhere(written):
  text = written[2].read_text()
  page = Document(text)
  assert not page.tags & {'link', 'iframe', 'object'}
  assert page.sources
  assert all(s.startswith('data:image/png;base64,') for s in page.sources)
  assert page.links
  assert all(link[0] == '#' and link[1:] in page.ids for link in page.links)
  assert len(page.ids) == len(set(page.ids))
  assert network(text) == []
  assert weight(text) < 100_000
  assert 'A <b> & c' in page.texts  # escaped in the source, so it reads as it was given


def test_every_score_stands_in_the_table_with_its_interval_and_convention(written):
  results, _, path = written
  page = Document(path.read_text())
  scores = page.rows[1 : 1 + len(results.subjects)]
  for row, subject in zip(scores, results.subjects, strict=True):
    assert subject in row[0]
    for m, cell in zip(results.plan.metrics, row[1:], strict=True):
      actual = results.interval(subject, m)
      if np.isfinite(actual.mean):
        numbers = [float(x.replace('−', '-')) for x in re.findall(r'[−]?\d+\.\d{3,4}', cell)]
        np.testing.assert_allclose(numbers, actual[:3], atol=6e-4)
  for m in results.plan.metrics:
    assert m.convention in page.texts


def test_every_figure_has_its_data_beside(written):
  results, _, path = written
  figures = Document(path.read_text()).figures
  assert {*results.subjects} < {*figures}  # reliability
  ged = results.plan.main
  for row in figures['How good, and how sure is it?']:
    if row['series'] in results.subjects:
      actual = results.interval(row['series'], ged)
      assert row['row'] == row['series']
      values = [float(row[k]) for k in (ged.convention, 'from', 'to')]
      np.testing.assert_allclose(values, actual[:3], rtol=1e-3)
  rows = figures['Is it good everywhere?']
  for subject in results.subjects:
    count = sum(float(r['images'] or 0) for r in rows if r['series'] == subject)
    assert count == len(results.ids)
  table = results.reliability('samples', 'mean')
  rows = [r for r in figures['samples'] if r['series'] == 'mean of the samples']
  kept = table.pixels > 0
  for column, actual in (
    ('predicted probability', table.confidence),
    ('readers marking it', table.frequency),
    ('pixels', table.pixels),
  ):
    np.testing.assert_allclose([float(r[column]) for r in rows], actual[kept], rtol=1e-3)


def test_the_page_can_be_made_of_results_json_alone(of_six, written):
  content = json.loads((written[2].parent / 'results.json').read_text())
  gallery = evaluation.Gallery({}, [], [])
  assert evaluation.page(content, gallery) == evaluation.page(
    report.content_of(*of_six[:3]), gallery
  )


def test_one_patient_has_scores_without_intervals(of_six, written):
  results = scene.changed(written[0], groups=['p'] * len(written[0].ids))
  content = report.content_of(results, *of_six[1:3])
  text = Document(evaluation.page(content, evaluation.Gallery({}, [], []))).text
  text += evaluation.markdown(content, {}) + evaluation.terminal(content)
  assert 'nan' not in text
  assert ' to –' not in text
  assert 'no intervals' in text
  assert '* the best; one of the' in text
  content['subjects'] = content['subjects'][:1]
  assert 'the best' not in evaluation.terminal(content)
  assert 'no interval: fewer than two groups' in text


def test_the_summary_fits_a_terminal_and_says_below_what_it_means_if_asked(written):
  results, *_ = written
  content = tables.as_json(results)
  named = lambda s: f'a model whose name is longer than a terminal likes: {s}'
  for shown in (content, renamed(content, {s: named(s) for s in results.subjects})):
    lines = evaluation.terminal(shown, explain=True).splitlines()
    assert max(map(len, lines)) <= 80
    end = next(i for i, line in enumerate(lines) if line.startswith('* the best'))
    table, legend = ' '.join(lines[:end]), ' '.join(' '.join(lines[end:]).split())
    for subject in results.subjects:
      assert subject.split()[-1] in table
      for m in results.plan.metrics:
        if np.isfinite(value := results.value(subject, m)):
          digits = 4 if m.name.startswith('ece') else 3
          assert number(value, digits) in table
    for m in results.plan.metrics:
      assert f'{m.name} {ARROWS[m.about.better]}' in table
      assert m.convention in legend
      assert m.about.text in legend
    short = evaluation.terminal(shown).splitlines()
    assert short[:end] == lines[:end]
    assert short[-1] == 'what the scores mean: --explain, or the report'
    assert not any(m.about.text in ' '.join(short) for m in results.plan.metrics)


def test_numbers_in_json_and_csv_are_those_of_the_results(written):
  results, choice, path = written
  numbers = json.loads((path.parent / 'results.json').read_text())
  rows = [*csv.DictReader((path.parent / 'per_image.csv').read_text().splitlines())]
  assert {r['id'] for r in rows} == set(results.ids)
  for subject in numbers['subjects']:
    ged = [float(r['ged4']) for r in rows if r['subject'] == subject['name']]
    np.testing.assert_allclose(ged, scene.values(results, subject['name'], 'ged4'))
    np.testing.assert_allclose(np.mean(ged), subject['scores']['ged4']['mean'], rtol=1e-6)
  assert numbers['data']['groups'] == 3
  assert [c['id'] for c in numbers['cases']] == [results.ids[i] for _, i in choice.cases]


HOSTILE = '<script>alert(1)</script>"\'|a](http://c)\n=cmd'


def test_names_of_others_are_neither_markup_nor_formulas(of_six, written):
  results, about, choice, cases = of_six
  first = results.subjects[0]
  cases = {
    k: dataclasses.replace(
      c, id=HOSTILE, predictions={HOSTILE if s == first else s: p for s, p in c.predictions.items()}
    )
    for k, c in cases.items()
  }
  other = scene.changed(results, {first: HOSTILE}, ids=['=1+1', *results.ids[1:]])
  other.info = dataclasses.replace(other.info, name=HOSTILE, class_names=('a', HOSTILE))
  about = dataclasses.replace(about, title=HOSTILE, command=HOSTILE, notes=(HOSTILE,))
  path = report.write(written[2].parents[1] / 'hostile', other, about, choice, cases)
  text = path.read_text()
  assert 'alert(1)</script>' not in text
  page = Document(text)
  assert ' '.join(HOSTILE.split()) in page.text
  assert {r['series'] for r in page.figures['How good, and how sure is it?']} >= {HOSTILE}
  markdown = (path.parent / 'report.md').read_text()
  assert re.findall(r'<(?!/?pre>)', markdown) == []
  assert '](http' not in re.sub('<pre>.*?</pre>', '', markdown, flags=re.S)
  rows = [line for line in markdown.splitlines() if line.startswith('|')]
  assert len({len(re.findall(r'(?<!\\)\|', line)) for line in rows[:6]}) == 1
  row = next(csv.DictReader(io.StringIO((path.parent / 'per_image.csv').read_text())))
  assert row['id'] == "'=1+1"
  assert row['subject'] == HOSTILE
  for drawing in (path.parent / 'pictures').glob('*.svg'):
    ElementTree.fromstring(drawing.read_text())


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
  for others in (None, '{"accuracy": 1}', '[]', 'no JSON', '{"format": "mine"}'):
    if others is not None:
      (tmp_path / 'mine' / 'results.json').write_text(others)
    with pytest.raises(UserError, match='holds other files'):
      report.write(tmp_path / 'mine', *of_six)
    assert (tmp_path / 'mine' / 'thesis.tex').read_text() == 'years of work'


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
