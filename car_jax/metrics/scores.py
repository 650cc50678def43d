"""Per-pixel confidence and uncertainty maps from class probabilities.

Letters: B examples, H x W pixels, C classes; leading axes are free. probs [.., C] sum to one.
"""

import jax.numpy as jnp
from jax.scipy.special import xlogy

from car_jax.typing import Array


def entropy(probs: Array, *, floor: float | None = None) -> Array:
  """-sum_c p_c log p_c in nats, [.., C] -> [..], in [0, log C]; a probability of 0 adds 0.

  floor=1e-7 takes the logarithm of max(p, 1e-7), the published form of CAR's aleatoric map.
  """
  probs = probs.astype(jnp.float32)
  terms = xlogy(probs, probs if floor is None else jnp.maximum(probs, floor))
  # 0 - sum, since the entropy of a certain pixel would otherwise print as -0.
  return 0 - jnp.sum(terms, -1)


def max_prob(probs: Array) -> Array:
  """The probability of the likeliest class, [.., C] -> [..]."""
  return jnp.max(probs.astype(jnp.float32), -1)
