"""What a traced program does: counted from it, without compiling or running it.

Floating-point operations and the bytes that they read and write, by XLA's analysis of the lowered
program, of loops as often as they run; bytes of the arrays that are alive at once while operations
run in their order. Nothing is fused in this program: a compiler moves and keeps less. Where parts
have other forms on other platforms, such as copies that suit a CPU's caches, a GPU's are counted,
on whatever machine.
"""

import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun

PLATFORM = 'cuda'
PRODUCTS = ('dot_general', 'conv_general_dilated')


def work(traced: Any) -> np.ndarray:
  """(operations, bytes moved) of a traced function, of loops as often as they turn."""
  return analysed(traced) + sum(repeated(traced.jaxpr.jaxpr))


def analysed(traced: Any) -> np.ndarray:
  """(operations, bytes moved) of a traced function, of loops as if they turned once."""
  analysis = traced.lower(lowering_platforms=(PLATFORM,)).cost_analysis() or {}
  return np.array([analysis.get('flops', 0.0), analysis.get('bytes accessed', 0.0)])


def repeated(jaxpr: Jaxpr, times: int = 1) -> Iterator[np.ndarray]:
  """The work of what a scan does again: XLA's analysis counts the body of a loop once.

  Loops of no fixed length, such as those of matchings, are left at one turn, and so are those
  without a product of arrays, such as those that draw numbers.
  """
  for eqn in jaxpr.eqns:
    turns = eqn.params['length'] if eqn.primitive.name == 'scan' else 1
    for inner in _inner(eqn):
      if turns > 1 and _multiplies(inner.jaxpr):
        arguments = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in inner.jaxpr.invars]
        body = jax.jit(jaxpr_as_fun(inner)).trace(*arguments)
        yield times * (turns - 1) * analysed(body)
      yield from repeated(inner.jaxpr, times * turns)


def _multiplies(jaxpr: Jaxpr) -> bool:
  """Whether there is a product of matrices or a convolution in a program."""
  return any(
    eqn.primitive.name in PRODUCTS or any(_multiplies(inner.jaxpr) for inner in _inner(eqn))
    for eqn in jaxpr.eqns
  )


def _inner(eqn: Any) -> Iterator[ClosedJaxpr]:
  """The programs within an operation, such as those of a loop or a call; of a choice between
  platforms PLATFORM's."""
  if platforms := eqn.params.get('branches_platforms'):
    index = next(i for i, names in enumerate(platforms) if names is None or PLATFORM in names)
    yield eqn.params['branches'][index]
    return
  for value in eqn.params.values():
    for part in value if isinstance(value, tuple | list) else (value,):
      if isinstance(part, ClosedJaxpr):
        yield part
      elif isinstance(part, Jaxpr):
        yield ClosedJaxpr(part, ())


def live(jaxpr: Jaxpr, *, donated: bool = False) -> int:
  """Most bytes of arrays that are alive at once in the order of the text.

  donated: with the arguments, each until its last use; else without them.
  """
  aliases = _aliases(jaxpr)
  arrays = lambda variables: [aliases.get(v, v) for v in variables if not isinstance(v, Literal)]
  last = {v: eqn for eqn in jaxpr.eqns for v in arrays(eqn.invars)}
  results = {*arrays(jaxpr.outvars)}
  sizes = {v: _size(v.aval) for v in jaxpr.invars} if donated else {}
  most = now = sum(sizes.values())
  for eqn in jaxpr.eqns:
    within = max((live(inner.jaxpr) for inner in _inner(eqn)), default=0)
    made = {v: _size(v.aval) for v in eqn.outvars if v not in aliases}
    most = max(most, now + max(within, sum(made.values())))
    sizes |= made
    now += sum(made.values())
    ended = {v for v in arrays(eqn.invars) if last[v] is eqn}
    for v in (ended | {v for v in made if v not in last}) - results:
      now -= sizes.pop(v, 0)
  return most


def _aliases(jaxpr: Jaxpr) -> dict[Any, Any]:
  """Results that take no memory of their own -> the arrays that they are.

  These are reshaped ones, and of a choice between platforms, which is none once the platform is
  known, arguments that it returns and what another platform alone would keep for a gradient.
  """
  aliases: dict[Any, Any] = {}
  for eqn in jaxpr.eqns:
    if eqn.primitive.name == 'reshape':
      sources = dict(zip(eqn.outvars, eqn.invars[:1], strict=True))
    elif eqn.params.get('branches_platforms'):
      (branch,) = _inner(eqn)
      arguments = dict(zip(branch.jaxpr.invars, eqn.invars[1:], strict=True))
      outer = arguments | {v: v for v in _uninitialised(branch.jaxpr)}
      results = zip(eqn.outvars, branch.jaxpr.outvars, strict=True)
      sources = {v: outer[r] for v, r in results if not isinstance(r, Literal) and r in outer}
    else:
      continue
    aliases |= {v: aliases.get(s, s) for v, s in sources.items() if not isinstance(s, Literal)}
  return aliases


def _uninitialised(jaxpr: Jaxpr) -> set[Any]:
  """Arrays whose content is left open, which jax has in place of another platform's."""
  arrays: set[Any] = set()
  for eqn in jaxpr.eqns:
    spread = eqn.primitive.name == 'broadcast_in_dim' and eqn.invars[0] in arrays
    if spread or eqn.primitive.name.startswith('empty'):
      arrays |= {*eqn.outvars}
  return arrays


def _size(array: Any) -> int:
  return math.prod(array.shape) * array.dtype.itemsize


def read(jaxpr: Jaxpr) -> list[bool]:
  """Of each argument of a program, whether a result depends on it; a call within needs all that it
  is given."""
  needed = {v for v in jaxpr.outvars if not isinstance(v, Literal)}
  for eqn in reversed(jaxpr.eqns):
    if not needed.isdisjoint(eqn.outvars):
      needed |= {v for v in eqn.invars if not isinstance(v, Literal)}
  return [v in needed for v in jaxpr.invars]
