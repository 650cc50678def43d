"""Which scores agree with what is published, from reports that the tests write."""

import dataclasses
import json

import pytest

from car_jax import published
from car_jax.configs import sac_gta5
from car_jax.evaluate import plan
from car_jax.published import Score
from car_jax.reproduce import comparison, experiments, stages
from tests.test_configs import info_of, load


def report(folder, values, scores, name='train'):
  """Of trainings with these values of ged16; each has a second predictor, which is no method's."""
  entry = lambda v: {'ged16': dict(mean=v, low=v - 0.01, high=v + 0.02)}
  several = len(values) > 1
  row = lambda k, p, v: dict(name=f'{name}/seed{k}: {p}' if several else p, scores=entry(v))
  rows = [
    row(k, p, v + 9 * (p == 'argmax')) for k, v in enumerate(values) for p in ('own', 'argmax')
  ]
  content = dict(subjects=rows, metrics=[dict(name='ged16')])
  content['published'] = [dataclasses.asdict(s) | dict(text=s.text) for s in scores]
  place = folder / f'{name}-report'
  place.mkdir(parents=True)
  (place / 'results.json').write_text(json.dumps(content))


PAPER = Score('ged16', 0.2, 0.01, 'a table', tolerance=0.02)
WEIGHTS = Score('ged16', 0.3, of='weights', tolerance=0.002)


@pytest.mark.parametrize(
  ('values', 'inside'),
  [((0.21,), True), ((0.23,), False), ((0.17,), False), ((0.19, 0.24), True), ((0.2, 0.3), False)],
)
def test_the_mean_over_seeds_is_judged(tmp_path, values, inside):
  report(tmp_path, values, [PAPER, WEIGHTS])
  request = stages.Request(experiments.find('lidc-mose'), tmp_path)
  (line,) = found = comparison.lines(request)
  assert (line.known, line.seeds, line.inside) == (PAPER, values, inside)
  assert (line.low, line.high) == (min(values) - 0.01, max(values) + 0.02)
  assert comparison.agrees(request, found) == inside
  text = '\n'.join(comparison.write(request, found))
  assert ('inside' if inside else 'OUTSIDE') in text
  assert '0.2 ± 0.01' in text
  assert 'a table' in text
  assert json.loads((tmp_path / 'reproduction.json').read_text())['lines'][0]['inside'] == inside


def test_part_of_the_data_is_no_reproduction(tmp_path):
  report(tmp_path, (0.9,), [PAPER])
  request = stages.Request(experiments.find('lidc-mose'), tmp_path, partial=True)
  found = comparison.lines(request)
  text = '\n'.join(comparison.write(request, found))
  assert 'No reproduction, and compared with nothing: part of the data' in text
  assert 'OUTSIDE' not in text
  assert comparison.agrees(request, found)


@pytest.mark.parametrize(
  ('changes', 'departs'),
  [((), False), ((('log_every', '5'),), False), ((('steps', '5'),), True)],
)
def test_a_changed_training_is_no_reproduction(tmp_path, changes, departs):
  request = stages.Request(experiments.find('lidc-mose'), tmp_path, changes=changes)
  assert bool(request.departures()) == departs


def test_weights_are_beside_the_scores_of_weights(tmp_path):
  report(tmp_path, (0.301,), [PAPER, WEIGHTS], 'released')
  request = stages.Request(experiments.find('lidc-mose'), tmp_path, released='x.pth')
  (line,) = comparison.lines(request)
  assert line.known == WEIGHTS
  assert line.inside
  given = [dataclasses.asdict(WEIGHTS) | dict(text='')]
  (known,) = comparison.known_of(given, 'training')  # which is not held to what weights can meet
  assert known.tolerance == comparison.LEAST
  assert comparison.known_of([dataclasses.asdict(PAPER)], 'weights') == [PAPER]


def test_models_of_a_study_are_beside_their_published_accuracy(tmp_path):
  cells = [
    dict(model=m, set=s, values=dict(miou=dict(value=v, low=v, high=v)))
    for m, s, v in (
      ('SETR-PUP', 'validation', 0.79),
      ('SETR-PUP', 'validation, test', 0.5),
      ('PSPNet-R50', 'validation', 0.5),  # of the other study
      ('ConvNext', 'validation', 0.8),
    )
  ]
  (tmp_path / 'validation').mkdir()
  (tmp_path / 'validation' / 'study.json').write_text(json.dumps(dict(cells=cells)))
  request = stages.Request(experiments.find('relis'), tmp_path)
  lines = {line.model: line for line in comparison.lines(request)}
  assert {k: v.inside for k, v in lines.items()} == {'SETR-PUP': True, 'ConvNext': None}
  assert lines['SETR-PUP'].known.value == 0.7921


SAC = [f'sac_{s}:{net}' for s in ('gta5', 'synthia') for net in sac_gta5.MIOU]


@pytest.mark.parametrize(
  'name', ['car_lidc', 'mose_lidc', 'mose_lidc_1annot', 'mose_cityscapes', *SAC]
)
def test_what_a_config_says_is_published_stands_beside_its_report(name):
  """Scores by the names of the report, of its own data and split."""
  config = load(name)
  names = [m.name for m in plan.plan(plan.report_spec(config), info_of(config)).metrics]
  shown = published.beside(config.published, config.data.name, config.report.split, names)
  assert len(shown) == len(config.published) > 0
  assert all(
    s.source and s.convention and 0 < s.value < 1 for s in published.scores(config.published)
  )
