"""Checkpoints: what comes back, what damage is noticed, which one is found."""

import contextlib
import errno
import gc
import json
import os
import pathlib
import shutil
import subprocess
import sys
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from car_jax import checkpoints, errors, saved_steps
from car_jax.errors import UserError
from car_jax.methods.train_state import State, TrainState


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


def test_what_one_process_cannot_read_none_goes_on_with(folder, monkeypatch):
  monkeypatch.setattr(checkpoints.sharding, 'all_agree', lambda yes: False)
  with checkpoints.Checkpoints(folder / 'checkpoints') as c:
    with pytest.raises(checkpoints.Damaged, match='30: another process cannot read its part'):
      c.restore(30, tree(0))
    largest_file(folder / 'checkpoints' / '20').write_bytes(b'')
    with pytest.raises(checkpoints.Damaged, match='20: ') as e:
      c.restore(20, tree(0))
  assert 'another process' not in str(e.value)


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
def test_a_damaged_checkpoint_is_reported_and_the_one_before_it_used(folder, damage, capfd):
  damage(largest_file(folder / 'checkpoints' / '30' / 'state'))
  with checkpoints.Checkpoints(folder / 'checkpoints') as c:
    state, _ = checkpoints.newest_sound(c, tree(0))
  assert state['step'] == 20
  gc.collect()
  assert 'damaged checkpoint' in (told := capfd.readouterr().err)
  assert 'using step 20' in told
  assert 'Traceback' not in told  # nor do the threads that read say theirs


def test_when_every_checkpoint_is_damaged_the_user_is_told(folder):
  for step in ('20', '30'):
    cut_in_half(largest_file(folder / 'checkpoints' / step / 'state'))
  with (
    checkpoints.Checkpoints(folder / 'checkpoints') as c,
    pytest.raises(UserError, match='--new'),
  ):
    checkpoints.newest_sound(c, tree(0))


def flip(path, rng):
  """One bit of a file is flipped; -> what it was."""
  raw = path.read_bytes()
  changed = bytearray(raw)
  changed[rng.integers(len(raw))] ^= 1 << int(rng.integers(8))
  path.write_bytes(changed)
  return raw


def test_no_bit_of_meta_is_changed_unnoticed(folder):
  step, rng = folder / 'checkpoints' / '30', np.random.default_rng(0)
  with checkpoints.Checkpoints(folder / 'checkpoints') as c:
    want = c.meta(30)
    for name in ('meta', 'checksum'):
      for _ in range(100):
        path = step / name / 'metadata'
        raw = flip(path, rng)
        try:
          assert c.meta(30) == want, path.read_text()
        except checkpoints.Damaged as e:
          assert str(step) in str(e)  # noqa: PT017
        path.write_bytes(raw)


def test_no_bit_of_a_checkpoint_is_changed_unnoticed(folder):
  """Orbax' own files are many and small: each is as likely as the arrays."""
  rng = np.random.default_rng(0)
  files = [p for p in (folder / 'checkpoints' / '30').rglob('*') if p.is_file() if p.stat().st_size]
  want = checkpoints.crcs(tree(30))
  with checkpoints.Checkpoints(folder / 'checkpoints') as c:
    for k in range(3 * len(files)):
      raw = flip(path := files[k % len(files)], rng)
      for template in (None, tree(0)):
        with contextlib.suppress(checkpoints.Damaged):
          state, meta = c.restore(30, template)
          assert checkpoints.crcs(state) == want, path
          assert meta['config'] == {'a': 30}
      path.write_bytes(raw)


@pytest.mark.parametrize(
  'change',
  [
    lambda meta: meta | {'crc': {}},
    lambda meta: meta | {'crc': dict([*meta['crc'].items()][1:])},
    lambda meta: {k: v for k, v in meta.items() if k != 'crc'},
    lambda meta: {k: v for k, v in meta.items() if k != 'format'},
    lambda meta: meta | {'config': {'a': 31}},
    lambda meta: [],
    lambda meta: None,
  ],
)
def test_checking_is_not_switched_off_by_what_is_missing(folder, change):
  path = folder / 'checkpoints' / '30' / 'meta' / 'metadata'
  path.write_text(json.dumps(change(json.loads(path.read_text()))))
  with checkpoints.Checkpoints(folder / 'checkpoints') as c, pytest.raises(checkpoints.Damaged):
    c.restore(30, None)


def test_a_checkpoint_without_its_checksum_is_damaged_unless_it_never_had_one(folder, capsys):
  step = folder / 'checkpoints' / '30'
  shutil.rmtree(step / 'checksum')
  with checkpoints.Checkpoints(folder / 'checkpoints') as c:
    with pytest.raises(checkpoints.Damaged, match='checksum'):
      c.meta(30)
    meta = json.loads((step / 'meta' / 'metadata').read_text())
    del meta['format']  # as version 1 wrote it
    (step / 'meta' / 'metadata').write_text(json.dumps(meta))
    np.testing.assert_array_equal(c.restore(30, None)[0]['net']['w'], tree(30)['net']['w'])
    assert 'older version' in capsys.readouterr().err
    meta['crc'] = {}  # every array has one in version 1 too
    (step / 'meta' / 'metadata').write_text(json.dumps(meta))
    with pytest.raises(checkpoints.Damaged, match='3 arrays differ'):
      c.restore(30, None)


def test_what_a_writer_cannot_begin_with_is_moved_aside(folder, capsys):
  record = folder / 'checkpoints' / '30' / '_CHECKPOINT_METADATA'
  record.write_text(json.dumps(json.loads(record.read_text()) | {'metrics': 3}))
  with checkpoints.Checkpoints(folder / 'checkpoints', keep=2) as c:
    state, _ = checkpoints.newest_sound(c, tree(0))
    c.save(30, tree(30), {'config': {}})
  assert state['step'] == 20
  assert 'damaged checkpoint' in (told := capsys.readouterr().err)
  assert len([*(folder / 'checkpoints').glob('30.damaged-*')]) == 1
  assert '30.damaged-' in told
  assert saved_steps.locate(folder) == (folder / 'checkpoints', 30)


def test_one_that_is_removed_while_it_is_read_is_not_damaged(folder, monkeypatch):
  """As beside a training that keeps the newest: the one that is there then is read."""
  monkeypatch.setattr(checkpoints.time, 'sleep', lambda seconds: None)

  def use(saved, step):
    if step == 30:
      shutil.rmtree(folder / 'checkpoints' / '30')
      (folder / 'checkpoints' / '20').rename(folder / 'checkpoints' / '40')
    return int(saved.restore(step, None)[0]['step'])

  assert checkpoints.read(folder, '', use) == 20  # of what is called 40 now
  cut_in_half(largest_file(folder / 'checkpoints' / '40' / 'state'))
  with pytest.raises(UserError, match='damaged checkpoint'):
    checkpoints.read(folder, '', use)


def test_only_folders_with_the_name_of_a_step_are_checkpoints(folder):
  for name in (
    '007',
    '\N{ARABIC-INDIC DIGIT NINE}',
    '\N{SUPERSCRIPT TWO}',
    '31.orbax-checkpoint-tmp',
  ):
    (folder / 'checkpoints' / name).mkdir()
  (folder / 'checkpoints' / '99').write_text('a file')
  assert saved_steps.locate(folder) == (folder / 'checkpoints', 30)
  with checkpoints.Checkpoints(folder / 'checkpoints') as c:
    assert c.steps() == [20, 30]
  with pytest.raises(UserError, match='no checkpoint called'):
    saved_steps.locate(folder, '\N{SUPERSCRIPT TWO}')


def test_locate_prefers_the_best_and_names_what_is_there(folder):
  assert saved_steps.locate(folder) == (folder / 'checkpoints', 30)
  assert saved_steps.locate(folder, '20') == (folder / 'checkpoints', 20)
  with checkpoints.Checkpoints(folder / 'best', keep=1) as c:
    c.save(25, tree(25), {'config': {}})
  assert saved_steps.locate(folder) == (folder / 'best', 25)
  assert saved_steps.locate(folder, 'latest') == (folder / 'checkpoints', 30)
  which = lambda wish: saved_steps.which(
    (place := saved_steps.locate(folder, wish))[0] / str(place[1]), [20, 30]
  )
  named = {wish: which(wish) for wish in ('', 'latest', '20')}
  assert named == {'': 'best checkpoint', 'latest': 'latest checkpoint', '20': 'a checkpoint'}
  with pytest.raises(UserError, match=r'no checkpoint of step 5.*\n  there: 20, 25, 30'):
    saved_steps.locate(folder, '5')
  with pytest.raises(UserError, match='no checkpoint in'):
    saved_steps.locate(folder / 'nowhere')
  named = folder.with_name('a run')
  folder.rename(named)
  with pytest.raises(UserError, match='no checkpoint in .*a rum\n(.*\n)*  did you mean: a run'):
    saved_steps.locate(named.with_name('a rum'))


def test_a_damaged_best_names_the_latest(folder):
  with checkpoints.Checkpoints(folder / 'best', keep=1) as c:
    c.save(25, tree(25), {'config': {}})
  (folder / 'best' / '25' / 'meta' / 'metadata').write_text('{')
  with pytest.raises(UserError, match=r'damaged .*best/25(.|\n)*others there: --step latest'):
    checkpoints.read(folder, '', lambda saved, step: saved.meta(step))


def test_a_part_is_read_without_a_template(folder):
  with checkpoints.Checkpoints(folder / 'checkpoints') as c:
    assert set(checkpoints.part_of(c, 30, 'net')) == {'w', 'n'}
    with pytest.raises(UserError, match="no part 'nett'\n  did you mean: net"):
      checkpoints.part_of(c, 30, 'nett')


def test_a_part_of_a_dataclass_is_read_without_a_template(tmp_path):
  trained = TrainState(
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
      with checkpoints.Checkpoints(
        tmp_path
      ) as reader:  # as car-jax eval does beside a training run
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


def test_a_disk_that_fills_up_while_orbax_writes_is_said_with_the_place():
  text = (
    'RESOURCE_EXHAUSTED: Error writing local file "/runs/a/checkpoints/2.orbax-checkpoint-tmp/state'
    '.orbax-checkpoint-tmp/d": Failed to write 9 bytes: No space left on device [os_error_code=28]'
  )
  message = '/runs/a/checkpoints/2: No space left on device'
  assert str(errors.mistake(ValueError(text))) == message
  assert errors.mistake(ValueError('another')) is None


def test_a_full_disk_is_known_before_anything_is_written(tmp_path, monkeypatch):
  monkeypatch.setattr(checkpoints.shutil, 'disk_usage', lambda path: SimpleNamespace(free=399))
  state = {'w': np.zeros(100, np.float32)}
  with checkpoints.Checkpoints(tmp_path / 'c', keep=1) as c:
    with pytest.raises(OSError, match=r'takes 0\.0 MB, 0\.0 MB are free') as e:
      c.save(0, state, {})
    assert (e.value.errno, e.value.filename) == (errno.ENOSPC, str(tmp_path / 'c'))
    assert not c.steps()
