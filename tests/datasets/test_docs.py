"""The pages on data say what the code does; their blocks run in tests/docs."""

import re

import numpy as np

import car_jax.options
from car_jax.data import compact, opening, pipeline, prepared
from car_jax.data.options import Data
from car_jax.datasets import prepare
from car_jax.methods import base
from tests.datasets.files import records, run, write_png
from tests.docs import commands, pages

PAGES = (pages.ROOT / 'docs/data.md', pages.ROOT / 'docs/own_data.md')
PAGE, OWN = (p.read_text() for p in PAGES)
LINES = [w for b in pages.blocks(PAGES[0]) if b.language == 'sh' for w in commands.lines(b.text)]


def test_there_is_a_command_for_every_data_set():
  named = {words[2] for words in LINES if words[:2] == ['car-jax', 'prepare']}
  assert named == {*prepared.KNOWN} - {'folder'}


def rows(title):
  """First cells of the tables of a section, split at commas."""
  section = PAGE.split(f'## {title}\n')[1].split('\n## ')[0]
  cells = re.findall(r'^\| (`[^|]*) \|', section, re.MULTILINE)
  return {name for cell in cells for name in re.findall(r'`(\w+)`', cell)}


def test_the_tables_name_every_key():
  data = opening.open_dataset({'name': 'fake', 'black_box': True})
  batches = pipeline.train_batches(data.split('train'), data.info, {'batch': 2}, seed=0)
  batch = compact.expanded(next(batches))
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
  table = re.search(r'```\n(image,masks,.*?)```', OWN, re.DOTALL)[1]
  (tmp_path / 'mine.csv').write_text(table)
  for name in re.findall(r'[ab]\w*\.(?:png|jpg)', table):
    write_png(tmp_path / name, np.zeros((4, 4)))
  assert run('folder', tmp_path / 'mine.csv', tmp_path / 'd') == 0
  assert records('folder', tmp_path / 'd')['a']['labels'].shape == (2, 4, 4)
  assert records('folder', tmp_path / 'd', 'validation')['b']['group'] == 'patient8'
