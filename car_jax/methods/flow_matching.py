"""Flow matching of label maps given the image (Lipman et al., ICLR 2023), as MedFM has it.

Maps are numbers, 1 in the channel of their class and -1 in the others. A net learns the velocity
along the straight way from normal noise x_0 to such a map x_1; samples follow it from time 0 to 1.
Letters as in methods/base.py; K channels of x.

As released: time enters the net from 0 to 1 (`time_scale`), so that most of its sinusoid hardly
moves. There the image is dropped for a whole batch at a time, here for each image on its own.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from car_jax import registry
from car_jax.errors import UserError
from car_jax.methods.base import Batch, Logs
from car_jax.methods.denoised import Denoised
from car_jax.methods.train_state import State
from car_jax.nn import net as nets
from car_jax.options import Factor, Positive, Share, Weight
from car_jax.typing import Array

FOREGROUND = 1 / 255  # the least number of the second class: MedFM rounds maps down to bytes first


class Noise(NamedTuple):
  """Of a training step: x_0 [B, H, W, K], time [B], and which images the net sees [B]."""

  start: Array
  time: Array
  seen: Array


@dataclasses.dataclass(frozen=True)
class FlowMatching(Denoised):
  """The net's output is the velocity of x."""

  solver: Literal['midpoint', 'euler'] = 'midpoint'
  """How samples go along the velocity; midpoint asks the net twice a step."""
  sampling_steps: Positive = 100
  """Steps from time 0 to 1, all of one length."""
  image_dropout: Share = 0.0
  """Share of images that training replaces by zeros, for `guidance`."""
  guidance: Weight = 0.0
  """How much of the velocity with the image less that without is added once more."""
  time_scale: Factor = 1.0
  """What time is multiplied by before the net sees it."""
  skewed_times: bool = False
  """Training draws more of late times: 1 / (1 + exp(1.2 n - 1.2)), n normal."""
  one_channel: bool = False
  """A single channel for the second of two classes, as released."""

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.one_channel and self.num_classes != 2:
      raise UserError(
        f'method.one_channel is of two classes, the data have {self.num_classes}\n'
        '  set method.one_channel=False'
      )
    if self.guidance and not self.image_dropout:
      raise UserError(
        f'method.guidance is {self.guidance:g}, but the net never learns to do without the image\n'
        '  give method.image_dropout, such as 0.2, or method.guidance=0'
      )

  @property
  def net(self) -> Any:
    return registry.net(self.model, num_classes=1 if self.one_channel else self.num_classes)

  def noise(self, key: Array, n: int, height: Any, width: Any) -> Array:
    """x_0 of n segmentations of one image, at the size that the net takes."""
    net = self.net
    return jax.random.normal(key, (n, *nets.taken(net, (height, width)), net.num_classes))

  def training_noise(self, key: Array, batch: Batch) -> Noise:
    for_start, for_time, for_image = jax.random.split(key, 3)
    b, *size = batch['image'].shape[:3]
    if self.skewed_times:
      time = jnp.clip(jax.nn.sigmoid(1.2 - 1.2 * jax.random.normal(for_time, (b,))), 1e-4, 1.0)
    else:
      time = jax.random.uniform(for_time, (b,))
    seen = jax.random.bernoulli(for_image, 1 - self.image_dropout, (b,))
    return Noise(self.noise(for_start, b, *size), time, seen)

  def end(self, label: Array, known: Array, like: Array) -> Array:
    """Maps [B, H, W] -> x_1; 0 where nothing is learnt, which tells the net of no class."""
    if self.one_channel:
      ones = label[..., None].astype(like.dtype)
    else:
      ones = jax.nn.one_hot(label, self.num_classes, dtype=like.dtype)
    return jnp.where(known[..., None], 2 * ones - 1, 0)

  def loss(
    self, variables: Any, batch: Batch, noise: Noise, rngs: Any = None
  ) -> tuple[Logs, Logs, Any]:
    """Mean squared error of the velocity, Eq. 23 of Lipman et al. without their sigma_min."""
    label, known = self.labelled(batch)
    image = self.observed(batch)
    end = self.end(label, known, image)
    wide = lambda a: a[:, None, None, None]
    x = wide(noise.time) * end + wide(1 - noise.time) * noise.start
    image = jnp.where(wide(noise.seen), image, 0)
    velocity = self.trained(variables, x, image, self.time_scale * noise.time, rngs)
    error = jnp.square(velocity - (end - noise.start)).mean(-1)
    mean = jnp.sum(error * known) / jnp.maximum(jnp.sum(known), 1)
    return {'loss/velocity': mean}, {}, {}

  def flowed(self, state: State, batch: Batch, start: Array) -> Array:
    """x_0 [B, N, h, w, K] at the size that the net takes -> x at time 1."""
    image = nets.mirrored(self.net, self.observed(batch))
    n, length = start.shape[1], 1 / self.sampling_steps
    with_image = self.predicting(state, image, n)
    without = self.predicting(state, jnp.zeros_like(image), n)

    def velocity(x: Array, time: Array) -> Array:
      time = self.time_scale * time
      v = with_image(x, time)
      return v if not self.guidance else v + self.guidance * (v - without(x, time))

    def step(k: Array, x: Array) -> Array:
      time = k * length
      v = velocity(x, time)
      if self.solver == 'midpoint':
        v = velocity(x + length / 2 * v, time + length / 2)
      return x + length * v

    return jax.lax.fori_loop(0, self.sampling_steps, step, start)

  def drawn(self, state: State, batch: Batch, noise: Array) -> Array:
    height, width = batch['image'].shape[1:3]
    x = self.flowed(state, batch, noise)[:, :, :height, :width]
    labels = (x[..., 0] >= FOREGROUND).astype(int) if self.one_channel else jnp.argmax(x, -1)
    return jax.nn.one_hot(labels, self.num_classes)
