"""One device, eight devices and two processes train alike."""

import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from car_jax import sharding
from car_jax.errors import UserError


def start(out, variant, devices, *cluster):
  flags = f'--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0'
  env = os.environ | {'XLA_FLAGS': flags, 'JAX_PLATFORMS': 'cpu'}
  command = [sys.executable, '-m', 'tests.sharding_worker', str(out), variant, *map(str, cluster)]
  return subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)


def finish(*workers):
  for worker in workers:
    _, err = worker.communicate(timeout=400)
    assert worker.returncode == 0, err[-2000:]


def free_port() -> int:
  with socket.socket() as s:
    s.bind(('127.0.0.1', 0))
    return s.getsockname()[1]


def compare(a, b):
  np.testing.assert_allclose(a['losses'], b['losses'], rtol=0, atol=1e-5)
  for name in a.files:
    if name not in ('losses', 'devices', 'moved'):
      np.testing.assert_allclose(a[name], b[name], rtol=0, atol=1e-5, err_msg=name)


@pytest.fixture(scope='module')
def one(tmp_path_factory):
  """Of one device; three steps of each variant are made once."""
  made, folder = {}, tmp_path_factory.mktemp('one')

  def get(variant):
    if variant not in made:
      finish(start(folder / f'{variant}.npz', variant, 1))
      made[variant] = np.load(folder / f'{variant}.npz')
      assert made[variant]['devices'] == 1
      # fifty times what is asked of the differences
      assert np.median(made[variant]['moved']) > 5e-4
    return made[variant]

  return get


@pytest.mark.parametrize('variant', ['car', 'mose'])
def test_eight_devices_equal_one(tmp_path, one, variant):
  finish(start(tmp_path / 'eight.npz', variant, 8))
  eight = np.load(tmp_path / 'eight.npz')
  assert eight['devices'] == 8
  compare(one(variant), eight)


def test_two_processes_equal_one(tmp_path, one):
  address = f'127.0.0.1:{free_port()}'
  finish(*(start(tmp_path / 'two.npz', 'car', 1, address, 2, i) for i in range(2)))
  two = np.load(tmp_path / 'two.npz')
  assert two['devices'] == 2
  compare(one('car'), two)


def test_a_batch_that_does_not_split_names_the_nearest_that_does():
  mesh = sharding.make_mesh()
  sharding.check_batch({'batch': mesh.size}, mesh)
  with pytest.raises(UserError, match='use --config.data.batch='):
    sharding.check_batch({'batch': 0}, mesh)
  with pytest.raises(UserError, match='use --config.data.eval_batch='):
    sharding.check_batch({'batch': mesh.size, 'eval_batch': -1}, mesh)
