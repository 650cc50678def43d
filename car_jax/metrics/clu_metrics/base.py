"""What all metrics for training loops have in common."""

import functools
import inspect
from collections.abc import Callable, Hashable
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
from clu import metrics
from flax import struct

from car_jax.errors import nearest
from car_jax.metrics import wide
from car_jax.metrics.functional import inputs
from car_jax.typing import Array

WEIGHTS = ('sample_weight', 'label_weight')


def options_of(*functions: Callable) -> dict[str, Any]:
  """Keywords of the functions, with their defaults, that are no arrays."""
  found = [p for f in functions for p in inspect.signature(f).parameters.values()]
  arrays = (*WEIGHTS, 'counted')
  return {p.name: p.default for p in found if p.kind is p.KEYWORD_ONLY and p.name not in arrays}


class Counts(metrics.Metric, struct.PyTreeNode):
  """What all have in common: their fields are numbers of metrics/wide.py, merged by addition."""

  options: ClassVar[dict[str, Any]] = {}

  @classmethod
  def with_options(cls, **options: Any) -> type[Self]:
    """The same metric with other options; TypeError for one that it does not have."""
    for name in options:
      if name not in cls.options:
        raise TypeError(f'{cls.__name__} has no option {name!r}\n{nearest(name, cls.options)}')
    fixed = {k: v if isinstance(v, Hashable) else tuple(v) for k, v in options.items()}
    parent: Any = cls
    return _with_options(parent, tuple(sorted(fixed.items())))

  @classmethod
  def empty(cls) -> Self:
    zeros = {name: jnp.zeros((*shape, 2), jnp.uint32) for name, shape in cls.shapes().items()}
    return cls(**zeros)

  def merge(self, other: Self) -> Self:
    return jax.tree.map(wide.add, self, other)

  @classmethod
  def shapes(cls) -> dict[str, tuple[int, ...]]:
    """Of each field, without the last axis of two words."""
    raise NotImplementedError


@functools.cache
def _with_options(cls: type[Counts], options: tuple) -> Any:
  """One class for the same options: states of two classes do not merge."""
  body = {'options': cls.options | dict(options), '__doc__': cls.__doc__}
  return type(cls.__name__, (cls,), body | {'__module__': cls.__module__})


def masked(cls: type, mask: Any, images: int) -> Array:
  """mask [B], all True where it is None."""
  if mask is None:
    return jnp.ones(images, bool)
  mask = inputs.array(f'{cls.__name__}: mask', mask)
  if mask.shape != (images,):
    raise ValueError(f'{cls.__name__}: mask must be [{images}], got shape {mask.shape}')
  return jnp.asarray(mask, bool)
