"""Predictors that any net with class probabilities gives for free. Letters: B, N, H, W, C."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from car_jax.methods.base import Batch, Sampler, Samples, example_keys
from car_jax.typing import Array


def uniform(batch: int, n: int) -> Array:
  return jnp.full((batch, n), 1 / n, jnp.float32)


def most_likely(probs: Array, n: int) -> Samples:
  """The deterministic segmenter: the argmax of probs [B, H, W, C], n times over."""
  best = jax.nn.one_hot(jnp.argmax(probs, -1), probs.shape[-1])
  repeated = jnp.broadcast_to(best[:, None], (best.shape[0], n, *best.shape[1:]))
  return Samples(repeated, uniform(probs.shape[0], n), probs)


def independent_pixels(probs: Array, batch: Batch, rng: Array, n: int) -> Samples:
  """n draws from probs [B, H, W, C], each pixel on its own: right frequencies, no coherence."""

  def draw(key, p):
    shape = (n, *p.shape[:-1])
    return jax.random.categorical(key, jnp.log(jnp.maximum(p, 1e-12)), shape=shape)

  classes = jax.vmap(draw)(example_keys(rng, batch), probs)
  return Samples(jax.nn.one_hot(classes, probs.shape[-1]), uniform(probs.shape[0], n), probs)


def argmax_of(probabilities: Callable[[Any, Batch], Any]) -> Callable[..., Samples]:
  """The predictor of `most_likely` that probabilities(state, batch) make."""
  return lambda state, batch, rng, n: most_likely(probabilities(state, batch), n)


def pixels_of(probabilities: Callable[[Any, Batch], Any]) -> Sampler:
  """The predictor of `independent_pixels` that probabilities(state, batch) make."""
  return Sampler(
    lambda state, batch, rng, n: independent_pixels(probabilities(state, batch), batch, rng, n),
    coherent=False,
  )
