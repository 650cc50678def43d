"""Guarantees of a study: thresholds against plain numpy, promises kept and broken, resumption."""

import json
import re

import cv2
import numpy as np
import pytest
from scipy.special import softmax

from car_jax.errors import UserError
from car_jax.evaluate import engine
from car_jax.metrics import conformal_counts
from car_jax.reliability import command, findings, guarantees, plan, study, study_options, survival
from car_jax.reliability.guarantees import Guarantee
from car_jax.reliability.view import View
from car_jax.report import study as page
from car_jax.report import study_figures
from tests.report.document import Document

H, W, C = 6, 8, 3
ONE = {'m': Guarantee('miscoverage', 0.1)}


def drawn(rng, number, noise=1.0):
  """Logits [I, H, W, C] and labels of one population; with more noise more labels are missed."""
  labels = rng.integers(0, C, (number, H, W))
  hard = rng.uniform(0.5, 1.5, (number, 1, 1, 1))  # images differ
  logits = 3 * np.eye(C)[labels] + noise * hard * rng.normal(0, 2, (number, H, W, C))
  return logits.astype(np.float32), labels


def images_of(rng, number, **kw):
  """Rows of calibration counts of one population."""
  logits, labels = drawn(rng, number, **kw)
  batch = engine.of_logits(logits, labels, [*map(str, range(number))])
  sources = guarantees.sources(guarantees.kinds(ONE, [*'abc']))
  return engine.count([batch], (), details=lambda *_: sources)['logits']


def some(counts, rows):
  """A cell of some of the images."""
  out = study.cell.Cell(counts.traits)
  out.ids, out.groups = [str(r) for r in range(len(rows))], [''] * len(rows)
  out._parts = [{k: {n: a[rows] for n, a in of.items()} for k, of in counts.rows.items()}]
  return out


@pytest.mark.parametrize('n', [19, 40])
def test_over_1000_draws_of_calibration_images_the_mean_risk_is_alpha(n):
  rng = np.random.default_rng(0)
  pool, shifted = images_of(rng, 2000), images_of(rng, 500, noise=2.0)
  kinds = guarantees.kinds(ONE, [*'abc'])
  name = guarantees.sources(kinds)[0].source_name
  risk, under_shift = (c.rows[name]['sum'].mean(0) for c in (pool, shifted))
  at = []
  for _ in range(1000):
    chosen = guarantees.choose(some(pool, rng.integers(2000, size=n)), ONE, kinds)['m']
    at.append(round(float(chosen.threshold) * conformal_counts.STEPS))
  assert 0.1 - 1 / (n + 1) <= risk[at].mean() <= 0.1 + 1e-3  # of draws from the pool itself
  assert under_shift[at].mean() > 0.15


def write(where, name, logits, labels):
  for part in ('predictions', 'labels'):
    (where / part / name).mkdir(parents=True)
  for k, (x, y) in enumerate(zip(logits, labels, strict=True)):
    np.save(where / 'predictions' / name / f'{k}.npy', x)
    cv2.imwrite(str(where / 'labels' / name / f'{k}.png'), np.uint8(y))


NUMBERS = dict(same=40, shifted=40, calibrate_on=30)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  """Folder, its arrays by set, and a study of predictions on exchangeable and on shifted images."""
  where, rng = tmp_path_factory.mktemp('guarantees'), np.random.default_rng(1)
  arrays = {}
  for name, number in NUMBERS.items():
    logits, labels = drawn(rng, number, noise=2.5 if name == 'shifted' else 1.0)
    labels[:, 0, 0] = 255
    if name == 'calibrate_on':
      labels[0] = np.where(labels[0] == 255, 255, 0)  # without a foreground
    arrays[name] = logits, labels
    write(where, name, logits, labels)
  c = study_options.defaults()
  c.models = {'mine': str(where / 'predictions' / '{set}')}
  labels_of = lambda name: str(where / 'labels' / name)
  c.sets = {
    'same': dict(labels=labels_of('same'), role='in-domain', shift=0.0, condition='noise'),
    'shifted': dict(labels=labels_of('shifted'), shift=1.0, condition='noise'),
  }
  c.pools = {'both': ('same', 'shifted')}
  c.calibrate_on = dict(labels=labels_of('calibrate_on'))
  c.calibrators = dict(temperature='temperature')
  c.classes, c.palette = tuple('abc'), ((0, 0, 0),) * C
  c.measures, c.resamples, c.worst = ('miou', 'ece'), 100, 0
  c.guarantees = dict(
    miscoverage10=dict(loss='miscoverage', alpha=0.1),
    balanced=dict(loss='balanced', alpha=0.15),
    missed=dict(loss='fnr', alpha=0.2, classes=('b', 'c')),
    few=dict(loss='miscoverage', alpha=0.01),
  )
  return where, arrays, c


@pytest.fixture(scope='module')
def finished(made):
  where, _, config = made
  return command.run(config, str(where / 'out'), '')


def losses(loss, logits, labels, t, temperature=1.0):
  """Of each image its loss and the size of its sets, in plain numpy."""
  out = []
  for x, y in zip(softmax(logits.astype(np.float64) / temperature, -1), labels, strict=True):
    p, seen = x[y != 255], y[y != 255]
    if loss == 'fnr':
      mask = p[:, 1:].sum(-1) >= t
      there = seen > 0
      out.append((np.mean(~mask[there]) if there.any() else np.nan, mask.mean()))
      continue
    said = (p >= t) | (p == p.max(-1, keepdims=True))
    missed = ~said[np.arange(len(seen)), seen]
    each = [missed[seen == k].mean() for k in np.unique(seen)]
    out.append((missed.mean() if loss == 'miscoverage' else np.mean(each), said.sum(-1).mean()))
  return np.array(out).T


def threshold(loss, alpha, logits, labels, temperature):
  """The largest k / 1024 that qualifies, tried from the top."""
  for k in range(1024, -1, -1):
    of = losses(loss, logits, labels, k / 1024, temperature)[0]
    of = of[~np.isnan(of)]
    if (of.sum() + 1) / (len(of) + 1) <= alpha:
      return k / 1024, len(of)
  return 0.0, len(of)


def entry(content, guarantee, name, calibrator='none'):
  [found] = [
    e
    for e in content['guarantee_results']
    if (e['guarantee'], e['set'], e['calibrator']) == (guarantee, name, calibrator)
  ]
  return found


@pytest.mark.parametrize('calibrator', ['none', 'temperature'])
@pytest.mark.parametrize('name', ['miscoverage10', 'balanced', 'missed', 'few'])
def test_thresholds_losses_and_sizes_are_what_plain_numpy_gets(made, finished, name, calibrator):
  _, arrays, config = made
  content, _ = finished
  spec = config.guarantees[name]
  fit = content['fits'][0]['temperatures'][0] if calibrator == 'temperature' else 1.0
  t, images = threshold(spec.loss, spec.alpha, *arrays['calibrate_on'], fit)
  for where in ('same', 'shifted'):
    found = entry(content, name, where, calibrator)
    assert found['threshold'] == t
    assert found['calibration']['images'] == images == 30 - (spec.loss == 'fnr')
    assert found['calibration']['left_out'] == 30 - images
    assert found['everything'] == (name == 'few')
    want, size = losses(spec.loss, *arrays[where], t, fit)
    assert found['loss']['value'] == pytest.approx(np.nanmean(want), abs=1e-6)
    assert found['size'] == pytest.approx(size.mean(), abs=1e-6)
    assert found['above'] == pytest.approx(np.mean(want > spec.alpha + 1e-9))


def test_exchangeable_images_keep_the_promise_and_shifted_ones_break_it(finished):
  content, _ = finished
  for calibrator in ('none', 'temperature'):
    for name in ('miscoverage10', 'balanced', 'missed'):
      assert entry(content, name, 'same', calibrator)['verdict'] in ('holds', 'undecided')
      assert entry(content, name, 'shifted', calibrator)['verdict'] == 'broken'
  assert entry(content, 'few', 'shifted')['verdict'] == 'trivial: every class'
  assert entry(content, 'few', 'shifted')['size'] == C
  both = entry(content, 'miscoverage10', 'both')
  parts = [entry(content, 'miscoverage10', s)['loss']['value'] for s in ('same', 'shifted')]
  assert both['loss']['value'] == pytest.approx(np.mean(parts))
  assert both['images'] == 80


def test_page_markdown_terminal_and_findings_say_it(finished):
  content, path = finished
  view = View(content)
  document = Document(path.read_text())
  assert 'guarantees' in document.ids
  assert 'noise: miscoverage10' in document.figures
  rows = document.figures['noise: miscoverage10']
  assert {float(r['mean loss, %']) for r in rows if r['series'] == 'alpha'} == {10}
  of = {t.title.split()[-1]: t for t in survival.tables(view)}
  said = '\n'.join(of['miscoverage10'].terminal())
  loss = 100 * entry(content, 'miscoverage10', 'shifted')['loss']['value']
  assert f'{loss:.1f} ✗' in said
  markdown = page.markdown(content)
  for text in (f'{loss:.1f} ✗', 'exchangeable', 'broken', survival.QUESTION):
    assert text in markdown
  [line] = [x for x in findings.findings(view) if 'at most 10 %' in x]
  assert re.search(
    r'on same this (holds|is undecided) for 1 of 1 model,.*on shifted this is broken for 1', line
  )
  few = '\n'.join(of['few'].terminal())
  assert few.count('0.0 trivial: every class') == 6
  assert '0.0 ✓' not in few + markdown
  assert '0.0 trivial: every class' in markdown
  assert '0.0 trivial: every class' in path.read_text()
  [line] = [x for x in findings.findings(view) if 'at most 1 %' in x]
  assert 'holds' not in line
  assert 'on same this is trivial (every class is in every set)' in line
  assert 'allows an alpha of 0.032 at least' in ' '.join(survival.covers(view))


def test_a_study_without_guarantees_has_no_section(finished):
  content, _ = finished
  bare = {k: v for k, v in content.items() if not k.startswith('guarantee')}
  assert survival.covers(View(bare)) == survival.tables(View(bare)) == []
  assert study_figures.guarantees(View(bare)) == []
  assert 'guarantees' not in Document(page.page(bare, {})).ids


def test_too_few_images_are_told(made, finished, capsys):
  where, _, config = made
  command.run(config, str(where / 'out'), '')
  said = capsys.readouterr().err
  [line] = [x for x in said.splitlines() if 'guarantee' in x]
  assert "guarantee 'few': 30 images of calibrate_on allow an alpha of 0.032 at least" in line


def test_what_is_done_is_skipped_and_another_alpha_counts_no_calibration_again(
  made, finished, monkeypatch
):
  config = made[2]
  content, path = finished
  counted = []
  for name in ('cells', 'losses'):
    real = getattr(study.count, name)
    call = lambda b, m, c, *a, real=real, name=name, **k: (
      counted.append((name, [*c])) or real(b, m, c, *a, **k)
    )
    monkeypatch.setattr(study.count, name, call)
  again, _ = command.run(config, str(path.parent), '')
  assert counted == []
  assert again['guarantee_results'] == content['guarantee_results']
  (path.parent / 'guarantees' / 'mine' / 'temperature.npz').unlink()
  again, _ = command.run(config, str(path.parent), '')
  assert counted == [('losses', ['temperature'])]
  assert again['guarantee_results'] == content['guarantee_results']
  counted.clear()
  other = config.copy_and_resolve_references()
  other.guarantees.miscoverage10.alpha = 0.3
  other.sets = {'same': other.sets.same}
  other.pools = {}
  command.run(other, str(path.parent), '')
  assert counted == [('cells', ['none', 'temperature'])]


def test_wrong_guarantees_are_told(made, tmp_path):
  _, _, config = made
  cases = [
    (dict(g=dict(loss='miscoverage', alpha=2.0)), 'alpha is 2.0\n  it is a number from 0 to 1'),
    (dict(g=dict(loss='coverage')), 'did you mean: miscoverage'),
    (dict(g=dict(classes=('b',))), 'is of miscoverage, which has no foreground'),
    (dict(g=dict(loss='fnr', classes=('d',))), "has no class 'd'"),
    (dict(g=dict(alhpa=0.1)), 'did you mean: alpha'),
  ]
  for given, message in cases:
    wrong = config.copy_and_resolve_references()
    wrong.guarantees = given
    with pytest.raises(UserError, match=re.escape(message)):
      command.run(wrong, str(tmp_path / 'out'), '')


def test_without_calibrate_on_the_default_is_none_and_others_are_an_error(made, tmp_path):
  _, _, config = made
  c = config.copy_and_resolve_references()
  c.calibrators, c.calibrate_on = {}, None
  with pytest.raises(UserError, match='has no images to choose its threshold on'):
    plan.plan(c)
  c.guarantees = guarantees.DEFAULT
  assert plan.plan(c).guarantees == {}
  assert plan.plan(c).calibrate_on is None
  config = config.copy_and_resolve_references()
  config.guarantees = study_options.defaults().guarantees
  assert plan.plan(config).guarantees == {'miscoverage10': Guarantee('miscoverage', 0.1)}
  config.guarantees = {}
  assert plan.plan(config).guarantees == {}


def test_maps_of_classes_have_no_guarantee(made, tmp_path):
  _, arrays, config = made
  for name, (logits, _) in arrays.items():
    (tmp_path / name).mkdir()
    for k, x in enumerate(logits[:3]):
      np.save(tmp_path / name / f'{k}.npy', np.uint8(x.argmax(-1)))
  for name in arrays:
    (tmp_path / 'labels' / name).mkdir(parents=True)
    for k in range(3):
      cv2.imwrite(str(tmp_path / 'labels' / name / f'{k}.png'), np.uint8(arrays[name][1][k]))
  c = config.copy_and_resolve_references()
  c.models = {'maps': str(tmp_path / '{set}')}
  c.sets = {'same': dict(labels=str(tmp_path / 'labels' / 'same'))}
  c.calibrate_on = dict(labels=str(tmp_path / 'labels' / 'calibrate_on'))
  c.pools, c.calibrators, c.measures = {}, {}, ('miou',)
  content, _ = command.run(c, str(tmp_path / 'out'), '')
  assert content['guarantee_results'] == []
  assert content['cells'][0]['values']['miou']
  assert json.dumps(content['guarantees'])
