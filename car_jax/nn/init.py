"""Initial weights by numpy: the same on every backend and host, and nothing to compile.

A leaf starts as its linen initialiser says (host_draws.py carries it out). A published net that
starts otherwise has a table `INIT` of (pattern, rule), searched in the parameter's path; `TORCH` at
its end is what torch does with kernels and their biases. Initialisers of such leaves are `RULED`.
"""

import re
import zlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from car_jax.nn import host_draws

Rule = Callable[[np.random.Generator, tuple[int, ...], int], np.ndarray]
Table = tuple[tuple[str, Rule], ...]


def torch_default(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> np.ndarray:
  """U(-1/sqrt(fan_in), 1/sqrt(fan_in)): torch's Conv and Linear, weights and biases."""
  bound = 1 / np.sqrt(fan_in)
  return rng.uniform(-bound, bound, shape)


def zeros(rng: np.random.Generator, shape: tuple[int, ...], fan_in: int) -> np.ndarray:
  return np.zeros(shape)


def normal(deviation: float) -> Rule:
  return lambda rng, shape, fan_in: deviation * rng.standard_normal(shape)


small_normal = normal(0.01)


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


def torch_uniform(fan_in: int) -> Any:
  """A linen initialiser: U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
  bound = float(1 / np.sqrt(fan_in))
  return lambda key, shape, dtype=np.float32: jax.random.uniform(key, shape, dtype, -bound, bound)


# What torch starts kernels and their biases with; biases of norms stay linen's.
TORCH: Table = ((r'(kernel|/bias)$', torch_default),)
# The initialiser of a leaf that the table of its net covers.
RULED = nn.initializers.constant(float('nan'))


def initialize(model: Any, seed: int, *inputs: Any, **kw: Any) -> dict[str, Any]:
  """The model's first params and batch_stats as numpy arrays; `inputs` only lend their shapes,
  and are numbers of tokens where they are int32.

  Raises ValueError for a RULED leaf that no table covers.
  """
  kind = lambda a: np.int32 if getattr(a, 'dtype', None) == np.int32 else np.float32
  abstract = jax.tree.map(lambda a: jax.ShapeDtypeStruct(np.shape(a), kind(a)), inputs)

  def first(key, *x):
    made = model.init(key, *x, **kw)
    return {k: v for k, v in made.items() if k in ('params', 'batch_stats')}

  traced, shapes = jax.make_jaxpr(first, return_shape=True)(jax.random.key(0), *abstract)
  flat, treedef = jax.tree_util.tree_flatten_with_path(shapes)
  paths = ['/'.join(str(p.key) for p in path) for path, _ in flat]
  fans = {p.rpartition('/')[0]: _fan_in(p, a.shape) for p, (_, a) in zip(paths, flat, strict=True)}
  table = getattr(model, 'INIT', ())
  leaves: dict[int, np.ndarray] = {}
  for i, (path, (_, a)) in enumerate(zip(paths, flat, strict=True)):
    parent, _, leaf = path.rpartition('/')
    rule = next((r for pattern, r in table if re.search(pattern, path)), None)
    if rule is not None and (leaf != 'bias' or fans[parent] is not None):
      rng = np.random.default_rng([seed, zlib.crc32(path.encode())])
      leaves[i] = np.asarray(rule(rng, a.shape, fans[parent] or 0), a.dtype)
  rest = [i for i in range(len(flat)) if i not in leaves]
  zeroed = [np.zeros(a.shape, a.dtype) for a in jax.tree.leaves(abstract)]
  arguments = [host_draws.mixed(seed, 0), *zeroed]
  leaves |= zip(rest, map(np.array, host_draws.evaluate(traced, arguments, rest)), strict=True)
  if lost := [paths[i] for i in rest if leaves[i].dtype.kind == 'f' and np.isnan(leaves[i]).any()]:
    raise ValueError(f'nothing says how {lost[0]} starts: no row of INIT, no initialiser')
  return jax.tree.unflatten(treedef, [leaves[i] for i in range(len(flat))])


def _fan_in(path: str, shape: tuple[int, ...]) -> int | None:
  """Inputs to one output as torch counts them: from *outputs* for a transposed kernel."""
  if path.endswith('/kernel'):
    return int(np.prod(shape[:-1]))
  if path.endswith('/transposed_kernel'):
    return int(np.prod(shape[:2]) * shape[-1])
  return None
