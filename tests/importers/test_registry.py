"""The published segmenters of two studies: how many, how large, and a folder of their files."""

import re

import jax
import numpy as np
import pytest

from car_jax import config as configs
from car_jax import registry as parts
from car_jax.errors import UserError
from car_jax.importers import __main__ as command
from car_jax.importers import registry
from car_jax.reliability import plan

STUDIES = {'relis': 27, 'genval': 42}
MODELS = {}  # by the config of the net
for study in STUDIES:
  for name, model in plan.load(f'configs/{study}.py').to_dict()['models'].items():
    MODELS.setdefault(model['published']['config'], {})[name] = model['published']


@pytest.mark.parametrize(('study', 'count'), STUDIES.items())
def test_a_study_names_its_models(study, count):
  models = plan.load(f'configs/{study}.py').models
  assert len(models) == count
  assert all(m.path == f'runs/{study}/{name}' for name, m in models.items())
  assert plan.load(f'configs/{study}.py:x/y').models['SETR-MLA'].path == 'x/y/SETR-MLA'
  with pytest.raises(UserError, match=rf'none of the {count} models .*\n.*importers registry'):
    plan.plan(plan.load(f'configs/{study}.py:x/y'))


@pytest.mark.parametrize('path', MODELS)
def test_nets_are_as_large_as_published(path):
  net = parts.net(configs.load(path).method.model.to_dict(), num_classes=19)
  side = max(64, net.least)
  x = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
  made = jax.eval_shape(lambda x: net.init(jax.random.key(0), x, train=False), x)['params']
  kept = {k: v for k, v in made.items() if not k.startswith('auxiliary_')}
  count = sum(leaf.size for leaf in jax.tree.leaves(kept))
  assert {p['parameters'] for p in MODELS[path].values()} == {round(count / 1e6, 2)}


def test_no_file_is_that_of_two_models():
  published = [p for models in MODELS.values() for p in models.values()]
  names = [re.sub(r'\*', '', file) for p in published for file in p['files']]
  files = [file for p in published for file in p['files'] if '*' not in file]
  assert len({*files}) == len(files)
  models = {f'{i}': dict(published=p) for i, p in enumerate(published)}
  actual = registry.matched(models, [command.pathlib.Path(n) for n in names[:3]])
  assert len(actual) == 1


def test_a_study_runs_on_what_there_is(tmp_path):
  for name in ('PSPNet-R50', 'SETR-PUP'):
    (tmp_path / name).mkdir()
  planned = plan.plan(plan.load(f'configs/genval.py:{tmp_path}'))
  assert [*planned.models] == ['PSPNet-R50', 'SETR-PUP']
  assert len(planned.absent) == 40


@pytest.fixture
def study(tmp_path):
  path = tmp_path / 'study.py'
  path.write_text(
    'from ml_collections import ConfigDict\n'
    'def entry(name, *files):\n'
    f'  return dict(path="{tmp_path}/runs/" + name, published=dict(files=files, miou=70.0))\n'
    'def get_config():\n'
    '  return ConfigDict(dict(models=dict(a=entry("a", "a.pth", "a_*.pth"),'
    ' b=entry("b", "b*.pth")), sets=dict(x=dict())))\n'
  )
  (tmp_path / 'files').mkdir()
  return path


def test_a_folder_is_imported_and_told_about(study, tmp_path):
  folder = tmp_path / 'files'
  (folder / 'deeper').mkdir()
  for name in ('a_1.pth', 'deeper/notes.txt'):
    (folder / name).write_text('x')
  made = []

  def importing(importer, file, config, out):
    made.append((importer, file.name))
    out.mkdir(parents=True)
    (out / 'config.json').write_text('{}')

  lines = registry.run(str(study), str(folder), importing)
  assert lines == registry.run(str(study), str(folder), importing)  # nothing is imported twice
  assert made == [('mmseg', 'a_1.pth')]
  text = '\n'.join(lines)
  assert 'a: ' in text
  assert 'published mIoU 70 %' in text
  assert '  b: b*.pth' in text
  assert 'of no model of the study: deeper/notes.txt' in text
  assert '1 of 2 models' in text
  (folder / 'a_2.pth').write_text('x')
  with pytest.raises(UserError, match='a: several files are called'):
    registry.run(str(study), str(folder), importing)


def test_mistakes(study, tmp_path, capsys):
  for arguments, message in (
    ([str(study)], 'registry takes a study'),
    ([str(study), '--weights', str(tmp_path / 'none')], 'is no folder'),
    ([str(study), '--weights', str(tmp_path / 'files')], 'holds no file of a model'),
    (['configs/reliability.py', '--weights', str(tmp_path / 'files')], 'names no files of weights'),
    (['configs/demo.py:car', '--weights', str(tmp_path)], 'this config trains'),
  ):
    assert command.main(['registry', *arguments]) == 2
    assert message in capsys.readouterr().err
  assert command.main(['mmseg', 'x.pth']) == 2
  assert '--out FOLDER' in capsys.readouterr().err
