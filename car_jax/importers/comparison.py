"""Whether the net that a config trains computes what a file's net does."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from car_jax import registry
from car_jax.errors import UserError
from car_jax.nn.composed import Composition

KINDS = ('backbone', 'neck', 'head')
# What may differ between a file and a config that is to take it: training only, or of no number.
FREE = ('name', 'parent', 'dtype', 'dropout', 'drop_path')


def check(
  path: Any,
  ours: Composition,
  spec: Mapping[str, Any],
  *,
  also: Sequence[str] = (),
  mend: str = 'without --config the net is the one that the file describes',
) -> None:
  """Raises UserError that lists in what `ours` differs from the file's net, as a config has it.

  also: other differences that are known already.
  """
  if wrong := [*differences(ours, registry.net(spec, num_classes=1)), *also]:
    raise UserError(
      f'{path} and the config do not describe the same net:\n'
      + '\n'.join(f'  {line}' for line in wrong)
      + f'\n  {mend}'
    )


def computes(net: Composition) -> tuple[str, list[np.ndarray]]:
  """A net's prediction as operations and constants, which tell two nets apart however spelt."""
  x = _image(net)
  traced = jax.make_jaxpr(lambda v, x: net.apply(v, x, train=False))(variables(net), x)
  return str(traced.jaxpr), [np.asarray(c) for c in traced.consts]


def variables(net: Composition) -> dict[str, Any]:
  """Shapes of what a prediction reads: all but the heads that training alone has."""
  made = jax.eval_shape(lambda: net.init(jax.random.key(0), _image(net), train=False))
  return {
    kind: {name: part for name, part in made.get(kind, {}).items() if name[:10] != 'auxiliary_'}
    for kind in ('params', 'batch_stats')
  }


def millions(net: Composition) -> float:
  """Of parameters, without those of heads that training alone has."""
  return sum(leaf.size for leaf in jax.tree.leaves(variables(net)['params'])) / 1e6


def _image(net: Composition) -> np.ndarray:
  side = max(97, net.least)  # of no power of two, so that ways of resizing differ
  return np.zeros((1, side, side, 3), np.float32)


def differences(ours: Composition, theirs: Composition) -> list[str]:
  """One line for each option in which two nets that compute different things differ."""
  if ours == theirs:
    return []
  (one, first), (two, second) = computes(ours), computes(theirs)
  if one == two and all(map(np.array_equal, first, second)):
    return []
  lines = []
  if ours.align_corners != theirs.align_corners:
    lines.append(f'align_corners is {ours.align_corners}, in the file {theirs.align_corners}')
  for kind, a, b in zip(KINDS, ours.parts(), theirs.parts(), strict=True):
    if type(a) is not type(b):
      lines.append(f'{kind} is a {type(a).__name__}, in the file a {type(b).__name__}')
      continue
    names = [f.name for f in dataclasses.fields(a) if f.init] if a is not None else []
    values = ((n, getattr(a, n), getattr(b, n)) for n in names if n not in FREE)
    lines += [f'{kind}.{n} is {v!r}, in the file {w!r}' for n, v, w in values if v != w]
  return lines
