"""Configs: loading, overriding, and what a user's mistake says."""

import functools
import json
import os

import pytest
from ml_collections import ConfigDict

from car_jax import config as configs
from car_jax.errors import UserError


def demo() -> ConfigDict:
  net = dict(name='segnet', widths=(3, 4), depths=(1, 1))
  method = dict(name='supervised', model=net, optim=dict(lr=1.0))
  return configs.complete(dict(method=method, data=dict(name='fake')))


@pytest.mark.parametrize(
  ('text', 'key', 'value'),
  [
    ('--config.method.optim.lr=1', 'method.optim.lr', 1.0),
    ('--config.method.optim.lr=2e-4', 'method.optim.lr', 2e-4),
    ('--config.method.optim.weight_decay=1', 'method.optim.weight_decay', 1.0),  # a default
    ('--config.method.model.widths=(5, 6)', 'method.model.widths', (5, 6)),
    ('--config.method.model.widths=5,6', 'method.model.widths', (5, 6)),
    ('--config.method.model.widths=5', 'method.model.widths', (5,)),
    ('--config.method.model.dtype=bfloat16', 'method.model.dtype', 'bfloat16'),
    ('--config.method.model.dtype=none', 'method.model.dtype', None),
    ('--config.data.mirror=true', 'data.mirror', True),
    ('--config.data.threads=7', 'data.threads', 7),
    ('--config.data.corruption=fog:3', 'data.corruption', 'fog:3'),
    ('--config.steps=5', 'steps', 5),
  ],
)
def test_an_override_has_the_type_of_its_option(text, key, value):
  c = configs.override(demo(), configs.split_overrides([text]))
  found = configs.flatten(c)[key]
  assert found == value
  assert type(found) is type(value)


def test_another_part_is_chosen_by_its_name(tmp_path):
  path = tmp_path / 'c.py'
  path.write_text(
    'from ml_collections import ConfigDict\n'
    'def get_config():\n'
    "  method = dict(name='supervised', model=dict(name='segnet'))\n"
    "  return ConfigDict(dict(method=method, data=dict(name='fake')))\n"
  )
  changes = [('method.model.name', 'segformer'), ('method.model.variant', 'b2')]
  model = configs.load(str(path), changes).method.model
  assert (model.name, model.variant, 'widths' in model) == ('segformer', 'b2', True)
  with pytest.raises(UserError, match=r"no net 'segfrmer'\n  did you mean: segformer"):
    configs.load(str(path), [('method.model.name', 'segfrmer')])


def test_an_override_may_stand_in_two_arguments():
  assert configs.split_overrides(['--config.steps', '5']) == [('steps', '5')]


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--config.stps=5'], 'unknown config key .stps.\n  did you mean: steps'),
    (['--config.method.optim.rl=5'], 'unknown config key'),
    (['--config.data.thread=5'], 'unknown config key .data.thread.\n  did you mean: data.threads'),
    (['--config.steps.x=5'], 'unknown config key'),
    (['--config.dtype=bfloat16'], 'did you mean: method.model.dtype'),
    (['--config.lr=1'], r'did you mean: method.*optim.lr'),
    (['--config.method.zzz=1'], r'known of method: .*optim\.\*'),
    (['--config.zzz=1'], r'known: .*data\.\*, .*steps'),
    (['--config.steps=1.5'], r'config.steps is 1.5\n  it is a whole number, at least 0'),
    (['--config.data.crop=center'], 'config.data.crop is .center.\n  did you mean: centre'),
    (['--config.data.flip=True'], 'unknown config key .data.flip.\n  it is now called data.mirror'),
    (['--config.data.mirror=yes'], 'config.data.mirror is .yes.\n  it is True or False'),
    (['--config.method=3'], 'a group of keys'),
    (['--config.method.optim.b2=1'], 'config.method.*b2 is 1'),
    (['--config.steps'], 'needs a value'),
    (['--stps=3'], "unknown argument '--stps=3'"),
    (['stray'], "unknown argument 'stray'"),
  ],
)
def test_a_wrong_override_is_named(arguments, message):
  with pytest.raises(UserError, match=message):
    configs.override(demo(), configs.split_overrides(arguments))


@pytest.mark.parametrize(
  'pairs',
  [
    [('data.name', 'fake'), ('data.count', '8')],
    [('data.count', '8'), ('data.name', 'fake')],
    [('data.name', 'toy_regression'), ('data.sigma', '0.5'), ('data.batch', '3')],
    [('method.optim.momentum', '0.5'), ('method.optim.name', 'sgd')],
    [('method.model.backbone.name', 'mit'), ('method.model.head.name', 'segformer')],
  ],
)
def test_another_part_in_a_config_that_is_complete(pairs):
  """As of a file or a checkpoint: what the part before had by default is not asked of it."""
  backbone, head = dict(name='vit'), dict(name='psp')
  model = dict(name='composed', backbone=backbone, head=head, auxiliary={}, mean=(1.0, 2.0, 3.0))
  method = dict(name='supervised', model=model, crop=(48, 64))
  config = configs.complete(dict(method=method, data=dict(name='cityscapes/scale1', batch=2)))
  actual = configs.override(config, pairs)
  assert actual.method.model.mean == (1.0, 2.0, 3.0)
  assert actual.method.crop == (48, 64)
  flat = configs.flatten(actual)
  assert [str(flat[key]) for key, _ in pairs] == [text for _, text in pairs]
  assert flat == configs.flatten(configs.complete(actual))


def test_another_part_is_not_given_what_the_one_before_was():
  config = configs.complete(
    dict(
      method=dict(name='supervised', model=dict(name='segnet'), optim=dict(name='adam', b1=0.8)),
      data=dict(name='fake'),
    )
  )
  with pytest.raises(UserError, match="'method.optim.b1': optimizer 'sgd' has no option 'b1'"):
    configs.override(config, [('method.optim.name', 'sgd')])
  assert configs.override(config, []) == config


def test_a_missing_config_names_the_nearest():
  with pytest.raises(UserError, match='did you mean: configs/car_lidc.py'):
    configs.load('configs/car_lidcc.py')


def test_a_config_with_an_unknown_key_is_refused(tmp_path):
  path = tmp_path / 'c.py'
  path.write_text(
    'from ml_collections import ConfigDict\n'
    'def get_config():\n'
    "  return ConfigDict(dict(method=dict(name='supervised'), data=dict(name='b'), sede=1))\n"
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
  a, b = demo(), configs.saved(json.loads(configs.to_json(demo())))
  assert configs.differences(a, b) == []
  b.steps = 2
  assert configs.differences(a, b) == ['  steps: 1000 -> 2']


def test_what_an_earlier_version_kept_is_read_under_the_names_of_today():
  kept = json.loads(configs.to_json(demo()))
  kept['data']['flip'] = kept['data'].pop('mirror')
  kept['method']['model'] = dict(name='segnet', dtype='float16')  # once a dtype of nets
  kept['method']['name'] = 'supervised'
  kept['method'] = {k: kept['method'][k] for k in ('name', 'model')}
  now = configs.saved(kept)
  assert now.data.mirror == demo().data.mirror
  assert now.method.model.dtype == 'float32'


def test_a_key_may_be_set_in_a_group_that_the_override_before_it_makes():
  pairs = [('data.target', "{'split': 'x'}"), ('data.target.views', '2'), ('steps', '3')]
  c = configs.override(demo(), pairs)
  assert (c.data.target.split, c.data.target.views, c.steps) == ('x', 2, 3)


def test_a_part_to_start_from_may_be_new():
  assert configs.override(demo(), [('init.net', 'runs/a:net')]).init.net == 'runs/a:net'
  with pytest.raises(UserError, match='unknown config key'):
    configs.override(demo(), [('init.net.x', 'runs/a:net')])


@pytest.mark.parametrize(
  ('key', 'value', 'message'),
  [
    ('steps', 2**31, r'config.steps is 2147483648\n  it is a whole number, at least 0'),
    ('seed', 2**32, 'from 0 to 4,294,967,295'),
    ('keep', 0, r'config.keep is 0\n  it is a whole number, at least 1'),
    ('data.batch', 0, 'at least 1'),
    ('data.batch', 2.5, 'a whole number'),
    ('data.batch', True, r'config.data.batch is True\n  it is a whole number'),
    ('data.batch', '8', 'a whole number'),
    ('data.eval_batch', -1, 'config.data.eval_batch is -1'),
    ('data.size', -1, 'config.data.size is -1'),
    ('data.target', {'size': (32, -1)}, r'config.data.target.size is \(32, -1\)'),
    ('method.optim.lr', float('nan'), r'config.method.optim.lr is nan\n  it is a finite number'),
    ('method.optim.lr', float('inf'), 'a finite number'),
    ('method.optim.lr', -1.0, 'from 0 to 1000'),
    ('method.optim.lr', 1e30, 'from 0 to 1000'),
    ('method.optim.lr', 1j, 'a number'),
    ('method.optim.anything', 2**63, 'unknown config key .method.optim.anything'),
    ('method.model.widths', (1, (2, float('nan'))), 'a list of: a whole number'),
    ('method.model', 'segnet', r'dict\(name='),
    ('method.scales', print, 'a list of: a number'),
    ('evals', {'val': 'test'}, 'config.evals.val is .test.\n  it is a dict of split'),
    ('report.samples', 0, 'config.report.samples is 0'),
    ('init', {'net': print}, 'a config holds numbers, texts'),
  ],
)
def test_a_value_that_no_run_can_have_is_named_with_its_range(key, value, message):
  c = demo()
  configs.check(c)
  c.unlock()
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


def test_options_of_a_part_that_is_not_set():
  config = configs.load('configs/flow_matching_lidc.py')
  with pytest.raises(
    UserError, match='config.method.start is not set, so it has no .method.start.'
  ):
    configs.override(config, [('method.start.name', 'ssn')])
  with pytest.raises(UserError, match='config.method.pixel_std'):
    configs.override(config, [('method.pixel_std', '0.,')])
