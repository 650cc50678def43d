"""Every benchmark runs, at toy size: what `make bench` times has not been left behind."""

import importlib
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import __main__ as benchmarks
from benchmarks import accelerator, steps, timing
from car_jax import config as configs


@pytest.fixture(autouse=True)
def small(monkeypatch):
  """The smoke configs' methods with smaller nets: that a benchmark runs does not hang on them."""
  load = configs.load
  smaller = lambda path, *more: load(path.replace('configs/smoke.py', 'tests/small.py'), *more)
  monkeypatch.setattr(configs, 'load', smaller)
  monkeypatch.setattr(timing, 'rate', lambda: timing.RATE)


@pytest.mark.parametrize('name', benchmarks.NAMES)
def test_runs_at_toy_size(name, capsys):
  assert timing.command(importlib.import_module(f'benchmarks.{name}').main, ['--toy']) == 0
  assert capsys.readouterr().out


def test_the_cores_that_feed_an_accelerator(monkeypatch, capsys):
  feeding = importlib.import_module('benchmarks.feeding')
  monkeypatch.setattr(feeding, 'reading', lambda *_: 1e-6)
  monkeypatch.setattr(feeding, 'batch_seconds', lambda *_: (0.5, 500_000))
  monkeypatch.setattr(feeding.costs, 'of', lambda *_: SimpleNamespace(flops=495e9))
  assert timing.command(feeding.main, ['--toy', 'cores']) == 0
  *_, line = capsys.readouterr().out.splitlines()
  _, _, images, operations, h100, *_ = line.split('|')
  assert (float(images), float(operations)) == (8, 61.9)  # a batch of 8 in a second
  assert float(h100.replace(',', '')) == 400  # 0.4 x 495 TFLOP/s are 400 batches a second


def test_how_fast_formats_are_read(capsys):
  feeding = importlib.import_module('benchmarks.feeding')
  assert timing.command(feeding.main, ['--toy', 'formats']) == 0
  rows = [line.split('|') for line in capsys.readouterr().out.splitlines()[-4:]]
  assert [row[1].split()[0] for row in rows] == ['prepared', 'PNG', 'JPEG', 'WebP']
  assert all(float(row[3].replace(',', '')) > 0 for row in rows)


def test_a_slower_machine_has_more_time(monkeypatch):
  assert timing.allowed(3.0) == 3
  monkeypatch.setattr(timing, 'rate', lambda: timing.RATE / 2)
  assert timing.allowed(3.0) == 6
  monkeypatch.setattr(timing, 'rate', lambda: timing.RATE * 2)
  assert timing.allowed(3.0) == 3


def test_what_is_beyond_a_limit_is_said_and_counts(capsys):
  assert timing.command(lambda toy: ['step 9 s'], []) == 1
  assert 'beyond the limit: step 9 s' in capsys.readouterr().err
  assert timing.command(lambda toy: ['step 9 s'], ['--toy']) == 0


def test_a_misspelt_name_is_refused(capsys):
  assert benchmarks.main(['step']) == 2
  assert 'steps' in capsys.readouterr().err


@pytest.mark.parametrize('name', steps.CASES)
def test_steps_of_published_nets_see_fewer_and_smaller_images(name):
  case = steps.CASES[name]
  config = configs.load(case.config, [*case.changes.items()])
  assert config.data.batch <= 12
  assert max(np.ravel((config.data.source or config.data).size)) <= 256


def test_a_step_slower_than_its_limit_is_counted(monkeypatch, capsys):
  row = accelerator.Row('x', 'float32', compile_s=1.0, step_s=2.0)
  kind = lambda share: SimpleNamespace(name='x', share=share)
  monkeypatch.setattr(steps, 'training', lambda *_: [kind(0.25), kind(0.75)])
  monkeypatch.setattr(steps.accelerator, 'measured', lambda *_, **__: row)
  assert steps.measure('ssn', toy=False) == ['ssn: step 2.00 s']  # the mean of 2 and 2, of 1.5
  assert steps.measure('car', toy=False) == []
