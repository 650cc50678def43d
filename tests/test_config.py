"""Configs: loading, overriding, and what a user's mistake says."""

import functools
import os

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


@pytest.mark.parametrize(
  ('key', 'value', 'message'),
  [
    ('steps', 2**31, 'config.steps is 2147483648; it is at most 2,147,483,647'),
    ('seed', 2**32, 'at most'),
    ('keep', 0, 'config.keep is 0; it is at least 1'),
    ('data.batch', 0, 'at least 1'),
    ('data.batch', 2.5, 'a whole number'),
    ('data.batch', True, 'config.data.batch is True; it is a number'),
    ('data.batch', '8', 'it is a number'),
    ('data.eval_batch', -1, 'config.data.eval_batch is -1'),
    ('data.size', -1, 'config.data.size is -1; it is at least 0'),
    ('data.target', {'size': (32, -1)}, 'config.data.target.size is -1'),
    ('method.lr', float('nan'), 'config.method.lr is nan; it is a finite number'),
    ('method.lr', float('inf'), 'a finite number'),
    ('method.lr', -1.0, 'at least 0'),
    ('method.lr', 1e30, 'at most 1,000'),
    ('method.lr', 1j, 'a finite number'),
    ('method.anything', 2**63, 'at most 64 bits'),
    ('method.anything', (1, (2, float('nan'))), 'a finite number'),
    ('method.anything', print, 'a config holds numbers, texts'),
    ('evals', {'val': 'test'}, r'a dict such as dict\(split=...\)'),
  ],
)
def test_a_value_that_no_run_can_have_is_named_with_its_range(key, value, message):
  c = demo()
  c.unlock()
  c.data.batch = 8
  configs.check(c)
  *parents, last = key.split('.')
  with c.ignore_type():
    functools.reduce(lambda node, k: node[k], parents, c)[last] = value
  with pytest.raises(UserError, match=message):
    configs.check(c)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    (b'\xff\xfe', 'c.py'),
    (b'x = 1\nx = y\n', "c.py:2: NameError: name 'y' is not defined"),
    (b'import nothing_of_this_name\n', 'c.py:1: ModuleNotFoundError'),
    (b'def get_config():\n  raise ValueError("no")\n', 'c.py:2: ValueError: no'),
    (b'import sys\nsys.exit(3)\n', 'c.py:2: SystemExit: 3'),
    (b'get_config = 3\n', r'has no get_config\(\)'),
    (b'def get_config():\n  return dict(a=1)\n', 'returns a dict; it must be'),
    (b'def get_config():\n  pass\n', 'returns a NoneType'),
  ],
)
def test_what_a_config_file_raises_is_told_with_its_place(tmp_path, text, message):
  (tmp_path / 'c.py').write_bytes(text)
  with pytest.raises(UserError, match=message):
    configs.load(str(tmp_path / 'c.py'))


def test_a_pipe_is_no_config(tmp_path):
  os.mkfifo(tmp_path / 'c.py')
  with pytest.raises(UserError, match='no regular file'):
    configs.load(str(tmp_path / 'c.py'))


def test_what_cannot_be_made_of_a_config_is_told_with_the_line():
  message = r'made of config.method \(ZeroDivisionError .* in test_config.py:\d+\)'
  with pytest.raises(UserError, match=message), configs.setting_up('method'):
    _ = 1 / 0
