"""Options: every key of every config can be set, is explained, and is listed in docs/options.md."""

import contextlib
import dataclasses
import itertools
import pathlib
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pytest

from car_jax import config as configs
from car_jax import lookup, option_tables, options
from car_jax.config import Run
from car_jax.data.options import Data
from car_jax.errors import UserError
from car_jax.options import Group, Range
from car_jax.reliability import study_options
from tests.test_configs import NAMES, STUDIES, load

TEXTS = (
  '3',
  '0.5',
  '0.25',
  '48',
  'True',
  'False',
  'text',
  '(1, 2)',
  '(3,)',
  '(1, 2, 3)',
  '((1, 2, 3),)',
  '1',
  '2',
)
TEXTS += (
  "(('head', 2.0),)",
  "{'name': 'segnet'}",
  "{'name': 'fpn'}",
  "{'name': 'ssn', 'model': {'name': 'unet'}}",
  "{'name': 'fake', 'size': (8, 8)}",
  "{'views': 3}",
  "{'split': 'x'}",
  "{'scores': {'a': {'score': 'miou', 'value': 0.8}}}",
  '(1, 2, 3, 4)',
)


def set_otherwise(config, key, option, schema):
  """The config with another value of the option than it has."""
  kinds = options._choices(option.type)
  words = [str(v) for k in kinds if typing.get_origin(k) is Literal for v in typing.get_args(k)]
  members = [m for k in kinds if typing.get_origin(k) is tuple for m in typing.get_args(k)]
  listed = [f'({v!r},)' for m in members if typing.get_origin(m) is Literal for v in m.__args__]
  for text in (*TEXTS, *words, *listed):
    with contextlib.suppress(UserError):
      if options.parsed(key, option.type, text) == option.default:
        continue  # what the config has; quicker than to complete it again
      changed = configs.override(config, [(key, text)], schema)
      if changed != config:
        return changed
  raise AssertionError(f'{key} takes no other value')


def walk(config, schema):
  before = configs.flatten(config)
  for key, option in options.leaves(schema, config.to_dict()).items():
    if key.rpartition('.')[2] == 'name':
      continue  # it chooses what else there is
    assert option.about.endswith('.'), key
    if option.type == Mapping[str, Any]:
      changed = configs.override(config, [(f'{key}.new', 'x')], schema)
      assert configs.flatten(changed)[f'{key}.new'] == 'x'
    else:
      changed = set_otherwise(config, key, option, schema)
      after = configs.flatten(changed)
      others = {k for k in {*before, *after} if before.get(k) != after.get(k)}
      assert all(k.startswith(key) for k in others), others


@pytest.mark.parametrize('name', NAMES)
def test_every_key_of_a_training_config_can_be_set(name):
  walk(load(name), Run)


@pytest.mark.parametrize('name', STUDIES)
def test_every_key_of_a_study_can_be_set(name):
  walk(study_options.load(f'configs/{name}.py'), study_options.StudyOptions)


def test_keys_that_once_were_hidden():
  config = load('mose_lidc')
  keys = ('method.coupling', 'data.threads', 'data.crop', 'data.corruption', 'data.eval_batch')
  keys += ('method.optim.weight_decay',)
  assert {*keys} <= {*configs.flatten(config)}
  assert 'method.scales' in configs.flatten(load('segmenters_street_scenes:segformer'))
  assert 'method.model.features' in configs.flatten(load('segmenters_street_scenes:segformer'))


@pytest.mark.parametrize('kind', lookup.TABLES)
def test_every_option_has_a_line_about_it(kind):
  for name in lookup.TABLES[kind]:
    for key, option in options.declared(lookup.find(kind, name)).items():
      assert option.about, (name, key)
      assert options.words(option.type) != 'a value', (name, key)


def test_the_page_is_that_of_the_code():
  made = option_tables.page()
  assert pathlib.Path('docs/options.md').read_text() == made, (
    'python -m car_jax.option_tables > docs/options.md'
  )


@dataclasses.dataclass(frozen=True)
class Inner(Group):
  size: Annotated[int, Range(1, 9)] = 3
  """How large."""


@dataclasses.dataclass(frozen=True)
class Outer(Group):
  must: float
  """Has no default."""
  kind: Literal['a', 'b'] | None = 'a'
  """Which."""
  pair: tuple[int, float] | tuple[()] = ()
  """Two numbers, or
  none."""
  one: Inner = dataclasses.field(default_factory=dict)
  """A group."""
  more: dict[str, Inner] = dataclasses.field(default_factory=dict)
  """Groups."""
  maybe: Inner | None = None
  """A group, or none."""


def test_a_group_is_completed_and_typed():
  found = options.completed(Outer, dict(must=1, pair=[1, 2], more=dict(x={})))
  assert found == dict(
    must=1.0, kind='a', pair=(1, 2.0), one=dict(size=3), more=dict(x=dict(size=3)), maybe=None
  )
  assert type(found['must']) is float
  assert options.completed(Outer, found) == found
  assert options.completed(Outer, found | dict(maybe=dict(size=2)))['maybe'] == dict(size=2)
  assert options.declared(Outer)['pair'].about == 'Two numbers, or none.'


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (dict(must=None), r'config.must is None\n  it is a number'),
    (dict(kind='c'), r"config.kind is 'c'\n"),
    (dict(kind=True), r'config.kind is True'),
    (dict(pair=(1,)), r'config.pair is \(1,\)\n  it is a list of 2: a whole number, a number or'),
    (dict(one=dict(size=10)), r'config.one.size is 10\n  it is a whole number from 1 to 9'),
    (dict(one=dict(sise=1)), r"unknown config key 'one.sise'\n  did you mean: size"),
    (dict(one=3), r'config.one is 3\n  it is a dict of size'),
    (dict(more=dict(x=dict(size=0))), r'config.more.x.size is 0'),
    (dict(more=(1,)), r'config.more is \(1,\)\n  it is a dict of entries by name'),
    (dict(maybe=dict(size='2')), r"config.maybe.size is '2'"),
  ],
)
def test_what_a_group_cannot_be(change, message):
  with pytest.raises(UserError, match=message):
    options.completed(Outer, dict(must=1.0) | change)
  with pytest.raises(UserError, match='config.must is missing'):
    options.completed(Outer, {})


def test_options_of_a_config_are_listed(capsys):
  import train

  assert train.main(['--config', 'configs/mose_lidc.py', '--options']) == 0
  out = capsys.readouterr().out
  for text in ('--config.method.coupling=greedy', "'greedy', 'exact'", '--config.data.threads='):
    assert text in out
  keys = [line for line in out.splitlines() if line.startswith('--config.')]
  assert len(keys) == len(options.leaves(Run, load('mose_lidc').to_dict()))


def test_the_defaults_of_data_are_in_one_place():
  """A class of data sets that changes one says so itself."""
  for name, cls in itertools.product(['fake', 'toy_regression'], [Data]):
    own = options.declared(lookup.find('data set', name))
    changed = [k for k, o in options.declared(cls).items() if k in own and own[k] != o]
    assert {*changed} <= {'size', 'batch'}


@pytest.mark.parametrize(
  ('text', 'value'),
  [
    ('ged16,ece', ('ged16', 'ece')),
    ('ged16[u,absent=1], ece[top]', ('ged16[u,absent=1]', 'ece[top]')),
    ("('ged16','ece')", ('ged16', 'ece')),
    ('ece', ('ece',)),
  ],
)
def test_names_are_listed_with_commas(text, value):
  assert options.parsed('metrics', tuple[str, ...], text) == value
