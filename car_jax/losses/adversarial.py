"""Adversarial and calibration losses of CAR (arXiv 2006.13144). S scores; B, N, H, W, C as ever."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from car_jax.clamp import clamp
from car_jax.typing import Array


def binary_cross_entropy(score: Array, target: float) -> Array:
  """Mean over probabilities `score` [S] in (0, 1) of -log p(target); each log is at least -100.

  As in torch, a score that is wrong beyond float32's resolution has a gradient of 0, not nan.
  """
  p = score if target else 1 - score
  logs = jnp.log(jnp.where(p > 0, p, 1))
  return -jnp.mean(jnp.where(p > 0, clamp(logs, -100.0), -100.0))


def nonsaturating(fake_score: Array) -> Array:
  """The generator's adversarial loss: make the critic call the fakes real."""
  return binary_cross_entropy(fake_score, 1.0)


def critic(real_score: Array, fake_score: Array) -> Array:
  """The discriminator's loss."""
  return binary_cross_entropy(real_score, 1.0) + binary_cross_entropy(fake_score, 0.0)


def critic_accuracy(real_score: Array, fake_score: Array) -> Array:
  """Share of scores on the right side of one half, real and fake weighing the same."""
  return (jnp.mean(real_score > 0.5) + jnp.mean(fake_score <= 0.5)) / 2


def r1_penalty(score: Callable[[Array], Array], real: Array) -> Array:
  """Squared gradient norm of each real example's score: [B] (Eq. 9 of arXiv 1801.04406).

  The published code differentiates the *sigmoid* score by the whole input, label channels included.

  Differentiable by what `score` closes over, though not by `real`. The gradient g's squared norm is
  the derivative of the score along g, so that a forward-mode derivative with g held fixed has its
  value and half its gradient. That keeps every convolution an ordinary one; differentiating twice
  backwards makes transposed ones that cost XLA on a CPU a hundred times more.
  """
  slope = jax.grad(lambda x: jnp.sum(score(x)))(real)
  _, along = jax.jvp(score, (real,), (jax.lax.stop_gradient(slope),))
  return 2 * along - jax.lax.stop_gradient(along)


def calibration_kl(mean: Array, target: Array, mask: Array | None = None, limit=1e-3) -> Array:
  """KL(mean of the samples || calibrated probabilities) per pixel, averaged: Eq. 8 of CAR.

  mean, target [B, H, W, C]; both are clamped to [limit, 1 - limit], so where the net is certain
  beyond the limit no gradient flows. Pixels outside `mask` [B, H, W] add nothing but count in the
  mean.
  """
  p, q = (clamp(x, limit, 1 - limit) for x in (mean, target))
  kl = jnp.sum(p * (jnp.log(p) - jnp.log(q)), axis=-1)
  return jnp.mean(kl if mask is None else kl * mask)


def gaussian_kl(mean: Array, log_variance: Array) -> Array:
  """KL(N(mean, exp(log_variance)) || N(0, I)), *summed* over batch and latent [B, Z] -> scalar."""
  return -0.5 * jnp.sum(1 + log_variance - jnp.square(mean) - jnp.exp(log_variance))
