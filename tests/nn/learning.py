"""Which parameters of a net a loss would move."""

import jax
import numpy as np

from car_jax.nn.init import initialize
from tests.whole import whole


def still(module, *inputs):
  """Paths of a module's parameters that a loss of its first output does not depend on.

  Slopes at its first weights in training mode; all must be finite.
  """
  variables = initialize(module, 0, *inputs, train=False)
  rest = {k: v for k, v in variables.items() if k != 'params'}

  def loss(params, *inputs):
    run = {'train': True, 'mutable': ['batch_stats'], 'rngs': {'dropout': jax.random.key(0)}}
    out, _ = module.apply({'params': params, **rest}, *inputs, **run)
    first = jax.tree.leaves(out)[0]
    return (first * np.random.default_rng(1).normal(size=first.shape)).sum()

  slopes = whole(jax.grad(loss))(variables['params'], *inputs)
  paths = jax.tree_util.tree_flatten_with_path(slopes)[0]
  named = {'/'.join(p.key for p in path): slope for path, slope in paths}
  assert all(np.isfinite(slope).all() for slope in named.values())
  return [path for path, slope in named.items() if not slope.any()]
