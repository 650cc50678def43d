"""Gaussian latents and what they cost in a variational bound (Kingma & Welling, ICLR 2014)."""

import flax.struct
import jax.numpy as jnp
from jaxtyping import Float

from car_jax.typing import Array


class Gaussian(flax.struct.PyTreeNode):
  """Independent normal distributions: mean and deviation (the root of the variance), any shape."""

  mean: Array
  deviation: Array

  def drawn(self, noise: Float[Array, '...']) -> Float[Array, '...']:
    """Standard normal noise -> draws."""
    return self.mean + self.deviation * noise


def divergence(
  q: Gaussian, p: Gaussian, *, epsilon: float = 0.0, swapped: bool = False
) -> Float[Array, ' B']:
  """KL(q || p) in nats, summed over all but the first axis.

  epsilon is added to variances that are divided by or whose logarithm is taken. With `swapped`
  the product of both deviations takes the place of p's variance, as in the released port of PHiSeg:
  zero at equality alone too, but another penalty.
  """
  own = jnp.square(q.deviation)
  other = q.deviation * p.deviation if swapped else jnp.square(p.deviation)
  wide, narrow = other + epsilon, own + epsilon
  far = (own + jnp.square(q.mean - p.mean)) / wide
  each = 0.5 * (far - 1 + jnp.log(wide) - jnp.log(narrow))
  return jnp.sum(each.reshape(len(each), -1), 1)
