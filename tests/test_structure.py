"""How the library hangs together: imports run one way, and never to a script."""

import ast
import pathlib

import jaxtyping
import numpy as np
import pytest

from car_jax.losses import segmentation
from car_jax.metrics import confusion_matrix

FILES = {
  '.'.join(p.with_suffix('').parts).removesuffix('.__init__'): p
  for p in pathlib.Path('car_jax').rglob('*.py')
}
SCRIPTS = {'train', 'eval', 'datasets', 'configs', 'benchmarks', 'tests'}


def imported(path):
  """Modules that a file imports, at its top or inside a function."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom) and node.module:
      for alias in node.names:
        full = f'{node.module}.{alias.name}'
        yield full if full in FILES else node.module
    elif isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)


GRAPH = {name: {m for m in imported(path) if m != 'car_jax'} for name, path in FILES.items()}


def test_no_module_imports_itself_by_way_of_others():
  done, path = set(), []

  def visit(name):
    assert name not in path, ' -> '.join([*path[path.index(name) :], name])
    if name in done:
      return
    path.append(name)
    for other in sorted(GRAPH.get(name, ())):
      if other in FILES:
        visit(other)
    done.add(path.pop())

  for name in GRAPH:
    visit(name)


def test_the_library_imports_no_script():
  found = {n: {m.partition('.')[0] for m in of} & SCRIPTS for n, of in GRAPH.items()}
  assert {name: of for name, of in found.items() if of} == {}


def test_torch_and_tensorflow_are_never_needed():
  for name, of in GRAPH.items():
    assert not {m.partition('.')[0] for m in of} & {'torch', 'tensorflow'}, name


def test_shapes_in_annotations_are_checked_here():
  """By the hook of conftest.py: without it neither call would raise jaxtyping's error."""
  square, mask = np.zeros((2, 2)), np.zeros((1, 3, 3), bool)
  assert np.isnan(confusion_matrix.iou(square)).all()
  with pytest.raises(jaxtyping.TypeCheckError, match='matrix'):
    confusion_matrix.iou(square[:1])
  with pytest.raises(jaxtyping.TypeCheckError, match='mask'):
    segmentation.cross_entropy(np.zeros((1, 2, 2, 3)), np.zeros((1, 2, 2), int), mask)
