"""One device, eight devices and two processes train alike."""

import contextlib
import dataclasses
import itertools
import os
import socket
import subprocess
import sys
import types

import jax
import numpy as np
import pytest

from car_jax import checkpoints, saved_steps, sharding
from car_jax.errors import UserError
from tests import conftest, saving_worker, sharding_worker


def start(out, variant, devices, *cluster):
  return worker('tests.sharding_worker', devices, out, variant, *cluster)


def worker(module, devices, *arguments):
  flags = f'--xla_force_host_platform_device_count={devices}{conftest.QUICK}'
  env = os.environ | {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
  command = [sys.executable, '-m', module, *map(str, arguments)]
  return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)


def finish(*workers):
  for worker in workers:
    _, err = worker.communicate(timeout=400)
    assert worker.returncode == 0, err[-2000:]


def free_port() -> int:
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    return s.getsockname()[1]


def compare(a, b, atol=1e-5):
  np.testing.assert_allclose(a['losses'], b['losses'], rtol=0, atol=atol)
  for name in a.files:
    if name not in ('losses', 'devices', 'moved'):
      np.testing.assert_allclose(a[name], b[name], rtol=0, atol=atol, err_msg=name)


@contextlib.contextmanager
def in_float64():
  """In threads too, unlike jax.enable_x64."""
  jax.config.update('jax_enable_x64', True)
  try:
    yield
  finally:
    jax.config.update('jax_enable_x64', False)


def three_steps(out, variant, devices, *clusters):
  if devices == 1:
    with in_float64():
      sharding_worker.main(out, variant)
  else:
    finish(*(start(out, variant, devices, *cluster) for cluster in clusters or [()]))
  found = np.load(out)
  assert found['devices'] == devices * max(1, len(clusters))
  return found


SLOW = [
  pytest.param(name, marks=pytest.mark.slow)
  for name in ('car', 'mose', 'ssn', 'prob_unet', 'phiseg', 'ccdm', 'flow_matching', 'atfm')
]


@pytest.mark.parametrize('variant', [*SLOW, 'supervised'])
def test_eight_devices_equal_one(tmp_path, variant):
  """CAR and MoSE on eight devices of one process, a plain net on four in each of two: what lies
  between processes is the same for all methods."""
  one = three_steps(tmp_path / 'one.npz', variant, 1)
  assert np.median(one['moved']) > 5e-4  # fifty times what is asked of the differences
  address = f'127.0.0.1:{free_port()}'
  processes = [(address, 2, i) for i in range(2)] if variant == 'supervised' else []
  compare(one, three_steps(tmp_path / 'eight.npz', variant, 4 if processes else 8, *processes))


def test_a_state_shared_by_devices_learns_and_is_restored_on_another_number(tmp_path):
  """Two processes of two devices each; what they save is read on this process's one."""
  one = three_steps(tmp_path / 'one.npz', 'supervised', 1)
  address = f'127.0.0.1:{free_port()}'
  processes = [(address, 2, i) for i in range(2)]
  four = three_steps(tmp_path / 'four.npz', 'supervised+fsdp', 2, *processes)
  compare(one, four)
  with in_float64(), checkpoints.Checkpoints(tmp_path / 'four') as saved:
    state, _ = saved.restore(3, None)
  kept = state['net']['params']
  np.testing.assert_array_equal(kept['stem']['kernel'], four["['net']['params']['stem']['kernel']"])


@pytest.mark.parametrize('variant', [pytest.param('abn', marks=pytest.mark.slow), 'sac'])
def test_two_domains_on_eight_devices(tmp_path, variant):
  """Views of an image on different devices are averaged all the same; teacher, class prior and
  statistics are compared too. SGD moves in proportion to a gradient: less, but exactly."""
  one, eight = (three_steps(tmp_path / f'{n}.npz', variant, n) for n in (1, 8))
  assert np.max(one['moved']) > 1e-4
  assert any('batch_stats' in name for name in one.files)
  assert variant == 'abn' or {'.prior', "['prior']"} & {*one.files}
  compare(one, eight, atol=1e-12)


@pytest.mark.slow
def test_two_processes_save_a_large_state_in_two_folders_at_once(tmp_path):
  """Each manager has barriers of its own: of one name, a second save meets the first one's."""
  address = f'127.0.0.1:{free_port()}'
  finish(*(worker('tests.saving_worker', 1, tmp_path, address, 2, i) for i in range(2)))
  with checkpoints.Checkpoints(tmp_path / 'checkpoints') as saved:
    assert saved.steps() == [saving_worker.STEPS - 1, saving_worker.STEPS]
    state, _ = saved.restore(saving_worker.STEPS, None)
  assert [float(state[f'w{k}'].mean()) for k in range(5)] == [0, 1, 2, 3, 4]
  assert saved_steps.locate(tmp_path, 'best')[1] == saving_worker.STEPS


@dataclasses.dataclass(frozen=True)
class FakeDevice:
  """As jax tells of a chip; `coords` as (x, y, z)."""

  id: int
  process_index: int
  coords: tuple[int, int, int] = (0, 0, 0)
  platform: str = 'tpu'
  core_on_chip: int = 0


def test_processes_have_equal_shares():
  devices = [types.SimpleNamespace(process_index=k) for k in (0, 0, 1)]
  sharding._check_equal(devices[1:])
  with pytest.raises(UserError, match='process 0 has 2, process 1 has 1\n  give each the same'):
    sharding._check_equal(devices)


def test_a_port_that_is_taken_is_said():
  with socket.socket() as taken:
    taken.bind(('127.0.0.1', 0))
    taken.listen()
    port = taken.getsockname()[1]
    with pytest.raises(UserError, match=f'port {port} of --coordinator .*: Address already in use'):
      sharding.start_distributed(f'127.0.0.1:{port}', 2, 0)


def test_process_0_does_not_wait_for_ever():
  script = 'from car_jax import sharding; sharding.PATIENCE = 1.0\n'
  script += f'sharding.start_distributed("127.0.0.1:{free_port()}", 2, 0)'
  done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True, timeout=60)
  assert done.returncode == 2
  assert 'error: not all 2 processes are here after 1 s' in done.stderr


def test_a_mesh_has_the_devices_of_a_process_side_by_side():
  """TPU v5e 4x4 of four hosts with 2x2 chips each, ids row by row: hosts interleave."""
  chips = [
    FakeDevice(4 * y + x, x // 2 + 2 * (y // 2), (x, y, 0)) for y in range(4) for x in range(4)
  ]
  assert [c.process_index for c in chips][:4] == [0, 0, 1, 1]
  order = sharding.ordered(chips[::-1])
  assert [c.process_index for c in order] == [h for h in range(4) for _ in range(4)]
  steps = [np.abs(np.subtract(a.coords, b.coords)).sum() for a, b in itertools.pairwise(order)]
  assert [steps[k] for k in range(15) if k % 4 < 3] == [1] * 12  # neighbours inside a host
  cube = [FakeDevice(i, 0, (i % 2, i // 2 % 2, i // 4)) for i in range(8)]
  hops = itertools.pairwise(sharding.ordered(cube))
  assert [np.abs(np.subtract(a.coords, b.coords)).sum() for a, b in hops] == [1] * 7
  gpus = [FakeDevice(i, i % 2, platform='gpu') for i in range(4)]
  assert [d.id for d in sharding.ordered(gpus)] == [0, 2, 1, 3]
