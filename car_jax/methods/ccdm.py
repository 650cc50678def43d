"""CCDM (Zbinden et al., ICCV 2023): categorical diffusion of label maps, given the image.

A chain of T steps draws more and more labels anew until none is left; a net learns from a map of
any step which map it came from, and samples go the chain back. Letters as in methods/base.py;
T steps of the chain.

As released: the cosine schedule's cumulated alphas are one step late (categorical.py). Of the fast
mode there, which takes the posterior of one step for the way between distant ones, `sampling_steps`
has only the idea.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp

from car_jax import categorical
from car_jax.errors import UserError
from car_jax.methods.base import Batch, Logs
from car_jax.methods.denoised import Denoised
from car_jax.methods.train_state import State
from car_jax.nn import net as nets
from car_jax.options import Count, Positive, Weight
from car_jax.typing import Array


@dataclasses.dataclass(frozen=True)
class CCDM(Denoised):
  """The net's output is the distribution of the map that a chain began with, as logits."""

  schedule: Literal['cosine', 'linear'] = 'cosine'
  """How the chance that a step draws a label anew grows."""
  diffusion_steps: Positive = 250
  """Steps of the chain."""
  sampling_steps: Count = 0
  """Steps of the way back, where fewer are to do: not CCDM's. 0 for all of them."""
  last_step: Literal['likeliest', 'probabilities'] = 'likeliest'
  """What the way back ends with: classes, or their probabilities."""
  class_weights: tuple[Weight, ...] = ()
  """Of the loss where a class is the label; all 1 without."""

  prediction_options = ('sampling_steps', 'last_step')

  def __post_init__(self) -> None:
    super().__post_init__()
    if self.sampling_steps > self.diffusion_steps:
      raise UserError(
        f'method.sampling_steps is {self.sampling_steps}, of {self.diffusion_steps} '
        'diffusion_steps\n  give less, or 0 for all'
      )
    if self.class_weights and len(self.class_weights) != self.num_classes:
      raise UserError(
        f'method.class_weights has {len(self.class_weights)} number(s); the data have '
        f'{self.num_classes} classes\n  give one for each, or none'
      )

  @property
  def steps(self) -> categorical.Steps:
    """Those that training draws from."""
    return self._schedule.steps

  @property
  def _schedule(self) -> categorical.Schedule:
    return categorical.Schedule.of(self.schedule, self.diffusion_steps)

  def noise(self, key: Array, n: int, height: Any, width: Any) -> Array:
    """A key for each of n segmentations, of which `drawn` makes the noise of a step at a time."""
    return jax.random.split(key, n)

  def training_noise(self, key: Array, batch: Batch) -> tuple[Array, Array]:
    """Steps [B], from 1 to T, and draws of the Gumbel distribution [B, H, W, C]."""
    for_time, for_labels = jax.random.split(key)
    shape = (*batch['image'].shape[:3], self.num_classes)
    time = jax.random.randint(for_time, shape[:1], 1, self.diffusion_steps + 1)
    return time, jax.random.gumbel(for_labels, shape)

  def noised(self, start: Array, time: Array, gumbel: Array) -> Array:
    """Maps one-hot [B, H, W, C] -> what the chain made of them at steps [B], one-hot too."""
    kept = jnp.asarray(self._schedule.kept, start.dtype)[time - 1][:, None, None, None]
    labels = categorical.drawn(categorical.redrawn(start, 1 - kept), gumbel)
    return jax.nn.one_hot(labels, self.num_classes, dtype=start.dtype)

  def divergences(self, x: Array, start: Array, time: Array, logits: Array, weight: Array) -> Array:
    """Of the step before x given `start` from that given the net's logits, all [B, H, W, C], at
    steps [B], in nats: summed over pixels, each by its weight [B, H, W], -> [B]."""
    step = self.steps.at(time - 1, logits)
    true = categorical.posterior(x, start, *step)
    predicted = categorical.posterior(x, jax.nn.softmax(logits), *step)
    return jnp.sum(weight * categorical.divergence(true, predicted), (1, 2))

  def loss(
    self, variables: Any, batch: Batch, noise: tuple[Array, Array], rngs: Any = None
  ) -> tuple[Logs, Logs, Any]:
    """The divergence of one step, a term of Eq. 10 of the paper, at a step drawn for each image.

    The chain of ignored pixels begins with a label drawn evenly, so that the net sees none.
    """
    (label, known), (time, gumbel), image = self.labelled(batch), noise, self.observed(batch)
    start = jax.nn.one_hot(label, self.num_classes, dtype=image.dtype)
    begun = jnp.where(known[..., None], start, 1 / self.num_classes)
    x = self.noised(begun, time, gumbel)
    weight = known.astype(image.dtype)
    if self.class_weights:
      weight *= jnp.asarray(self.class_weights, image.dtype)[label]
    logits = self.trained(variables, x, image, time, rngs)
    apart = self.divergences(x, start, time, logits, weight)
    return {'loss/divergence': jnp.mean(apart)}, {}, {}

  def drawn(self, state: State, batch: Batch, noise: Array) -> Array:
    """Keys [B, N] -> [B, N, H, W, C]; the noise of one step exists at a time."""
    height, width = batch['image'].shape[1:3]
    image = nets.mirrored(self.net, self.observed(batch))
    predict = self.predicting(state, image, noise.shape[1])
    shape = (*image.shape[1:3], self.num_classes)
    each = lambda draw: jax.vmap(jax.vmap(draw))(noise)
    fewer = 0 < self.sampling_steps < self.diffusion_steps
    steps = self._schedule.respaced(self.sampling_steps) if fewer else self.steps
    start = lambda key: jax.random.fold_in(key, len(steps.time))
    probs = categorical.reversed_chain(
      steps,
      lambda x, time: jax.nn.softmax(predict(x, time)),
      lambda k: each(lambda key: jax.random.gumbel(jax.random.fold_in(key, k), shape)),
      each(lambda key: jax.random.randint(start(key), shape[:2], 0, self.num_classes)),
    )[:, :, :height, :width]
    if self.last_step == 'probabilities':
      return probs
    return jax.nn.one_hot(jnp.argmax(probs, -1), self.num_classes)
