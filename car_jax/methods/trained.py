"""Nets in training, for methods to be made of. Letters as in methods/base.py."""

import dataclasses
from typing import Any

import flax.struct

from car_jax import registry
from car_jax.methods.base import Array, Method
from car_jax.nn.init import initialize
from car_jax.optim import Optimizer, optimizer
from car_jax.options import Net, Optim


@flax.struct.dataclass
class Frozen:
  """A net that only predicts."""

  params: Any
  batch_stats: Any

  @property
  def variables(self) -> dict[str, Any]:
    return {'params': self.params, 'batch_stats': self.batch_stats}


@flax.struct.dataclass
class Trained:
  """One net: its linen variables and its optimizer's state."""

  params: Any
  batch_stats: Any
  opt_state: Any

  @property
  def variables(self) -> dict[str, Any]:
    return {'params': self.params, 'batch_stats': self.batch_stats}

  def descended(
    self,
    optimizer: Optimizer,
    step: Array,
    grads: Any,
    batch_stats: Any,
    rate: Array | None = None,
  ) -> 'Trained':
    """The net after one update of `optimizer` at the run's `step`, or at a given rate."""
    params, opt_state = optimizer.update(step, grads, self.opt_state, self.params, rate)
    return Trained(params, batch_stats, opt_state)


def start(net: Any, optimizer: Optimizer, seed: int, *inputs: Any, **kw: Any) -> Trained:
  """A net's first state; `inputs` only lend their shapes."""
  variables = initialize(net, seed, *inputs, **kw)
  params = variables['params']
  return Trained(params, variables.get('batch_stats', {}), optimizer.init(params))


def full_size(out: Any) -> Array:
  """A net's logits, at the image's size where it returns them at two, low and full."""
  return out[-1] if isinstance(out, tuple) else out


@dataclasses.dataclass(frozen=True)
class OneNet(Method):
  """What methods of a single net share: `model` names one of the registry, `optim` holds the fields
  of optim.Adam, or with name='sgd' those of optim.SGD."""

  num_classes: int
  steps_per_epoch: int
  model: Net
  """The net."""
  optim: Optim = dataclasses.field(default_factory=lambda: dict(name='adam'))
  """Its optimizer."""
  ignore_label: int | None = None

  @property
  def net(self) -> Any:
    return registry.net(self.model, num_classes=self.num_classes)

  @property
  def optimizer(self) -> Optimizer:
    return optimizer(self.optim, self.steps_per_epoch, self.net)
