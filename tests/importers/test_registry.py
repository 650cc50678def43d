"""The published segmenters of two studies: how many, how large, and a folder of their files."""

import functools
import json
import re

import numpy as np
import pytest

from car_jax import config as configs
from car_jax import registry as parts
from car_jax.commands import eval as evaluation
from car_jax.errors import UserError
from car_jax.importers import __main__ as command
from car_jax.importers import comparison, mmseg, registry
from car_jax.reliability import plan, study_options
from tests.importers import test_described, torch_writer

STUDIES = {'relis': 27, 'genval': 42}
MODELS = {}  # by the config of the net
for study in STUDIES:
  for name, model in study_options.load(f'configs/{study}.py').to_dict()['models'].items():
    MODELS.setdefault(model['published']['config'], {})[name] = model['published']


@pytest.mark.parametrize(('study', 'count'), STUDIES.items())
def test_a_study_names_its_models(study, count):
  models = study_options.load(f'configs/{study}.py').models
  assert len(models) == count
  assert all(m.path == f'runs/{study}/{name}' for name, m in models.items())
  assert study_options.load(f'configs/{study}.py:x/y').models['SETR-MLA'].path == 'x/y/SETR-MLA'
  assert study_options.load(study) == study_options.load(f'configs/{study}.py')
  assert study_options.load(f'{study}:x/y') == study_options.load(f'configs/{study}.py:x/y')


@pytest.mark.parametrize('path', ['relis:x/y', 'configs/genval.py:x/y'])
def test_a_study_without_runs_says_how_to_make_them(path, tmp_path, capsys):
  assert evaluation.main(['--config', path, '--out', str(tmp_path / 'out')]) == 2
  error_text = capsys.readouterr().err
  assert re.search(r'none of the \d+ models of the study is there', error_text)
  assert f'car-jax import registry {path} --weights FOLDER' in error_text


@pytest.mark.parametrize('path', MODELS)
def test_nets_are_as_large_as_published(path):
  net = parts.net(configs.load(path).method.model.to_dict(), num_classes=19)
  published = {p['parameters'] for p in MODELS[path].values()}
  assert published == {round(comparison.millions(net), 2)}


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
  planned = plan.plan(study_options.load(f'configs/genval.py:{tmp_path}'))
  assert [*planned.models] == ['PSPNet-R50', 'SETR-PUP']
  assert len(planned.absent) == 40


@pytest.fixture
def study(tmp_path):
  path = tmp_path / 'study.py'
  path.write_text(
    'from ml_collections import ConfigDict\n'
    'def entry(name, *files):\n'
    '  published = dict(files=files, scores=dict(a=dict(score="miou", value=0.7)))\n'
    f'  return dict(path="{tmp_path}/runs/" + name, published=published)\n'
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

  def importing(published, file, out):
    made.append((published['importer'], file.name))
    out.mkdir(parents=True)
    (out / 'config.json').write_text('{}')

  lines = registry.run(str(study), str(folder), importing)
  assert lines == registry.run(str(study), str(folder), importing)  # nothing is imported twice
  assert made == [('mmseg', 'a_1.pth')]
  text = '\n'.join(lines)
  assert 'a: ' in text
  assert 'published miou 0.7' in text
  assert '  b: b*.pth' in text
  assert 'of no model of the study: deeper/notes.txt' in text
  assert '1 of 2 models' in text
  (folder / 'a_2.pth').write_text('x')
  with pytest.raises(UserError, match='a: several files are called'):
    registry.run(str(study), str(folder), importing)


def config_file(path, content):
  path.write_text(
    f'from ml_collections import ConfigDict\ndef get_config():\n  return ConfigDict({content!r})\n'
  )
  return str(path)


def toy_study(folder, **published):
  """Arguments that import the file toy.pth of FOLDER/files by a study of one model."""
  entry = dict(path=f'{folder}/run', published=dict(files=('toy.pth',), **published))
  path = config_file(folder / 'study.py', dict(models=dict(toy=entry), sets={}))
  return ['registry', path, '--weights', str(folder / 'files')]


@pytest.fixture
def toy(tmp_path):
  """-> a function: what a study says of the model, of a recorded file -> arguments."""
  (tmp_path / 'files').mkdir()
  test_described.write(tmp_path / 'files' / 'toy.pth', 'mmseg0/edges')
  return functools.partial(toy_study, tmp_path)


def size_of(name):
  """Millions of parameters in a recorded file, without those of training's head."""
  weights = test_described.recorded(name)[2]
  learned = [n for n in weights if not re.search('running_|num_batches|^auxiliary_head', n)]
  return sum(weights[n].size for n in learned) / 1e6


def test_a_file_of_another_size_is_another_model(toy, tmp_path, capsys):
  size = size_of('mmseg0/edges')
  assert command.main(toy(parameters=size + 0.02)) == 2
  error_text = capsys.readouterr().err
  assert (
    f"net has {size:.2f} M parameters for 5 classes, the study's {size + 0.02:g} M" in error_text
  )
  assert f'car-jax import mmseg {tmp_path}/files/toy.pth --out FOLDER' in error_text
  assert not (tmp_path / 'run').exists()
  assert command.main(toy(parameters=round(size, 2))) == 0
  assert (tmp_path / 'run' / 'config.json').exists()


def test_a_file_of_another_net_than_the_study_s_config_is_named(toy, tmp_path, capsys):
  other = mmseg.opened(test_described.write(tmp_path / 'x.pth', 'mmseg0/corners')).config()
  path = config_file(tmp_path / 'net.py', other.to_dict())
  for _ in range(2):  # imported; imported before
    assert command.main(toy(config=path)) == 0
    lines = capsys.readouterr().out.splitlines()
    first = lines.index(f'  as its file says, and not as {path}:')
    assert lines[first + 1] == '    align_corners is True, in the file False'
    assert '    method.crop is (48, 64), in the file 0' in lines
    assert '    data.fit is (2049, 1025), in the file (2048, 1024)' in lines
  config = json.loads((tmp_path / 'run' / 'config.json').read_text())
  assert config['method']['model']['align_corners'] is False
  assert command.main(toy(config=config_file(tmp_path / 'same.py', config))) == 0
  assert 'as its file says' not in capsys.readouterr().out


def test_an_encoder_alone_is_no_model_of_a_study(tmp_path, capsys):
  folder = tmp_path / 'files'
  folder.mkdir()
  weights = {'segformer.encoder.patch_embeddings.0.proj.weight': np.ones((4, 3, 7, 7), np.float32)}
  torch_writer.write_zip(folder / 'toy.pth', torch_writer.state_dict(weights))
  config = 'configs/segformer_cityscapes.py'
  assert command.main(toy_study(tmp_path, importer='huggingface', config=config)) == 2
  assert 'is an encoder alone (mit)' in capsys.readouterr().err


@pytest.mark.parametrize('importer', ['mmseg', 'huggingface', 'detectron2'])
@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'\x89PNG\r\n', 'cannot be read as a file of torch weights (it is a PNG picture)'),
    (b'<!DOCTYPE html>', 'it is a page of the web or XML'),
    (b'version https://git-lfs.github.com/spec/v1\n', '`git lfs pull` fetches'),
    (b'\n <html>', 'it is a page of the web or XML'),
    (b'\x40' + bytes(7) + b'{"a":', 'it is a safetensors file'),
    (b'what', 'neither a pickle nor a zip archive'),
    (0.5, 'toy.pth is cut short'),
    ('classes', 'its config has 19 classes, its weights have 5'),
    ('zip', 'a zip archive without data.pkl'),
  ],
)
def test_damaged_and_foreign_files(importer, content, message, tmp_path, capsys):
  """By the importer itself and by the registry: one message, and no run."""
  (tmp_path / 'files').mkdir()
  file = tmp_path / 'files' / 'toy.pth'
  if content == 'classes':
    message = message if importer == 'mmseg' else 'it is a segmenter of mmsegmentation'
    nineteen = lambda text: re.sub(r'num_classes=\d+', 'num_classes=19', text)
    test_described.write(file, 'mmseg0/edges', nineteen)
  elif content == 'zip':
    np.savez(file.with_suffix('.npz'), np.ones(3))
    file.with_suffix('.npz').rename(file)
  elif isinstance(content, float):
    data = test_described.write(file, 'mmseg0/edges').read_bytes()
    file.write_bytes(data[: int(content * len(data))])
  else:
    file.write_bytes(content)
  run = tmp_path / 'run'
  for arguments in (
    [importer, str(file), '--out', str(run)],
    toy_study(tmp_path, importer=importer, config='configs/segmenters_cityscapes.py'),
  ):
    assert command.main(arguments) == 2
    error_text = capsys.readouterr().err
    assert message in error_text
    assert error_text.count('error: ') == 1
    assert not run.exists()


def test_mistakes(study, tmp_path, capsys):
  for arguments, message in (
    ([str(study)], 'registry takes a study'),
    ([str(study), '--weights', str(tmp_path / 'none')], 'is no folder'),
    ([str(study), '--weights', str(tmp_path / 'files')], 'holds no file of a model'),
    (['configs/reliability.py', '--weights', str(tmp_path / 'files')], 'names no files of weights'),
    (['configs/demo.py:car', '--weights', str(tmp_path)], 'this config trains'),
    (['rellis', '--weights', str(tmp_path)], 'no config file rellis\n  did you mean: relis'),
  ):
    assert command.main(['registry', *arguments]) == 2
    assert message in capsys.readouterr().err
  assert command.main(['mmseg', 'x.pth']) == 2
  assert '--out FOLDER' in capsys.readouterr().err
