"""docs/generate.md: its tables name what there is; its blocks run in tests/docs."""

import pathlib
import re

from car_jax.datasets import options
from car_jax.datasets.street_scenes import procedural
from car_jax.generate import records, sets
from car_jax.generate.options import (
  MaskOptions,
  ObjectOptions,
  RefineOptions,
  SceneOptions,
  StyleOptions,
)
from car_jax.options import declared
from car_jax.reliability import plan, study_options
from tests.generate import test_records

PAGE = pathlib.Path('docs/generate.md').read_text()


def test_the_tables_name_every_option_and_file(tmp_path):
  section = PAGE.split('## Without weights\n')[1].split('\n## ')[0]
  named = {*re.findall(r'`--(\w+)`', section)}
  known = {k for cls, *_ in procedural.KINDS.values() for k in declared(cls)}
  assert named == {options.flag(k)[2:] for k in known} | {'out'}
  test_records.make(tmp_path, 'style', ['DOMAIN'], [0])
  test_records.make(tmp_path, 'ood', ['OBJECT'], [0, 1])
  layout = PAGE.split('## The layout\n')[1].split('\n## ')[0]
  for path in test_records.content(tmp_path):
    name = re.sub(r'bonn_\d+(_000019)?', 'NAME', path).replace('/bonn/', '/CITY/')
    name = re.sub(r'(?<=[/_])[01](?=[._])', 'N', name)
    assert name in layout or f'`{pathlib.Path(name).name}`' in layout, name
  for name in (sets.BY_EYE, records.INDEX):
    assert f'`{name}`' in layout


def test_the_options_of_the_page_are_options():
  section = PAGE.split('## By diffusion\n')[1].split('\n## ')[0]
  groups = {'scenes': SceneOptions, 'refine': RefineOptions, 'masks': MaskOptions}
  known = {*declared(StyleOptions), *declared(ObjectOptions)}
  known |= {f'{name}.{key}' for name, group in groups.items() for key in declared(group)}
  named = {*re.findall(r'`((?:scenes|refine|masks)\.\w+)', section)}
  assert named <= known
  faults = section.split('### Published faults')[1]
  rows = {*re.findall(r"^\| `([\w.]+)(?:='full')?` \|", faults, re.MULTILINE)}
  assert rows == {*StyleOptions.FAULTS, *ObjectOptions.FAULTS}


def test_the_config_of_the_page_is_one_that_a_study_takes():
  c = study_options.defaults()
  (block,) = re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL)
  exec(compile(block, 'docs/generate.md', 'exec'), {'c': c})
  c.models = {'m': 'nowhere'}
  named = {s for v in c.correlations.values() for side in (v['synthetic'], v['real']) for s in side}
  c.sets = {name: dict(labels='x') for name in named}
  assert plan.plan(c).correlations['weather'].synthetic == ('made fog', 'made rain')
