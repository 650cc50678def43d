"""Checkpoints: what comes back, what damage is noticed, which one is found."""

import errno
import os
import pathlib
import subprocess
import sys
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from car_jax import checkpoints
from car_jax.errors import UserError
from car_jax.methods.supervised import State
from car_jax.methods.trained import Trained


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
  with checkpoints.Checkpoints(tmp_path / 'checkpoints', keep=2) as c:
    for step in (10, 20, 30):
      c.save(step, tree(step), {'config': {'a': step}})
  return tmp_path


def tree(step):
  return {'net': {'w': jnp.arange(1000.0) + step, 'n': jnp.int32(step)}, 'step': jnp.int32(step)}


def largest_file(folder: pathlib.Path) -> pathlib.Path:
  return max((p for p in folder.rglob('*') if p.is_file()), key=lambda p: p.stat().st_size)


def test_arrays_and_meta_come_back_and_the_newest_are_kept(folder):
  with checkpoints.Checkpoints(folder / 'checkpoints', keep=2) as c:
    assert c.steps() == [20, 30]
    state, meta = c.restore(30, tree(0))
  np.testing.assert_array_equal(state['net']['w'], tree(30)['net']['w'])
  assert meta['config'] == {'a': 30}
  assert meta['versions']['car_jax']


def test_a_saved_step_is_replaced(folder):
  with checkpoints.Checkpoints(folder / 'checkpoints', keep=2) as c:
    c.save(30, tree(7), {'config': {}})
    c.wait()
    assert c.restore(30, tree(0))[0]['net']['n'] == 7


def flip_bytes(path):
  data = bytearray(path.read_bytes())
  middle = len(data) // 2
  data[middle : middle + 8] = bytes(255 - b for b in data[middle : middle + 8])
  path.write_bytes(data)


def cut_in_half(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize('damage', [flip_bytes, cut_in_half, pathlib.Path.unlink])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_it_used(folder, damage, capsys):
  damage(largest_file(folder / 'checkpoints' / '30' / 'state'))
  with checkpoints.Checkpoints(folder / 'checkpoints') as c:
    state, _ = checkpoints.newest_sound(c, tree(0))
  assert state['step'] == 20
  assert 'damaged checkpoint' in (told := capsys.readouterr().err)
  assert 'using step 20' in told


def test_when_every_checkpoint_is_damaged_the_user_is_told(folder):
  for step in ('20', '30'):
    cut_in_half(largest_file(folder / 'checkpoints' / step / 'state'))
  with (
    checkpoints.Checkpoints(folder / 'checkpoints') as c,
    pytest.raises(UserError, match='--new'),
  ):
    checkpoints.newest_sound(c, tree(0))


def test_locate_prefers_the_best_and_names_what_is_there(folder):
  assert checkpoints.locate(folder) == (folder / 'checkpoints', 30)
  assert checkpoints.locate(folder, '20') == (folder / 'checkpoints', 20)
  with checkpoints.Checkpoints(folder / 'best', keep=1) as c:
    c.save(25, tree(25), {'config': {}})
  assert checkpoints.locate(folder) == (folder / 'best', 25)
  assert checkpoints.locate(folder, 'latest') == (folder / 'checkpoints', 30)
  with pytest.raises(UserError, match=r'no checkpoint of step 5.*\n  there: 20, 25, 30'):
    checkpoints.locate(folder, '5')
  with pytest.raises(UserError, match='no checkpoint in'):
    checkpoints.locate(folder / 'nowhere')


def test_a_part_is_read_without_a_template(folder):
  with checkpoints.Checkpoints(folder / 'checkpoints') as c:
    assert set(checkpoints.part_of(c, 30, 'net')) == {'w', 'n'}
    with pytest.raises(UserError, match="no part 'nett'\n  did you mean: net"):
      checkpoints.part_of(c, 30, 'nett')


def test_a_part_of_a_dataclass_is_read_without_a_template(tmp_path):
  trained = Trained(
    {'w': np.arange(3, dtype=np.float32)}, {}, (optax.EmptyState(), {'m': np.ones(2, np.float32)})
  )
  with checkpoints.Checkpoints(tmp_path, keep=1) as c:
    c.save(4, State(step=np.int32(4), net=trained), {'config': {}})
    c.wait()
    part = checkpoints.part_of(c, 4, 'net')
  np.testing.assert_array_equal(part['params']['w'], np.arange(3.0))


def test_a_reader_leaves_alone_what_is_being_written(tmp_path):
  with checkpoints.Checkpoints(tmp_path, keep=2) as writer:
    for step in range(1, 6):
      writer.save(step, {'x': np.full((1000, 1000), step, np.float32)}, {'config': {}})
      with checkpoints.Checkpoints(tmp_path) as reader:  # as eval.py does beside a training run
        reader.steps()
    writer.wait()
    assert writer.restore(5, None)[0]['x'][0, 0] == 5


def test_arrays_of_another_net_are_not_called_damaged(folder):
  other = tree(0) | {'odd': np.zeros(3, np.float32)}
  with (
    checkpoints.Checkpoints(folder / 'checkpoints') as c,
    pytest.raises(UserError, match='of another method or data set: odd is not there') as e,
  ):
    checkpoints.newest_sound(c, other)
  assert '(3,) is wanted' in str(e.value)


WRITER = """
import sys, jax, numpy as np
from car_jax import checkpoints, sharding
state = sharding.place_state({'part': {'w': np.arange(4, dtype=np.float32)}}, sharding.make_mesh())
with checkpoints.Checkpoints(sys.argv[1], keep=1) as c:
  c.save(7, state, {'config': {}})
"""


def test_a_part_that_two_devices_wrote_is_read_on_one(tmp_path):
  env = os.environ | {'XLA_FLAGS': '--xla_force_host_platform_device_count=2'}
  subprocess.run([sys.executable, '-c', WRITER, str(tmp_path)], env=env, check=True)
  with checkpoints.Checkpoints(tmp_path) as c:
    np.testing.assert_array_equal(checkpoints.part_of(c, 7, 'part')['w'], np.arange(4))


def test_a_full_disk_is_known_before_anything_is_written(tmp_path, monkeypatch):
  monkeypatch.setattr(checkpoints.shutil, 'disk_usage', lambda path: SimpleNamespace(free=399))
  state = {'w': np.zeros(100, np.float32)}
  with checkpoints.Checkpoints(tmp_path / 'c', keep=1) as c:
    with pytest.raises(OSError, match=r'takes 0\.0 MB, 0\.0 MB are free') as e:
      c.save(0, state, {})
    assert (e.value.errno, e.value.filename) == (errno.ENOSPC, str(tmp_path / 'c'))
    assert not c.steps()
