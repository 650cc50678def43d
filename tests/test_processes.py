"""Several processes train, score, stop and fail together: real ones, by gloo on this machine."""

import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from car_jax import checkpoints, processes, saved_steps, sharding
from car_jax.errors import UserError
from tests import conftest
from tests.test_sharding import free_port

VARIANTS = ('car', 'mose', 'sac', 'supervised')
CASES = [*((variant, 2) for variant in VARIANTS), ('sac', 4), ('supervised', 4)]
SGD = dict(method__optim__name='sgd', method__optim__lr=0.01)  # Adam's steps enlarge rounding
SECONDS = 30  # in which all have ended after one has failed


class Group:
  """Processes of one command; their output is in files of `folder`. Ends them on leaving."""

  def __init__(self, folder, count, *command, devices=1, module='car_jax', **own):
    """own: arguments of process K alone as pK='..'."""
    flags = f'--xla_force_host_platform_device_count={devices}{conftest.QUICK}'
    env = os.environ | {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
    address, folder = f'127.0.0.1:{free_port()}', folder / f'logs-{time.time_ns()}'
    folder.mkdir(parents=True)
    self.logs = [folder / f'{k}.log' for k in range(count)]
    self.all = []
    for k, log in enumerate(self.logs):
      joins = ('--coordinator', address, '--processes', str(count), '--process', str(k))
      arguments = [*command, *(joins if count > 1 else ()), *own.get(f'p{k}', '').split()]
      with log.open('w') as file:
        run = [sys.executable, '-m', module, *map(str, arguments)]
        self.all.append(subprocess.Popen(run, env=env, stdout=file, stderr=file))

  def __enter__(self):
    return self

  def __exit__(self, *_):
    for process in self.all:
      with contextlib.suppress(ProcessLookupError):
        process.kill()
      process.wait()

  def statuses(self, seconds=400.0) -> list[int]:
    last = time.monotonic() + seconds
    return [p.wait(max(0.1, last - time.monotonic())) for p in self.all]

  def text(self, k: int) -> str:
    return self.logs[k].read_text()

  def finish(self) -> None:
    assert self.statuses() == [0] * len(self.all), '\n'.join(map(self.text, range(len(self.all))))

  def wait_for(self, there, seconds=300.0) -> None:
    last = time.monotonic() + seconds
    while not there():
      assert time.monotonic() < last, self.text(0)
      assert all(p.poll() is None for p in self.all), self.text(0)
      time.sleep(0.1)


def training(workdir, variant='supervised', **changes):
  changes = dict(steps=6, eval_every=0, save_every=0, log_every=0) | changes
  flags = [f'--config.{k.replace("__", ".")}={v}' for k, v in changes.items()]
  return ['train', '--config', f'tests/small.py:{variant}', '--workdir', workdir, *flags]


def errors_of(group: Group, k: int) -> list[str]:
  return re.findall('^error: .*', group.text(k), re.MULTILINE)


def state_of(workdir, kind='checkpoints'):
  """Path -> array of what was saved last, and its step."""
  with checkpoints.Checkpoints(pathlib.Path(workdir) / kind) as saved:
    step = saved.steps()[-1]
    state, _ = saved.restore(step, None)
  return dict(checkpoints.leaves(jax.device_get(state))) | {'saved at': step}


def numbers(tree, path=''):
  """Path -> number of everything that a JSON file has, but for durations."""
  if isinstance(tree, bool) or tree is None or isinstance(tree, str):
    return {}
  if isinstance(tree, (int, float)):
    return {} if 'seconds' in path else {path: tree}
  pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
  return {k: v for key, part in pairs for k, v in numbers(part, f'{path}/{key}').items()}


class Store:
  """The calls of the key-value store that are used, without a service."""

  def __init__(self):
    self.entries = {}

  def key_value_set(self, key, value, allow_overwrite=False):
    if key in self.entries and not allow_overwrite:
      raise jax.errors.JaxRuntimeError('ALREADY_EXISTS')
    self.entries[key] = value

  def key_value_dir_get(self, folder):
    return [(k, v) for k, v in self.entries.items() if k.startswith(folder)]


class Exited(BaseException):
  pass


@pytest.fixture
def watch(monkeypatch):
  """watch(k): what process k of three knows of the others; leaving raises Exited(status)."""

  def leave(status):
    raise Exited(status)

  monkeypatch.setattr(processes.os, '_exit', leave)
  for name, seconds in dict(BEAT=0.01, SILENT=30, READING=0.1).items():
    monkeypatch.setattr(processes, name, seconds)
  store = Store()
  member = lambda k: processes._Watch(
    type('State', (), dict(client=store, process_id=k, num_processes=3))
  )
  member.store = store
  return member


def test_a_silent_process_is_the_cause(watch, capsys):
  """Process 1 beats, 2 does not."""
  done = threading.Event()

  def beat():
    for number in range(1000):
      watch.store.key_value_set(f'{processes.ALIVE}1', str(number), allow_overwrite=True)
      if done.wait(0.02):
        return

  thread = threading.Thread(target=beat)
  thread.start()
  with pytest.raises(Exited, match='1'):
    watch(0).run()
  done.set()
  thread.join()
  assert 'error: process 2 has not answered for 0 s' in capsys.readouterr().err
  with pytest.raises(Exited, match='1'):
    watch(1).run()
  assert 'error: process 2 has not answered' in capsys.readouterr().err


def test_who_is_paused_together_with_process_0_is_not_dead(watch):
  """The clock has gone on by hours, but no beat of process 0 has passed."""
  beats = {0: ('7', 7), 1: ('9', 7), 2: ('8', 7)}
  for k, (number, _) in beats.items():
    watch.store.key_value_set(f'{processes.ALIVE}{k}', number)
  watch(0)._miss(8, beats)
  assert processes.FAILED not in watch.store.entries
  watch(0)._miss(8 + processes.SILENT, beats)
  assert 'process 0 has not answered' in watch.store.entries[processes.FAILED]


def test_the_first_cause_is_that_of_all(watch, capsys):
  with pytest.raises(Exited, match='2'):
    watch(1).fail(UserError('no such file\n  make one'))
  assert capsys.readouterr().err == 'error: no such file\n  make one\n'
  with pytest.raises(Exited, match='2'):
    watch(2).fail(ZeroDivisionError('later'))
  assert capsys.readouterr().err == 'error: process 1 failed: no such file\n  make one\n'
  with pytest.raises(Exited, match='2'):
    watch(0).run()
  assert capsys.readouterr().err == 'error: process 1 failed: no such file\n  make one\n'


def test_saving_is_no_place_to_stop(tmp_path, monkeypatch):
  """Places are counted alike everywhere; orbax would ask jax by the number of the step."""
  places = []
  monkeypatch.setattr(multihost_utils, 'reached_preemption_sync_point', places.append)
  with checkpoints.Checkpoints(tmp_path, keep=1) as latest:
    latest.save(1, {'w': jax.numpy.ones(2)}, {'config': {}})
  assert not places


def test_an_error_of_the_program_keeps_its_traceback(watch, capsys):
  try:
    _ = 1 / 0
  except ZeroDivisionError as e:
    with pytest.raises(Exited, match='1'):
      watch(1).fail(e)
  assert 'Traceback' in capsys.readouterr().err
  assert 'process 1 failed: ZeroDivisionError: division' in watch.store.entries[processes.FAILED]


def test_a_bad_config_of_one_process_is_on_every_screen(tmp_path):
  with Group(tmp_path, 2, *training(tmp_path / 'run'), p1='--config.stepz=3') as group:
    assert group.statuses(SECONDS * 3) == [2, 2]
    assert errors_of(group, 0) == ["error: process 1 failed: unknown config key 'stepz'"]
    assert errors_of(group, 1) == ["error: unknown config key 'stepz'"]


def saved(workdir, step=1):
  return lambda: saved_steps.newest(pathlib.Path(workdir) / 'checkpoints') >= step


def test_a_signal_to_one_process_stops_all_and_the_run_goes_on(tmp_path):
  """Without log steps; what is left is what one process with as many devices continues from."""
  endless = training(tmp_path / 'run', steps=10**6, save_every=2)
  with Group(tmp_path, 2, *endless) as group:
    group.wait_for(saved(tmp_path / 'run', 2))
    group.all[1].send_signal(signal.SIGTERM)
    assert group.statuses(SECONDS) == [0, 0], group.text(0)
    (step,) = re.findall('saved step ([0-9,]+); the same command continues', group.text(0))
  assert int(step.replace(',', '')) == saved_steps.newest(tmp_path / 'run' / 'checkpoints')


@pytest.mark.slow
@pytest.mark.parametrize(('variant', 'count'), CASES)
def test_large_states_are_kept_as_latest_and_best(tmp_path, variant, count):
  """Every step is saved, the best by a falling loss too, in states of 200 MB and more."""
  run = tmp_path / 'run'
  often = dict(steps=4, eval_every=1, save_every=1, keep=2)
  with Group(tmp_path, count, *training(run, f'{variant}-heavy', **often)) as group:
    group.finish()
  with checkpoints.Checkpoints(run / 'checkpoints') as saved:
    assert saved.steps() == [often['steps'] - 1, often['steps']]
    saved.restore(often['steps'], None)  # by its checksums
  with checkpoints.Checkpoints(run / 'best') as best:
    saved_best, meta = best.restore(*best.steps(), None)
  scores = [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]
  scores = [line['val/ged4'] for line in scores if 'val/ged4' in line]
  assert len(scores) == often['steps']
  assert meta['scores']['val/ged4'] == min(scores)
  assert sum(leaf.nbytes for _, leaf in checkpoints.leaves(saved_best)) > 130e6


@pytest.mark.slow
@pytest.mark.parametrize('variant', VARIANTS)
def test_evaluation_is_that_of_one_process(tmp_path, variant):
  """With as many devices; with others a net's own sums are rounded in other places."""
  run = tmp_path / 'run'
  with Group(tmp_path, 1, *training(run, variant, steps=3)) as group:
    group.finish()
  results, shown = {}, {}
  for count, devices in [(1, 2), (1, 4), (2, 1), (2, 2), (4, 1)]:
    out = tmp_path / f'{count}x{devices}'
    scored = ['eval', '--checkpoint', run, '--out', out, '--own', 'tests.small']
    with Group(tmp_path, count, *scored, devices=devices) as group:
      group.finish()
    results[count, devices] = numbers(json.loads((out / 'results.json').read_text()))
    pictures = (out / 'pictures').glob('case-*')
    shown[count, devices] = {p.name: p.read_bytes() for p in pictures}
  for (count, devices), numbers_of in results.items():
    one = results[1, count * devices]
    assert len(one) > 20
    assert numbers_of.keys() == one.keys()
    np.testing.assert_allclose(
      [numbers_of[k] for k in one], [*one.values()], rtol=0, atol=1e-12, err_msg=variant
    )
    assert shown[count, devices] == shown[1, count * devices] != {}


@pytest.mark.slow
@pytest.mark.parametrize(('variant', 'count'), CASES)
def test_a_killed_process_ends_the_others(tmp_path, variant, count):
  endless = training(tmp_path / 'run', variant, steps=10**6, save_every=1)
  with Group(tmp_path, count, *endless) as group:
    group.wait_for(saved(tmp_path / 'run'))
    group.all[-1].kill()
    assert group.statuses(SECONDS) == [1] * (count - 1) + [-signal.SIGKILL]
    for k in range(count - 1):
      (error,) = errors_of(group, k)
      assert error.startswith(f'error: process {count - 1} has not answered for 15 s')
      assert 'Traceback' not in group.text(k)


@pytest.mark.slow
def test_of_a_killed_process_0_jaxlib_tells_the_others(tmp_path):
  with Group(tmp_path, 2, *training(tmp_path / 'run', steps=10**6, save_every=1)) as group:
    group.wait_for(saved(tmp_path / 'run'))
    group.all[0].kill()
    assert group.statuses(SECONDS) == [-signal.SIGKILL, -signal.SIGABRT]
    assert 'another task died' in group.text(1)


@pytest.mark.slow
def test_a_process_0_that_says_nothing_more_ends_the_others(tmp_path):
  """As one whose host is lost: no connection is closed."""
  with Group(tmp_path, 2, *training(tmp_path / 'run', steps=10**6, save_every=1)) as group:
    group.wait_for(saved(tmp_path / 'run'))
    group.all[0].send_signal(signal.SIGSTOP)
    assert group.all[1].wait(2 * sharding.HEARTBEAT) == -signal.SIGABRT


@pytest.mark.slow
@pytest.mark.parametrize(('variant', 'count'), CASES)
def test_a_signal_to_one_of_them_while_evaluating(tmp_path, variant, count):
  """An evaluation of hours: it is left between two batches, and what was trained is saved."""
  more = dict(steps=10**6, eval_every=1, evals__val__samples=64)
  kind = signal.SIGTERM if count == 2 else signal.SIGINT
  with Group(tmp_path, count, *training(tmp_path / 'run', variant, **more)) as group:
    group.wait_for(lambda: 'evaluated at 1' in group.text(0))
    group.all[-1].send_signal(kind)
    expected = 0 if kind == signal.SIGTERM else 130
    assert group.statuses(SECONDS) == [expected] * count, group.text(0)
    assert re.search('saved step [0-9,]+; the same command continues', group.text(0))


@pytest.mark.slow
@pytest.mark.parametrize(('variant', 'count'), CASES)
def test_an_exception_of_one_process_is_on_every_screen(tmp_path, variant, count):
  """One reads no second batch; the others wait for it in a collective."""
  endless = training(tmp_path / 'run', f'{variant}-heavy', steps=10**6, save_every=1)
  with Group(tmp_path, count, *endless, module='tests.failing_worker') as group:
    group.all[-1].wait(400)
    assert group.statuses(SECONDS) == [1] * count
    cause = f'process {count - 1} failed: ZeroDivisionError: no batch 3'
    assert [errors_of(group, k) for k in range(count - 1)] == [[f'error: {cause}']] * (count - 1)
    assert 'ZeroDivisionError: no batch 3' in group.text(count - 1)
    assert 'Traceback' in group.text(count - 1)


@pytest.mark.slow
@pytest.mark.parametrize(('variant', 'count'), CASES)
def test_three_kills_change_nothing(tmp_path, variant, count):
  """States of 200 MB and more, latest and best kept, killed at three of 30 steps."""
  often = dict(steps=30, save_every=2, eval_every=5, keep=1)
  run = lambda name: training(tmp_path / name, f'{variant}-heavy', **often)
  with Group(tmp_path, count, *run('whole')) as group:
    group.finish()
  for step in (4, 12, 20):
    with Group(tmp_path, count, *run('cut')) as group:
      group.wait_for(saved(tmp_path / 'cut', step))
      group.all[step // 4 % count].kill()
      for process in group.all:
        process.kill()
      group.statuses()
  with Group(tmp_path, count, *run('cut')) as group:
    group.finish()
  for kind in ('checkpoints', 'best'):
    whole, cut = (state_of(tmp_path / name, kind) for name in ('whole', 'cut'))
    assert whole.keys() == cut.keys()
    for name in whole:
      np.testing.assert_array_equal(whole[name], cut[name], err_msg=f'{kind} {name}')


@pytest.mark.slow
def test_a_run_goes_on_with_other_processes_and_devices(tmp_path):
  """2 processes, then 4, then 1 with 2 devices: near to one process that was not stopped."""
  run = tmp_path / 'run'
  for steps, count, devices in [(4, 2, 1), (8, 4, 1), (12, 1, 2), (16, 2, 2)]:
    with Group(tmp_path, count, *training(run, steps=steps, **SGD), devices=devices) as group:
      group.finish()
      assert steps == 4 or f'continuing from step {steps - 4}' in group.text(0)
  with Group(tmp_path, 1, *training(tmp_path / 'one', steps=16, **SGD)) as group:
    group.finish()
  a, b = state_of(run), state_of(tmp_path / 'one')
  assert a['saved at'] == b['saved at'] == 16
  for name in (name for name in a if 'params' in name):
    np.testing.assert_allclose(a[name], b[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_folders_and_configs_that_differ_are_refused(tmp_path):
  with Group(tmp_path, 2, *training(tmp_path / 'a'), p1=f'--workdir {tmp_path / "b"}') as group:
    assert group.statuses() == [2, 2]
    text = f'--workdir {tmp_path / "b"} is another folder for process 1 than for process 0'
    assert errors_of(group, 1) == [f'error: {text}'] or text.replace('/b', '/a') in group.text(0)
  with Group(tmp_path, 2, *training(tmp_path / 'c'), p1='--config.seed=5') as group:
    assert group.statuses() == [2, 2]
    assert 'the config of process 1 is not that of process 0' in group.text(0)
