"""Parts of the user's own, in a folder outside the repository: trained, evaluated, studied."""

import json
import sys

import numpy as np
import pytest

from car_jax import config as configs
from car_jax import loop
from car_jax.commands import eval as evaluation
from car_jax.data import compact, memory, pipeline
from car_jax.errors import UserError
from tests.docs import pages


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A user's folder with the files of the page, in which its commands were run."""
  place = tmp_path_factory.mktemp('own')
  pages.play(pages.ROOT / 'docs/own_parts.md', place)
  return place


def test_the_parts_of_the_page_are_scored_and_studied(folder):
  scores = json.loads((folder / 'runs' / 'mine' / 'report' / 'results.json').read_text())
  (subject, *_) = scores['subjects']
  assert 0 <= subject['scores']['mine:Foreground']['mean'] <= 1
  text = (folder / 'runs' / 'mine' / 'report' / 'report.html').read_text()
  assert 'Share of foreground' in text
  study = json.loads((folder / 'runs' / 'mine_study' / 'study' / 'study.json').read_text())
  assert {c['calibrator'] for c in study['cells']} == {'none', 'halved'}
  assert {c['set'] for c in study['cells']} == {'clear', 'dark'}
  assert all(0 <= c['values']['mine:Foreground']['value'] <= 1 for c in study['cells'])
  lines = (folder / 'runs' / 'mine' / 'metrics.jsonl').read_text().splitlines()
  held_out = [v for line in lines for k, v in json.loads(line).items() if k.endswith('Foreground')]
  assert held_out  # validation in training
  assert all(0 <= v <= 1 for v in held_out)
  config = configs.ConfigDict(json.loads((folder / 'runs' / 'mine' / 'config.json').read_text()))
  assert (config.method.weight, config.data.count, config.method.model.width) == (2.0, 16, 6)


def test_a_checkpoint_names_a_module_and_nothing_of_it_runs_unasked(folder, monkeypatch, capsys):
  monkeypatch.chdir(folder)
  assert evaluation.main(['--checkpoint', 'runs/mine', '--out', 'x/report']) == 2
  message = capsys.readouterr().err
  assert "names parts of 'mine'" in message
  assert '--own mine' in message
  assert 'mine' not in sys.modules


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('no_such_module:Mine', r"method 'no_such_module:Mine': no module 'no_such_module'\n"),
    ('json:Mine', r"json has no 'Mine'\n"),
    ('json:loads', r"'json:loads' is no dataclass"),
    ('car_jax.data.fake:Fake', r"has no 'init'\n  see car_jax.methods.base.Method"),
  ],
)
def test_what_is_no_method(name, message):
  with pytest.raises(UserError, match=message):
    configs.complete(dict(method=dict(name=name), data=dict(name='fake')))


def test_what_is_wrong_in_a_module_is_said_with_its_line(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(tmp_path)
  (tmp_path / 'mine_is_broken.py').write_text('import json\n\njson.no_such_function()\n')
  message = 'mine_is_broken cannot be imported .*no_such_function.*\\n.*mine_is_broken.py, line 3'
  with pytest.raises(UserError, match=message):
    configs.complete(dict(method=dict(name='mine_is_broken:Mine'), data=dict(name='fake')))


def test_data_in_memory_are_trained_on(tmp_path):
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 2, (6, 2, 16, 16))
  image = lambda y: np.uint8(60 + 120 * y.mean(0))
  records = [dict(image=image(y), labels=y) for y in labels]
  data = memory.dataset(dict(train=records, test=records[:2]), ('sky', 'sea'))
  assert (data.info.readers, data.info.num_classes, len(data.split('train[:50%]'))) == (2, 2, 3)
  batches = pipeline.train_batches(data.split('train'), data.info, dict(batch=3), seed=0)
  batch = compact.expanded(next(batches))
  places = [int(name.split('-')[1]) for name in batch['id']]
  np.testing.assert_array_equal(batch['labels'], labels[places])
  config = configs.load('tests/small.py:supervised')
  config.data = dict(name='sea', batch=3)
  config.steps, config.evals, config.best, config.report = 1, {}, '', {}
  config.report = dict(split='test')
  assert int(loop.train(config, tmp_path / 'run', dataset=data).step) == 1


@pytest.mark.parametrize(
  ('record', 'message'),
  [
    (dict(image=np.zeros((4, 4))), 'record train-0: image is float64'),
    (dict(image=np.zeros((4, 4), np.uint8)), 'record train-0: labels are object'),
    (dict(image=np.zeros((4, 4), np.uint8), labels=np.zeros((4, 5), int)), r'\[readers, 4, 4\]'),
    (dict(image=np.zeros((4, 4), np.uint8), labels=np.full((4, 4), 256)), 'not 0 to 255'),
  ],
)
def test_what_is_no_record(record, message):
  with pytest.raises(UserError, match=message):
    memory.dataset(dict(train=[record]), ('a', 'b'))
  with pytest.raises(UserError, match='has no record'):
    memory.dataset({}, ('a', 'b'))
