"""Functions of arrays compiled as a whole: eagerly, each operation is a program to compile."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def whole(function: Callable) -> Callable:
  """`function` jitted, its results in numpy.

  What is no array among the leaves of its arguments is a constant.
  """

  @functools.wraps(function)
  def call(*args: Any, **kw: Any) -> Any:
    leaves, tree = jax.tree.flatten((args, kw))
    arrays = [x if isinstance(x, np.ndarray | np.generic | jax.Array) else None for x in leaves]
    constants = [x if a is None else None for x, a in zip(leaves, arrays, strict=True)]
    return jax.device_get(program(function, tree, tuple(constants))(arrays))

  return call


@functools.cache
def program(function: Callable, tree: Any, constants: tuple[Any, ...]) -> Callable:
  def run(arrays: list[Any]) -> Any:
    leaves = [a if c is None else c for a, c in zip(arrays, constants, strict=True)]
    args, kw = jax.tree.unflatten(tree, leaves)
    return function(*args, **kw)

  return jax.jit(run)
