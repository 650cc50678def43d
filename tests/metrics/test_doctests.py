"""Every public name of car_jax.metrics has an example in its docstring, and it runs."""

import doctest
import inspect
import subprocess
import sys

import pytest

from car_jax import metrics


@pytest.mark.parametrize('name', metrics.__all__)
def test_the_example_runs(name):
  it = getattr(metrics, name)
  home = sys.modules[it.__module__]
  (example,) = doctest.DocTestFinder(recurse=False).find(it, name, home, vars(home))
  assert f'import {name}' in example.docstring
  assert example.examples[-1].want
  result = doctest.DocTestRunner().run(example)
  assert result.failed == 0
  assert result.attempted >= 2


def test_names_of_functions_and_of_modules_differ():
  import car_jax.metrics.stochastic as module
  from car_jax.metrics import stochastic

  assert stochastic is module
  assert callable(metrics.confusion)
  assert not inspect.ismodule(metrics.confusion)
  assert set(metrics.__all__) <= set(dir(metrics))
  with pytest.raises(AttributeError, match="no attribute 'gde'"):
    _ = metrics.gde


def test_a_process_that_loads_data_imports_no_scores():
  code = 'import sys, car_jax.metrics.flips as f; print({"clu", "scipy.special"} & {*sys.modules})'
  run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert run.stdout.strip() == 'set()'
