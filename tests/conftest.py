"""Fast compiles and a shared compilation cache; no test needs an accelerator or a network."""

import gc
import importlib.metadata
import os
import pathlib
import types

import pytest
from jaxtyping import install_import_hook

from tests import typechecker

QUICK = ' --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'
QUICK += ' --xla_cpu_parallel_codegen_split_count=1'  # a module of LLVM for each program, not many
if importlib.metadata.version('jaxlib').startswith('0.10.'):  # XLA ends at a flag it doesn't know
  QUICK += ' --xla_cpu_use_fusion_emitters=false'  # half of a step's compilation
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('OPENBLAS_NUM_THREADS', '1')  # a second one waits for the other worker's core
os.environ['XLA_FLAGS'] = os.environ.get('XLA_FLAGS', '') + QUICK
CACHE = pathlib.Path(__file__).parent.parent / '.cache' / 'jax-tests'
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(CACHE))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0.1')
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES', '-1')

# Shapes and types of arrays are checked. Other metrics take whatever numpy makes an array of.
CHECKED = (
  'calibration',
  'confusion_matrix',
  'conformal_counts',
  'flips',
  'multilabel',
  'onepass',
  'overlap',
  'readers',
  'scores',
  'soft_dice',
  'stochastic',
  'transport',
  'wide',
)
install_import_hook(
  ['car_jax.losses', *(f'car_jax.metrics.{name}' for name in CHECKED)],
  f'{typechecker.__name__}.check',
)

# Half a minute each, or waiting for children: begun first, so that no core is idle at the end.
LONG = ('test_replay', 'test_resume', 'test_sharding', 'test_study', 'test_commands')


def pytest_collection_modifyitems(items):
  items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.fixture(autouse=True, scope='session')
def _shapes_of_parameters_are_traced_once():
  """Whenever a net is applied, linen traces how each parameter is drawn to compare its shape.

  It does so still, but for each initialiser and its arguments once: minutes of all tests.
  """
  import jax  # reads the environment that is set above
  from flax.core import scope

  traced = {}

  def eval_shape(function, *args):
    captured = [cell.cell_contents for cell in function.__closure__ or ()]
    key = tuple(tuple(c.items()) if isinstance(c, dict) else c for c in captured)
    try:
      hash(key)
    except TypeError:
      key = ()
    if args or not key:
      return jax.eval_shape(function, *args)
    if key not in traced:
      traced[key] = jax.eval_shape(function)
    return traced[key]

  scope.jax = types.SimpleNamespace(**vars(jax) | {'eval_shape': eval_shape})


@pytest.fixture(autouse=True, scope='module')
def _compiled_functions_end_with_their_module():
  """What hundreds of files have compiled fills a machine's memory; the cache on disk stays."""
  yield
  import jax  # reads the environment that is set above

  jax.clear_caches()
  gc.collect()
  gc.freeze()  # what is left are modules, not to be searched again
