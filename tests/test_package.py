"""What a stranger gets: the wheel in an environment of its own, used from an empty folder."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig

import pytest

from car_jax import config
from car_jax.__main__ import COMMANDS, __doc__, main
from tests.importers import test_transformers_folders as transformers_folders

ROOT = pathlib.Path(__file__).parents[1]
SOURCES = ('car_jax', 'configs', 'datasets', 'pyproject.toml', 'requirements.txt')
SOURCES += ('README.md', 'LICENSE')


@pytest.fixture(scope='module')
def program(tmp_path_factory):
  """`car-jax` of an environment that has the wheel, and beside it what the wheel needs."""
  folder = tmp_path_factory.mktemp('package')
  for name in SOURCES:
    path = ROOT / name
    copy = shutil.copytree if path.is_dir() else shutil.copy
    copy(path, folder / name, **({'symlinks': True} if path.is_dir() else {}))
  pip = [sys.executable, '-m', 'pip', '-q', '--disable-pip-version-check']
  offline = ['--no-deps', '--no-index']
  build = [*pip, 'wheel', '--no-build-isolation', *offline, '-w', str(folder / 'dist'), str(folder)]
  subprocess.run(build, check=True)
  (wheel,) = (folder / 'dist').glob('car_jax-*.whl')
  subprocess.run([sys.executable, '-m', 'venv', '--without-pip', str(folder / 'venv')], check=True)
  python = folder / 'venv' / 'bin' / 'python'
  subprocess.run([*pip, '--python', str(python), 'install', *offline, str(wheel)], check=True)
  paths = sysconfig.get_paths(vars={'base': str(folder / 'venv')})
  # The dependencies, without the .pth files there: one of them may name this checkout.
  (pathlib.Path(paths['purelib']) / 'needed.pth').write_text(sysconfig.get_paths()['purelib'])
  return folder / 'venv' / 'bin' / 'car-jax'


@pytest.fixture(scope='module')
def run(program, tmp_path_factory):
  """run(*arguments) -> what the command prints, from an empty folder; it must end well."""
  folder = tmp_path_factory.mktemp('empty')
  clean = {k: v for k, v in os.environ.items() if k not in ('PYTHONPATH', 'TFDS_DATA_DIR')}

  def called(*arguments):
    command = [str(program), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, f'{command}\n{done.stdout}\n{done.stderr}'
    assert str(ROOT) not in done.stdout
    return done.stdout

  return called


def test_the_models_travel_with_it(run):
  listed = {line.split()[0] for line in run('zoo').splitlines()}
  kept = [path.parent for path in (ROOT / 'car_jax' / 'zoo').glob('*/model.safetensors')]
  assert listed == {f'zoo:{folder.name}' for folder in kept}
  assert all(sum(p.stat().st_size for p in folder.iterdir()) < 2e6 for folder in kept)
  for folder in kept:
    _, front, card = (folder / 'README.md').read_text().split('---\n', 2)
    assert 'license: "apache-2.0"' in front
  assert run('zoo', folder.name) == card.lstrip()


def test_the_configs_travel_with_it(run):
  listed = {line.split()[0] for line in run('configs').splitlines()}
  assert listed == {p.stem for p in (ROOT / 'configs').glob('[!_]*.py')}
  assert run('configs', 'smoke') == (ROOT / 'configs' / 'smoke.py').read_text()
  assert '--config.method.name=mose' in run('options', 'configs/smoke.py:mose')


def test_it_trains_and_evaluates(run):
  short = ('--config.steps=2', '--config.eval_every=0', '--config.report.split=test[:4]')
  short += ("--config.report.metrics=('miou',)",)
  run('train', '--config', 'smoke:supervised', '--workdir', 'run', *short)
  assert 'report: run/report/report.html' in run('eval', '--checkpoint', 'run')


def test_it_predicts_and_exports(run):
  run('zoo', '--examples', 'examples')
  model = 'zoo:deterministic-lidc-masks'
  said = run('predict', model, 'examples/lidc', '--out', 'predicted')
  assert said.startswith(f'supervised (segnet), argmax, of {model}\n')
  assert said.endswith('4 images\npage: predicted/index.html\n')
  run('export', model, '--out', 'exported')
  assert 'score it: car-jax eval' in run('export', model, '--out', 'folder', '--format', 'hub')


def test_it_prepares(run):
  small = ('--height', 64, '--count', 8, '--data-dir', 'data')
  began = 'next: car-jax train --config configs/segmenters_street_scenes.py:segformer --workdir '
  assert began in run('prepare', 'street_scenes', *small)
  tested = run('prepare', 'street_scenes', *small, '--domain', 'fog', '--part', 'test')
  name = 'street_scenes/height64-count8-domain_fog-part_test'
  then = f'--config.data.name={name} --config.report.split=test --config.data.data_dir=data'
  assert tested.endswith(f'\nnext: car-jax eval --checkpoint RUN {then}\n')


def test_it_imports(run, tmp_path):
  name = transformers_folders.NAMES[0]
  folder = transformers_folders.folder_of(tmp_path / 'x', name)
  transformers_folders.write_safetensors(
    folder / 'model.safetensors', transformers_folders.weights_of(name)
  )
  assert 'score it: car-jax eval' in run('import', 'huggingface', folder, '--out', 'imported')


def test_every_command_of_the_help_is_one():
  listed = {line.split()[0] for line in __doc__.splitlines() if line.startswith('  ')}
  assert listed == {*COMMANDS}


def test_a_command_that_is_none(capsys):
  assert main(['trian']) == 2
  assert capsys.readouterr().err == "error: no command 'trian'\n  did you mean: train\n"


def test_a_config_is_copied_to_be_changed(tmp_path, capsys):
  mine = tmp_path / 'mine.py'
  assert main(['configs', 'smoke', '--copy', str(mine)]) == 0
  assert main(['options', f'{mine}:mose']) == 0
  assert main(['configs', 'smoke', '--copy', str(mine)]) == 2
  assert 'is there already' in capsys.readouterr().err
  for name, use in (
    ('smoke', 'train --config {} --workdir'),
    ('reliability', 'eval --config {} --out'),
    ('genval_style', 'generate style --config {} --out'),
    ('genval_ood', 'generate ood --config {} --out'),
    ('genval_controlnet', 'train --config {} --workdir'),
  ):
    copy = tmp_path / f'{name}.py'
    assert main(['configs', name, '--copy', str(copy)]) == 0
    assert f'\n  car-jax {use.format(copy)} runs/mine\n' in capsys.readouterr().out
  assert main(['configs', 'demo:mose', '--copy', str(tmp_path / 'demo.py')]) == 0
  assert config.read(str(tmp_path / 'demo.py')) == config.read('demo:mose')
  assert main(['configs', 'smok']) == 2
  assert 'did you mean: smoke' in capsys.readouterr().err


@pytest.mark.parametrize('name', sorted(config.shipped()))
def test_a_copy_says_what_its_config_says_without_another_config(name, tmp_path):
  """One that takes its values from other configs has them written out; others stay as they are."""
  mine = tmp_path / 'mine.py'
  assert main(['configs', name, '--copy', str(mine)]) == 0
  assert config.read(str(mine)) == config.read(name)
  imported = re.findall(r'from (car_jax\.configs\S*) import (\w+)', mine.read_text())
  assert {module for module, _ in imported} <= {'car_jax.configs._published'}
