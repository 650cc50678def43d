"""The page on data says what the code does."""

import pathlib
import re
import shlex

import numpy as np
import pytest

import car_jax.options
from car_jax.data import opening, pipeline, prepared
from car_jax.data.options import Data
from car_jax.datasets import prepare
from car_jax.methods import base
from tests.datasets.files import lidc_crops, records, run, write_png

PAGE = (pathlib.Path(__file__).parents[2] / 'docs' / 'data.md').read_text()
COMMANDS = [
  line.partition(' #')[0].replace('[', '').replace(']', '')
  for block in re.findall(r'```sh\n(.*?)```', PAGE, re.DOTALL)
  for line in block.splitlines()
  if line.startswith('car-jax prepare') and ' NAME ' not in line
]


def test_the_way_of_tfds_runs(tmp_path, monkeypatch, capsys):
  example, _ = re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL)
  monkeypatch.chdir(tmp_path)
  lidc_crops(tmp_path / 'crops')
  exec(compile(example, 'docs/data.md', 'exec'), {})
  assert "2 b'ptrain" in capsys.readouterr().out.splitlines()[-1]
  assert set(records('lidc_crops', tmp_path / 'data')) == {'ptrain/s0', 'ptrain/s1'}


def test_the_example_of_the_page_runs(capsys):
  _, example = re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL)
  exec(compile(example, 'docs/data.md', 'exec'), {})
  assert "('background', 'disc 1') (32, 32, 1) (4, 32, 32)" in capsys.readouterr().out


@pytest.mark.parametrize('command', COMMANDS)
def test_every_command_is_one_that_prepare_takes(command):
  given, config = prepare.parse(shlex.split(command)[2:])
  assert bool(prepare.instructions(given.name)) == (given.source is not None)
  assert config.version


def test_there_are_commands_for_every_data_set():
  assert {shlex.split(c)[2] for c in COMMANDS} == set(prepared.KNOWN)


def rows(title):
  """First cells of the tables of a section, split at commas."""
  section = PAGE.split(f'## {title}\n')[1].split('\n## ')[0]
  cells = re.findall(r'^\| (`[^|]*) \|', section, re.MULTILINE)
  return {name for cell in cells for name in re.findall(r'`(\w+)`', cell)}


def test_the_tables_name_every_key():
  data = opening.open_dataset({'name': 'fake', 'black_box': True})
  batch = next(pipeline.train_batches(data.split('train'), data.info, {'batch': 2}, seed=0))
  keys = {*car_jax.options.declared(Data)} - {'source', 'target'}
  assert rows('The batch') == set(batch) | {'unknown', 'name'} | keys
  assert rows('The prepared record') == set(data.split('train')[0])
  assert rows('Preparing') >= set(prepared.KNOWN)
  for name in prepared.KNOWN:
    line, *_ = re.findall(rf'^\| `{name}` \|.*\|([^|]*)\|$', PAGE, re.MULTILINE)
    config = prepare.builder(name).builder_config_cls
    options = [key.replace('_', '-') for key in car_jax.options.declared(config)]
    assert re.findall(r'--([\w-]+)', line) == options
  for key in {'unknown', *batch} - {'id', 'group'}:
    assert re.search(rf'^  {key} ', base.__doc__, re.MULTILINE)


def test_the_csv_of_the_page(tmp_path):
  table = re.search(r'```\n(image,masks,.*?)```', PAGE, re.DOTALL)[1]
  (tmp_path / 'mine.csv').write_text(table)
  for name in re.findall(r'[ab]\w*\.(?:png|jpg)', table):
    write_png(tmp_path / name, np.zeros((4, 4)))
  assert run('folder', tmp_path / 'mine.csv', tmp_path / 'd') == 0
  assert records('folder', tmp_path / 'd')['a']['labels'].shape == (2, 4, 4)
  assert records('folder', tmp_path / 'd', 'validation')['b']['group'] == 'patient8'
