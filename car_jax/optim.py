"""Optimizers from config entries, with the learning rate a function of the *run's* step.

An optimizer that skips updates (a discriminator's) keeps the pace of the run: its own update count
drives Adam's bias correction only, never the schedule.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from car_jax.errors import UserError, nearest

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class Adam:
  """Adam with L2 decay added to the gradient, as torch.optim.Adam does, and a MultiStep rate.

  The rate is lr * factor ** (number of `milestones` reached), milestones in epochs.
  """

  lr: float = 1e-3
  b1: float = 0.9
  b2: float = 0.999
  eps: float = 1e-8
  weight_decay: float = 0.0
  milestones: tuple[int, ...] = ()
  factor: float = 0.5
  steps_per_epoch: int = 1

  @property
  def direction(self) -> optax.GradientTransformation:
    decay = optax.add_decayed_weights(self.weight_decay) if self.weight_decay else optax.identity()
    return optax.chain(decay, optax.scale_by_adam(self.b1, self.b2, self.eps))

  def init(self, params: Any) -> Any:
    # Adam starts from zeros; numpy's need no compiled kernel for each parameter shape.
    shapes = jax.eval_shape(self.direction.init, params)
    return jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), shapes)

  def rate(self, step: Array | int) -> Array:
    epoch = jnp.asarray(step) // self.steps_per_epoch
    passed = sum(((epoch >= m).astype(jnp.float32) for m in self.milestones), jnp.float32(0))
    return self.lr * jnp.float32(self.factor) ** passed

  def update(
    self, step: Array, grads: Any, opt_state: Any, params: Any, rate: Array | None = None
  ) -> tuple[Any, Any]:
    """-> (params, opt_state) after one update at the run's `step`, or at a given rate."""
    updates, opt_state = self.direction.update(grads, opt_state, params)
    rate = self.rate(step) if rate is None else rate
    return jax.tree.map(lambda p, u: p - rate * u, params, updates), opt_state


def adam(spec: Any, steps_per_epoch: int) -> Adam:
  """A config entry such as dict(lr=2e-4, b1=.5, milestones=(100, 300)) -> Adam."""
  spec = {k: tuple(v) if isinstance(v, list) else v for k, v in dict(spec).items()}
  fields = {f.name for f in dataclasses.fields(Adam)} - {'steps_per_epoch'}
  if unknown := sorted(spec.keys() - fields):
    raise UserError(f'optimizer has no option {unknown[0]!r}\n{nearest(unknown[0], fields)}')
  return Adam(**spec, steps_per_epoch=steps_per_epoch)
