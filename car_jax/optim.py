"""Optimizers from config entries, with the learning rate a function of the *run's* step.

An optimizer that skips updates (a discriminator's) keeps the pace of the run: its own update count
drives Adam's bias correction only, never the schedule.
"""

import dataclasses
import re
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from car_jax import registry
from car_jax.options import Count, Range, Share

Array = jax.Array
Rate = Annotated[float, Range(0.0, 1e3)]


@dataclasses.dataclass(frozen=True)
class MultiStep:
  """The rate lr * factor ** (number of `milestones` reached), milestones in epochs."""

  lr: Rate = 1e-3
  """The learning rate at the start."""
  milestones: tuple[Count, ...] = ()
  """Epochs at whose start the rate is multiplied by `factor`."""
  factor: Annotated[float, Range(0.0, 1e3)] = 0.5
  """What the rate is multiplied by at each milestone."""
  steps_per_epoch: int = 1

  def rate(self, step: Array | int) -> Array:
    epoch = jnp.asarray(step) // self.steps_per_epoch
    passed = sum(((epoch >= m).astype(jnp.float32) for m in self.milestones), jnp.float32(0))
    return self.lr * jnp.float32(self.factor) ** passed


@dataclasses.dataclass(frozen=True)
class Adam(MultiStep):
  """Adam with L2 decay added to the gradient, as torch.optim.Adam does."""

  b1: Share = 0.9
  """Decay of the running mean of gradients."""
  b2: Share = 0.999
  """Decay of the running mean of their squares."""
  eps: Annotated[float, Range(0.0, 1.0)] = 1e-8
  """Added to the root of that mean."""
  weight_decay: Rate = 0.0
  """Times the parameter, added to its gradient."""

  @property
  def direction(self) -> optax.GradientTransformation:
    decay = optax.add_decayed_weights(self.weight_decay) if self.weight_decay else optax.identity()
    return optax.chain(decay, optax.scale_by_adam(self.b1, self.b2, self.eps))

  def init(self, params: Any) -> Any:
    # Adam starts from zeros; numpy's need no compiled kernel for each parameter shape.
    shapes = jax.eval_shape(self.direction.init, params)
    return jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), shapes)

  def update(
    self, step: Array, grads: Any, opt_state: Any, params: Any, rate: Array | None = None
  ) -> tuple[Any, Any]:
    """-> (params, opt_state) after one update at the run's `step`, or at a given rate."""
    updates, opt_state = self.direction.update(grads, opt_state, params)
    rate = self.rate(step) if rate is None else rate
    return jax.tree.map(lambda p, u: p - rate * u, params, updates), opt_state


# group -> (multiplies the rate, multiplies the decay)
GROUPS = {
  'old_weights': (1.0, 1.0),
  'old_biases': (2.0, 0.0),
  'new_weights': (10.0, 1.0),
  'new_biases': (20.0, 0.0),
}


@dataclasses.dataclass(frozen=True)
class SGD(MultiStep):
  """Momentum with L2 decay added to the gradient, as torch.optim.SGD does, at a rate per group.

  `groups` is a table (pattern, group), the first that is found in a parameter's path naming its
  group in GROUPS: parts with pretrained weights learn slowly, new ones at ten times the rate,
  biases at twice their weights' and without decay. Without a table all are `old_weights`.
  """

  momentum: Share = 0.9
  """Share of the step before that is kept."""
  weight_decay: Rate = 0.0
  """Times the parameter, added to its gradient."""
  groups: tuple[tuple[str, str], ...] = ()

  UNREAD = ('groups',)  # the net's

  def init(self, params: Any) -> Any:
    return jax.tree.map(lambda a: np.zeros(np.shape(a), a.dtype), params)

  def group(self, path: str) -> str:
    """Of a parameter such as 'backbone/stem_conv/kernel'."""
    return next((g for pattern, g in self.groups if re.search(pattern, path)), 'old_weights')

  def update(
    self, step: Array, grads: Any, opt_state: Any, params: Any, rate: Array | None = None
  ) -> tuple[Any, Any]:
    """-> (params, opt_state) after one update at the run's `step`, or at a given rate."""
    rate = self.rate(step) if rate is None else rate
    flat, treedef = jax.tree_util.tree_flatten_with_path(params)
    moved, kept = [], []
    leaves = zip(flat, jax.tree.leaves(grads), jax.tree.leaves(opt_state), strict=True)
    for (path, w), g, m in leaves:
      faster, decayed = GROUPS[self.group('/'.join(str(p.key) for p in path))]
      decay = self.weight_decay * decayed
      m = self.momentum * m + (g + decay * w if decay else g)
      moved.append(w - rate * faster * m)
      kept.append(m)
    return jax.tree.unflatten(treedef, moved), jax.tree.unflatten(treedef, kept)


def optimizer(spec: Any, steps_per_epoch: int, net: Any = None) -> Adam | SGD:
  """A config entry such as dict(name='adam', lr=2e-4, milestones=(100, 300)) -> the optimizer.

  Without a name it is Adam. SGD's groups are the table GROUPS of `net`'s class, where there is one.
  """
  spec = {'name': 'adam', **spec}
  groups = {'groups': tuple(getattr(net, 'GROUPS', ()))} if spec['name'] == 'sgd' else {}
  return registry.build('optimizer', spec, steps_per_epoch=steps_per_epoch, **groups)
