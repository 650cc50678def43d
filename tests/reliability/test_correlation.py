"""Correlations over models and scores of each object, against plain numpy and scipy."""

import copy
import dataclasses
import json
import math
import re

import numpy as np
import pytest
import scipy.stats

from car_jax.errors import UserError
from car_jax.metrics.onepass import COARSE, SCORES
from car_jax.reliability import correlation, document, objects, plan, study_options
from car_jax.reliability.correlation import Scores
from car_jax.reliability.study import Cell
from car_jax.reliability.view import View
from car_jax.report import study as page
from tests.metrics import pixels, published
from tests.reliability import fake_study, runs
from tests.report.document import Document

CLASSES = 3
MIOU = {'miou': pixels.metric('miou')}


def made_counts(confusions, ids=None, groups=None):
  """A cell of which only the confusion matrices [I, C, C] mean something."""
  counts = pixels.empty()
  count = len(confusions)
  counts.ids = [str(i) for i in range(count)] if ids is None else ids
  counts.groups = [''] * count if groups is None else groups
  bins = COARSE
  part = dict(
    confusion=np.asarray(confusions, np.int64), scores=np.zeros((count, len(SCORES), 3, bins)),
    conf=np.zeros((count, bins)), ece=np.zeros((count, 2, 15, 2)),
    ece_conf=np.zeros((count, 2, 15)),
    losses=np.zeros((count, 2)), image=np.zeros((count, 3)), pixels=np.ones(count, np.int64),
    objects=np.zeros((count, 14)), with_objects=np.zeros((count, 14), np.int64),
  )  # fmt: skip
  counts._parts = [{'pixels': part}]
  return counts


def miou(confusion):
  union = confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
  return np.mean(np.diag(confusion)[union > 0] / union[union > 0])


def random_cells(models, seed=0, images=6, groups=None):
  """Cells of sets 'made a', 'made b' and 'real' by model, and their matrices by (model, set)."""
  rng = np.random.default_rng(seed)
  cells, at = [], {}
  for k in range(models):
    for name in ('made a', 'made b', 'real'):
      x = rng.integers(0, 9, (images, CLASSES, CLASSES)) + (4 + 5 * k) * np.eye(CLASSES, dtype=int)
      at[f'm{k}', name] = x
      cells.append(Cell(f'm{k}', name, 'none', made_counts(x, groups=groups), MIOU))
  return cells, at


def planned(models, **changes):
  c = study_options.defaults()
  c.models = {f'm{k}': 'nowhere' for k in range(models)}
  c.sets = {name: dict(labels='x') for name in ('made a', 'made b', 'real')}
  c.pools = {'made': ('made a', 'made b')}
  c.resamples = 40
  c.correlations = {'weather': dict(synthetic=('made',), real=('real',), measures=('miou',))}
  for key, value in changes.items():
    c[key] = value
  return plan.plan(c)


def test_coefficients_are_scipys_over_scores_of_pooled_images():
  cells, at = random_cells(5)
  (found,) = correlation.of_study(planned(5), cells)
  x = [miou(sum(at[f'm{k}', s].sum(0) for s in ('made a', 'made b'))) for k in range(5)]
  y = [miou(at[f'm{k}', 'real'].sum(0)) for k in range(5)]
  for point, a, b in zip(found['models'], x, y, strict=True):
    assert point['synthetic']['value'] == pytest.approx(a)
    assert point['real']['value'] == pytest.approx(b)
    assert point['real']['low'] <= point['real']['high']
  known = dict(pearson=scipy.stats.pearsonr, spearman=scipy.stats.spearmanr)
  known['kendall'] = scipy.stats.kendalltau
  for name, of in known.items():
    assert found['coefficients'][name]['value'] == pytest.approx(of(x, y).statistic)
  assert found['note'] == ''


def test_images_are_drawn_alike_for_all_models_and_whole_scenes_at_once():
  cells, at = random_cells(2, groups=['s', 's', 't', 't', 'u', 'u'])
  drawn = [
    c.counts.draws([*MIOU.values()], resamples=30, seed=[7])['miou']
    for c in cells
    if c.set == 'real'
  ]
  rng = np.random.default_rng([7])
  times = rng.multinomial(3, np.full(3, 1 / 3), 30)
  for k, column in enumerate(drawn):
    scenes = at[f'm{k}', 'real'].reshape(3, 2, CLASSES, CLASSES).sum(1)
    want = [miou(np.einsum('s,sij->ij', t, scenes)) for t in times]
    np.testing.assert_allclose(column, want)


def test_intervals_are_those_of_a_plain_nested_loop():
  rng = np.random.default_rng(1)
  x, y = rng.normal(size=(2, 50, 6))
  points = {f'm{k}': (Scores(x[0, k], x[:, k]), Scores(y[0, k], y[:, k])) for k in range(6)}
  found = correlation.correlated(points, seed=5)['coefficients']
  of = {'pearson': scipy.stats.pearsonr, 'kendall': scipy.stats.kendalltau}
  for name, function in of.items():
    fixed = [function(x[r], y[r]).statistic for r in range(50)]
    assert found[name]['images'] == pytest.approx(np.percentile(fixed, [2.5, 97.5]))
    again, drawn = np.random.default_rng([5, 2]), []
    for r in range(50):
      models = again.integers(6, size=6)
      if len(set(models)) > 2:
        drawn.append(function(x[r, models], y[r, models]).statistic)
    assert found[name]['models'] == pytest.approx(np.percentile(drawn, [2.5, 97.5]))


def scores(*pairs, draws=20):
  """Model -> its scores, with resamples that are all the score itself."""
  one = lambda v: Scores(v, np.full(draws, v))
  return {f'm{k}': (one(a), one(b)) for k, (a, b) in enumerate(pairs)}


NAN = math.nan


@pytest.mark.parametrize(
  ('points', 'note', 'spearman'),
  [
    (scores(), 'no model has both scores; a correlation needs 3', NAN),
    (scores((1, 2), (NAN, 2), (1, NAN)), 'one model has both scores', NAN),
    (scores((1, 2), (2, 3)), 'two models have both scores', NAN),
    (
      scores((1, 2), (1, 3), (1, 4), (1, 5)),
      'all models have the same synthetic score',
      NAN,
    ),
    (scores((1, 2), (3, 2), (4, 2), (5, 2)), 'all models have the same real score', NAN),
    (scores((1, 2), (2, 3), (3, 4)), 'no interval over models: it needs 4', 1),
    (scores((1, 4), (2, 3), (3, 2), (NAN, 1), (4, 1)), '', -1),
    (scores((1, 1), (1, 2), (2, 3), (3, 3)), '', 8 / 9),  # ties: mean ranks, by hand
  ],
)
def test_too_few_models_ties_and_missing_scores_are_said(points, note, spearman):
  found = correlation.correlated(points)
  assert found['note'].startswith(note)
  assert bool(found['note']) == bool(note)
  assert found['coefficients']['spearman']['value'] == pytest.approx(spearman, nan_ok=True)
  assert found['left_out'] == [m for m, p in points.items() if any(math.isnan(s.value) for s in p)]
  if math.isnan(spearman):
    assert all(math.isnan(v) for of in found['coefficients'].values() for v in of['images'])


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (dict(synthetic=()), "correlation 'w' has no synthetic sets"),
    (dict(real=('rael',)), "no set or pool 'rael'\n  did you mean: real"),
    (dict(real=('made a', 'real')), "'made a' is on both sides"),
    (dict(measures=()), "correlation 'w' has no measures"),
    (dict(measures=('miuo',)), "unknown metric 'miuo'"),
    (dict(sets=('real',)), 'sets'),
  ],
)
def test_mistakes_in_a_correlation(change, message):
  given = dict(synthetic=('made',), real=('real',)) | change
  with pytest.raises(UserError, match=re.escape(message)):
    planned(2, correlations={'w': given})


def by_object():
  """A cell of six images of three objects; and GenVal's numbers of each image by sorting."""
  rng = np.random.default_rng(3)
  want = []
  cell = Cell('m', 'objects', 'none', made_counts(np.zeros((6, CLASSES, CLASSES))), MIOU)
  for k in range(6):
    logits, mask = rng.normal(size=(4, 5, CLASSES)), np.zeros((4, 5), bool)
    mask[1:3, 1 : 2 + k % 3] = k != 4  # that image shows no object
    want.append(published.object_metrics(logits, mask) if mask.any() else None)
  names = ('entropy', 'confidence', 'logits')
  keys = ['raw_entropy', 'rel_entropy']
  keys += [f'{n}_{kind}' for n in names for kind in ('auroc', 'fpr', 'aupr_in', 'aupr_out')]
  part = cell.pixels
  for k, row in enumerate(want):
    if row:
      part['objects'][k], part['with_objects'][k] = [row[key] for key in keys], 1
  cell.counts.ids = ['ball/0', 'ball/1', 'deer/0', 'deer/7', 'lion/1', 'polar bear/a/1']
  return cell, want, keys


def test_scores_of_each_object_are_means_over_its_images():
  cell, want, keys = by_object()
  found = objects.of_cell(cell, resamples=20, seed=0)
  names = ['ball', 'deer', 'lion', 'polar bear/a']
  assert [objects.title(e) for e in found] == [*names, 'all images', 'mean of objects']
  assert [e['images'] for e in found] == [2, 2, 1, 1, 6, 6]
  rows = dict(zip(names, ([0, 1], [2, 3], [], [5]), strict=True))
  order = (
    'object_entropy',
    'object_entropy_ratio',
    'object_auroc[entropy]',
    'object_fpr95[entropy]',
  )
  order += ('object_aupr[entropy]', 'object_aupr_rest[entropy]', 'object_auroc', 'object_fpr95')
  order += ('object_aupr', 'object_aupr_rest', 'object_auroc[max_logit]', 'object_fpr95[max_logit]')
  order += ('object_aupr[max_logit]', 'object_aupr_rest[max_logit]')
  for key, measure in zip(keys, order, strict=True):
    mean = lambda ks, key=key: np.mean([want[k][key] for k in ks])
    for entry in found[:4]:
      if ks := rows[entry['object']]:
        assert entry['values'][measure]['value'] == pytest.approx(mean(ks))
    assert found[4]['values'][measure]['value'] == pytest.approx(mean([0, 1, 2, 3, 5]))
    each = np.mean([mean(ks) for ks in rows.values() if ks])
    assert found[5]['values'][measure]['value'] == pytest.approx(each)
  assert found[2]['values'] == {}
  assert math.isnan(found[3]['values']['object_auroc']['low'])  # of one image
  lines = objects.csv(found).splitlines()
  assert len(lines) == 7
  assert lines[3].startswith('m,objects,none,lion,,1,,,')
  cell.counts.ids[0] = 'ball'
  with pytest.raises(UserError, match="its image 'ball' is not called OBJECT/NAME"):
    objects.of_cell(cell, resamples=2, seed=0)


def with_both():
  study = fake_study.study(models=2)
  study['models'] = [{'name': m} for m in ('<b>', 'm|1', 'long name of a model', 'm3', 'm4')]
  rng = np.random.default_rng(0)
  x = np.sort(rng.random(5)) / 2
  points = {
    m['name']: tuple(Scores(v, v + rng.normal(size=30) / 50) for v in (a, a / 2 + 0.2))
    for m, a in zip(study['models'], x, strict=True)
  }
  base = dict(name='fog & night', measure='miou', synthetic=['made <1>'], real=['real'])
  missing = correlation.correlated(dict.fromkeys(points, (Scores(NAN, np.zeros(3)),) * 2))
  found = [base | correlation.correlated(points), base | dict(measure='ece') | missing]
  cell, _, _ = by_object()
  cell.model, cell.set = '<b>', 'IDD'
  entries = objects.of_cell(cell, resamples=5, seed=0)
  more = tables_plain(dict(correlations=found, objects=entries))
  return study | more


def tables_plain(content):
  from car_jax.evaluate import tables as results

  return json.loads(json.dumps(results.plain(content), allow_nan=False))


def test_the_page_and_the_table_show_both():
  study = with_both()
  text = page.page(study, fake_study.images(study))
  section = text[text.index('<section id="correlation"') :].partition('</section>')[0]
  figures = {k: v for k, v in Document(text).figures.items() if k.startswith('fog & night')}
  models = [r['series'] for rows in figures.values() for r in rows]
  assert len([m for m in models if m != 'the same score']) == 5
  for name in ('&lt;b&gt;', 'm|1', 'long name of a model', 'fog &amp; night', 'made &lt;1&gt;'):
    assert name in section
  value = study['correlations'][0]['coefficients']['pearson']['value']
  assert f'{value:.2f}' in section
  assert 'no model has both scores' in section
  unknown = text[text.index('<section id="unknown"') :].partition('</section>')[0]
  assert 'polar bear/a' in unknown
  assert unknown.index('lion') < unknown.index('all images') < unknown.index('mean of objects')
  printed = '\n'.join(correlation.as_table(View(study)).terminal())
  assert 'fog & night' in printed
  assert f'{value:.2f} (' in printed
  assert 'no model has both scores' in printed
  assert all(len(line) <= 80 for line in printed.splitlines())
  assert '## Does synthetic shift predict real shift?' in page.markdown(study)


def test_a_study_without_either_has_no_section():
  study = fake_study.study(models=1)
  text = page.page(study, {})
  assert 'id="correlation"' not in text
  assert 'Each object' not in text
  assert correlation.as_table(View(study)) is None
  assert correlation.as_table(View(copy.deepcopy(study) | {'correlations': []})) is None


def test_a_set_of_foreign_predictions_may_be_by_object(tmp_path):
  from car_jax import sharding
  from car_jax.reliability import document, study

  c = runs.foreign(tmp_path)
  c.calibrators, c.worst = {}, 0
  for name in ('predictions', 'labels'):
    place = tmp_path / name / 'fog'
    (place / 'deer').mkdir()
    for path in [*place.glob('*.*')]:
      path.rename(place / 'deer' / path.name)
  c.sets['fog']['by_object'] = True
  one = study.Study(plan.plan(c), tmp_path / 'out', sharding.make_mesh(), lambda text: None)
  cells = [cell for of in one.run() for cell in of]
  content = document.build(one, cells, [])
  named = [(e['set'], objects.title(e), e['images']) for e in content['objects']]
  assert named == [('fog', 'deer', 2), ('fog', 'all images', 2), ('fog', 'mean of objects', 2)]


def test_a_study_says_how_sure_its_order_is_and_how_far_trainings_differ():
  cells, at = random_cells(4)
  made = planned(4, resamples=50, sets={s: dict(labels='x') for s in ('made a', 'made b', 'real')})
  made = dataclasses.replace(made, measures=('miou',), seeds={'m': ('m0', 'm1')}, pools={})
  first, *_ = document._rankings(made, cells)
  values = {m: miou(at[m, 'made a'].sum(0)) for m in ('m0', 'm1', 'm2', 'm3')}
  assert first['order'] == tuple(sorted(values, key=values.get, reverse=True))
  assert sum(first['best'].values()) == pytest.approx(1)
  seeds = {(e['set'], e['model']): e for e in document._seeds(made, cells)}
  pair = values['m0'], values['m1']
  found = seeds['made a', 'm']
  assert (found['mean'], found['deviation']) == pytest.approx((np.mean(pair), np.std(pair, ddof=1)))
