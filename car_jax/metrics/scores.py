"""Per-pixel confidence and uncertainty maps from class probabilities.

C classes; leading axes are free. Probabilities sum to one.
"""

import jax.numpy as jnp
from jax.scipy.special import xlogy
from jaxtyping import Float

from car_jax.typing import Array


def entropy(probs: Float[Array, '*at C'], *, floor: float | None = None) -> Float[Array, '*at']:
  """-sum_c p_c log p_c in nats, in [0, log C]; a probability of 0 adds 0.

  floor=1e-7 takes the logarithm of max(p, 1e-7), the published form of CAR's aleatoric map.
  """
  probs = probs.astype(jnp.float32)
  terms = xlogy(probs, probs if floor is None else jnp.maximum(probs, floor))
  # 0 - sum, since the entropy of a certain pixel would otherwise print as -0.
  return 0 - jnp.sum(terms, -1)
