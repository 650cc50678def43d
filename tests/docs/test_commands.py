"""What checks the pages' commands notices what is wrong in them."""

import shlex

import pytest

from car_jax.errors import UserError
from tests.docs import commands


@pytest.mark.parametrize(
  'line',
  [
    'car-jax train --confg configs/demo.py',
    'car-jax train --config configs/dem.py --workdir runs/x',
    'car-jax train --config configs/demo.py:card --workdir runs/x',
    'car-jax train --config configs/demo.py --workdir runs/x --config.stepps=3',
    'car-jax eval --checkpoint runs/x --steps 3',
    'car-jax eval --checkpoint runs/x --config.report.splt=test',
    'car-jax eval --config configs/reliability.py --config.measure=miou',
    'car-jax prepare lidc_masks --sise 64',
    'car-jax generate style --config configs/genval_style.py --config.stepps=3',
    'car-jax generate procedural ood --otu x',
    'car-jax score --labels x',
    'car-jax scor x --labels x',
    'python -m car_jax.studies.toy_regression --outt x',
    'python -m car_jax.studies.toy',
    'make demos',
    "pip install 'car-jax[everything]'",
    'caar-jax train',
  ],
)
def test_a_wrong_command_is_noticed(line, capsys):
  with pytest.raises((UserError, SystemExit, AssertionError)):
    commands.check(shlex.split(line))


def test_a_line_goes_on_and_a_remark_is_none():
  text = 'car-jax train \\\n  --config x  # so\n# all\n\nmake test\n'
  assert commands.lines(text) == [['car-jax', 'train', '--config', 'x'], ['make', 'test']]
