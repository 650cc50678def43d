"""Diffusion of class labels: each step draws some of them anew, evenly (Hoogeboom et al., NeurIPS
2021), with the schedules of CCDM (Zbinden et al., ICCV 2023).

Letters: T steps, K steps of a chain, C classes. Distributions are arrays [.., C] over classes.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import xlogy

from car_jax.clamp import clamp
from car_jax.typing import Array

LEAST = 1e-12  # of a probability whose logarithm is taken


class Steps(NamedTuple):
  """Some of the T steps, from that which comes first to the last, [K] each, float64.

  time: from 1 to T. redrawn: the chance that a label is drawn anew in going there from the one
  before. before: the chance that it has been drawn anew up to the one before.
  """

  time: np.ndarray
  redrawn: np.ndarray
  before: np.ndarray

  def at(self, k: Array, like: Array) -> tuple[Array, Array]:
    """redrawn and before of steps k [..] as [.., 1, 1, 1], of the type of `like`."""
    wide = lambda table: jnp.asarray(table, like.dtype)[k][..., None, None, None]
    return wide(self.redrawn), wide(self.before)


class Schedule(NamedTuple):
  """betas: of each step, the chance that a label is drawn anew; kept: the share of labels that were
  not up to and with it, which CCDM calls cumulated alphas. [T] float64, from step 1 on."""

  betas: np.ndarray
  kept: np.ndarray

  @classmethod
  def of(cls, name: Literal['cosine', 'linear'], steps: int) -> 'Schedule':
    """cosine: as released, `kept` is one step late, and not divided by that of no step: it is not
    the product of 1 - betas. The first step keeps 0.9998, the last what the one before should."""
    if name == 'linear':
      betas = np.linspace(1e-2, 0.2, steps)
      return cls(betas, np.cumprod(1 - betas))
    share = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
    return cls(np.minimum(1 - share[1:] / share[:-1], 0.999), share[:-1])

  @property
  def steps(self) -> Steps:
    """All of them. The first draws every label anew from nothing: what led there is x_0 itself."""
    times = np.arange(1, len(self.betas) + 1)
    before = np.concatenate([[0.0], 1 - self.kept[:-1]])
    return Steps(times, np.concatenate([[1.0], self.betas[1:]]), before)

  def respaced(self, count: int) -> Steps:
    """`count` of them, evenly, the last among them; what lies between two is one step."""
    times = np.round(np.linspace(len(self.betas), 1, count)).astype(int)[::-1]
    kept = self.kept[times - 1]
    redrawn = 1 - kept[1:] / kept[:-1]
    return Steps(times, np.concatenate([[1.0], redrawn]), np.concatenate([[0.0], 1 - kept[:-1]]))


def redrawn(probs: Array, chance: Array) -> Array:
  """A distribution [.., C] once its labels have been drawn anew, evenly, by a chance."""
  return probs + chance * (1 / probs.shape[-1] - probs)


def posterior(x: Array, start: Array, chance: Array, before: Array) -> Array:
  """Of the label one step before x, one-hot [.., C], where x_0 is distributed as `start` [.., C].

  That is the sum over k of start_k q(x_{t-1} | x_t, x_0 = k), Eq. 8 of CCDM's paper, whose products
  of all pairs of classes are not made: q(x_t | x_0 = k), its normaliser, is linear in x.
  """
  here = redrawn(x, chance)
  normaliser = redrawn(here, before)
  ratio = start / normaliser
  spread = before / x.shape[-1] * jnp.sum(ratio, -1, keepdims=True)
  return here * ((1 - before) * ratio + spread)


def divergence(true: Array, predicted: Array) -> Array:
  """KL(true || predicted) in nats: [.., C] -> [..]; predicted is at least LEAST."""
  return jnp.sum(xlogy(true, true) - true * jnp.log(clamp(predicted, LEAST)), -1)


def drawn(probs: Array, gumbel: Array) -> Array:
  """A label [..] of each distribution, given draws of the Gumbel distribution [.., C]."""
  return jnp.argmax(jnp.log(clamp(probs, LEAST)) + gumbel, -1)


def reversed_chain(
  steps: Steps,
  predict: Callable[[Array, Array], Array],
  gumbel: Callable[[Array], Array],
  last: Array,
) -> Array:
  """The chain from labels `last` [B, N, H, W] of the last step -> the distribution of x_0 that its
  first step gives, [B, N, H, W, C].

  predict(one-hot x, time) -> the distribution of x_0; gumbel(k): draws of the Gumbel distribution
  for the label before step k, counted from 0.
  """

  def step(i: Array, carried: tuple[Array, Array]) -> tuple[Array, Array]:
    labels, probs = carried
    k = len(steps.time) - 1 - i
    x = jax.nn.one_hot(labels, probs.shape[-1], dtype=probs.dtype)
    start = predict(x, jnp.asarray(steps.time)[k])
    probs = posterior(x, start, *steps.at(k, start))
    return drawn(probs, gumbel(k)), probs

  shape = jax.eval_shape(gumbel, 0)
  return jax.lax.fori_loop(0, len(steps.time), step, (last, jnp.zeros(shape.shape, shape.dtype)))[1]
