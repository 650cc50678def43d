"""The adaptation study: its numbers against plain counting, its files, and what it refuses."""

import html
import itertools
import json
import re
import shutil

import jax
import numpy as np
import pytest

from car_jax.commands import train
from car_jax.data import compact, labels, opening, pipeline
from car_jax.errors import UserError
from car_jax.evaluate import checkpointed
from car_jax.reliability import count, segmenters
from car_jax.report import adaptation as adaptation_page
from car_jax.report import rendering
from car_jax.studies import adaptation
from tests.report.document import Document, network

CITYSCAPES = labels.CLASS_NAMES[: labels.SCORED]
CONFIG = """
from tests import small

def get_config():
  c = small.get_config('sac')
  c.data.update(readers=1, num_classes=3, batch=2, count=16, eval_batch=2)
  c.data.source.update(num_classes=3, count=16)
  c.data.target.groups = 1
  c.steps, c.eval_every, c.save_every, c.evals, c.best = 2, 0, 2, {}, ''
  return c
"""


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
  """One short SAC run, in the places of SAC and of the source-only run."""
  folder = tmp_path_factory.mktemp('adaptation')
  (folder / 'short.py').write_text(CONFIG)
  first = folder / 'sac' / 'seed0'
  assert train.main(['--config', str(folder / 'short.py'), '--workdir', str(first)]) == 0
  shutil.copytree(first, folder / 'source' / 'seed0')
  return folder


def ids(text):
  return re.findall(r'<section id="(\w+)"', text)


def logged(run):
  return [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]


def counted(run):
  """The confusion matrix of a run on the test images, pixel by pixel."""
  loaded = checkpointed.load(run)
  data = opening.open_dataset(loaded.config.data.to_dict())
  logits, matrix = jax.jit(loaded.method.logits), np.zeros((3, 3), int)
  batches = pipeline.eval_batches(data.split('test'), data.info, loaded.config.data.to_dict())
  for batch in map(compact.expanded, batches):
    said = np.asarray(logits(loaded.state, {k: batch[k] for k in ('image', 'labels')})).argmax(-1)
    kept = np.asarray(batch['valid'])
    np.add.at(matrix, (batch['labels'][kept, 0].ravel(), said[kept].ravel()), 1)
  return matrix


@pytest.fixture(scope='module')
def study(runs):
  assert adaptation.main([str(runs), '--out', str(runs / 'the study')]) == 0
  return runs / 'the study'


def test_the_command_writes_every_runs_numbers(runs, study):
  results = json.loads((study / 'results.json').read_text())
  assert list(results['models']) == ['source', 'sac']
  matrix = counted(runs / 'source' / 'seed0')
  both = np.diag(matrix)
  union = matrix.sum(0) + matrix.sum(1) - both
  want = [b / u if u else None for b, u in zip(both, union, strict=True)]
  for model in results['models'].values():
    assert model['runs'] == ['seed0']
    assert model['iou'] == [pytest.approx(want)]
    assert model['accuracy'] == [pytest.approx(both.sum() / matrix.sum())]
  assert results['gain'] == {'sac': [0.0]}
  assert (study / 'tables.md').read_text() == adaptation.markdown(results)
  figure = (study / 'classes.svg').read_text()
  assert all(f'>{name}<' in figure for name in ('background', 'disc 2', 'SAC', 'mean of 3'))


def test_the_page_is_one_whole_file(runs, study):
  assert sorted(p.name for p in study.iterdir()) == [
    'classes.svg', 'report.html', 'results.json', 'tables.md', 'views.png',
  ]  # fmt: skip
  text = (study / 'report.html').read_text()
  assert ids(text) == ['classes', 'labels', 'views', 'reproduce']
  assert network(text) == []
  assert rendering.data_uri((study / 'views.png').read_bytes()) in text
  assert f"python -m car_jax.studies.adaptation {runs} --out '{study}'" in html.unescape(text)
  shown = ('source-only', 'disc 2', 'no label', *adaptation_page.COLUMNS)
  assert {*shown} <= {*Document(text).texts}
  [run] = json.loads((study / 'results.json').read_text())['pseudo_labels']
  [line] = [x for x in logged(runs / 'sac' / 'seed0') if 'kept' in x]
  assert run['run'] == 'seed0'
  assert run['step'] == [line['step']]
  assert run['kept'] == [line['kept']]


def test_the_picture_has_a_row_for_each_view(study):
  import cv2

  picture = cv2.imread(str(study / 'views.png'))
  side, views = 128, 8
  assert picture.shape == (18 + views * side + 6 * 4 + 12, 5 * side + 4 * 4, 3)


def test_the_pictures_labels_are_the_methods_own(runs):
  loaded = checkpointed.load(runs / 'sac' / 'seed0')
  batch, palette = adaptation.training_batch(loaded.config, '', 2)
  found = adaptation.labelled(loaded, batch)
  assert found['predicted'].shape == found['labels'].shape == (8, 32, 32)
  assert len(palette) == 3
  kept = jax.jit(lambda s, b: loaded.method.labelled(s, b)[3]['kept'])
  assert np.mean(found['labels'] >= 0) == pytest.approx(float(kept(loaded.state, batch)))


def test_the_pictures_images_are_the_runs_first(runs, monkeypatch):
  config = checkpointed.load(runs / 'sac' / 'seed0').config
  assert config.data.target.groups == 1
  stream = opening.open_dataset(config.data.to_dict()).split('adaptation')
  batches = itertools.islice(stream.train_batches(seed=config.seed), 2)
  batches = [*map(compact.expanded, batches)]
  monkeypatch.setattr(jax, 'device_count', lambda: 3)  # that no 8 views can be split over
  found, _ = adaptation.training_batch(config, '', 2)
  for key in ('target', 'student', 'affine', 'target_label', 'views'):
    np.testing.assert_array_equal(found[key], np.concatenate([b[key] for b in batches]))


def test_means_leave_out_what_synthia_lacks():
  means = adaptation.means_of(CITYSCAPES)
  assert [len(v) for v in means.values()] == [19, 16, 13]
  left_out = {CITYSCAPES[k] for k in set(range(19)) - set(means['mean of 13'])}
  assert left_out == {'terrain', 'truck', 'train', 'wall', 'fence', 'pole'}
  assert list(adaptation.means_of(('sky', 'road'))) == ['mean of 2']


def matrices():
  """Two seeds of a source-only model and of SAC; nothing is of the last class or said to be."""
  source = [[[6, 2, 0], [2, 2, 0], [0, 0, 0]], [[5, 5, 0], [0, 5, 0], [0, 0, 0]]]
  sac = [[[8, 0, 0], [0, 4, 0], [0, 0, 0]], [[10, 0, 0], [5, 5, 0], [0, 0, 0]]]
  seeds = lambda found: {f'seed{k}': np.array(m) for k, m in enumerate(found)}
  return {'source': seeds(source), 'sac': seeds(sac)}


def only(seed, name):
  return {seed: matrices()[name][seed]}


def test_a_summary_of_matrices_by_hand():
  found = adaptation.summary(matrices(), ('a', 'b', 'c'))
  assert found['models']['source']['iou'] == [[0.6, pytest.approx(1 / 3), None], [0.5, 0.5, None]]
  assert found['models']['sac']['miou'] == {'mean of 3': [1.0, pytest.approx((2 / 3 + 0.5) / 2)]}
  assert found['gain']['sac'] == [pytest.approx(1 - 7 / 15), pytest.approx(1 / 12)]
  json.dumps(found, allow_nan=False)
  text = adaptation.markdown(found)
  assert '| a | 55.0 ± 7.1 | 83.3 ± 23.6 |' in text
  assert '| c | – | – |' in text
  assert 'SAC over source-only: +30.8 points of mIoU (+53.3, +8.3).' in text


def test_without_a_source_only_run_there_is_no_gain():
  found = adaptation.summary({'sac': only('seed0', 'sac')}, ('a', 'b', 'c'))
  assert found['gain'] == {}
  assert '| a | 100.0 |' in adaptation.markdown(found)


def test_runs_are_paired_by_seed_and_not_by_place():
  found = {'source': matrices()['source'], 'sac': only('seed1', 'sac')}
  results = adaptation.summary(found, ('a', 'b', 'c'))
  assert results['models']['source']['runs'] == ['seed0', 'seed1']
  # Seed 1 alone: IoU 2/3 and 1/2 over 1/2 and 1/2.
  assert results['gain'] == {'sac': [pytest.approx(1 / 12)]}
  assert adaptation_page.class_gains(results, 'sac') == [[pytest.approx(1 / 6)], [0], []]
  alone = 'In no gain, since no run of the same seed is there: source/seed0.'
  assert f'(+8.3).\n\n{alone}\n' in adaptation.markdown(results)
  _, words, sections = written(found | {'abn': only('seed0', 'source')})
  assert 'SAC is 8.3 points of mIoU above source-only (one seed).' in words  # no word of ABN
  assert 'In no gain' not in words
  assert [row[-1] for row in sections['classes']] == [
    'SAC − source-only', '+16.7', '0.0', '–', '+8.3', '',
  ]  # fmt: skip


def test_models_without_a_common_seed_have_no_gain():
  found = {'source': only('seed0', 'source'), 'sac': only('seed1', 'sac')}
  results = adaptation.summary(found, ('a', 'b', 'c'))
  assert results['gain'] == {}
  _, words, sections = written(found)
  assert sections['classes'][0] == ['class', 'source-only', 'SAC']
  for text in (words, adaptation.markdown(results)):
    assert 'In no gain, since no run of the same seed is there: source/seed0, sac/seed1.' in text
    assert 'above' not in text


def test_runs_that_are_their_models_folders_are_a_pair():
  source, sac = (matrices()[name]['seed1'] for name in ('source', 'sac'))
  results = adaptation.summary({'source': {'.': source}, 'sac': {'.': sac}}, ('a', 'b', 'c'))
  assert results['gain'] == {'sac': [pytest.approx(1 / 12)]}
  results = adaptation.summary({'source': {'.': source}, 'sac': {'seed0': sac}}, ('a', 'b', 'c'))
  assert results['gain'] == {}
  assert 'there: source, sac/seed0.' in adaptation.markdown(results)


STEPS = (50, 100)
KEPT = {'seed0': (0.5, 0.75), 'seed3': (0.25, 0.875)}


@pytest.fixture
def sac_runs(tmp_path):
  """Two runs with hand-made metrics.jsonl, the second cut short by a crash, and one without."""
  paths = [tmp_path / name for name in (*KEPT, 'seed7')]
  for path in paths:
    path.mkdir()
  for k, path in enumerate(paths[:2]):
    lines = [{'step': 25, 'val/miou[own]': 0.5}]
    for step, kept in zip(STEPS, KEPT[path.name], strict=True):
      line = {'step': step, 'kept': kept, 'teacher/agreement': 0.9, 'teacher/distance': step / 4}
      line |= {f'kept/{c}': kept / (c + 1 + k) for c in range(3)}
      line |= {f'threshold/{c}': 0.2 + 0.1 * c for c in range(3)}
      lines.append(line)
    crash = '{"step": 150, "kept": 0.' if k else ''
    (path / 'metrics.jsonl').write_text('\n'.join(map(json.dumps, lines)) + '\n' + crash)
  return paths


def written(found, labels=(), views=b'', **configs):
  """The page of matrices and runs, and its table rows by section."""
  results = adaptation.summary(found, ('a', 'b', '<c>'))
  results['pseudo_labels'] = adaptation.pseudo_labels(labels)
  about = adaptation_page.About(
    split='test',
    images=12,
    palette=((255, 0, 0), (0, 255, 0), (0, 0, 255)),
    command='the command',
    configs=configs or {'source': {'data': {'name': 'night', 'source': {'name': 'day'}}}},
    created='today',
    versions={'jax': '1'},
  )
  text = adaptation_page.page(results, about, views)
  sections = {}
  for part in re.split('<section ', text)[1:]:
    rows = Document(f'<section {part.partition("</main>")[0]}').rows
    sections[part.split('"')[1]] = [[c.replace('\xa0', ' ') for c in row] for row in rows]
  return text, Document(text).text, sections


def test_pseudo_labels_are_those_of_metrics_jsonl(sac_runs):
  first, second = adaptation.pseudo_labels(sac_runs)
  assert (first['run'], second['run']) == ('seed0', 'seed3')
  assert first['step'] == second['step'] == [50, 100]
  assert second['kept'] == [0.25, 0.875]
  assert first['agreement'] == [0.9, 0.9]
  assert first['distance'] == [12.5, 25.0]
  assert first['class_kept'] == [0.75, 0.375, 0.25]
  assert second['class_kept'] == pytest.approx([0.875 / 2, 0.875 / 3, 0.875 / 4])
  assert first['class_threshold'] == pytest.approx([0.2, 0.3, 0.4])


def test_the_pages_numbers_by_hand(sac_runs):
  found = matrices()
  found['abn'] = found['source'].copy()
  text, words, sections = written(found, sac_runs, b'png')
  assert ids(text) == ['classes', 'labels', 'views', 'reproduce']
  # Gains of 1 - 7/15 and 1/12, of which none is over an ABN that is the source-only model's double.
  gain = '30.8 ± 31.8 points of mIoU above'
  seeds = 'mean ± standard deviation over 2 seeds, better with'
  assert f'SAC is {gain} source-only ({seeds} 2 of them) and {gain} ABN.' in words
  assert f'ABN is 0.0 ± 0.0 points of mIoU above source-only ({seeds} 0 of them).' in words
  assert 'SAC moved most, in points of IoU. Gained: b (+33.3 ± 47.1), a (+28.3 ± 16.5).' in words
  assert 'Gained: none. Lost: none.' in words
  head, *rows = sections['classes']
  assert head == [
    'class', 'source-only', 'SAC', 'ABN', 'ABN − source-only', 'SAC − source-only',
  ]  # fmt: skip
  a = ['a', '55.0 ± 7.1', '83.3 ± 23.6', '55.0 ± 7.1', '0.0 ± 0.0', '+28.3 ± 16.5']
  assert rows[0] == a
  assert rows[2] == ['<c>', '–', '–', '–', '–', '–']
  assert rows[3][:3] == ['mean of 3', '48.3 ± 2.4', '79.2 ± 29.5']
  assert rows[3][-1] == '+30.8 ± 31.8'
  # Class b keeps 0.75 / 2 and 0.875 / 3: their mean is a third, their difference a twelfth.
  assert sections['labels'][2] == ['b', '33.3 ± 5.9', '30.0 ± 0.0']
  assert len(sections['labels']) == 4


def test_curves_have_a_point_for_each_logged_step(sac_runs):
  results = adaptation.summary(matrices(), ('a', 'b', 'c'))
  results['pseudo_labels'] = adaptation.pseudo_labels(sac_runs)
  kept, agreed, distance = adaptation_page.curves(results)
  points = lambda figure: {s.name: [tuple(p[:2]) for p in s.points] for s in figure.series}
  assert points(kept) == {'seed0': [(50, 50), (100, 75)], 'seed3': [(50, 25), (100, 87.5)]}
  assert points(agreed)['seed0'] == [(50, 90), (100, 90)]
  assert points(distance)['seed3'] == [(50, 12.5), (100, 25)]


def test_a_page_without_sac_has_no_section_of_it():
  source = matrices()['source']
  text, words, sections = written({'source': source, 'oracle': source})
  assert ids(text) == ['classes', 'reproduce']
  assert 'class="findings"' not in text
  assert sections['classes'][0] == ['class', 'source-only', 'oracle']
  assert '<img' not in text
  assert 'SAC' not in words.partition('Beside this page')[0].partition('IoU of each class')[2]


def test_a_single_seed_that_lost_says_so():
  _, words, _ = written({'source': only('seed0', 'sac'), 'sac': only('seed0', 'source')})
  assert 'SAC is 53.3 points of mIoU below source-only (one seed).' in words
  assert 'Gained: none. Lost: b (−66.7), a (−40.0).' in words


def test_a_page_names_what_was_adapted():
  data = {'name': 'night', 'source': {'name': '<day>'}}
  configs = {'sac': {'data': data}, 'oracle': {'data': data | {'source': {'name': 'night'}}}}
  text, words, _ = written({'sac': matrices()['sac']}, **configs)
  assert '<h1>Adaptation to night</h1>' in text
  assert 'labels from <day> mIoU of SAC' in words
  assert 'Configuration of oracle' in words


def test_runs_are_found_by_name_and_ordered_by_seed(tmp_path):
  for part in ('sac/seed10', 'sac/seed2', 'sac/notes', 'oracle', 'abn/seed0'):
    (tmp_path / part).mkdir(parents=True)
    if part != 'abn/seed0':
      (tmp_path / part / 'checkpoints').mkdir()
  found = adaptation.runs_in(tmp_path)
  assert {k: [p.name for p in v] for k, v in found.items()} == {
    'sac': ['seed2', 'seed10'],
    'oracle': ['oracle'],
  }


def test_a_folder_without_runs_says_where_it_looked(tmp_path):
  with pytest.raises(UserError, match='holds no run; looked for source, abn, sac, oracle') as e:
    adaptation.runs_in(tmp_path)
  assert f'--workdir {tmp_path}/source/seed0' in str(e.value)


def test_scores_go_by_run_and_other_classes_do_not_mix(monkeypatch):
  names = {'a': ('sky', 'road'), 'b': ('sky', 'sea'), 'x/seed3': ('sky',), 'x/sac': ('sky',)}

  class Model:
    def __init__(self, model, mesh):
      self.path = model.path

    images = lambda self, spec: segmenters.Images(0, names[self.path], (), False, ())
    batches = lambda self, spec: ()

  class Counted:
    confusion = np.eye(2, dtype=int)
    total = lambda self, source: self
    rows = {
      'pixels': dict(
        confusion=confusion[None], scores=2 * confusion[:1, None], pixels=confusion[:1]
      )
    }

  monkeypatch.setattr(segmenters, 'Checkpoint', Model)
  monkeypatch.setattr(count, 'cells', lambda *_: {'none': Counted()})
  with pytest.raises(UserError, match='a and b have different classes; study them apart'):
    adaptation.scored({'source': ['a'], 'sac': ['b']}, '', 'test')
  found = adaptation.scored({'source': ['x/seed3'], 'sac': ['x/sac']}, '', 'test')
  assert {k: [*v] for k, v in found.matrices.items()} == {'source': ['seed3'], 'sac': ['.']}
