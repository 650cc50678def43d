"""Studies that train nothing: what is told before they start, and of folders of predictions."""

import functools
import json
import os
import re
import shutil

import cv2
import numpy as np
import pytest

from car_jax import folders, hub
from car_jax.calibrate import base, clusters, files, local, temperature
from car_jax.errors import UserError
from car_jax.nn.init import initialize
from car_jax.nn.local_temperature import LocalTemperature
from car_jax.reliability import command, lazy_segmenter, plan, study_options
from car_jax.reliability.segmenters import Images
from tests.reliability import runs


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (dict(measures=('eec',)), 'did you mean: ece'),
    (dict(measures=('auroc[entropie]',)), "no score 'entropie'"),
    (dict(measures=('ece[entropy]',)), 'ece is not of a score'),
    (dict(calibrators={'t': 'temperatur'}), 'did you mean: temperature'),
    (dict(calibrators={'none': 'temperature'}), "no calibrator is called 'none'"),
    (dict(sets={'s': {'data': dict(corruption='fogg:2')}}), 'config.sets.s: config.data.corr'),
    (dict(calibrate_on={}), 'has no data to be fitted to'),
    (dict(pools={'p': ('clera',)}), 'did you mean: clear'),
    (dict(pools={'clear': ('clear',)}), 'name of a set and of a pool'),
    (dict(models={}), 'the study has no models'),
    (dict(models={'m': {'patth': 'x'}}), 'did you mean: path'),
    (dict(sets={'s': {'role': 'shiftet'}}), 'did you mean: shifted'),
    (dict(sets={'s': {'shift': 2.0}}), 'shift is 2.0\n  it is a number from 0 to 1'),
    (dict(sets={'s': {'shift': '0.5'}}), "shift is '0.5'\n  it is a number"),
    (dict(sets={'s': {'data': 'acdc'}}), "data is 'acdc'\n  it is a dict"),
    (dict(sets={'s': {'absent': 3}}), 'absent is 3\n  it is a list of: a text'),
    (dict(sets={'s': 'foo'}), "config.sets.s is 'foo'\n  it is a dict of data"),
    (dict(models={'m': dict(path='x', samples=0)}), 'samples is 0\n  it is a whole number'),
    (dict(models={'m': 3}), 'config.models.m is 3\n  it is a dict of path'),
    (dict(models={'My net': 'x', 'my-net': 'y'}), "'My net' and 'my-net' would have one name"),
    (dict(models={'模型': 'x'}), "no file can be called '模型'"),
    (dict(pools={'Fog': ('fog',)}), "'fog' and 'Fog' would have one name"),
    (dict(calibrators={'None': 'temperature'}), "'none' and 'None' would have one name"),
    (dict(calibrators={'t': 1.5}), 'expected a kind'),
    (dict(pools={'p': ()}), 'expected names of sets: clear, fog'),
    (dict(pools={'p': 'fog'}), 'expected names of sets: clear, fog'),
    (dict(sampled=-1), 'config.sampled is -1\n  it is a whole number from 0 to'),
    (dict(resamples=-1), 'config.resamples is -1'),
    (dict(worst=-1), 'config.worst is -1'),
    (dict(measures=()), 'config.measures is empty'),
    (dict(sampled=10**99), 'it is a whole number from 0 to 1,000,000,000'),
    (dict(seed=2**63), 'config.seed is 9223372036854775808'),
    (dict(models={'m': dict(path='x', samples=10**9)}), 'a whole number from 1 to 100,000'),
    (dict(sets={'s': {'shift': float('nan')}}), 'shift is nan\n  it is a finite number'),
    (dict(classes=('a',)), 'expected 2 to 254 names'),
    (dict(classes=('a', 'b', 'a')), "names 'a' twice"),
    (dict(classes=(1, 2, 3)), 'expected 2 to 254 names'),
    (dict(palette=()), '0 colours for 19 classes'),
    (dict(palette=((300, 0, 0),) * 19), 'holds (300, 0, 0)'),
    (dict(kind='probabilites'), "config.kind is 'probabilites'\n  did you mean: probabilities"),
    (dict(resize='nearest'), "config.resize is 'nearest'\n  known: bilinear"),
  ],
)
def test_a_wrong_study_stops_before_it_starts(tmp_path, changes, message):
  config = study_options.defaults()
  config.update(runs.study({'m': 'x'}, tmp_path, {'clear': 'a', 'fog': 'b'}))
  for k, v in changes.items():
    config[k] = v
  with pytest.raises(UserError, match=re.escape(message)):
    plan.plan(config)


def test_a_step_may_be_a_number_and_a_file_of_wrong_types_is_told(tmp_path):
  config = study_options.defaults()
  config.update(runs.study({'m': 'x'}, tmp_path, {'clear': 'a'}))
  config.models = {'m': dict(path='x', step=100)}
  assert plan.plan(config).models['m'].step == '100'
  for line in ('c.sampled = 0.5', 'c.exact = 3', "c.models = 'x'"):
    path = tmp_path / 'wrong.py'
    path.write_text(
      'from ml_collections import ConfigDict\ndef get_config():\n'
      f'  c = ConfigDict()\n  {line}\n  return c\n'
    )
    with pytest.raises(UserError, match='wrong.py'):
      study_options.load(str(path))


def test_a_model_without_features_is_left_out_of_clusters(tmp_path, capsys):
  config = runs.foreign(tmp_path)
  found, _ = command.run(config, str(tmp_path / 'out'), '')
  assert 'mine has no features of images: without clusters' in capsys.readouterr().err
  assert {c['calibrator'] for c in found['cells']} == {'none', 'temperature'}
  saved = tmp_path / 'out' / 'worst' / 'mine' / 'clear' / 'worst.json'
  entries = found['worst']
  assert entries
  for spoil in (lambda: saved.write_text('{"print"'), saved.unlink):
    spoil()
    assert command.run(config, str(tmp_path / 'out'), '')[0]['worst'] == entries
    assert json.loads(saved.read_text())['entries']
  label = tmp_path / 'labels' / 'fog' / '0.png'
  cv2.imwrite(str(label), np.full((6, 8), 255, np.uint8))
  again, _ = command.run(config, str(tmp_path / 'out'), '')
  assert again['cells'][0] == found['cells'][0]
  assert [s['pixels'] for s in again['sets']] == [s['pixels'] for s in found['sets']]
  assert again['cells'] != found['cells']


def test_what_folders_of_predictions_do_not_hold_is_told(tmp_path):
  config = runs.foreign(tmp_path)
  (tmp_path / 'given' / 'my-net').mkdir(parents=True)
  at = lambda name: str(tmp_path / 'given' / 'my-net' / f'{name}.npz')
  centroids, table = np.zeros((2, 3), np.float32), np.ones(2, np.float32)
  about = dict(classes=4, kind='x')
  files.save(at('clusters'), base.Fit(clusters.Clusters(centroids, table), about))
  maps = np.zeros((1, 6, 8, 4), np.float32), np.zeros((1, 6, 8, 3), np.float32)
  net = initialize(LocalTemperature('logits+image'), 0, *maps)['params']
  files.save(at('lts'), base.Fit(local.Local(net), about))
  few = base.Fit(temperature.Temperature(np.float32(2)), about | {'classes': 3})
  files.save(at('few'), few)
  config.models = {'My net': config.models.mine}
  for name, message in {
    'clusters': "'clusters' needs features of the images, and model 'My net' has none of 'clear'",
    'lts': "'lts' needs the images, and model 'My net' has none",
    'few': 'fitted to 3 classes, not 4',
  }.items():
    config.calibrators = {name: str(tmp_path / 'given' / '{model}' / f'{name}.npz')}
    with pytest.raises(UserError, match=message):
      command.run(config, str(tmp_path / 'out'), '')
  config.models = {'mine': str(tmp_path / 'predictions' / 'clear')}
  config.calibrators = {'temperature': 'temperature'}
  config.calibrate_on = config.sets.clear
  del config.sets['fog']
  with pytest.raises(UserError, match='would stand for all of: clear, calibrate_on\n.*{set}'):
    command.run(config, str(tmp_path / 'out'), '')
  assert not (tmp_path / 'out').exists()


def test_one_model_is_in_memory_and_others_stay_known(monkeypatch):
  class Fake:
    about, fingerprint, has_features = 'a net', 'x', True

    def images(self, spec):
      return Images(4, ('road',), ((0, 0, 0),), False, ())

  opened = []
  monkeypatch.setattr(lazy_segmenter, 'is_run', lambda path: True)
  monkeypatch.setattr(
    lazy_segmenter, 'open_segmenter', lambda s, *_: opened.append(s.name) or Fake()
  )
  memory = {}
  a, b = (
    lazy_segmenter.LazySegmenter(study_options.Model('x', name=k), None, None, memory) for k in 'ab'
  )
  spec = study_options.ImageSet(name='clear')
  assert (b.images(spec)[:2], [*memory]) == ((4, ('road',)), ['b'])
  assert (a.images(spec).names, [*memory]) == (('road',), ['a'])
  assert (b.about, b.images(spec).names, opened) == ('a net', ('road',), ['a', 'b', 'a'])


def test_a_place_that_cannot_be_written_is_told_before_the_work(tmp_path, monkeypatch):
  def refuse(**kw):
    raise PermissionError(13, 'Permission denied', str(kw['dir']))

  config = runs.foreign(tmp_path)
  monkeypatch.setattr(folders.tempfile, 'TemporaryDirectory', refuse)
  monkeypatch.setattr(command, 'Study', None)  # nothing begins
  with pytest.raises(UserError, match='new/out cannot be written: Permission denied .*\n  name'):
    command.run(config, str(tmp_path / 'new' / 'out'), '')
  with pytest.raises(UserError, match='cannot be written: Permission denied'):
    folders.check_replaceable(tmp_path / 'report', 'results.json')
  assert not (tmp_path / 'new').exists()


def test_damaged_cells_are_named(tmp_path):
  config = runs.foreign(tmp_path, ('clear',))
  config.calibrators, config.worst = {}, 0
  command.run(config, str(tmp_path / 'out'), '')
  (path,) = (tmp_path / 'out' / 'cells').rglob('*.npz')
  raw = path.read_bytes()
  with np.load(path) as file:
    good = dict(file)
  head = json.loads(str(good['head']))
  few = {k: v for k, v in good.items() if k != 'whole/pixels/scores'}
  negative = good | {'rows/pixels/confusion': good['rows/pixels/confusion'] - 1000}
  other = good | {'head': np.array(json.dumps(head | {'ids': ['0']}))}
  deep = good | {'head': np.array('[' * 100_000)}
  for spoilt, message in (
    (few, 'scores is unknown or missing'),
    (negative, 'pixels/confusion holds -'),
    (other, r'rows of \[1, 2\] images'),
    (deep, 'Recursion'),
  ):
    np.savez_compressed(path, **spoilt)
    with pytest.raises(UserError, match=f'none.npz cannot be read as .*{message}.*\n  delete it'):
      command.run(config, str(tmp_path / 'out'), '')
  path.write_bytes(raw[: len(raw) // 2])
  with pytest.raises(UserError, match='none.npz cannot be read as .*\n  delete it'):
    command.run(config, str(tmp_path / 'out'), '')
  path.unlink()
  os.mkfifo(path)
  with pytest.raises(UserError, match='none.npz is no regular file'):
    command.run(config, str(tmp_path / 'out'), '')


def test_a_folder_of_trainings_is_a_model_for_each(tmp_path):
  for seed in (0, 1):
    (tmp_path / 'mine' / f'seed{seed}' / 'checkpoints').mkdir(parents=True)
  c = study_options.defaults()
  c.models, c.sets = {'mine': str(tmp_path / 'mine')}, {'fog': dict(data=dict(name='x'))}
  made = plan.plan(c)
  assert made.seeds == {'mine': ('mine/seed0', 'mine/seed1')}
  assert [m.path for m in made.models.values()] == [
    str(tmp_path / 'mine' / f'seed{k}') for k in (0, 1)
  ]


@pytest.mark.parametrize(
  ('given', 'models', 'title'),
  [
    ('Mine', 1, 'Mine'),
    ('', 1, 'm0 on clear and fog'),
    ('', 3, 'm0, m1 and m2 on clear and fog'),
    ('', 4, '4 models on clear and fog'),
  ],
)
def test_a_study_without_a_title_is_called_by_its_models_and_sets(given, models, title):
  c = study_options.defaults()
  c.title, c.models = given, {f'm{k}': 'nowhere' for k in range(models)}
  c.sets = {'clear': dict(labels='x', role='in-domain'), 'fog': dict(labels='x')}
  assert plan.plan(c).title == title


def test_a_study_of_other_models_is_not_called_by_the_config_s():
  c = study_options.defaults()
  c.title = 'Two small segmenters in worsening weather'
  assert command.with_models(c, predictions=['mine=x'], labels='y').title == ''


@pytest.mark.parametrize('given', [str, lambda path: dict(path=path)])
def test_models_that_ship_are_named_in_a_study(tmp_path, given):
  name, folder = next(iter(hub.zoo().items()))
  c = study_options.defaults()
  c.models, c.missing = {'ours': given(f'zoo:{name}')}, 'skip'
  c.sets = {'clear': dict(labels='x')}
  planned = plan.plan(c)
  assert planned.models['ours'].path == str(folder)
  assert not planned.absent
  with pytest.raises(UserError, match="'ours' is a run, and set 'clear' has no data"):
    lazy_segmenter.check_data(planned.models['ours'], [*planned.sets.values()], None)
  c.models = {'ours': given(f'zoo:{name}x')}
  with pytest.raises(UserError, match=f'did you mean: zoo:{name}'):
    plan.plan(c)


@pytest.mark.parametrize('key', ['guarantees', 'calibrators', 'calibrate_on', 'models.m.published'])
def test_a_dict_is_emptied_on_the_command_line(tmp_path, key):
  file = tmp_path / 'own.py'
  file.write_text(
    'from ml_collections import ConfigDict\ndef get_config():\n  c = ConfigDict()\n'
    "  c.calibrate_on, c.calibrators = dict(labels='x'), dict(t='temperature')\n"
    "  c.models = dict(m=dict(path='x', published=dict(config='y')))\n  return c\n"
  )
  of = lambda config: functools.reduce(lambda node, part: node[part], key.split('.'), config)
  assert of(study_options.load(str(file)))
  assert not of(study_options.load(str(file), [(key, '{}')]))
  with pytest.raises(UserError, match='is a group of keys|has no option|unknown config key'):
    study_options.load(str(file), [('models.m', '{}')])


def test_one_of_the_sets_may_be_calibrated_on(tmp_path):
  c = runs.foreign(tmp_path)
  for part in ('predictions', 'labels'):  # a folder of the same
    shutil.rmtree(tmp_path / part / 'calibrate_on')
    shutil.copytree(tmp_path / part / 'clear', tmp_path / part / 'calibrate_on')
  c.calibrators, c.worst = dict(temperature='temperature'), 0
  want, _ = command.run(c, str(tmp_path / 'want'), '')
  for part in ('predictions', 'labels'):
    shutil.rmtree(tmp_path / part / 'calibrate_on')
  path = tmp_path / 'own.py'
  path.write_text(
    'from ml_collections import ConfigDict\ndef get_config():\n'
    "  c = ConfigDict()\n  c.calibrate_on = 'clear'\n  return c\n"
  )
  c.calibrate_on = study_options.load(str(path)).calibrate_on
  found, _ = command.run(c, str(tmp_path / 'found'), '')
  same = lambda content: [f['temperatures'] for f in content['fits']]
  assert same(found) == same(want)
  assert found['cells'] == want['cells']
  assert found['guarantee_results'] == want['guarantee_results']
  assert sum('fitted to clear' in n for n in found['notes']) == 1
  assert not any('fitted to' in n for n in want['notes'])
  c.sets = {'clear': c.sets.clear}
  c.models = {'mine': str(tmp_path / 'predictions' / 'clear')}  # one folder: of one set
  assert command.run(c, str(tmp_path / 'one'), '')[0]['fits']
  c.calibrate_on = dict(set='claer')
  with pytest.raises(UserError, match="no set 'claer'\n  did you mean: clear"):
    plan.plan(c)
  c.calibrate_on = dict(set='clear', labels='x')
  with pytest.raises(UserError, match="is the set 'clear' and has labels of its own"):
    plan.plan(c)
