"""Rank correlations of accuracy and calibration over models, against plain numpy and scipy."""

import copy
import itertools
import json

import numpy as np
import pytest
import scipy.stats

from car_jax.evaluate import tables as results
from car_jax.reliability import correlation, findings, plan, ranks, study_options
from car_jax.reliability.correlation import Scores
from car_jax.reliability.study import Cell
from car_jax.reliability.view import View
from car_jax.report import study as page
from tests.metrics import pixels
from tests.reliability import fake_study
from tests.reliability.test_correlation import made_counts, miou

FUNCTIONS = {'spearman': scipy.stats.spearmanr, 'kendall': scipy.stats.kendalltau}
IMAGES, RESAMPLES, SEED = 5, 30, 3


SCORES = {name: pixels.metric(name) for name in ('miou', 'pixel_accuracy', 'ece')}


def cells_of(models, rng):
  """Cells of one set, and by model its matrices [I, C, C], right and summed confidence [I, 15]."""
  cells, made = [], []
  for k in range(models):
    matrices = rng.integers(0, 9, (IMAGES, 3, 3)) + 4 * k * np.eye(3, dtype=int)
    right, sure = rng.random((2, IMAGES, 15)) * (3 + rng.random())
    counts = made_counts(matrices)
    rows = counts.rows['pixels']
    rows['ece'][:, 0, :, 1], rows['ece_conf'][:, 0] = right, sure
    cells.append(Cell(f'm{k}', 'rain', 'none', counts, SCORES))
    made.append((matrices, right, sure))
  return cells, made


def scores(matrices, right, sure, times):
  """mIoU and ECE of images counted `times`."""
  matrix, right, sure = (np.tensordot(times, x, (0, 0)) for x in (matrices, right, sure))
  return miou(matrix), np.abs(right - sure).sum() / matrix.sum()


def planned(models, **changes):
  c = study_options.defaults()
  c.models = {f'm{k}': 'nowhere' for k in range(models)}
  c.sets, c.resamples, c.seed = {'rain': dict(labels='x')}, RESAMPLES, SEED
  for key, value in changes.items():
    c[key] = value
  return plan.plan(c)


def test_values_and_intervals_are_those_of_a_plain_nested_loop():
  cells, made = cells_of(6, np.random.default_rng(1))
  [actual] = ranks.of_study(planned(6), cells)
  assert (actual['set'], actual['measures'], actual['note']) == ('rain', ['miou', 'ece'], '')
  x, y = np.transpose([scores(*m, np.ones(IMAGES)) for m in made])
  points = [(p['accuracy']['value'], p['calibration']['value']) for p in actual['models']]
  np.testing.assert_allclose(points, np.stack([x, y], -1))
  # the same images for both scores of all models; then models among them
  times = np.random.default_rng([SEED, 0]).multinomial(IMAGES, [1 / IMAGES] * IMAGES, RESAMPLES)
  rng, drawn = np.random.default_rng([SEED, 2]), []
  for t in times:
    models = rng.integers(6, size=6)
    if len({*models}) > 2:
      drawn.append(np.transpose([scores(*made[m], t) for m in models]))
  for name, function in FUNCTIONS.items():
    of = actual['coefficients'][name]
    assert of['value'] == pytest.approx(function(x, y).statistic)
    ends = np.percentile([function(*pair).statistic for pair in drawn], [2.5, 97.5])
    assert of['models'] == pytest.approx(ends)
  taus = np.array([scipy.stats.kendalltau(x, o).statistic for o in itertools.permutations(y)])
  tau = actual['coefficients']['kendall']['value']
  assert actual['chance'] == pytest.approx(np.mean(np.abs(taus) > abs(tau) - 1e-9))


@pytest.mark.parametrize(
  ('models', 'measures', 'used'),
  [
    (2, ('miou', 'ece'), None),
    (3, ('ece', 'auroc'), None),
    (3, ('miou', 'nll'), None),
    (3, ('pixel_accuracy', 'ece'), ['pixel_accuracy', 'ece']),
  ],
)
def test_it_takes_three_models_and_both_scores(models, measures, used):
  cells, _ = cells_of(models, np.random.default_rng(2))
  actual = ranks.of_study(planned(models, measures=measures), cells)
  assert [e['measures'] for e in actual] == ([used] if used else [])


def entry(name, x, y, spread=0.0, lacking=0):
  """What a study has of models with accuracies x and calibration errors y."""
  rng = np.random.default_rng(0)
  of = lambda v: Scores(v, v + spread * rng.normal(size=200))
  points = {f'm{k}': (of(a), of(b)) for k, (a, b) in enumerate(zip(x, y, strict=True))}
  points |= {
    f'lacks {k}': (of(0.5), Scores(float('nan'), np.full(200, np.nan))) for k in range(lacking)
  }
  actual = correlation.correlated(points, sides=ranks.SIDES)
  actual |= dict(chance=ranks.by_chance(actual['models']))
  return dict(set=name, measures=['miou', 'ece']) | actual


def with_ranks(*entries):
  study = fake_study.study(models=2) | dict(ranks=entries, resamples=200)
  return json.loads(json.dumps(results.plain(study), allow_nan=False))


RISING = np.linspace(0.2, 0.7, 8)
CASES = {
  'better': (entry('fog 1.0', RISING, 1 - RISING), 'the more accurate are better calibrated'),
  'worse': (entry('fog 1.0', RISING, RISING / 2), 'the more accurate are worse calibrated'),
  'open': (
    entry('fog 1.0', RISING[:6], RISING[[2, 5, 0, 3, 4, 1]]),
    'undecided, an interval holds 0',
  ),
  'four': (entry('fog 1.0', RISING[:4], RISING[[0, 1, 3, 2]]), 'undecided, not rare by chance'),
  'three': (entry('fog 1.0', RISING[:3], RISING[:3]), 'undecided, without an interval'),
}


@pytest.mark.parametrize('case', CASES)
def test_the_sentence_says_which_way_and_of_how_many(case):
  one, verdict = CASES[case]
  view = View(with_ranks(entry('Cityscapes val', RISING, 1 - RISING, lacking=1), one))
  line = ranks.finding(view)
  assert line in findings.findings(view)
  count = len(one['models'])
  assert f'mIoU and ECE over {"8" if count == 8 else f"{count} to 8"} models, before' in line
  value = FUNCTIONS['spearman'](*_points(one)).statistic
  assert f'on fog 1.0 Spearman {value:.2f}'.replace('-', '−') in line
  others = 'the more accurate are better calibrated'
  sure = [v for v in (verdict, others) if not v.startswith('undecided')]
  decided = f'Of all 2 sets, {len(sure)} {"are" if len(sure) > 1 else "is"} decided.'
  assert f': {verdict}. {decided} In brackets' in line
  low, high = one['coefficients']['kendall']['models']
  assert (f'({low:.2f} to {high:.2f})'.replace('-', '−') in line) == (case != 'three')


def test_a_pool_is_no_further_set():
  study = with_ranks(*(entry(s, RISING, 1 - RISING) for s in ('Cityscapes val', 'fog 1.0', 'all')))
  study['sets'].append(dict(name='all', role='shifted', pool=True))
  assert 'Of all 2 sets, 2 are decided.' in ranks.finding(View(study))


def _points(one):
  return np.transpose([[p[side]['value'] for side in ranks.SIDES] for p in one['models']])


def test_the_page_and_the_table_show_every_set_and_what_intervals_cover():
  shown = [entry(s, RISING[:6], RISING[[2, 5, 0, 3, 4, 1]]) for s in ('Cityscapes val', '<IDD>')]
  study = with_ranks(*shown, entry('same', RISING, 0 * RISING), entry('two', [1, 2], [2, 3]))
  text = page.page(study, fake_study.images(study))
  section = text[text.index('<section id="accuracy"') :].partition('</section>')[0]
  assert ranks.QUESTION in section
  value = f'{scipy.stats.kendalltau(*_points(shown[0])).statistic:.2f}'.replace('-', '−')
  assert section.count(f'<td>{value} (') == 2
  assert '&lt;IDD&gt;' in section
  assert '>same<' not in section  # has no order
  assert 'the orders of 6 models by mIoU and ECE' in section
  assert 'drawn again with replacement, and images or scenes with them 200 times' in section
  assert 'They do not cover other trainings' in section
  markdown = page.markdown(study)
  assert f'## {ranks.QUESTION}' in markdown
  assert '| Cityscapes val | 6 |' in markdown
  assert 'They do not cover other trainings' in markdown


def test_a_study_without_has_neither():
  study = fake_study.study(models=2)
  for given in (study, copy.deepcopy(study) | {'ranks': []}):
    assert ranks.QUESTION not in page.page(given, {}) + page.markdown(given)
