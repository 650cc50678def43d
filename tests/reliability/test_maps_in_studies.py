"""Components and borders in a study and a report of arrays that a numpy script wrote."""

import json
import shutil

import cv2
import numpy as np
import pytest
from scipy.special import softmax

from car_jax.commands import eval as evaluation
from car_jax.reliability import command, study_options
from tests.metrics import oracle
from tests.metrics.regions import by_sets
from tests.report.document import Document

COMPONENTS = ('component_f1[seg=3,ins=2,at=0.4]', 'component_siou[seg=3,ins=2]')
BORDERS = ('boundary_iou', 'boundary_f[width=1]', 'ece_near', 'ece_near[8-inf]')


def written(folder, count=3):
  """Logits, labels with unknown objects (254) and void, and maps of classes -> (logits, labels)."""
  rng, logits, labels = np.random.default_rng(3), [], []
  for kind in ('logits', 'maps', 'labels'):
    (folder / kind).mkdir(parents=True)
  for k in range(count):
    small = np.kron(rng.normal(size=(5, 6, 4)), np.ones((5, 5, 1)))
    label = small.argmax(-1).astype(np.uint8)
    label[rng.random(label.shape) < 0.1] = 255
    for y, x in rng.integers(0, 20, (3, 2)):
      label[y : y + 4, x : x + 3] = 254
      small[y : y + 4, x : x + 4] *= 0.3
    score = np.float32(2 * small + rng.normal(size=small.shape))
    np.save(folder / 'logits' / f'{k}.npy', score)
    np.save(folder / 'maps' / f'{k}.npy', score.argmax(-1))
    cv2.imwrite(str(folder / 'labels' / f'{k}.png'), label)
    logits.append(score)
    labels.append(label)
  return np.stack(logits), np.stack(labels)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  folder = tmp_path_factory.mktemp('maps')
  arrays = written(folder / 'all')
  c = study_options.defaults()
  shutil.copytree(folder / 'all', folder / 'less')
  c.models = {k: str(folder / '{set}' / k) for k in ('logits', 'maps')}
  c.sets = {k: dict(labels=str(folder / k / 'labels')) for k in ('all', 'less')}
  c.sets.less.absent = ('d',)
  c.pools = {'both': ('all', 'less')}
  c.classes, c.palette = tuple('abcd'), ((0, 0, 0),) * 4
  c.measures = ('miou', 'ece', 'unknown_auroc', *COMPONENTS, *BORDERS)
  c.resamples, c.worst, c.sampled = 20, 0, 300
  found, page = command.run(c, str(folder / 'out'), '')
  return arrays, found, page, folder


def values(found, model, name='all'):
  cell = next(c for c in found['cells'] if (c['model'], c['set']) == (model, name))
  return cell['values']


def test_a_study_has_them_as_plain_numpy_finds(finished):
  (logits, labels), found, _, _ = finished
  ours = values(found, 'logits')
  unsure = 1 - softmax(logits.astype(np.float64), -1).max(-1)
  truth = np.select([labels == 254, labels == 255], [1, 255], 0)
  each = [by_sets(u > 0.4, y, 3, 2) for u, y in zip(unsure, truth, strict=True)]
  siou, _, ppv = (np.concatenate(x) for x in zip(*each, strict=True))
  f1 = [
    2 * np.sum(siou >= t) / (np.sum(siou >= t) + len(siou) + np.sum(ppv < t))
    for t in np.linspace(0.25, 0.75, 11)
  ]
  assert ours[COMPONENTS[0]]['value'] == pytest.approx(np.mean(f1))
  assert ours[COMPONENTS[0]]['bound'] == 0
  assert ours[COMPONENTS[1]]['bound'] is None
  assert ours[COMPONENTS[0]]['low'] <= ours[COMPONENTS[0]]['value'] <= ours[COMPONENTS[0]]['high']
  conf, hits = [], []
  for i, y in enumerate(labels):
    seen = np.argwhere(y < 4)
    for p in seen:
      others = seen[y[tuple(seen.T)] != y[tuple(p)]]
      if np.hypot(*(others - p).T).min() <= 2:
        conf.append(1 - unsure[(i, *p)])
        hits.append(logits[(i, *p)].argmax() == y[tuple(p)])
  want = oracle.ece(np.array(conf), np.array(hits), np.ones(len(hits), bool), 15)
  assert ours['ece_near']['value'] == pytest.approx(want, abs=1e-5)
  [curve] = [c for c in found['curves'] if (c['model'], c['set']) == ('logits', 'all')]
  near = curve['near']
  assert near['bands'] == ['0 to 1 px', '1 to 2 px', '2 to 4 px', '4 to 8 px', 'beyond 8 px']
  assert sum(near['pixels'][:2]) == len(hits)
  shares = np.array([np.array(near[k][:2]) for k in ('accuracy', 'confidence')])
  mean = (shares * near['pixels'][:2]).sum(-1) / len(hits)
  np.testing.assert_allclose(mean, [np.mean(hits), np.mean(conf)], atol=1e-5)


def test_maps_of_classes_have_borders_alone(finished):
  _, found, _, _ = finished
  net, classes = values(found, 'logits'), values(found, 'maps')
  assert {*BORDERS[:2]} <= {*classes}
  assert not {*COMPONENTS, 'ece_near'} & {*classes}
  for name in BORDERS[:2]:
    assert classes[name] == net[name]


def test_an_absent_class_is_in_no_mean_but_in_a_pool_of_others(finished):
  _, found, _, _ = finished
  every, less, both = (values(found, 'logits', s) for s in ('all', 'less', 'both'))
  for name in BORDERS[:2]:
    assert less[name]['value'] != every[name]['value'] == pytest.approx(both[name]['value'])


def test_the_page_shows_them_by_group_and_distance(finished):
  _, found, page, _ = finished
  text, document = (page.parent / 'study.md').read_text(), Document(page.read_text())
  assert {'## Borders', '## Unknown objects'} <= {*text.splitlines()}
  assert 'mean F1 of components, from 3 and 2 px, above 0.4' in text
  assert 'all of them for components and borders' in text
  rows = document.figures['By distance to a border, all']
  [curve] = [c for c in found['curves'] if (c['model'], c['set']) == ('logits', 'all')]
  assert [r['row'] for r in rows] == [
    b for b, e in zip(curve['near']['bands'], curve['near']['ece'], strict=True) if e is not None
  ]
  assert float(rows[0]['ECE, %, ↓ lower is better']) == pytest.approx(
    100 * curve['near']['ece'][0], rel=1e-3
  )
  assert rows[0]['label'].startswith('confidence ')


def test_a_report_of_anybodys_files_has_them_too(finished, tmp_path, capsys):
  _, _, _, folder = finished
  names = (*BORDERS, 'component_f1')
  out = tmp_path / 'report'
  given = [f'--predictions={k}={folder / "all" / k}' for k in ('logits', 'maps')]
  change = [f'--config.report.metrics={names!r}', '--classes=4', f'--out={out}']
  more = [f'--labels={folder / "all" / "labels"}', '--explain']
  assert evaluation.main([*given, *more, *change]) == 0
  assert 'ece_near is ece_near[0 to 2 px, 15 bins' in capsys.readouterr().out
  content = json.loads((out / 'results.json').read_text())
  scores = {s['name']: s['scores'] for s in content['subjects']}
  for name in BORDERS[:2]:
    assert scores['logits'][name]['mean'] == pytest.approx(scores['maps'][name]['mean'])
  assert scores['maps']['ece_near']['left_out'] == 'one label map says nothing of confidence'
  assert scores['readers']['boundary_f[width=1]']['mean'] == 1
