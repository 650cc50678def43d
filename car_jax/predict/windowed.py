"""Any method by sliding windows. Letters: B images, N samples, H x W pixels, C classes."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from car_jax.methods.base import Batch, Method, Samples
from car_jax.methods.inference import Inference
from car_jax.nn import windows
from car_jax.typing import Array


def windowed(method: Method, crop: windows.Sides, stride: windows.Sides) -> Method:
  """The method that averages windows, `stride` apart, in place of those of its own; of the whole
  image for a crop of 0.

  One with logits of its own averages them, see methods/inference.py; any other the probabilities
  of each of its samples.
  """
  method = method.without_windows()
  if not crop:
    return method
  if isinstance(method, Inference):
    own: Any = method  # a method of its own class
    return dataclasses.replace(own, crop=crop, stride=stride)
  return Windowed(method, windows.sides(crop), windows.sides(stride))


class Windowed(Method):
  """A method whose samples are made window by window, each from the same draws in all of them.

  Draws are keyed by example: a latent is the same in every window, so that sample n is one
  segmentation. What follows from a window's content, such as which of MoSE's experts is drawn, may
  change between windows; there the samples are blended, and a window counts the more the nearer its
  middle is, so that of samples that are label maps the nearer one is seen. A sample's weight is
  the mean of its windows'.
  """

  def __init__(self, method: Method, crop: tuple[int, int], stride: tuple[int, int]):
    self._method, self._sizes = method, (crop, stride)
    self.num_classes, self.ignore_label = method.num_classes, method.ignore_label
    self.has_logits = method.has_logits

  @property
  def has_features(self) -> bool:
    return self._method.has_features

  def features(self, state: Any, batch: Batch) -> Array:
    return self._method.features(state, batch)

  def logits(self, state: Any, batch: Batch) -> Array:
    apply = lambda x: self._method.logits(state, _window(batch, x))
    return windows.sliding(apply, jnp.asarray(batch['image']), *self._sizes)

  def predictors(self) -> dict[str, Any]:
    named = self._method.predictors().items()
    by_windows = lambda f: dataclasses.replace(f, draw=functools.partial(self._predict, f))
    return {name: by_windows(f) for name, f in named}

  def _predict(self, predict: Callable, state: Any, batch: Batch, rng: Array, n: int) -> Samples:
    classes = self.num_classes

    def apply(image: Array) -> Array:
      """[B, h, w, N * C + N]: the samples' probabilities, then their weights."""
      drawn = predict(state, _window(batch, image), rng, n)
      probs = jnp.moveaxis(drawn.probs, 1, 3)
      probs = probs.reshape(*probs.shape[:3], n * classes)
      weight = jnp.broadcast_to(drawn.weight[:, None, None], (*probs.shape[:3], n))
      return jnp.concatenate([probs, weight], -1)

    out = windows.sliding(apply, jnp.asarray(batch['image']), *self._sizes, tapered=True)
    probs = out[..., : n * classes].reshape(*out.shape[:3], n, classes)
    return Samples(jnp.moveaxis(probs, 3, 1), out[..., n * classes :].mean((1, 2)))


def _window(batch: Batch, image: Array) -> dict[str, Array]:
  """The batch of a window: what has the whole image's size stays behind."""
  return {'image': image, 'example': batch['example']}
