"""Runs as folders in diffusers' layout; and a run on such a folder, killed, that goes on."""

import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from car_jax import checkpoints, loop, saved_steps
from car_jax import config as configs
from car_jax.data import opening
from car_jax.generate import __main__ as command
from car_jax.generate import captioned, weights
from tests.methods.test_car import changed
from tests.test_configs import made_small


@pytest.fixture
def run(tmp_path):
  config = configs.load('configs/genval_tiny.py:diffusion')
  config.unlock()
  made_small(config)
  config = configs.complete(config)
  dataset = opening.open_dataset(config.data)
  method = loop.build_method(config, dataset.info, 8)
  words = dataset.split('train').words
  batch = dict(image=np.zeros((1, 32, 64, 3), np.float32), hint=(), tokens=words(['a']))
  state = method.init(0, batch)
  with checkpoints.Checkpoints(tmp_path / 'run' / 'checkpoints', keep=1) as saved:
    meta = dict(config=config.to_dict(), data=dataclasses.asdict(dataset.info), image=())
    saved.save(3, state, meta)
  return tmp_path / 'run', state, words


def test_a_run_becomes_a_pipeline(run, tmp_path, capsys):
  folder, state, words = run
  out = tmp_path / 'out'
  assert command.main(['export', str(folder), '--out', str(out)]) == 0
  assert f'step 3 -> {out}' in capsys.readouterr().out
  found = weights.load_pipeline(out)
  assert not changed(found.params['unet'], state.unet.params)
  text = ['a city street with trees, in fog']
  np.testing.assert_array_equal(found.tokenizer(text), words(text))
  assert command.main(['export', str(folder), '--out', str(out)]) == 0  # again
  (out / 'car_jax.json').unlink()  # as of a pipeline that was downloaded
  assert command.main(['export', str(folder), '--out', str(out)]) == 2
  assert 'holds other files' in capsys.readouterr().err
  assert command.main(['export', str(folder), '--out', str(out), '--step', '4']) == 2
  assert 'no checkpoint of step 4' in capsys.readouterr().err


def test_a_run_of_a_segmenter_has_nothing_to_export(tmp_path, capsys):
  config = configs.load('configs/smoke.py:supervised')
  info = opening.open_dataset(config.data).info
  with checkpoints.Checkpoints(tmp_path / 'checkpoints', keep=1) as saved:
    meta = dict(config=config.to_dict(), data=dataclasses.asdict(info), image=())
    saved.save(1, dict(step=np.int32(1)), meta)
  assert command.main(['export', str(tmp_path), '--out', str(tmp_path / 'out')]) == 2
  assert "method 'supervised', which has nothing to export" in capsys.readouterr().err
  assert not (tmp_path / 'out').exists()


def test_the_row_of_the_page_has_the_keys_that_are_read():
  page = pathlib.Path('docs/generate.md').read_text().split('## Training a ControlNet')[1]
  (row,) = re.findall(r'^  (\{.*\})$', page, re.MULTILINE)
  assert {*json.loads(row)} == {*captioned.KEYS}


def train(workdir):
  pipeline = 'tests/golden/diffusers/pipeline'
  return [
    *(sys.executable, '-m', 'car_jax', 'train', '--config', 'configs/genval_tiny.py:controlnet'),
    *('--workdir', str(workdir), f'--config.method.weights={pipeline}'),
    *(f'--config.data.tokenizer={pipeline}', '--config.method.hint_widths=2,4'),
    *('--config.data.batch=2', '--config.data.count=4', '--config.method.optim.accumulate=2'),
    *('--config.steps=30', '--config.save_every=3', '--config.log_every=1'),
  ]


def last_step(workdir):
  path = workdir / 'metrics.jsonl'
  lines = path.read_text().splitlines() if path.exists() else []
  return json.loads(lines[-1])['step'] if lines and lines[-1].endswith('}') else 0


@pytest.mark.slow
def test_killed_the_training_of_a_controlnet_goes_on_to_the_same_bytes(tmp_path):
  subprocess.run(train(tmp_path / 'whole'), check=True, stdout=subprocess.DEVNULL)
  run = subprocess.Popen(train(tmp_path / 'killed'), stdout=subprocess.DEVNULL)
  deadline = time.monotonic() + 500
  while last_step(tmp_path / 'killed') < 7:
    assert run.poll() is None
    assert time.monotonic() < deadline
    time.sleep(0.02)
  os.kill(run.pid, signal.SIGKILL)
  run.wait()
  out = subprocess.run(
    train(tmp_path / 'killed'), check=True, capture_output=True, text=True
  ).stdout
  assert 'continuing from step' in out
  crcs = []
  for name in ('whole', 'killed'):
    folder, step = saved_steps.locate(tmp_path / name, 'latest')
    with checkpoints.Checkpoints(folder) as saved:
      crcs.append(saved.meta(step)['crc'])
  assert step == 30
  assert crcs[0] == crcs[1]
  assert {name.partition('/')[0] for name in crcs[0]} == {'step', 'controlnet'}
