"""A run that was killed or stopped continues as if it had not been: every byte of the state."""

import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from car_jax import checkpoints, saved_steps
from car_jax.commands import train

STEPS = 12


def options(workdir, variant='sac'):
  return [
    *('--config', f'tests/small.py:{variant}', '--workdir', str(workdir)),
    *(f'--config.steps={STEPS}', '--config.save_every=3', '--config.log_every=1'),
    '--config.eval_every=5',
  ]


def last_step(workdir) -> int:
  path = pathlib.Path(workdir) / 'metrics.jsonl'
  lines = path.read_text().splitlines() if path.exists() else []
  return json.loads(lines[-1])['step'] if lines and lines[-1].endswith('}') else 0


def start_and_wait_for(step, workdir, variant='sac'):
  run = subprocess.Popen(
    [sys.executable, 'train.py', *options(workdir, variant)],
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
  )
  deadline = time.monotonic() + 300
  while last_step(workdir) < step:
    assert run.poll() is None, run.stderr.read().decode()[-2000:]
    assert time.monotonic() < deadline
    time.sleep(0.02)
  return run


def final_crcs(workdir):
  folder, step = saved_steps.locate(workdir, 'latest')
  assert step == STEPS
  with checkpoints.Checkpoints(folder) as c:
    return c.meta(step)['crc']


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
  """The run of a variant that nothing disturbed; made once."""

  @functools.cache
  def finished(variant):
    workdir = tmp_path_factory.mktemp('whole')
    assert train.main(options(workdir, variant)) == 0
    return workdir

  return finished


SLOW = [
  pytest.param(name, marks=pytest.mark.slow)
  for name in ('car', 'mose', 'ssn', 'prob_unet', 'phiseg', 'ccdm', 'flow_matching', 'atfm')
]


@pytest.mark.parametrize('variant', ['sac', *SLOW])
def test_a_run_that_was_stopped_and_then_killed_ends_with_the_same_bytes(
  whole, variant, tmp_path, capsys
):
  """SAC has the most to keep: a teacher, a class prior, two streams of images. MoSE's schedules
  listen to the loss."""
  run = start_and_wait_for(3, tmp_path, variant)
  run.send_signal(signal.SIGTERM)  # saves first
  _, err = run.communicate(timeout=120)
  assert run.returncode == 0, err
  stopped = saved_steps.locate(tmp_path, 'latest')[1]
  assert 3 <= stopped < STEPS
  run = start_and_wait_for(8, tmp_path, variant)
  run.kill()
  run.communicate()
  assert train.main(options(tmp_path, variant)) == 0
  assert 'continuing from step' in capsys.readouterr().out
  found = final_crcs(tmp_path)
  assert found == final_crcs(whole(variant))
  assert variant != 'sac' or all(any(k in n for n in found) for k in ('teacher', 'prior'))
  steps = [
    json.loads(line)['step'] for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()
  ]
  assert steps == sorted(steps)
  assert [s for s in range(1, STEPS + 1) if s not in steps] == []


def test_the_same_command_on_a_finished_run_changes_nothing(whole):
  before = final_crcs(whole('sac'))
  assert train.main(options(whole('sac'))) == 0
  assert final_crcs(whole('sac')) == before
  assert os.path.exists(whole('sac') / 'best')
