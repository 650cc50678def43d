"""What methods share that make a segmentation out of noise in many steps of one net.

The net sees a state x, the image and the time. Letters as in methods/base.py; K channels of x.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from car_jax.methods.base import Batch
from car_jax.methods.sampled import Sampled
from car_jax.methods.train_state import State, create
from car_jax.typing import Array


@dataclasses.dataclass(frozen=True)
class Denoised(Sampled):
  """`model` is an entry of the registry that is called with x, the image and the time, and gives
  what x has: guided_unet, linear_attention_unet."""

  def init(self, seed: int, batch: Batch) -> State:
    net, image = self.net, self.blank(batch)
    x = np.zeros((*image.shape[:3], net.num_classes), np.float32)
    time = np.zeros(len(image), np.float32)
    return State(np.int32(0), create(net, self.optimizer, seed, x, image, time, train=False))

  def trained(self, variables: Any, x: Array, image: Array, time: Array, rngs: Any) -> Array:
    """The net in training: x [B, H, W, K], image [B, H, W, channels], time [B] -> [B, H, W, K]."""
    return self.net.apply(variables, x, image, time, train=True, rngs=rngs)

  def predicting(self, state: State, image: Array, n: int) -> Callable[[Array, Array], Array]:
    """image [B, h, w, channels] -> a function of x [B, n, h, w, K] and a time, all samples in one
    pass of the net."""
    net, variables = self.net, state.net.variables
    b, *rest = image.shape
    image = jnp.broadcast_to(image[:, None], (b, n, *rest)).reshape(b * n, *rest)

    def predict(x: Array, time: Array) -> Array:
      flat, time = x.reshape(b * n, *x.shape[2:]), jnp.full(b * n, time)
      out = net.apply(variables, flat, image, time, train=False)
      return out.reshape(b, n, *out.shape[1:])

    return predict
