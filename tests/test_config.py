"""Configs: loading, overriding, and what a user's mistake says."""

import pytest
from ml_collections import ConfigDict

from car_jax import config as configs
from car_jax.errors import UserError


def demo() -> ConfigDict:
  c = ConfigDict({'method': {'name': 'm', 'lr': 1.0, 'nets': (3, 4)}, 'data': {'name': 'd'}})
  c.data.flip, c.data.limit = False, None
  return configs.complete(c)


@pytest.mark.parametrize(
  ('text', 'key', 'value'),
  [
    ('--config.method.lr=1', 'method.lr', 1.0),
    ('--config.method.lr=2e-4', 'method.lr', 2e-4),
    ('--config.method.nets=(5, 6)', 'method.nets', (5, 6)),
    ('--config.method.nets=5,6', 'method.nets', (5, 6)),
    ('--config.data.flip=true', 'data.flip', True),
    ('--config.data.name=x', 'data.name', 'x'),
    ('--config.data.limit=7', 'data.limit', 7),
    ('--config.steps=5', 'steps', 5),
  ],
)
def test_an_override_keeps_the_type(text, key, value):
  c = configs.override(demo(), configs.split_overrides([text]))
  found = configs.flatten(c)[key]
  assert found == value
  assert type(found) is type(value)


def test_an_override_may_stand_in_two_arguments():
  assert configs.split_overrides(['--config.steps', '5']) == [('steps', '5')]


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--config.stps=5'], 'unknown config key .stps.\n  did you mean: steps'),
    (['--config.method.rl=5'], 'unknown config key'),
    (['--config.steps.x=5'], 'unknown config key'),
    (['--config.steps=1.5'], r'config.steps is int \(now 1000\)'),
    (['--config.data.flip=yes'], 'config.data.flip is bool'),
    (['--config.method=3'], 'a group of keys'),
    (['--config.steps'], 'needs a value'),
    (['--stps=3'], "unknown argument '--stps=3'"),
    (['stray'], "unknown argument 'stray'"),
  ],
)
def test_a_wrong_override_is_named(arguments, message):
  with pytest.raises(UserError, match=message):
    configs.override(demo(), configs.split_overrides(arguments))


def test_a_missing_config_names_the_nearest():
  with pytest.raises(UserError, match='did you mean: configs/car_lidc.py'):
    configs.load('configs/car_lidcc.py')


def test_a_config_with_an_unknown_key_is_refused(tmp_path):
  path = tmp_path / 'c.py'
  path.write_text(
    'from ml_collections import ConfigDict\n'
    'def get_config():\n'
    "  return ConfigDict(dict(method=dict(name='a'), data=dict(name='b'), sede=1))\n"
  )
  with pytest.raises(UserError, match="unknown config key 'sede'\n  did you mean: seed"):
    configs.load(str(path))
  path.write_text('x = 1\n')
  with pytest.raises(UserError, match='has no get_config'):
    configs.load(str(path))
  path.write_text('x = \n')
  with pytest.raises(UserError, match='c.py:1: invalid syntax'):
    configs.load(str(path))


def test_differences_survive_json_and_name_each_key():
  a, b = demo(), configs.from_json(configs.to_json(demo()))
  assert configs.differences(a, b) == []
  b.steps = 2
  assert configs.differences(a, b) == ['  steps: 1000 -> 2']


def test_a_part_to_start_from_may_be_new():
  assert configs.override(demo(), [('init.net', 'runs/a:net')]).init.net == 'runs/a:net'
  with pytest.raises(UserError, match='unknown config key'):
    configs.override(demo(), [('init.net.x', 'runs/a:net')])
