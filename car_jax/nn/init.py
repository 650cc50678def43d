"""Initial weights by numpy: the same on every backend and host, and nothing to compile.

`jit(model.init)` compiles a random kernel for each parameter shape, several seconds for a deep net.
Here the shapes come from tracing and the values from a generator keyed by the parameter's path. So
these rules, not the linen initialisers, say how a net starts: torch's defaults unless the module's
`INIT` table names another rule for a path.
"""

import re
import zlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

Rule = Callable[[np.random.Generator, tuple[int, ...], int], np.ndarray]


def torch_default(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> np.ndarray:
  """U(-1/sqrt(fan_in), 1/sqrt(fan_in)): torch's Conv and Linear, weights and biases."""
  bound = 1 / np.sqrt(fan_in)
  return rng.uniform(-bound, bound, shape)


def zeros(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> np.ndarray:
  return np.zeros(shape)


def small_normal(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> np.ndarray:
  """Deviation 0.01."""
  return 0.01 * rng.standard_normal(shape)


def kaiming_fan_in(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> np.ndarray:
  return rng.standard_normal(shape) * np.sqrt(2 / fan_in)


def kaiming_fan_out(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> np.ndarray:
  return rng.standard_normal(shape) * np.sqrt(2 / (np.prod(shape[:-2]) * shape[-1]))


def xavier_uniform(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> np.ndarray:
  space = np.prod(shape[:-2])
  bound = np.sqrt(6 / (space * (shape[-2] + shape[-1])))
  return rng.uniform(-bound, bound, shape)


def orthogonal(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> np.ndarray:
  """Rows or columns of the flattened kernel [fan_in, out] orthonormal, whichever are fewer."""
  rows, columns = int(np.prod(shape[:-1])), shape[-1]
  q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
  q = q * np.sign(np.diag(r))
  return (q if rows >= columns else q.T).reshape(shape)


def tiny_truncated_normal(
  rng: np.random.Generator, shape: tuple[int, ...], fan_in: int
) -> np.ndarray:
  """Normal of deviation 0.001 without its tails beyond two deviations."""
  draws = rng.standard_normal((64, *shape))  # the first of 64 inside: all fail with p ~ 1e-86
  first = np.argmax(np.abs(draws) < 2, axis=0)
  return 0.001 * np.take_along_axis(draws, first[None], axis=0)[0]


def binary_codes(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> np.ndarray:
  """[K, L]: the 2 ** L codes of L binary digits, the first the most significant, then U(0, 1)."""
  experts, digits = shape
  codes = np.arange(2**digits)[:, None] >> np.arange(digits)[::-1] & 1
  return np.concatenate([codes, rng.random((experts - len(codes), digits))])


def log_eighth(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> np.ndarray:
  return np.full(shape, np.log(1 / 8))


FIXED = {'scale': 1.0, 'var': 1.0, 'mean': 0.0, 'count': 0.0}  # leaves of BatchNorm


def initialize(model: Any, seed: int, *inputs: Any, **kw: Any) -> dict[str, Any]:
  """The model's first variables as numpy arrays; `inputs` only lend their shapes."""
  abstract = jax.tree.map(lambda a: jax.ShapeDtypeStruct(np.shape(a), np.float32), inputs)
  shapes = jax.eval_shape(lambda *x: model.init(jax.random.key(0), *x, **kw), *abstract)
  flat, treedef = jax.tree_util.tree_flatten_with_path(shapes)
  paths = ['/'.join(str(p.key) for p in path) for path, _ in flat]
  fans = {p.rpartition('/')[0]: _fan_in(p, a.shape) for p, (_, a) in zip(paths, flat, strict=True)}
  table = getattr(type(model), 'INIT', ())
  leaves = []
  for path, (_, a) in zip(paths, flat, strict=True):
    parent, _, leaf = path.rpartition('/')
    rng = np.random.default_rng([seed, zlib.crc32(path.encode())])
    rule = next((r for pattern, r in table if re.search(pattern, path)), None)
    if rule is None and (leaf in FIXED or fans[parent] is None):  # a norm: its bias is zero too
      value = np.full(a.shape, FIXED.get(leaf, 0.0))
    else:
      value = (rule or torch_default)(rng, a.shape, fans[parent] or 0)
    leaves.append(np.asarray(value, a.dtype))
  variables = jax.tree.unflatten(treedef, leaves)
  return {group: variables[group] for group in variables if group in ('params', 'batch_stats')}


def _fan_in(path: str, shape: tuple[int, ...]) -> int | None:
  """Inputs to one output as torch counts them: from *outputs* for a transposed kernel."""
  if path.endswith('/kernel'):
    return int(np.prod(shape[:-1]))
  if path.endswith('/transposed_kernel'):
    return int(np.prod(shape[:2]) * shape[-1])
  return None
