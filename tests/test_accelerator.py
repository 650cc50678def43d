"""The accelerator's benchmark: what it counts and divides, what it leaves out, where it goes on."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from benchmarks import accelerator, peaks, timing
from benchmarks import accelerator_cases as cases

N = 32


def mesh():
  return Mesh(np.array(jax.devices()[:1]), ('data',))


def product(name='product'):
  x = jnp.ones((N, N))
  return cases.Program(name, jnp.matmul, (x, x), images=2)


@pytest.fixture
def two(monkeypatch):
  """Two parts: a product, and one that has no memory for float32 and no other type."""

  def hungry(dtype, toy, mesh):
    if dtype != 'float32':
      raise cases.Unavailable('hungry: its nets have no dtype')
    raise jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory\nallocating 9 GB')
    yield

  calls = []

  def multiply(dtype, toy, mesh):
    calls.append(dtype)
    yield product()

  monkeypatch.setattr(cases, 'CASES', {'hungry': hungry, 'product': multiply})
  monkeypatch.setattr(accelerator, 'TOY', ('hungry', 'product'))
  monkeypatch.setattr(accelerator, 'RUN', ('product',))
  monkeypatch.setattr(accelerator, 'AIM', 0.001)
  return calls


def run(path, *words):
  return timing.command(accelerator.main, ['--toy', '--out', str(path), *words])


def rows(path):
  return json.loads(path.read_text())['rows']


def test_what_fails_is_a_row_and_what_is_there_is_not_measured_again(two, tmp_path, capsys):
  path = tmp_path / 'a.json'
  assert run(path, '--seconds', '-1') == 0
  assert '4 of 4 are left: the same command goes on' in capsys.readouterr().err
  assert not path.exists()
  assert run(path, 'product') == 0
  assert two == ['float32', 'bfloat16']
  assert run(path) == 0
  assert two == ['float32', 'bfloat16']
  made = rows(path)
  assert made['hungry float32'][0]['note'] == 'failed: out of memory'
  assert made['hungry bfloat16'][0]['note'] == 'hungry: its nets have no dtype'
  assert made['product float32'][0]['step_s'] > 0
  page = path.with_suffix('.md').read_text()
  assert 'no MFU' in page
  assert page.count('\n|') == 2 + 4


def test_what_failed_is_tried_again_whatever_it_was(two, tmp_path, monkeypatch, capsys):
  def broken(dtype, toy, mesh):
    raise ZeroDivisionError('by nothing')
    yield

  path, whole = tmp_path / 'a.json', cases.CASES['product']
  monkeypatch.setitem(cases.CASES, 'product', broken)
  assert run(path, 'product') == 0
  assert rows(path)['product float32'][0]['note'] == 'failed: ZeroDivisionError by nothing'
  monkeypatch.setitem(cases.CASES, 'product', whole)
  assert run(path) == 0
  assert two == ['float32', 'bfloat16']
  assert rows(path)['product float32'][0]['step_s'] > 0
  path.write_text('{"machine"')
  assert run(path) == 2
  assert 'delete it, or give another: --out FILE' in capsys.readouterr().err


def test_a_file_of_another_machine_is_kept(two, tmp_path, capsys):
  path = tmp_path / 'a.json'
  run(path, 'hungry')
  saved = json.loads(path.read_text())
  saved['machine']['device'] = 'NVIDIA H200'
  path.write_text(json.dumps(saved))
  assert run(path) == 2
  assert 'is of another device: NVIDIA H200, not cpu' in capsys.readouterr().err
  assert run(path, 'produkt') == 2
  assert 'did you mean: product' in capsys.readouterr().err


def test_mfu_is_counted_operations_over_time_and_peak(monkeypatch):
  monkeypatch.setattr(accelerator, 'AIM', 0.001)
  monkeypatch.setattr(peaks, 'of', lambda device: peaks.NAMED['H200'])
  row = accelerator.measured(product(), 'bfloat16', mesh())
  assert row.flops == pytest.approx(2 * N**3, rel=0.05)
  assert row.mfu == pytest.approx(row.flops / row.step_s / 989e12)
  assert row.memory >= 3 * 4 * N * N
  assert row.input_share is None


def test_a_step_carries_its_state_and_is_fed(monkeypatch):
  monkeypatch.setattr(accelerator, 'AIM', 0.001)
  seen = []
  place = accelerator.sharding.place_batch
  monkeypatch.setattr(
    accelerator.sharding, 'place_batch', lambda *a: seen.append(place(*a)) or seen[-1]
  )
  host = dict(image=np.full((1, 4, 4, 1), 255, np.uint8))
  first = dict(image=jnp.ones((1, 4, 4, 3)))
  step = lambda state, batch: (state + batch['image'].mean(), {})
  program = cases.Program('step', step, (jnp.float32(0), first), 1, carries=True, host=host)
  row = accelerator.measured(program, 'float32', mesh())
  assert 0 <= row.input_share < 1
  np.testing.assert_array_equal(seen[-1]['image'], first['image'])


def test_devices_by_the_names_that_jax_gives_them():
  @dataclasses.dataclass
  class Device:
    device_kind: str

  names = {
    'NVIDIA H100 80GB HBM3': 'H100 SXM',
    'NVIDIA H100 PCIe': 'H100 PCIe',
    'NVIDIA H200': 'H200',
    'NVIDIA A100-SXM4-80GB': 'A100 80 GB',
    'NVIDIA L4': 'L4',
    'NVIDIA L40S': 'L40S',
    'TPU v5 lite': 'TPU v5e',
    'TPU v5': 'TPU v5p',
    'TPU v6 lite': 'TPU v6e',
    'TPU v4': 'TPU v4',
  }
  assert {kind: peaks.of(Device(kind)).name for kind in names} == names
  assert peaks.of(Device('cpu')) is None
  assert peaks.NAMED['H100 SXM'].flops('float32') == 495e12


def test_every_kind_of_part_is_counted_at_toy_size(monkeypatch, tmp_path):
  load = accelerator.cases.configs.load
  smaller = lambda path: load(path.replace('configs/smoke.py', 'tests/small.py'))
  monkeypatch.setattr(accelerator.cases.configs, 'load', smaller)
  monkeypatch.setattr(accelerator, 'RUN', ())
  assert run(tmp_path / 'a.json') == 0
  made = rows(tmp_path / 'a.json')
  assert all(row['flops'] > 0 for row in made['segformer_b0 float32'] + made['style bfloat16'])
  assert (
    made['segformer_b0 bfloat16'][0]['note'] == 'segformer_cityscapes:b0: its nets have no dtype'
  )
